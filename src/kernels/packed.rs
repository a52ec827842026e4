//! Matrices in the order in which a product reads them.
//!
//! ```text
//! panel 0                                         panel 1     …   scales   totals
//! │ unit 0 of outputs 0 … 31 │ unit 1 of 0 … 31 │ │           │ │        │        │
//! ```
//!
//! A matrix of `outputs` rows and `inputs` columns becomes panels of [`PANEL`] outputs, the last one filled up with zeros. A
//! panel holds unit after unit of all its outputs side by side, so that one register takes the same unit of neighbouring
//! outputs and a product reads the panel from its first byte to its last.

use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;

use super::generic::rows::bf16_bits;
use super::vector::MAX_LANES;
use super::workers::{Phases, Workers};
use super::{BLOCK, PANEL, PANEL_STEP, UNIT};
use crate::Error;
use crate::ggml::{self, Stored};
use crate::gguf::TensorType;

/// How the elements of a packed matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 8-bit integers with one scale per output.
    Int8,
    /// 8-bit integers with one scale per output and block of 32 inputs: what a q8_0 matrix holds, without loss. Its
    /// product takes a fifth more time than that of [`Element::Int8`].
    Int8Blocks,
    /// The upper halves of 32-bit floats.
    Bf16,
    /// 32-bit floats.
    F32,
}

/// The sizes of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub element: Element,
    pub inputs: usize,
    pub outputs: usize,
}

impl Layout {
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(PANEL)
    }

    /// Units of one row of inputs.
    pub fn units(&self) -> usize {
        match self.element {
            Element::Int8 => self.inputs.div_ceil(4),
            Element::Int8Blocks => self.inputs.div_ceil(BLOCK) * BLOCK / 4,
            Element::Bf16 => self.inputs.div_ceil(2),
            Element::F32 => self.inputs,
        }
    }

    /// Steps of a panel: its units, and the scales of blocks.
    fn steps(&self) -> usize {
        match self.element {
            Element::Int8Blocks => self.units() + self.inputs.div_ceil(BLOCK),
            _ => self.units(),
        }
    }

    pub fn panel_bytes(&self) -> usize {
        self.steps() * PANEL_STEP
    }

    /// Where the scale of each output begins.
    pub fn scales(&self) -> usize {
        self.panels() * self.panel_bytes()
    }

    /// Where Σ q of each output begins, or Σ t q for blocks.
    pub fn totals(&self) -> usize {
        let scales = if self.element == Element::Int8 { self.column_bytes() } else { 0 };
        self.scales() + scales
    }

    /// Bytes of a number per output. A register may be read from any output on.
    fn column_bytes(&self) -> usize {
        (self.panels() * PANEL + MAX_LANES) * size_of::<f32>()
    }

    /// Bytes of the packed matrix.
    pub fn bytes(&self) -> usize {
        match self.element {
            Element::Int8 | Element::Int8Blocks => self.totals() + self.column_bytes(),
            Element::Bf16 | Element::F32 => self.scales(),
        }
    }
}

/// A matrix that is packed.
#[derive(Clone)]
pub(crate) struct PackedMatrix {
    pub layout: Layout,
    memory: Arc<MmapMut>,
    start: usize,
}

impl PackedMatrix {
    /// Its bytes, at a multiple of a cache line.
    pub fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.layout.bytes()]
    }

    /// Packs matrices into memory of their own, on all workers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn pack(matrices: &[(Stored<'_>, Element)], workers: &mut Workers) -> Result<Vec<Self>, Error> {
        let mut bytes = 0;
        let places: Vec<(Layout, usize)> = matrices
            .iter()
            .map(|(stored, element)| {
                let layout = Layout { element: *element, inputs: stored.columns, outputs: stored.rows };
                let start = bytes;
                bytes += layout.bytes().next_multiple_of(ggml::ALIGNMENT);
                (layout, start)
            })
            .collect();
        if matrices.is_empty() {
            return Ok(Vec::new());
        }
        let out_of_memory = |_| Error::OutOfMemory { what: "the packed weights", bytes };
        let mut memory = MmapMut::map_anon(bytes).map_err(out_of_memory)?;
        // Streaming through hundreds of megabytes, every page of 4 KiB would be looked up again in each run. A kernel that has
        // no larger ones to give is no error.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        workers.run(&Packing { matrices, places: &places, memory: memory.as_mut_ptr() });
        let memory = Arc::new(memory);
        let packed = |(layout, start)| PackedMatrix { layout, memory: memory.clone(), start };
        Ok(places.into_iter().map(packed).collect())
    }
}

/// The work of packing: a task for each panel of each matrix.
struct Packing<'p> {
    matrices: &'p [(Stored<'p>, Element)],
    places: &'p [(Layout, usize)],
    memory: *mut u8,
}

// SAFETY: the pointer is to memory that tasks write in disjoint parts: each its own panel, and its own outputs' scales.
unsafe impl Sync for Packing<'_> {}

impl Phases for Packing<'_> {
    fn phases(&self) -> usize {
        1
    }

    fn tasks(&self, _: usize) -> usize {
        self.places.iter().map(|(layout, _)| layout.panels()).sum()
    }

    fn run(&self, _: usize, task: usize, _: usize) {
        let mut panel = task;
        for ((stored, _), (layout, start)) in self.matrices.iter().zip(self.places) {
            if panel < layout.panels() {
                let at = |offset: usize, len: usize| {
                    // SAFETY: a panel, and a number for each of its outputs, lie within the matrix's bytes, which lie within the
                    // memory; no other task has this panel.
                    unsafe { std::slice::from_raw_parts_mut(self.memory.add(start + offset), len) }
                };
                let (scales, totals) = match layout.element {
                    Element::Int8 => (
                        at(layout.scales() + panel * PANEL * 4, PANEL * 4),
                        at(layout.totals() + panel * PANEL * 4, PANEL * 4),
                    ),
                    Element::Int8Blocks => (&mut [][..], at(layout.totals() + panel * PANEL * 4, PANEL * 4)),
                    Element::Bf16 | Element::F32 => (&mut [][..], &mut [][..]),
                };
                let bytes = at(panel * layout.panel_bytes(), layout.panel_bytes());
                PanelWriter { layout: *layout, bytes, scales, totals }.pack(stored, panel);
                return;
            }
            panel -= layout.panels();
        }
    }
}

/// One panel being packed, with the scales and totals of its outputs where there are any.
struct PanelWriter<'p> {
    layout: Layout,
    bytes: &'p mut [u8],
    scales: &'p mut [u8],
    totals: &'p mut [u8],
}

impl PanelWriter<'_> {
    fn pack(mut self, stored: &Stored<'_>, panel: usize) {
        let mut row = vec![0.0; stored.columns];
        for column in 0..PANEL.min(self.layout.outputs - panel * PANEL) {
            let bytes = stored.row(panel * PANEL + column);
            match self.layout.element {
                Element::Int8Blocks if stored.tensor_type == TensorType::Q8_0 => {
                    self.copy_blocks(column, bytes)
                }
                _ => {
                    ggml::dequantize(stored.tensor_type, bytes, &mut row);
                    match self.layout.element {
                        Element::Int8 => self.round_row(column, &row),
                        Element::Int8Blocks => self.round_blocks(column, &row),
                        Element::Bf16 => self.narrow(column, &row),
                        Element::F32 => self.copy(column, &row),
                    }
                }
            }
        }
    }

    /// The unit of a column in a step of the panel.
    fn unit(&mut self, step: usize, column: usize) -> &mut [u8; UNIT] {
        let at = step * PANEL_STEP + column * UNIT;
        (&mut self.bytes[at..at + UNIT]).try_into().expect("a unit's length")
    }

    fn round_row(&mut self, column: usize, row: &[f32]) {
        let (scale, inverse) = scale_of(row);
        let mut total = 0;
        for (step, values) in row.chunks(UNIT).enumerate() {
            let mut levels = [0i32; UNIT];
            for (level, value) in levels.iter_mut().zip(values) {
                *level = nearest(value * inverse);
            }
            total += levels.iter().sum::<i32>();
            *self.unit(step, column) = levels.map(|level| level as u8);
        }
        put(self.scales, column, scale.to_le_bytes());
        put(self.totals, column, total.to_le_bytes());
    }

    fn round_blocks(&mut self, column: usize, row: &[f32]) {
        let mut total = 0.0;
        for (block, values) in row.chunks(BLOCK).enumerate() {
            let (scale, inverse) = scale_of(values);
            let mut levels = [0; BLOCK];
            for (level, value) in levels.iter_mut().zip(values) {
                *level = nearest(value * inverse);
            }
            total += self.put_block(column, block, scale, levels);
        }
        put(self.totals, column, total.to_le_bytes());
    }

    /// Takes blocks of q8_0 as they are: a scale in f16 and 32 integers.
    fn copy_blocks(&mut self, column: usize, bytes: &[u8]) {
        let mut total = 0.0;
        for (block, bytes) in bytes.chunks_exact(2 + BLOCK).enumerate() {
            let scale = half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
            let levels = std::array::from_fn(|n| i32::from(bytes[2 + n] as i8));
            total += self.put_block(column, block, scale, levels);
        }
        put(self.totals, column, total.to_le_bytes());
    }

    /// Writes a block and returns its share of the total.
    fn put_block(&mut self, column: usize, block: usize, scale: f32, levels: [i32; BLOCK]) -> f32 {
        let first = block * (1 + BLOCK / UNIT);
        *self.unit(first, column) = scale.to_le_bytes();
        for (n, unit) in levels.as_chunks::<UNIT>().0.iter().enumerate() {
            *self.unit(first + 1 + n, column) = unit.map(|level| level as u8);
        }
        scale * levels.iter().sum::<i32>() as f32
    }

    fn narrow(&mut self, column: usize, row: &[f32]) {
        for (step, values) in row.chunks(2).enumerate() {
            let second = values.get(1).copied().unwrap_or(0.0);
            let ([a, b], [c, d]) = (bf16_bits(values[0]).to_le_bytes(), bf16_bits(second).to_le_bytes());
            *self.unit(step, column) = [a, b, c, d];
        }
    }

    fn copy(&mut self, column: usize, row: &[f32]) {
        for (step, value) in row.iter().enumerate() {
            *self.unit(step, column) = value.to_le_bytes();
        }
    }
}

fn put(numbers: &mut [u8], column: usize, bytes: [u8; 4]) {
    numbers[column * 4..][..4].copy_from_slice(&bytes);
}

/// The scale that takes the largest value to ±127, and its inverse. No finite number if a value is none.
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
fn nearest(value: f32) -> i32 {
    // The addition pushes the fraction out of the mantissa, which then ends in the integer.
    const SHIFT: f32 = (3 << 22) as f32;
    ((value + SHIFT).to_bits() as i32 - SHIFT.to_bits() as i32).clamp(-127, 127)
}

/// The outputs that a panel has in common with a range of them, as columns of the panel.
pub(super) fn columns_within(panel: usize, outputs: &Range<usize>) -> Range<usize> {
    let first = panel * PANEL;
    outputs.start.saturating_sub(first).min(PANEL)..outputs.end.saturating_sub(first).min(PANEL)
}

#[cfg(test)]
mod tests;
