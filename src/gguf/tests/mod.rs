mod checksums;
mod metadata;
mod robustness;
mod rules;
mod tensor_type;
mod writer;

/// A file put together field by field, independently of the writer, so that it can be wrong.
#[derive(Default)]
struct RawFile {
    /// Key, type of the value, value.
    keys: Vec<(Vec<u8>, u32, Vec<u8>)>,
    tensors: Vec<RawTensor>,
    data: Vec<u8>,
    alignment: Option<usize>,
}

#[derive(Clone)]
struct RawTensor {
    name: Vec<u8>,
    dims: Vec<u64>,
    type_id: u32,
    offset: u64,
}

impl RawFile {
    fn key(mut self, key: impl AsRef<[u8]>, type_id: u32, value: impl AsRef<[u8]>) -> Self {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.keys.push((key, type_id, value));
        self
    }

    fn tensor(mut self, name: impl AsRef<[u8]>, dims: &[u64], type_id: u32, offset: u64) -> Self {
        self.tensors.push(RawTensor { name: name.as_ref().to_vec(), dims: dims.to_vec(), type_id, offset });
        self
    }

    fn data(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.keys.len() as u64).to_le_bytes());
        for (key, type_id, value) in &self.keys {
            out.extend(string(key));
            out.extend(type_id.to_le_bytes());
            out.extend(value);
        }
        for tensor in &self.tensors {
            out.extend(string(&tensor.name));
            out.extend((tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                out.extend(dim.to_le_bytes());
            }
            out.extend(tensor.type_id.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        while !out.len().is_multiple_of(self.alignment.unwrap_or(32)) {
            out.push(0);
        }
        out.extend(&self.data);
        out
    }
}

/// A string as the format stores it: length, then bytes.
fn string(text: impl AsRef<[u8]>) -> Vec<u8> {
    let text = text.as_ref();
    let mut out = (text.len() as u64).to_le_bytes().to_vec();
    out.extend(text);
    out
}

/// An array as the format stores it: type and number of the elements, then those.
fn array(type_id: u32, len: u64, items: &[u8]) -> Vec<u8> {
    let mut out = type_id.to_le_bytes().to_vec();
    out.extend(len.to_le_bytes());
    out.extend(items);
    out
}

/// A valid file. Where its fields are, as counted by hand:
///
/// | from | field |
/// |---|---|
/// | 0, 4, 8, 16 | magic, version, number of tensors, number of keys |
/// | 24, 32, 44, 48, 56 | `general.name`: length, bytes, type, length of the value, bytes |
/// | 61, 73, 77 | `flag`: length, type, value |
/// | 78, 91, 95, 99, 107 | `sizes`: length, type, type of the elements, their number, the first |
/// | 115, 123, 131, 135, 151, 155 | `a.weight`: length, bytes, n_dims, dims, type, offset |
/// | 163, 171, 179, 183, 199, 203 | `b.weight`: the same |
/// | 211, 224, 272, 288, 356, 384 | padding, data of a, padding, data of b, padding, end |
fn sample() -> Vec<u8> {
    sample_fields().bytes()
}

fn sample_fields() -> RawFile {
    let mut data = vec![7; 48];
    data.extend([0; 16]);
    data.extend([9; 68]);
    data.extend([0; 28]);
    RawFile::default()
        .key("general.name", 8, string("model"))
        .key("flag", 7, [1])
        .key("sizes", 9, array(4, 2, &[1, 0, 0, 0, 2, 0, 0, 0]))
        .tensor("a.weight", &[4, 3], 0, 0)
        .tensor("b.weight", &[32, 2], 8, 64)
        .data(&data)
}
