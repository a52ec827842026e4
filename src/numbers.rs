//! Floating-point numbers as checkpoints and feature files hold them: little endian, of four widths.

use half::{bf16, f16};
use safetensors::Dtype;

/// A type of floating-point numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// IEEE half precision.
    F16,
    /// The upper half of an f32.
    BF16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
}

impl Float {
    /// The type that safetensors calls so; `None` for one that is not of floating-point numbers.
    pub fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F16 => Some(Float::F16),
            Dtype::BF16 => Some(Float::BF16),
            Dtype::F32 => Some(Float::F32),
            Dtype::F64 => Some(Float::F64),
            _ => None,
        }
    }

    /// Bytes that a number takes.
    pub fn bytes(self) -> usize {
        match self {
            Float::F16 | Float::BF16 => 2,
            Float::F32 => 4,
            Float::F64 => 8,
        }
    }

    /// Reads as many numbers as `out` has room for or `bytes` hold, rounded to f32.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            Float::F16 => each(bytes, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Float::BF16 => each(bytes, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Float::F32 => each(bytes, out, f32::from_le_bytes),
            Float::F64 => each(bytes, out, |bytes| f64::from_le_bytes(bytes) as f32),
        }
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], number: impl Fn([u8; N]) -> f32) {
    for (value, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = number(*bytes);
    }
}

/// All numbers of a tensor's bytes; `None` for a type that is not one of floating-point numbers.
pub fn floats(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let float = Float::of(dtype)?;
    let mut numbers = vec![0.0; bytes.len() / float.bytes()];
    float.decode(bytes, &mut numbers);
    Some(numbers)
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
