use half::{bf16, f16};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::{Matrix, matrix_shape, regions};
use crate::vision::{Error, Regions};

const KIND: &str = ".safetensors";

/// Longest header that is parsed, in bytes; parsed, it takes several times as much. One with the two
/// tensors has some 200.
const MAX_HEADER_BYTES: u64 = 1 << 20;

pub(super) fn read(bytes: &[u8]) -> Result<Regions, Error> {
    if let Some(&len) = bytes.first_chunk() {
        let len = u64::from_le_bytes(len);
        if len > MAX_HEADER_BYTES {
            return Err(Error::format(
                KIND,
                format!("its header takes {len} bytes; at most {MAX_HEADER_BYTES} are read"),
            ));
        }
    }
    let file = SafeTensors::deserialize(bytes).map_err(|error| Error::format(KIND, error.to_string()))?;
    let (features, boxes) =
        if file.tensor("features").is_ok() { ("features", "boxes") } else { ("visual_feats", "visual_pos") };
    regions(matrix(&file, features)?, matrix(&file, boxes)?)
}

fn matrix(file: &SafeTensors<'_>, name: &str) -> Result<Matrix, Error> {
    let Ok(tensor) = file.tensor(name) else {
        return Err(Error::format(
            KIND,
            format!("it has no {name}; expected features and boxes, or visual_feats and visual_pos"),
        ));
    };
    let (rows, columns) = matrix_shape(name, tensor.shape())?;
    Ok(Matrix { name: name.into(), rows, columns, values: values(name, &tensor)? })
}

fn values(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, Error> {
    let data = tensor.data();
    Ok(match tensor.dtype() {
        Dtype::F32 => numbers(data, f32::from_le_bytes),
        Dtype::F64 => numbers(data, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::F16 => numbers(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => numbers(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        other => {
            return Err(Error::array(name, format!("is of type {other:?}; expected F32, F64, F16 or BF16")));
        }
    })
}

fn numbers<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks.iter().map(|&bytes| number(bytes)).collect()
}
