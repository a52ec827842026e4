//! Rows of f32 to and from ggml's block formats.

use ggml_sys_bindings as sys;
use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::gguf::TensorType;

/// Appends `values`, rows of `row_len` each, to `out` in the given type.
///
/// # Panics
/// If `row_len` is no multiple of the type's block, `values` is no whole number of rows, or the type is
/// one of integers: all follow from shapes and types that the caller has checked.
pub fn quantize(tensor_type: TensorType, values: &[f32], row_len: usize, out: &mut Vec<u8>) {
    if tensor_type == TensorType::Q8_0 {
        assert!(row_len.is_multiple_of(32) && values.len().is_multiple_of(row_len), "rows of whole blocks");
        values.as_chunks().0.iter().for_each(|block| quantize_q8_0(block, out));
        return;
    }
    quantize_rows(tensor_type, values, row_len, None, out);
}

/// As [`quantize`], but an error in column n counts `importance[n]` times: the mean square of what that column is
/// multiplied with makes the product's error small rather than the matrix's. Types whose scales follow from the
/// largest value alone come out as without; q8_0 loses too little for a choice to show.
///
/// # Panics
/// As [`quantize`], and if `importance` is not as long as a row.
pub fn quantize_with_importance(
    tensor_type: TensorType,
    values: &[f32],
    row_len: usize,
    importance: &[f32],
    out: &mut Vec<u8>,
) {
    assert_eq!(importance.len(), row_len, "one importance for each column");
    match tensor_type {
        TensorType::Q8_0 => quantize(tensor_type, values, row_len, out),
        _ => quantize_rows(tensor_type, values, row_len, Some(importance), out),
    }
}

fn quantize_rows(
    tensor_type: TensorType,
    values: &[f32],
    row_len: usize,
    importance: Option<&[f32]>,
    out: &mut Vec<u8>,
) {
    assert!(!tensor_type.is_integer(), "numbers are never stored as integers");
    assert!(row_len > 0 && values.len().is_multiple_of(row_len), "no whole number of rows");
    let row_bytes = tensor_type.row_bytes(row_len as u64).expect("rows of whole blocks") as usize;
    out.reserve(values.len() / row_len * row_bytes);
    let importance = importance.map_or(std::ptr::null(), <[f32]>::as_ptr);
    // ggml writes numbers of up to four bytes, and a `Vec<u8>` promises no alignment.
    let mut row = vec![0u64; row_bytes.div_ceil(8)];
    for values in values.chunks_exact(row_len) {
        // SAFETY: `values` holds row_len numbers, `importance` as many or is null, and `row` has at least row_bytes
        // bytes, which is what ggml reads and writes; none of the types that exist here demands an importance.
        let written = unsafe {
            sys::ggml_quantize_chunk(
                sys::ggml_type(tensor_type.id()),
                values.as_ptr(),
                row.as_mut_ptr().cast(),
                0,
                1,
                row_len as i64,
                importance,
            )
        };
        assert_eq!(written, row_bytes, "ggml's size of a row is the format's");
        // SAFETY: `row` holds at least row_bytes initialised bytes.
        out.extend_from_slice(unsafe { std::slice::from_raw_parts(row.as_ptr().cast(), row_bytes) });
    }
}

/// Appends a block of q8_0: an f16 scale and 32 integers. ggml derives the scale from the largest value; trying a few scales
/// around that one and keeping the best loses a sixth less of a weight matrix's energy, in the same format.
///
/// All candidates are tried at once, one in each lane: their sums run over the block in the same order as one alone
/// would, but as vector instructions.
fn quantize_q8_0(block: &[f32; 32], out: &mut Vec<u8>) {
    // The first is there twice to make up whole vectors; of equals the first wins.
    const STEPS: [f32; 12] = [1.0, 0.99, 1.01, 0.98, 1.02, 0.97, 1.03, 0.96, 1.04, 0.95, 1.05, 1.0];
    let largest = block.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    let inverses = STEPS.map(|step| 127.0 / (largest * step));
    let mut levels = [[0.0f32; 12]; 32];
    let (mut dots, mut squares) = ([0.0f32; 12], [0.0f32; 12]);
    for (levels, value) in levels.iter_mut().zip(block) {
        for lane in 0..12 {
            let level = nearest(value * inverses[lane]).clamp(-127.0, 127.0);
            levels[lane] = level;
            dots[lane] += level * value;
            squares[lane] += level * level;
        }
    }
    // The scale that fits these integers best, as far as f16 can hold it.
    let mut factors = [0.0f32; 12];
    for lane in 0..12 {
        factors[lane] = (dots[lane] / squares[lane]).min(f16::MAX.to_f32());
    }
    let mut scales = [f16::ZERO; 12];
    scales.convert_from_f32_slice(&factors);
    scales.convert_to_f32_slice(&mut factors);
    let mut errors = [0.0f32; 12];
    for (levels, value) in levels.iter().zip(block) {
        for lane in 0..12 {
            let error = levels[lane] * factors[lane] - value;
            errors[lane] += error * error;
        }
    }
    // Nothing is best in a block of zeros, whose candidates are not numbers.
    let mut best = (f32::INFINITY, None);
    for (lane, error) in errors.into_iter().enumerate() {
        if error < best.0 {
            best = (error, Some(lane));
        }
    }
    match best.1 {
        Some(lane) => {
            out.extend(scales[lane].to_le_bytes());
            out.extend(levels.iter().map(|levels| levels[lane] as i8 as u8));
        }
        None => out.extend([0; 34]),
    }
}

/// The nearest integer, for numbers of up to 22 bits: the addition pushes the fraction out of the mantissa. Unlike
/// [`f32::round`] it compiles to vector instructions everywhere.
fn nearest(value: f32) -> f32 {
    const SHIFT: f32 = (3 << 22) as f32;
    (value + SHIFT) - SHIFT
}

/// Reads `values.len()` numbers of the given type from `bytes`.
///
/// # Panics
/// If the lengths disagree, or the type is one of integers.
pub fn dequantize(tensor_type: TensorType, bytes: &[u8], values: &mut [f32]) {
    let expected = tensor_type.row_bytes(values.len() as u64);
    assert_eq!(expected, Some(bytes.len() as u64), "as many bytes as the numbers take");
    if tensor_type == TensorType::F32 {
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        return;
    }
    // SAFETY: the id is a type that ggml knows, so it points to a static table.
    let traits = unsafe { &*sys::ggml_get_type_traits(sys::ggml_type(tensor_type.id())) };
    let to_float = traits.to_float.expect("a type of numbers");
    // SAFETY: the lengths agree, as checked above; block types are read byte by byte and need no alignment beyond two,
    // which a copy grants where the slice does not.
    unsafe {
        if bytes.as_ptr().addr().is_multiple_of(2) {
            to_float(bytes.as_ptr().cast(), values.as_mut_ptr(), values.len() as i64);
        } else {
            let copy = super::AlignedBuffer::copy_of(bytes, "one row").expect("memory for one row");
            to_float(copy.as_slice().as_ptr().cast(), values.as_mut_ptr(), values.len() as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What ggml itself makes of a row.
    fn ggml_q8_0(values: &[f32]) -> Vec<u8> {
        let mut bytes = vec![0u8; values.len() / 32 * 34];
        let id = sys::ggml_type(TensorType::Q8_0.id());
        // SAFETY: the lengths are those of one row, and writing a block needs no alignment beyond two, which every
        // allocation of this size has.
        unsafe {
            let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast());
            sys::ggml_quantize_chunk(id, from, to, 0, 1, values.len() as i64, std::ptr::null());
        }
        bytes
    }

    /// The search of [`quantize_q8_0`], one candidate after the other.
    fn q8_0_one_by_one(block: &[f32; 32]) -> Vec<u8> {
        let largest = block.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
        let mut best = (f32::INFINITY, f16::ZERO, [0.0; 32]);
        for step in [1.0, 0.99, 1.01, 0.98, 1.02, 0.97, 1.03, 0.96, 1.04, 0.95, 1.05] {
            let inverse = 127.0 / (largest * step);
            let levels = block.map(|value| nearest(value * inverse).clamp(-127.0, 127.0));
            let dot: f32 = levels.iter().zip(block).map(|(level, value)| level * value).sum();
            let square: f32 = levels.iter().map(|level| level * level).sum();
            let scale = f16::from_f32((dot / square).min(f16::MAX.to_f32()));
            let errors = levels.iter().zip(block).map(|(level, value)| level * scale.to_f32() - value);
            let error: f32 = errors.map(|error| error * error).sum();
            if error < best.0 {
                best = (error, scale, levels);
            }
        }
        let mut bytes = best.1.to_le_bytes().to_vec();
        bytes.extend(best.2.map(|level| level as i8 as u8));
        bytes
    }

    #[test]
    fn q8_0_tries_all_scales_at_once_as_one_by_one() {
        // A linear congruential sequence: every bit pattern of the block's order of magnitude can occur.
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut blocks: Vec<[f32; 32]> = (0..5000).map(|_| std::array::from_fn(|_| next().powi(3))).collect();
        blocks.extend([[0.0; 32], [-0.0; 32], [1e-30; 32], [1e-42; 32], [-8e6; 32], [3e38; 32]]);
        let mut zeros_and_one = [0.0; 32];
        zeros_and_one[31] = -1e-41;
        blocks.push(zeros_and_one);
        for block in blocks {
            let mut bytes = Vec::new();
            quantize_q8_0(&block, &mut bytes);
            assert_eq!(bytes, q8_0_one_by_one(&block), "{block:?}");
        }
    }

    fn squared_error(values: &[f32], bytes: &[u8]) -> f32 {
        let mut back = vec![0.0; values.len()];
        dequantize(TensorType::Q8_0, bytes, &mut back);
        values.iter().zip(back).map(|(a, b)| (a - b).powi(2)).sum()
    }

    #[test]
    fn q8_0_loses_less_than_ggml_s_own() {
        let values: Vec<f32> = (0..4096).map(|n| ((n * n) as f32 * 0.37).sin() * (n as f32).cos()).collect();
        let mut bytes = Vec::new();
        quantize(TensorType::Q8_0, &values, 4096, &mut bytes);
        let ratio = squared_error(&values, &bytes) / squared_error(&values, &ggml_q8_0(&values));
        assert!(ratio < 0.87, "{ratio}");
    }

    #[test]
    fn q8_0_holds_extreme_values() {
        for values in [[0.0; 32], [1e-30; 32], [-8e6; 32], [3e38; 32]] {
            let mut bytes = Vec::new();
            quantize(TensorType::Q8_0, &values, 32, &mut bytes);
            let mut back = [0.0; 32];
            dequantize(TensorType::Q8_0, &bytes, &mut back);
            assert!(back.iter().all(|value| value.is_finite()), "{values:?}");
        }
    }

    #[test]
    fn importance_makes_the_error_small_where_it_counts() {
        let values: Vec<f32> = (0..2048).map(|n| ((n * n) as f32 * 0.37).sin()).collect();
        let importance: Vec<f32> = (0..512).map(|n| if n % 8 == 3 { 100.0 } else { 1.0 }).collect();
        let weighted_error = |tensor_type, bytes: &[u8]| {
            let mut back = vec![0.0; values.len()];
            dequantize(tensor_type, bytes, &mut back);
            let pairs = values.iter().zip(back).enumerate();
            pairs.map(|(n, (a, b))| importance[n % 512] * (a - b).powi(2)).sum::<f32>()
        };
        use TensorType::*;
        for tensor_type in [Q6K, Q5K, Q4K, Q3K, Q2K, Q5_1, Q5_0, Q4_1, Q4_0, IQ4NL] {
            let (mut with, mut without) = (Vec::new(), Vec::new());
            quantize_with_importance(tensor_type, &values, 512, &importance, &mut with);
            quantize(tensor_type, &values, 512, &mut without);
            let (with, without) = (weighted_error(tensor_type, &with), weighted_error(tensor_type, &without));
            assert!(with < without, "{tensor_type}: {with} {without}");
        }
    }

    #[test]
    fn every_type_comes_back_close() {
        let values: Vec<f32> = (0..1024).map(|n| (n as f32 * 0.7).sin()).collect();
        // Half a step of each format, for values in [-1, 1], and room for scales that clip the largest value a little.
        let bounds = [
            (TensorType::F32, 0.0),
            (TensorType::F16, 5e-4),
            (TensorType::BF16, 4e-3),
            (TensorType::Q8_0, 8e-3),
            (TensorType::Q6K, 3.5e-2),
            (TensorType::Q5K, 5e-2),
            (TensorType::Q5_0, 7e-2),
            (TensorType::Q5_1, 4e-2),
            (TensorType::Q4K, 1e-1),
            (TensorType::Q4_0, 1.3e-1),
            (TensorType::Q4_1, 7e-2),
            (TensorType::IQ4NL, 1.5e-1),
            (TensorType::Q3K, 3e-1),
            (TensorType::Q2K, 5e-1),
        ];
        for (tensor_type, bound) in bounds {
            let mut bytes = vec![7];
            quantize(tensor_type, &values, 512, &mut bytes);
            assert_eq!(bytes.len() as u64, 1 + tensor_type.row_bytes(1024).unwrap());
            let mut back = vec![0.0; 1024];
            dequantize(tensor_type, &bytes[1..], &mut back);
            let error = values.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error <= bound, "{tensor_type}: {error}");
        }
    }
}
