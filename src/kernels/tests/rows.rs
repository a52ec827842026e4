//! Layer norm, means, and the forms in which products read rows.

use proptest::prelude::*;

use super::super::*;
use super::oracle::{quantized, stored};
use super::{Random, every_set};

/// Lengths around every width of a register, and the model's own.
const LENGTHS: [usize; 17] = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 100, 768, 2048, 3072];

/// The row in units at multiples of `stride` bytes, in memory that is 0xa5 elsewhere.
fn spaced(
    row: &[f32],
    units: usize,
    stride: usize,
    function: impl Fn(*const f32, usize, *mut u8, usize) -> RowScale,
) -> (Vec<u8>, RowScale) {
    let mut to = vec![0xa5; units * stride + 64];
    let scale = function(row.as_ptr(), row.len(), to.as_mut_ptr(), stride);
    let (units_of, rest) = to.split_at(units * stride);
    let between = units_of.chunks(stride).flat_map(|unit| &unit[UNIT..]);
    assert!(between.chain(rest).all(|byte| *byte == 0xa5), "wrote outside of the row's units");
    let bytes = units_of.chunks(stride).flat_map(|unit| unit[..UNIT].iter().copied()).collect();
    (bytes, scale)
}

/// Every number within half a step of the original, and 0 exactly 0.
fn check_quantized(kernels: Kernels, row: &[f32]) {
    let (bytes, RowScale { scale, zero }) = quantized(kernels, row);
    assert!(scale >= 0.0 && (0..=255).contains(&zero), "{:?}: {scale} {zero}", kernels.set());
    let value = |byte: u8| f64::from(scale) * f64::from(i32::from(byte) - zero);
    for (byte, x) in bytes.iter().zip(row) {
        let error = (value(*byte) - f64::from(*x)).abs();
        // Half a step, and the rounding of the level itself, which is below 256.
        assert!(error <= 0.5001 * f64::from(scale), "{:?}: {x} became {}", kernels.set(), value(*byte));
        assert!(*x != 0.0 || value(*byte) == 0.0, "{:?}: 0 became {}", kernels.set(), value(*byte));
    }
}

#[test]
fn rounds_to_the_nearest_of_256_levels() {
    every_set(|kernels| {
        for len in LENGTHS {
            let mut random = Random(len as u64);
            check_quantized(kernels, &random.numbers(len));
            // As after a GELU: few negative numbers, all small.
            let bent: Vec<f32> = random.numbers(len).iter().map(|x| x.max(x * 0.01)).collect();
            check_quantized(kernels, &bent);
            let one_sided: Vec<f32> = random.numbers(len).iter().map(|x| 5.0 + x).collect();
            check_quantized(kernels, &one_sided);
            check_quantized(kernels, &one_sided.iter().map(|x| -x).collect::<Vec<_>>());
            check_quantized(kernels, &random.numbers(len).iter().map(|x| x * 1e30).collect::<Vec<_>>());
            check_quantized(kernels, &random.numbers(len).iter().map(|x| x * 1e-30).collect::<Vec<_>>());
        }
    });
}

#[test]
fn rows_of_nothing_are_nothing() {
    every_set(|kernels| {
        for zero in [0.0, -0.0] {
            let (bytes, scale) = quantized(kernels, &[zero; 100]);
            assert_eq!(scale.scale, 0.0);
            assert!(bytes.iter().all(|byte| i32::from(*byte) == scale.zero));
        }
    });
}

/// Numbers too small for a step of their own may vanish, but not become large.
#[test]
fn the_smallest_numbers_stay_small() {
    every_set(|kernels| {
        for smallest in [1e-45f32, 1e-42, 1e-38, -1e-45, -1e-40, -1e-38, -3e-36] {
            let (bytes, RowScale { scale, zero }) = quantized(kernels, &[0.0, smallest, smallest / 2.0]);
            let value = |byte: u8| f64::from(scale) * f64::from(i32::from(byte) - zero);
            let largest = bytes.iter().map(|byte| value(*byte).abs()).fold(0.0, f64::max);
            assert!(
                largest <= 2.0 * f64::from(smallest).abs(),
                "{:?}: {smallest:e}: {largest:e}",
                kernels.set()
            );
        }
    });
}

/// What is no finite number must show in the result and not turn into an ordinary one.
#[test]
fn a_row_that_is_not_finite_has_no_finite_scale() {
    every_set(|kernels| {
        for len in [1, 16, 17, 48, 100] {
            for at in [0, len / 2, len - 1] {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut row = Random(1).numbers(len);
                    row[at] = bad;
                    let (_, scale) = quantized(kernels, &row);
                    assert!(!scale.scale.is_finite(), "{:?}: {bad} at {at} of {len}", kernels.set());
                }
            }
        }
    });
}

#[test]
fn spreads_units_and_nothing_else() {
    every_set(|kernels| {
        let functions = kernels.functions;
        for len in LENGTHS {
            let row = Random(len as u64).numbers(len);
            for rows in [1, 2, 4, 7, 14] {
                let stride = rows * UNIT;
                let (bytes, scale) = spaced(&row, len.div_ceil(4), stride, |x, len, to, stride| {
                    // SAFETY: the CPU has the instructions, and there is room for as many units as the row takes.
                    unsafe { (functions.quantize)(x, len, to, stride) }
                });
                assert_eq!((bytes, scale), stored(kernels, &row));
                let (bytes, _) = spaced(&row, len.div_ceil(2), stride, |x, len, to, stride| {
                    // SAFETY: as above.
                    unsafe { (functions.narrow)(x, len, to, stride) };
                    RowScale::default()
                });
                let mut expected: Vec<u8> =
                    row.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect();
                expected.resize(bytes.len(), 0);
                assert_eq!(bytes, expected);
                let (bytes, _) = spaced(&row, len, stride, |x, len, to, stride| {
                    // SAFETY: as above.
                    unsafe { (functions.spread)(x, len, to, stride) };
                    RowScale::default()
                });
                assert_eq!(bytes, super::oracle::bytes_of(&row));
            }
        }
    });
}

#[test]
fn narrows_every_kind_of_number_to_the_nearest_bf16() {
    let mut row = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1e-45, -1e-40];
    // Ties, and numbers beside them.
    row.extend((0x3f80_7ffe..0x3f80_8003u32).chain(0x3f81_7ffe..0x3f81_8003).map(f32::from_bits));
    row.extend((0..10_000).map(|n: u32| f32::from_bits(n.wrapping_mul(0x9e37_79b9))).filter(|x| !x.is_nan()));
    every_set(|kernels| {
        let narrow = |row: &[f32]| -> Vec<half::bf16> {
            let mut bytes = vec![0; row.len() * 2 + 2];
            // SAFETY: the CPU has the instructions, and there is room for ⌈len / 2⌉ units.
            unsafe { (kernels.functions.narrow)(row.as_ptr(), row.len(), bytes.as_mut_ptr(), UNIT) };
            bytes.as_chunks().0.iter().map(|bytes| half::bf16::from_le_bytes(*bytes)).collect()
        };
        for (x, found) in row.iter().zip(narrow(&row)) {
            assert_eq!(found.to_bits(), half::bf16::from_f32(*x).to_bits(), "{:?}: {x:e}", kernels.set());
        }
        for nan in [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0x7fff_ffff].map(f32::from_bits) {
            assert!(narrow(&[nan, 1.0])[0].is_nan());
        }
    });
}

#[test]
fn means_are_exact() {
    every_set(|kernels| {
        for len in LENGTHS {
            let mut random = Random(len as u64);
            let (a, b) = (random.numbers(len), random.numbers(len));
            let mut to = vec![7.0; len + 16];
            // SAFETY: the CPU has the instructions, and every row is `len` numbers.
            unsafe { (kernels.functions.mean)(a.as_ptr(), b.as_ptr(), 0.5, len, to.as_mut_ptr()) };
            let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a + b) / 2.0).collect();
            assert_eq!(to[..len], expected);
            assert!(to[len..].iter().all(|value| *value == 7.0));
        }
    });
}

const EPSILON: f32 = 1e-12;

fn normed(kernels: Kernels, x: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f32> {
    let mut to = vec![7.0; x.len() + 16];
    // SAFETY: the CPU has the instructions, and every row is as long as `x`.
    unsafe {
        let norm = kernels.functions.layer_norm;
        norm(x.as_ptr(), scale.as_ptr(), shift.as_ptr(), EPSILON, x.len(), to.as_mut_ptr());
    }
    assert!(to[x.len()..].iter().all(|value| *value == 7.0), "wrote beyond the row");
    to.truncate(x.len());
    let mut in_place = x.to_vec();
    // SAFETY: as above.
    unsafe {
        let (norm, row) = (kernels.functions.layer_norm, in_place.as_mut_ptr());
        norm(row, scale.as_ptr(), shift.as_ptr(), EPSILON, x.len(), row);
    }
    assert_eq!(in_place, to, "in place");
    to
}

fn plain_norm(x: &[f32], scale: &[f32], shift: &[f32]) -> Vec<f64> {
    let len = x.len() as f64;
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / len;
    let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / len;
    let factor = 1.0 / (variance + f64::from(EPSILON)).sqrt();
    let norm = |((x, scale), shift): ((&f32, &f32), &f32)| {
        (f64::from(*x) - mean) * factor * f64::from(*scale) + f64::from(*shift)
    };
    x.iter().zip(scale).zip(shift).map(norm).collect()
}

/// Measured: 3.5e-7 of the largest result for numbers around 0; the mean's rounding, 6e-8 of itself, shows in those whose
/// deviations are small beside it.
#[test]
fn norms_layers() {
    let mut worst = 0.0f64;
    every_set(|kernels| {
        for len in LENGTHS {
            let mut random = Random(len as u64);
            let (scale, shift) = (random.numbers(len), random.numbers(len));
            for (offset, size, bound) in
                [(0.0, 1.0, 1e-6), (0.0, 1e8, 1e-6), (3.0, 1.0, 2e-6), (0.0, 1e-3, 1e-6), (100.0, 1.0, 5e-5)]
            {
                let x: Vec<f32> = random.numbers(len).iter().map(|x| offset + size * x).collect();
                let expected = plain_norm(&x, &scale, &shift);
                // A row of one number, or of equal ones, is 0 / 0 but for its rounding.
                if len == 1 {
                    assert_eq!(normed(kernels, &x, &scale, &shift), shift);
                    continue;
                }
                for (found, expected) in normed(kernels, &x, &scale, &shift).iter().zip(expected) {
                    let error = (f64::from(*found) - expected).abs() / (1.0 + expected.abs());
                    worst = if offset == 0.0 { worst.max(error) } else { worst };
                    assert!(
                        error < bound,
                        "{:?}: {found} instead of {expected}, {len} {offset}",
                        kernels.set()
                    );
                }
            }
        }
    });
    eprintln!("layer norm: error {worst:.2e}");
}

#[test]
fn the_norm_of_what_is_no_number_is_none() {
    every_set(|kernels| {
        for at in [0, 20, 99] {
            let mut x = Random(1).numbers(100);
            x[at] = f32::NAN;
            assert!(normed_bits_are_nan(kernels, &x), "{:?}: at {at}", kernels.set());
        }
    });
}

fn normed_bits_are_nan(kernels: Kernels, x: &[f32]) -> bool {
    let ones = vec![1.0; x.len()];
    let mut to = vec![0.0; x.len()];
    // SAFETY: the CPU has the instructions, and every row is as long as `x`.
    unsafe {
        let norm = kernels.functions.layer_norm;
        norm(x.as_ptr(), ones.as_ptr(), ones.as_ptr(), EPSILON, x.len(), to.as_mut_ptr());
    }
    to.iter().all(|value| value.is_nan())
}

proptest! {
    #[test]
    fn quantizes_any_row(row in prop::collection::vec(-1e4f32..1e4, 1..200)) {
        every_set(|kernels| check_quantized(kernels, &row));
    }

    #[test]
    fn all_sets_quantize_alike(row in prop::collection::vec(-3f32..5.0, 1..200)) {
        let portable = Kernels::new(InstructionSet::Portable).unwrap();
        let expected = quantized(portable, &row);
        every_set(|kernels| assert_eq!(quantized(kernels, &row), expected, "{:?}", kernels.set()));
    }

    #[test]
    fn all_sets_norm_alike(row in prop::collection::vec(-3f32..5.0, 1..200)) {
        let portable = Kernels::new(InstructionSet::Portable).unwrap();
        let ones = vec![1.0; row.len()];
        let bits = |kernels| -> Vec<u32> {
            normed(kernels, &row, &ones, &row).into_iter().map(f32::to_bits).collect()
        };
        let expected = bits(portable);
        every_set(|kernels| assert_eq!(bits(kernels), expected, "{:?}", kernels.set()));
    }
}
