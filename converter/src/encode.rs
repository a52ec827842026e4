//! Values as the bytes of a tensor type.

use half::{bf16, f16};
use lxmert::gguf::TensorType;

/// Appends rows of `row_len` values each, in the given type; halves are rounded to the nearest, ties to even.
/// `importance` has the weight of each column's error, for the types that can choose.
pub(crate) fn encode(
    tensor_type: TensorType,
    values: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) {
    match tensor_type {
        TensorType::F32 => extend(out, values, f32::to_le_bytes),
        TensorType::F16 => extend(out, values, |value| f16::from_f32(value).to_le_bytes()),
        TensorType::BF16 => extend(out, values, |value| bf16::from_f32(value).to_le_bytes()),
        quantized => match importance {
            Some(importance) => {
                lxmert::ggml::quantize_with_importance(quantized, values, row_len, importance, out);
            }
            None => lxmert::ggml::quantize(quantized, values, row_len, out),
        },
    }
}

fn extend<const N: usize>(out: &mut Vec<u8>, values: &[f32], bytes: impl Fn(f32) -> [u8; N]) {
    let start = out.len();
    out.resize(start + values.len() * N, 0);
    for (place, value) in out[start..].chunks_exact_mut(N).zip(values) {
        place.copy_from_slice(&bytes(*value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_halves_to_the_nearest() {
        let mut out = Vec::new();
        // 1 + 2^-11 lies between two f16 (ties to even: 1), 1 + 2^-8 between two bf16.
        encode(TensorType::F16, &[1.0 + 2f32.powi(-11), -2.0], 2, None, &mut out);
        assert_eq!(out, [0x00, 0x3C, 0x00, 0xC0]);
        out.clear();
        encode(TensorType::BF16, &[1.0 + 3.0 * 2f32.powi(-8), -2.0], 2, None, &mut out);
        assert_eq!(out, [0x82, 0x3F, 0x00, 0xC0]);
    }
}
