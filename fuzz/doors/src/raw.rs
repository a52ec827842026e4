//! A GGUF file as parts that can be changed one at a time, and be wrong.

use lxmert::gguf::TensorType;

/// The type ids of values that the mutator and the specimens make.
pub mod kind {
    #![allow(missing_docs, reason = "the names are the format's")]
    pub const U8: u32 = 0;
    pub const U32: u32 = 4;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
}

/// A file. Whatever is `None` is as it should be for the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct Raw {
    /// `GGUF`.
    pub magic: [u8; 4],
    /// 3.
    pub version: u32,
    /// Another number of tensors than there are.
    pub tensor_count: Option<u64>,
    /// Another number of keys than there are.
    pub key_count: Option<u64>,
    /// The keys.
    pub keys: Vec<Key>,
    /// The tensors.
    pub tensors: Vec<Tensor>,
    /// What the data and every tensor in it are padded to.
    pub alignment: u64,
    /// What padding is made of.
    pub padding: u8,
    /// What follows the data.
    pub tail: Vec<u8>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Its name.
    pub name: Vec<u8>,
    /// Another length than the name has.
    pub name_len: Option<u64>,
    /// The value's type.
    pub kind: u32,
    /// The value, lengths and element types included.
    pub value: Vec<u8>,
}

/// A tensor and its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: Vec<u8>,
    /// Another length than the name has.
    pub name_len: Option<u64>,
    /// Another number of dimensions than there are.
    pub dim_count: Option<u32>,
    /// The dimensions, the fastest first.
    pub dims: Vec<u64>,
    /// The type's id.
    pub kind: u32,
    /// Another place than behind the tensor before.
    pub offset: Option<u64>,
    /// The data.
    pub data: Vec<u8>,
}

/// The most data that a tensor is given to fit its shape.
const MAX_FITTED: u64 = 1 << 16;

impl Raw {
    /// A file without keys and tensors.
    pub fn empty() -> Self {
        Raw {
            magic: *b"GGUF",
            version: 3,
            tensor_count: None,
            key_count: None,
            keys: Vec::new(),
            tensors: Vec::new(),
            alignment: 32,
            padding: 0,
            tail: Vec::new(),
        }
    }

    /// Takes a file apart; `None` for one that is not laid out as it should be.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let mut raw = Raw { magic: reader.array()?, version: reader.u32()?, ..Raw::empty() };
        let (tensors, keys) = (reader.u64()?, reader.u64()?);
        for _ in 0..keys {
            let name = reader.string()?.to_vec();
            let kind = reader.u32()?;
            let before = reader.0;
            reader.skip_value(kind)?;
            let value = before[..before.len() - reader.0.len()].to_vec();
            if name == b"general.alignment" && kind == kind::U32 {
                raw.alignment = u64::from(u32::from_le_bytes(*value.first_chunk()?)).clamp(1, 1 << 16);
            }
            raw.keys.push(Key { name, name_len: None, kind, value });
        }
        let mut places = Vec::new();
        for _ in 0..tensors {
            let name = reader.string()?.to_vec();
            let dim_count = reader.u32()?;
            if dim_count > 8 {
                return None;
            }
            let dims: Vec<u64> = (0..dim_count).map(|_| reader.u64()).collect::<Option<_>>()?;
            let (kind, offset) = (reader.u32()?, reader.u64()?);
            places.push((offset, size(kind, &dims)?));
            raw.tensors.push(Tensor {
                name,
                name_len: None,
                dim_count: None,
                dims,
                kind,
                offset: None,
                data: Vec::new(),
            });
        }
        let start = (bytes.len() - reader.0.len()).checked_next_multiple_of(raw.alignment as usize)?;
        for (tensor, (offset, size)) in raw.tensors.iter_mut().zip(places) {
            let start = start.checked_add(usize::try_from(offset).ok()?)?;
            let end = start.checked_add(usize::try_from(size).ok()?)?;
            tensor.data = bytes.get(start..end)?.to_vec();
        }
        Some(raw)
    }

    /// The file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.magic.to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensor_count.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.key_count.unwrap_or(self.keys.len() as u64).to_le_bytes());
        for key in &self.keys {
            out.extend(key.name_len.unwrap_or(key.name.len() as u64).to_le_bytes());
            out.extend(&key.name);
            out.extend(key.kind.to_le_bytes());
            out.extend(&key.value);
        }
        let mut next = 0u64;
        for tensor in &self.tensors {
            out.extend(tensor.name_len.unwrap_or(tensor.name.len() as u64).to_le_bytes());
            out.extend(&tensor.name);
            out.extend(tensor.dim_count.unwrap_or(tensor.dims.len() as u32).to_le_bytes());
            out.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.unwrap_or(next).to_le_bytes());
            next += (tensor.data.len() as u64).next_multiple_of(self.alignment);
        }
        self.pad(&mut out);
        for tensor in &self.tensors {
            out.extend(&tensor.data);
            self.pad(&mut out);
        }
        out.extend(&self.tail);
        out
    }

    fn pad(&self, out: &mut Vec<u8>) {
        out.resize(out.len().next_multiple_of(self.alignment as usize), self.padding);
    }

    /// The key of that name, which is made where it is not there.
    pub fn key(&mut self, name: &str) -> &mut Key {
        let place = self.keys.iter().position(|key| key.name == name.as_bytes()).unwrap_or(self.keys.len());
        if place == self.keys.len() {
            let name = name.as_bytes().to_vec();
            self.keys.push(Key { name, name_len: None, kind: kind::U8, value: vec![0] });
        }
        &mut self.keys[place]
    }

    /// Gives a key a number of 32 bits.
    pub fn set_u32(&mut self, name: &str, value: u32) {
        self.set(name, kind::U32, &value.to_le_bytes());
    }

    /// Gives a key a text.
    pub fn set_str(&mut self, name: &str, value: &str) {
        self.set(name, kind::STRING, &string(value.as_bytes()));
    }

    /// Gives a key a list of texts.
    pub fn set_strs(&mut self, name: &str, values: &[&str]) {
        let texts: Vec<_> = values.iter().map(|value| string(value.as_bytes())).collect();
        self.set(name, kind::ARRAY, &array(kind::STRING, values.len() as u64, &texts.concat()));
    }

    /// Gives a key any value.
    pub fn set(&mut self, name: &str, kind: u32, value: &[u8]) {
        let key = self.key(name);
        (key.kind, key.value) = (kind, value.to_vec());
    }

    /// The tensor of that name.
    ///
    /// # Panics
    /// If there is none.
    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name.as_bytes());
        found.unwrap_or_else(|| panic!("no tensor is called {name}"))
    }

    /// Adds a tensor of f32 zeros.
    pub fn push(&mut self, name: &str, dims: &[u64]) {
        let mut tensor = Tensor {
            name: name.as_bytes().to_vec(),
            name_len: None,
            dim_count: None,
            dims: dims.to_vec(),
            kind: TensorType::F32.id(),
            offset: None,
            data: Vec::new(),
        };
        tensor.fit();
        self.tensors.push(tensor);
    }
}

impl Tensor {
    /// Gives the tensor as much data as type and shape ask for, if that is little.
    pub fn fit(&mut self) {
        if let Some(size) = size(self.kind, &self.dims).filter(|size| *size <= MAX_FITTED) {
            self.data.resize(size as usize, 0);
        }
    }
}

/// The bytes that a tensor of this type and shape takes.
fn size(kind: u32, dims: &[u64]) -> Option<u64> {
    let tensor_type = TensorType::from_id(kind)?;
    let (first, rest) = dims.split_first()?;
    rest.iter().try_fold(tensor_type.row_bytes(*first)?, |size, dim| size.checked_mul(*dim))
}

/// A text as the format has it.
pub fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text].concat()
}

/// A list as the format has it, of elements that are bytes already.
pub fn array(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), elements].concat()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N as u64)?.try_into().ok()
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let len = self.u64()?;
        self.take(len)
    }

    fn skip_value(&mut self, kind: u32) -> Option<()> {
        let width = |kind| match kind {
            0 | 1 | 7 => Some(1),
            2 | 3 => Some(2),
            4..=6 => Some(4),
            10..=12 => Some(8),
            _ => None,
        };
        match kind {
            kind::STRING => self.string().map(|_| ()),
            kind::ARRAY => match (self.u32()?, self.u64()?) {
                (kind::STRING, count) => (0..count).try_for_each(|_| self.string().map(|_| ())),
                (kind, count) => self.take(count.checked_mul(width(kind)?)?).map(|_| ()),
            },
            kind => self.take(width(kind)?).map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_comes_back_whole() {
        let bytes = crate::tiny::model().encode();
        assert!(Raw::parse(&bytes).unwrap().encode() == bytes);
        assert!(lxmert::gguf::Header::parse(&bytes).is_ok());
    }
}
