//! Floating-point numbers as safetensors files hold them.

use half::{bf16, f16};
use safetensors::Dtype;

/// The numbers of a tensor's little-endian bytes, rounded to f32; `None` for a type that is not one of floating-point
/// numbers.
pub fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    Some(match dtype {
        Dtype::F32 => each(bytes, f32::from_le_bytes),
        Dtype::F64 => each(bytes, |bytes| f64::from_le_bytes(bytes) as f32),
        Dtype::F16 => each(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()),
        Dtype::BF16 => each(bytes, |bytes| bf16::from_le_bytes(bytes).to_f32()),
        _ => return None,
    })
}

fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| number(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_width() {
        assert_eq!(floats(Dtype::F32, &1.5f32.to_le_bytes()), Some(vec![1.5]));
        assert_eq!(floats(Dtype::F64, &0.1f64.to_le_bytes()), Some(vec![0.1]));
        assert_eq!(floats(Dtype::F16, &[0x00, 0x3e, 0x00, 0xc0]), Some(vec![1.5, -2.0]));
        assert_eq!(floats(Dtype::BF16, &[0xc0, 0x3f]), Some(vec![1.5]));
        assert_eq!(floats(Dtype::I64, &[0; 8]), None);
    }
}
