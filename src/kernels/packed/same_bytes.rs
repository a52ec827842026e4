//! Every instruction set packs to the same bytes, in pieces of any size.

use super::*;
use crate::ggml;
use crate::gguf::TensorType;
use crate::kernels::generic::rows::bf16_bits;
use crate::kernels::{InstructionSet, Kernels};

fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|n| ((n * n) as f32 * 0.37).sin() * ((n % 97) as f32 - 40.0)).collect()
}

/// The panels of a matrix as those kernels pack them, in pieces of that many bytes.
fn packed(
    set: InstructionSet,
    layout: Layout,
    tensor_type: TensorType,
    rows: &[u8],
    piece: usize,
) -> Vec<u8> {
    let mut packer = Packer::new(layout, tensor_type);
    packer.kernels = Kernels::new(set).unwrap();
    let mut bytes = Vec::new();
    rows.chunks(piece).for_each(|piece| packer.add(piece, &mut bytes));
    packer.finish(&mut bytes);
    bytes
}

#[test]
fn for_every_instruction_set_and_pieces_of_any_size() {
    let types = [TensorType::F32, TensorType::BF16, TensorType::Q8_0, TensorType::Q4K];
    for (inputs, outputs) in [(256, 1), (512, 70), (256, 96)] {
        for (tensor_type, element) in types.iter().flat_map(|of| Element::ALL.map(|element| (*of, element))) {
            let layout = Layout { element, inputs, outputs };
            let mut rows = Vec::new();
            match tensor_type {
                TensorType::BF16 => {
                    numbers(inputs * outputs).iter().for_each(|x| rows.extend(bf16_bits(*x).to_le_bytes()));
                }
                TensorType::F32 => {
                    numbers(inputs * outputs).iter().for_each(|x| rows.extend(x.to_le_bytes()))
                }
                quantized => ggml::quantize(quantized, &numbers(inputs * outputs), inputs, &mut rows),
            }
            let expected = packed(InstructionSet::Portable, layout, tensor_type, &rows, rows.len());
            assert_eq!(expected.len(), layout.bytes());
            for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
                let found = packed(set, layout, tensor_type, &rows, 333);
                assert!(found == expected, "{} {layout:?} {tensor_type}", set.name());
            }
        }
    }
}

/// The unit of an output and some inputs, where the module's picture has it.
#[test]
fn units_lie_where_the_picture_has_them() {
    let (inputs, outputs) = (10, 40);
    let values = numbers(inputs * outputs);
    let rows: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let layout = |element| Layout { element, inputs, outputs };
    let set = InstructionSet::Portable;
    let floats = packed(set, layout(Element::F32), TensorType::F32, &rows, 7);
    let levels = packed(set, layout(Element::Int8), TensorType::F32, &rows, 7);
    let number = |at: usize| f32::from_le_bytes(levels[at..at + 4].try_into().unwrap());
    for (output, row) in values.chunks(inputs).enumerate() {
        let (panel, column) = (output / 32, output % 32);
        let largest = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let scale = number(2 * 3 * 128 + output * 4);
        assert_eq!(scale, largest / 127.0);
        for (input, value) in row.iter().enumerate() {
            let at = panel * inputs * 128 + input * 128 + column * 4;
            assert_eq!(floats[at..at + 4], value.to_le_bytes());
            let at = panel * 3 * 128 + input / 4 * 128 + column * 4 + input % 4;
            let level = f32::from(levels[at] as i8);
            assert!((level - value / scale).abs() <= 0.5 + 1e-4, "{output} {input}");
        }
    }
}
