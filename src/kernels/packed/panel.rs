//! Packs one panel. This is compiled for each instruction set, and comes out the same to the byte.

use super::{Element, Layout};
use crate::ggml;
use crate::gguf::TensorType;
use crate::kernels::generic::rows::bf16_bits;
use crate::kernels::{BLOCK, LINE, PANEL, PANEL_STEP, UNIT};

/// A panel to be packed.
pub(in crate::kernels) struct Panel<'p> {
    pub layout: Layout,
    pub tensor_type: TensorType,
    /// The rows of its outputs.
    pub rows: &'p [u8],
    /// Where the panel goes, and the scales and totals of its outputs if there are any.
    pub bytes: &'p mut [u8],
    pub scales: &'p mut [u8],
    pub totals: &'p mut [u8],
}

/// Room to pack a panel in.
pub(in crate::kernels) struct PackScratch<'s> {
    /// The units of each output, one output after the other.
    pub columns: &'s mut [u8],
    /// The numbers of one row.
    pub row: &'s mut [f32],
}

impl PackScratch<'_> {
    /// Bytes from one output to the next: some way apart, so that their units do not compete for the same lines of the cache.
    fn stride(layout: Layout) -> usize {
        (layout.steps() * UNIT).next_multiple_of(LINE) + LINE
    }

    /// Bytes of all columns.
    pub fn column_bytes(layout: Layout) -> usize {
        PANEL * Self::stride(layout)
    }

    /// Bytes that it takes.
    pub fn bytes(layout: Layout) -> usize {
        Self::column_bytes(layout) + layout.inputs * size_of::<f32>()
    }

    /// # Safety
    /// `start` must be that of a cache line, and valid for [`PackScratch::bytes`] that nobody else uses for as long as the
    /// lifetime that the caller picks.
    pub unsafe fn at(start: *mut u8, layout: Layout) -> Self {
        let columns = Self::column_bytes(layout);
        // SAFETY: as the caller guarantees; whole cache lines keep the numbers aligned.
        unsafe {
            PackScratch {
                columns: std::slice::from_raw_parts_mut(start, columns),
                row: std::slice::from_raw_parts_mut(start.add(columns).cast(), layout.inputs),
            }
        }
    }
}

/// Packs a panel. In plain Rust, compiled for each instruction set: every one of its operations is rounded alone and none
/// depends on the number of lanes, so that all come to the same bytes.
#[inline(always)]
pub(in crate::kernels) fn pack_panel(panel: Panel<'_>, scratch: PackScratch<'_>) {
    let Panel { layout, tensor_type, rows, bytes, scales, totals } = panel;
    let row_bytes = tensor_type.row_bytes(layout.inputs as u64).expect("rows of whole blocks") as usize;
    let stride = PackScratch::stride(layout);
    let PackScratch { columns, row } = scratch;
    columns.fill(0);
    scales.fill(0);
    totals.fill(0);
    for (output, (stored, column)) in
        rows.chunks_exact(row_bytes).zip(columns.chunks_exact_mut(stride)).enumerate()
    {
        if tensor_type == TensorType::Q8_0 {
            if layout.element == Element::Int8Blocks {
                put(totals, output, copy_blocks(stored, column).to_le_bytes());
                continue;
            }
            unpack_q8_0(stored, row);
        } else {
            ggml::dequantize(tensor_type, stored, row);
        }
        match layout.element {
            Element::Int8 => {
                let (scale, total) = round(row, column);
                put(scales, output, scale.to_le_bytes());
                put(totals, output, total.to_le_bytes());
            }
            Element::Int8Blocks => put(totals, output, round_blocks(row, column).to_le_bytes()),
            Element::Bf16 => {
                for (place, value) in column.as_chunks_mut::<2>().0.iter_mut().zip(&*row) {
                    *place = bf16_bits(*value).to_le_bytes();
                }
            }
            Element::F32 => {
                for (place, value) in column.as_chunks_mut::<4>().0.iter_mut().zip(&*row) {
                    *place = value.to_le_bytes();
                }
            }
        }
    }
    interleave(columns, stride, bytes);
}

/// Puts the units of all columns side by side: squares of them, which compile to shuffles of registers, and then the rest.
#[inline(always)]
fn interleave(columns: &[u8], stride: usize, panel: &mut [u8]) {
    const SIDE: usize = 4;
    let (squares, rest) = panel.as_chunks_mut::<{ SIDE * PANEL_STEP }>();
    let done = squares.len() * SIDE;
    for (number, steps) in squares.iter_mut().enumerate() {
        for first in (0..PANEL).step_by(SIDE) {
            let square: [[u32; SIDE]; SIDE] = std::array::from_fn(|column| {
                let at = (first + column) * stride + number * SIDE * UNIT;
                let units = columns[at..at + SIDE * UNIT].as_chunks::<UNIT>().0;
                std::array::from_fn(|step| u32::from_le_bytes(units[step]))
            });
            for step in 0..SIDE {
                let across: [[u8; UNIT]; SIDE] =
                    std::array::from_fn(|column| square[column][step].to_le_bytes());
                steps[step * PANEL_STEP + first * UNIT..][..SIDE * UNIT]
                    .copy_from_slice(across.as_flattened());
            }
        }
    }
    for (step, units) in rest.chunks_exact_mut(PANEL_STEP).enumerate() {
        for (column, unit) in units.as_chunks_mut::<UNIT>().0.iter_mut().enumerate() {
            let at = column * stride + (done + step) * UNIT;
            unit.copy_from_slice(&columns[at..at + UNIT]);
        }
    }
}

/// Rounds a row to integers of one scale. Returns the scale and the sum of the integers.
#[inline(always)]
fn round(row: &[f32], column: &mut [u8]) -> (f32, i32) {
    let (scale, inverse) = scale_of(row);
    let mut total = 0i32;
    for (level, value) in column.iter_mut().zip(row) {
        let nearest = nearest(value * inverse);
        *level = nearest as u8;
        total = nearest.wrapping_add(total);
    }
    (scale, total)
}

/// Bytes of a block: its scale and its integers.
const BLOCK_BYTES: usize = UNIT + BLOCK;

/// Rounds a row to integers with a scale for each block. Returns Σ t q.
#[inline(always)]
fn round_blocks(row: &[f32], column: &mut [u8]) -> f32 {
    let mut total = 0.0;
    for (values, block) in row.chunks(BLOCK).zip(column.as_chunks_mut::<BLOCK_BYTES>().0) {
        let (scale, sum) = round(values, &mut block[UNIT..]);
        block[..UNIT].copy_from_slice(&scale.to_le_bytes());
        total += scale * sum as f32;
    }
    total
}

/// A block of q8_0: a scale in f16 and 32 integers.
const Q8_0_BYTES: usize = 2 + BLOCK;

/// Takes blocks of q8_0 as they are. Returns Σ t q.
#[inline(always)]
fn copy_blocks(stored: &[u8], column: &mut [u8]) -> f32 {
    let mut total = 0.0;
    for (stored, block) in
        stored.as_chunks::<Q8_0_BYTES>().0.iter().zip(column.as_chunks_mut::<BLOCK_BYTES>().0)
    {
        let (scale, levels) = (f16_scale(stored), &stored[2..]);
        block[..UNIT].copy_from_slice(&scale.to_le_bytes());
        block[UNIT..].copy_from_slice(levels);
        total += scale * levels.iter().map(|level| i32::from(*level as i8)).sum::<i32>() as f32;
    }
    total
}

/// Unpacks q8_0 to the numbers that ggml makes of it.
#[inline(always)]
fn unpack_q8_0(stored: &[u8], row: &mut [f32]) {
    for (stored, values) in stored.as_chunks::<Q8_0_BYTES>().0.iter().zip(row.as_chunks_mut::<BLOCK>().0) {
        let scale = f16_scale(stored);
        // All are read before one is written, so that this compiles to vector instructions.
        *values = std::array::from_fn(|n| f32::from(stored[2 + n] as i8) * scale);
    }
}

/// The scale of a block. Without a branch on the CPU's instructions, which a conversion of one number at a time would take.
#[inline(always)]
fn f16_scale(block: &[u8; Q8_0_BYTES]) -> f32 {
    /// 2¹¹², the difference of the exponents' biases.
    const REBIAS: f32 = f32::from_bits(0x7780_0000);
    let bits = u32::from(u16::from_le_bytes([block[0], block[1]]));
    let (sign, rest) = ((bits & 0x8000) << 16, (bits & 0x7fff) << 13);
    let is_finite = bits & 0x7c00 != 0x7c00;
    let magnitude =
        if is_finite { f32::from_bits(rest) * REBIAS } else { f32::from_bits(rest | 0x7f80_0000) };
    f32::from_bits(magnitude.to_bits() | sign)
}

#[inline(always)]
fn put(numbers: &mut [u8], column: usize, bytes: [u8; 4]) {
    numbers[column * 4..][..4].copy_from_slice(&bytes);
}

/// The scale that takes the largest value to ±127, and its inverse. No finite number if a value is none.
#[inline(always)]
fn scale_of(values: &[f32]) -> (f32, f32) {
    // In lanes, so that it compiles to vector instructions; as integers, in whose order a NaN is the largest.
    let mut lanes = [0; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    let bits = |value: &f32| value.abs().to_bits() as i32;
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = bits(value).max(*lane);
        }
    }
    let largest = lanes.into_iter().chain(rest.iter().map(bits)).fold(0, i32::max);
    let scale = f32::from_bits(largest as u32) / 127.0;
    // The inverse of a denormal number may be infinite; so small a row is as good as zeros.
    (scale, if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 })
}

/// The nearest integer in −127..=127, and any of them for what is no number.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    // The addition pushes the fraction out of the mantissa, which then ends in the integer.
    const SHIFT: f32 = (3 << 22) as f32;
    ((value + SHIFT).to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32).clamp(-127, 127)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_of_q8_0_are_those_of_half() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let mut block = [0; Q8_0_BYTES];
            block[..2].copy_from_slice(&bits.to_le_bytes());
            let found = f16_scale(&block);
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{bits:#x}"
            );
        }
    }
}
