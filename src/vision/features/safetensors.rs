//! Regions in a safetensors file.

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::{Matrix, matrix_shape, regions};
use crate::numbers::floats;
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
    floats(tensor.dtype(), tensor.data()).ok_or_else(|| {
        let reason = format!("is of type {:?}; expected F32, F64, F16 or BF16", tensor.dtype());
        Error::array(name, reason)
    })
}
