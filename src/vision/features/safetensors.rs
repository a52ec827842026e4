//! Regions in a safetensors file.

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

use super::{Matrix, matrix_shape, regions};
use crate::Limits;
use crate::limits::raise;
use crate::numbers::floats;
use crate::vision::{Error, Regions};

const KIND: &str = ".safetensors";

pub(super) fn read(bytes: &[u8], limits: &Limits) -> Result<Regions, Error> {
    if let Some(&len) = bytes.first_chunk() {
        let (len, most) = (u64::from_le_bytes(len), limits.header_bytes);
        if len > most as u64 {
            let reason =
                format!("its header takes {len} bytes; at most {most} are read, or {}", raise!(header_bytes));
            return Err(Error::format(KIND, reason));
        }
    }
    let file = SafeTensors::deserialize(bytes).map_err(|error| Error::format(KIND, error.to_string()))?;
    let (features, boxes) =
        if file.tensor("features").is_ok() { ("features", "boxes") } else { ("visual_feats", "visual_pos") };
    regions(matrix(&file, features, limits)?, matrix(&file, boxes, limits)?, limits)
}

fn matrix(file: &SafeTensors<'_>, name: &str, limits: &Limits) -> Result<Matrix, Error> {
    let Ok(tensor) = file.tensor(name) else {
        return Err(Error::format(
            KIND,
            format!("it has no {name}; expected features and boxes, or visual_feats and visual_pos"),
        ));
    };
    let (rows, columns) = matrix_shape(name, tensor.shape(), limits)?;
    Ok(Matrix { name: name.into(), rows, columns, values: values(name, &tensor)? })
}

fn values(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, Error> {
    floats(tensor.dtype(), tensor.data()).ok_or_else(|| {
        let reason = format!("is of type {:?}; expected F32, F64, F16 or BF16", tensor.dtype());
        Error::array(name, reason)
    })
}
