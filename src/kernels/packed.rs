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

mod panel;

use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;

pub(super) use panel::{Panel, pack_panel};

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

impl Element {
    /// All of them.
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

    /// Whether a matrix with so many inputs can be of these: the sum of their products fits 31 bits, and blocks are whole.
    pub fn fits(self, inputs: usize) -> bool {
        match self {
            Self::Int8 => inputs <= 1 << 16,
            Self::Int8Blocks => inputs <= 1 << 16 && inputs.is_multiple_of(BLOCK),
            Self::Bf16 | Self::F32 => true,
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

    /// Bytes that it takes beside a file.
    pub fn own_bytes(&self) -> usize {
        match self.memory {
            Memory::Own(_) => self.layout.bytes(),
            Memory::File(_) => 0,
        }
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

/// The outputs that a panel has in common with a range of them, as columns of the panel.
pub(super) fn columns_within(panel: usize, outputs: &Range<usize>) -> Range<usize> {
    let first = panel * PANEL;
    outputs.start.saturating_sub(first).min(PANEL)..outputs.end.saturating_sub(first).min(PANEL)
}

#[cfg(test)]
mod same_bytes;
#[cfg(test)]
mod tests;
