use super::*;
use crate::ggml;
use crate::gguf::TensorType;
use crate::kernels::Kernels;
use crate::kernels::tests::Random;
use crate::kernels::tests::oracle::{bytes_of, unpacked, weights};
use crate::kernels::workers::Workers;

/// Types of numbers: all but the integers.
fn types() -> impl Iterator<Item = TensorType> {
    TensorType::ALL.into_iter().filter(|tensor_type| !tensor_type.is_integer())
}

/// Numbers with a different range in every block, stored as `tensor_type`.
fn stored_bytes(tensor_type: TensorType, columns: usize, rows: usize) -> Vec<u8> {
    let mut random = Random((columns * 1000 + rows) as u64);
    let values: Vec<f32> =
        (0..rows * columns).map(|n| random.number() * (1 + n / BLOCK % 7) as f32 / 7.0).collect();
    if tensor_type == TensorType::F32 {
        return bytes_of(&values);
    }
    let mut bytes = Vec::new();
    ggml::quantize(tensor_type, &values, columns, &mut bytes);
    bytes
}

/// Packs a matrix in every element and hands each to `check` with what the file's type stands for.
fn packed_and_stored(
    tensor_type: TensorType,
    columns: usize,
    rows: usize,
    threads: usize,
    check: impl Fn(&PackedMatrix, &[f32]),
) {
    let data = stored_bytes(tensor_type, columns, rows);
    let weights = weights(&[("w", tensor_type, &[columns, rows], &data)]);
    let stored = weights.stored("w");
    let mut workers = Workers::new(threads, None).unwrap();
    let sources = Element::ALL.map(|element| Source::rows(stored, element));
    let packed = PackedMatrix::load(&weights, &sources, Kernels::best(), &mut workers, &|_| true).unwrap();
    assert_eq!(packed.len(), Element::ALL.len());
    for (matrix, element) in packed.iter().zip(Element::ALL) {
        assert_eq!(matrix.layout, Layout { element, inputs: columns, outputs: rows });
        assert!(matrix.bytes().as_ptr().addr().is_multiple_of(ggml::ALIGNMENT));
        check(matrix, &stored.to_f32().unwrap());
    }
}

fn largest(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(value.abs())).fold(0.0, f64::max)
}

fn check(tensor_type: TensorType, matrix: &PackedMatrix, stored: &[f32]) {
    let inputs = matrix.layout.inputs;
    for (row, (found, stored)) in unpacked(matrix).iter().zip(stored.chunks(inputs)).enumerate() {
        for (n, (found, value)) in found.iter().zip(stored).enumerate() {
            let half_step = |values: &[f32]| largest(values) / 127.0 * 0.5001;
            let block = n / BLOCK * BLOCK;
            let bound = match matrix.layout.element {
                Element::F32 => 0.0,
                Element::Bf16 => f64::from(value.abs()) / 256.0,
                Element::Int8 => half_step(stored),
                Element::Int8Blocks if tensor_type == TensorType::Q8_0 => 0.0,
                Element::Int8Blocks => half_step(&stored[block..inputs.min(block + BLOCK)]),
            };
            let error = (found - f64::from(*value)).abs();
            let element = matrix.layout.element;
            assert!(error <= bound, "{tensor_type} as {element:?}: {value} in row {row} became {found}");
        }
    }
    check_totals(matrix);
}

/// Σ q of every output, or Σ t q: recomputed from the panels.
fn check_totals(matrix: &PackedMatrix) {
    let bytes = matrix.bytes();
    let number = |at: usize, output: usize| bytes[at + output * 4..][..4].try_into().unwrap();
    let (totals, scales) = (matrix.layout.totals(), matrix.layout.scales());
    for (output, row) in unpacked(matrix).iter().enumerate() {
        let sum: f64 = row.iter().sum();
        match matrix.layout.element {
            Element::Int8 => {
                let scale = f64::from(f32::from_le_bytes(number(scales, output)));
                let total = i32::from_le_bytes(number(totals, output));
                assert!((f64::from(total) * scale - sum).abs() <= 1e-9 * (1.0 + sum.abs()));
            }
            Element::Int8Blocks => {
                let total = f32::from_le_bytes(number(totals, output));
                let magnitude: f64 = row.iter().map(|value| value.abs()).sum();
                assert!((f64::from(total) - sum).abs() <= 1e-6 * magnitude);
            }
            Element::Bf16 | Element::F32 => {}
        }
    }
}

#[test]
fn every_type_packs_to_what_it_stands_for() {
    for tensor_type in types() {
        for (rows, threads) in [(1, 1), (32, 1), (45, 2), (100, 3)] {
            packed_and_stored(tensor_type, 768, rows, threads, |matrix, stored| {
                check(tensor_type, matrix, stored);
            });
        }
    }
}

#[test]
fn columns_need_not_be_whole_units() {
    for columns in [1, 2, 3, 4, 5, 31, 33, 100] {
        for tensor_type in [TensorType::F32, TensorType::F16, TensorType::BF16] {
            packed_and_stored(tensor_type, columns, 33, 1, |matrix, stored| {
                check(tensor_type, matrix, stored)
            });
        }
    }
}

/// Outputs that there are not, and inputs beyond the last, must add nothing.
#[test]
fn what_fills_up_a_panel_is_zero() {
    packed_and_stored(TensorType::F32, 33, 33, 1, |matrix, _| {
        let wider = Layout { inputs: 33, outputs: matrix.layout.panels() * PANEL, ..matrix.layout };
        assert_eq!(wider.panel_bytes(), matrix.layout.panel_bytes());
        let last = &matrix.bytes()[wider.panel_bytes()..][..wider.panel_bytes()];
        let filling = last.chunks(PANEL_STEP).flat_map(|step| &step[UNIT..]);
        assert!(filling.clone().count() > 0 && filling.copied().all(|byte| byte == 0));
    });
}

#[test]
fn rows_of_zeros_pack_to_zeros() {
    let data = vec![0; 64 * 3 * 4];
    let weights = weights(&[("w", TensorType::F32, &[64, 3], &data)]);
    let stored = weights.stored("w");
    let mut workers = Workers::new(1, None).unwrap();
    let sources = Element::ALL.map(|element| Source::rows(stored, element));
    for matrix in PackedMatrix::load(&weights, &sources, Kernels::best(), &mut workers, &|_| true).unwrap() {
        assert!(unpacked(&matrix).iter().flatten().all(|value| *value == 0.0));
        check_totals(&matrix);
    }
}

/// A file may hold anything. What is no finite number must show in the scale, and the smallest numbers must not grow.
#[test]
fn rows_of_extreme_numbers() {
    let rows = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e-45, 1e-39, -1e-38, 3.3e38];
    for at in [0, 20, 63] {
        let mut values = vec![0.0; 64 * rows.len()];
        for (row, extreme) in rows.iter().enumerate() {
            values[row * 64 + at] = *extreme;
        }
        let weights = weights(&[("w", TensorType::F32, &[64, rows.len()], &bytes_of(&values))]);
        let mut workers = Workers::new(1, None).unwrap();
        for element in Element::ALL {
            let sources = [Source::rows(weights.stored("w"), element)];
            let packed =
                PackedMatrix::load(&weights, &sources, Kernels::best(), &mut workers, &|_| true).unwrap();
            for (row, extreme) in unpacked(&packed[0]).iter().zip(rows) {
                if extreme.is_finite() {
                    let bound = 0.004 * f64::from(extreme.abs()) + 2e-38;
                    let error = (row[at] - f64::from(extreme)).abs();
                    assert!(error <= bound, "{element:?}: {extreme:e} became {:e}", row[at]);
                } else {
                    assert!(row.iter().any(|value| !value.is_finite()), "{element:?}: {extreme} is gone");
                }
            }
        }
    }
}

#[test]
fn nothing_packs_to_nothing() {
    let (weights, mut workers) = (weights(&[]), Workers::new(1, None).unwrap());
    let packed = PackedMatrix::load(&weights, &[], Kernels::best(), &mut workers, &|_| true).unwrap();
    assert!(packed.is_empty());
}

#[test]
fn columns_that_a_panel_shares_with_outputs() {
    for (panel, outputs, expected) in
        [(0, 0..100, 0..32), (3, 0..100, 0..4), (1, 33..34, 1..2), (1, 40..70, 8..32), (2, 40..70, 0..6)]
    {
        assert_eq!(columns_within(panel, &outputs), expected, "panel {panel} of {outputs:?}");
    }
    for panel in [0, 3, 4] {
        assert!(columns_within(panel, &(40..70)).is_empty(), "panel {panel}");
    }
}
