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
//!
//! Matrices are packed when a model is loaded ([`PackedMatrix::pack`]), or once and for all into a file by a [`Packer`]. Both
//! have each panel packed by [`pack_panel`], so that they come to the same bytes; whoever changes these bytes changes
//! [`LAYOUT`] too.

use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;

use super::generic::rows::bf16_bits;
use super::vector::MAX_LANES;
use super::workers::{Phases, Workers};
use super::{BLOCK, Kernels, PANEL, PANEL_STEP, UNIT};
use crate::Error;
use crate::ggml::{self, Stored, Weights};
use crate::gguf::TensorType;

/// The name of this order of bytes in files: panels of 32 outputs, units of 4 bytes, and a version.
pub(crate) const LAYOUT: &str = "panel32x4.1";
const _: () = assert!(PANEL == 32 && UNIT == 4 && BLOCK == 32);

/// How the elements of a packed matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    /// 8-bit integers with one scale per output.
    Int8,
    /// 8-bit integers with one scale per output and block of [`BLOCK`] inputs: what a q8_0 matrix holds, without loss. Its
    /// product takes a fifth more time than that of [`Element::Int8`].
    Int8Blocks,
    Bf16,
    F32,
}

impl Element {
    pub const ALL: [Element; 4] = [Self::Int8, Self::Int8Blocks, Self::Bf16, Self::F32];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Int8Blocks => "int8_blocks",
            Self::Bf16 => "bf16",
            Self::F32 => "f32",
        }
    }

    /// The most inputs of a matrix of these: so many products of 8-bit integers add up to 31 bits.
    pub fn max_inputs(self) -> usize {
        match self {
            Self::Int8 | Self::Int8Blocks => 1 << 16,
            Self::Bf16 | Self::F32 => usize::MAX,
        }
    }
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
        let scales = if self.columns().scales { self.column_bytes() } else { 0 };
        self.scales() + scales
    }

    /// Bytes of a number per output. A register may be read from any output on.
    fn column_bytes(&self) -> usize {
        (self.panels() * PANEL + MAX_LANES) * size_of::<f32>()
    }

    /// Which numbers there are per output.
    fn columns(&self) -> Columns {
        Columns {
            scales: self.element == Element::Int8,
            totals: matches!(self.element, Element::Int8 | Element::Int8Blocks),
        }
    }

    /// Bytes of the packed matrix.
    pub fn bytes(&self) -> usize {
        if self.columns().totals { self.totals() + self.column_bytes() } else { self.scales() }
    }
}

/// Which numbers follow the panels, one for each output.
struct Columns {
    scales: bool,
    totals: bool,
}

/// A matrix that is packed.
#[derive(Clone)]
pub(crate) struct PackedMatrix {
    pub layout: Layout,
    memory: Memory,
    start: usize,
}

/// What a packed matrix lies in.
#[derive(Clone)]
enum Memory {
    Own(Arc<MmapMut>),
    File(Arc<Weights>),
}

impl PackedMatrix {
    /// A matrix that lies packed in a file, from byte `start` on.
    ///
    /// # Panics
    /// If the file ends before it: the loader has compared the tensor with its layout.
    pub fn in_file(weights: &Arc<Weights>, layout: Layout, start: usize) -> Self {
        let matrix = PackedMatrix { layout, memory: Memory::File(Arc::clone(weights)), start };
        assert!(
            matrix.bytes().as_ptr().addr().is_multiple_of(align_of::<f32>()),
            "a packed tensor's alignment"
        );
        matrix
    }

    /// Its bytes, at a multiple of a cache line.
    pub fn bytes(&self) -> &[u8] {
        let memory: &[u8] = match &self.memory {
            Memory::Own(memory) => memory,
            Memory::File(weights) => weights.file(),
        };
        &memory[self.start..][..self.layout.bytes()]
    }

    /// Packs matrices into memory of their own, on all workers.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn pack(
        matrices: &[(Stored<'_>, Element)],
        kernels: Kernels,
        workers: &mut Workers,
    ) -> Result<Vec<Self>, Error> {
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
        workers.run(&Packing { kernels, matrices, places: &places, memory: memory.as_mut_ptr() });
        let memory = Arc::new(memory);
        let packed =
            |(layout, start)| PackedMatrix { layout, memory: Memory::Own(Arc::clone(&memory)), start };
        Ok(places.into_iter().map(packed).collect())
    }
}

/// The work of packing: a task for each panel of each matrix.
struct Packing<'p> {
    kernels: Kernels,
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
                let outputs = panel * PANEL..((panel + 1) * PANEL).min(layout.outputs);
                let numbers = |offset: usize| at(offset + panel * PANEL * 4, PANEL * 4);
                let columns = layout.columns();
                self.kernels.pack(Panel {
                    layout: *layout,
                    tensor_type: stored.tensor_type,
                    rows: stored.some_rows(outputs),
                    bytes: at(panel * layout.panel_bytes(), layout.panel_bytes()),
                    scales: if columns.scales { numbers(layout.scales()) } else { &mut [] },
                    totals: if columns.totals { numbers(layout.totals()) } else { &mut [] },
                });
                return;
            }
            panel -= layout.panels();
        }
    }
}

/// Packs a matrix whose rows come one after the other, in pieces of any number of rows.
pub(crate) struct Packer {
    kernels: Kernels,
    layout: Layout,
    tensor_type: TensorType,
    /// The rows of the panel at hand that have come.
    rows: Vec<u8>,
    panel_rows_bytes: usize,
    panel: Vec<u8>,
    scales: Vec<u8>,
    totals: Vec<u8>,
}

impl Packer {
    /// For rows in that type.
    ///
    /// # Panics
    /// If the rows are no whole number of the type's blocks.
    pub fn new(layout: Layout, tensor_type: TensorType) -> Self {
        let row_bytes = tensor_type.row_bytes(layout.inputs as u64).expect("rows of whole blocks") as usize;
        Packer {
            kernels: Kernels::best(),
            layout,
            tensor_type,
            rows: Vec::new(),
            panel_rows_bytes: PANEL * row_bytes,
            panel: vec![0; layout.panel_bytes()],
            scales: Vec::new(),
            totals: Vec::new(),
        }
    }

    /// Takes some rows, and appends the panels that are complete.
    pub fn add(&mut self, mut rows: &[u8], packed: &mut Vec<u8>) {
        while !rows.is_empty() {
            let (taken, rest) = rows.split_at(rows.len().min(self.panel_rows_bytes - self.rows.len()));
            self.rows.extend_from_slice(taken);
            if self.rows.len() == self.panel_rows_bytes {
                self.pack(packed);
            }
            rows = rest;
        }
    }

    /// Appends what comes after the last row.
    pub fn finish(mut self, packed: &mut Vec<u8>) {
        if !self.rows.is_empty() {
            self.pack(packed);
        }
        for (mut numbers, present) in
            [(self.scales, self.layout.columns().scales), (self.totals, self.layout.columns().totals)]
        {
            if present {
                numbers.resize(self.layout.column_bytes(), 0);
                packed.append(&mut numbers);
            }
        }
    }

    fn pack(&mut self, packed: &mut Vec<u8>) {
        let fresh = |numbers: &mut Vec<u8>| {
            let start = numbers.len();
            numbers.resize(start + PANEL * 4, 0);
            start
        };
        let (scales, totals) = (fresh(&mut self.scales), fresh(&mut self.totals));
        self.kernels.pack(Panel {
            layout: self.layout,
            tensor_type: self.tensor_type,
            rows: &self.rows,
            bytes: &mut self.panel,
            scales: &mut self.scales[scales..],
            totals: &mut self.totals[totals..],
        });
        packed.extend_from_slice(&self.panel);
        self.rows.clear();
    }
}

/// A panel to be packed.
pub(super) struct Panel<'p> {
    layout: Layout,
    tensor_type: TensorType,
    /// The rows of its outputs.
    rows: &'p [u8],
    /// Where the panel goes, and the scales and totals of its outputs if there are any.
    bytes: &'p mut [u8],
    scales: &'p mut [u8],
    totals: &'p mut [u8],
}

/// Packs a panel. In plain Rust, compiled for each instruction set: every one of its operations is rounded alone and none
/// depends on the number of lanes, so that all come to the same bytes.
#[inline(always)]
pub(super) fn pack_panel(panel: Panel<'_>) {
    let Panel { layout, tensor_type, rows, bytes, scales, totals } = panel;
    let row_bytes = tensor_type.row_bytes(layout.inputs as u64).expect("rows of whole blocks") as usize;
    // Outputs one after the other, some way apart so that their units do not compete for the same lines of the cache.
    let stride = (layout.steps() * UNIT).next_multiple_of(LINE) + LINE;
    let mut columns = vec![0u8; PANEL * stride];
    let mut row = vec![0.0f32; layout.inputs];
    for (output, (stored, column)) in
        rows.chunks_exact(row_bytes).zip(columns.chunks_exact_mut(stride)).enumerate()
    {
        if tensor_type == TensorType::Q8_0 {
            if layout.element == Element::Int8Blocks {
                put(totals, output, copy_blocks(stored, column).to_le_bytes());
                continue;
            }
            unpack_q8_0(stored, &mut row);
        } else {
            ggml::dequantize(tensor_type, stored, &mut row);
        }
        match layout.element {
            Element::Int8 => {
                let (scale, total) = round(&row, column);
                put(scales, output, scale.to_le_bytes());
                put(totals, output, total.to_le_bytes());
            }
            Element::Int8Blocks => put(totals, output, round_blocks(&row, column).to_le_bytes()),
            Element::Bf16 => {
                for (place, value) in column.as_chunks_mut::<2>().0.iter_mut().zip(&row) {
                    *place = bf16_bits(*value).to_le_bytes();
                }
            }
            Element::F32 => {
                for (place, value) in column.as_chunks_mut::<4>().0.iter_mut().zip(&row) {
                    *place = value.to_le_bytes();
                }
            }
        }
    }
    interleave(&columns, stride, bytes);
}

/// Bytes of a cache line.
const LINE: usize = 64;

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

/// The scale that takes the largest value to ±127, and its inverse.
#[inline(always)]
fn scale_of(values: &[f32]) -> (f32, f32) {
    // In lanes, so that it compiles to vector instructions.
    let mut lanes = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            let magnitude = value.abs();
            *lane = if magnitude > *lane { magnitude } else { *lane };
        }
    }
    let largest = lanes.iter().chain(rest).fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    (scale, if scale > 0.0 { 1.0 / scale } else { 0.0 })
}

/// The nearest integer, for numbers of up to 22 bits.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    // The addition pushes the fraction out of the mantissa, which then ends in the integer.
    const SHIFT: f32 = (3 << 22) as f32;
    ((value + SHIFT).to_bits() as i32).wrapping_sub(SHIFT.to_bits() as i32)
}

/// The outputs that a panel has in common with a range of them, as columns of the panel.
pub(super) fn columns_within(panel: usize, outputs: &Range<usize>) -> Range<usize> {
    let first = panel * PANEL;
    outputs.start.saturating_sub(first).min(PANEL)..outputs.end.saturating_sub(first).min(PANEL)
}

#[cfg(test)]
mod same_bytes {
    use super::*;
    use crate::kernels::InstructionSet;

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
            for (tensor_type, element) in
                types.iter().flat_map(|of| Element::ALL.map(|element| (*of, element)))
            {
                let layout = Layout { element, inputs, outputs };
                let mut rows = Vec::new();
                match tensor_type {
                    TensorType::BF16 => {
                        numbers(inputs * outputs)
                            .iter()
                            .for_each(|x| rows.extend(bf16_bits(*x).to_le_bytes()));
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
