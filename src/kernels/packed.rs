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
//! Matrices are packed when a model is loaded ([`PackedMatrix::load`]), or once and for all into a file by a [`Packer`]. Both
//! have each panel packed by [`pack_panel`], so that they come to the same bytes; whoever changes these bytes changes
//! [`LAYOUT`] too.

mod load;
mod packer;
mod panel;

use std::ops::Range;
use std::sync::Arc;

use memmap2::MmapMut;

pub(crate) use load::{Source, place_bytes};
pub(crate) use packer::Packer;
pub(super) use panel::{PackScratch, Panel, pack_panel};

use super::vector::MAX_LANES;
use super::{BLOCK, PANEL, PANEL_STEP, UNIT};
use crate::Error;
use crate::ggml;
use crate::weights::Weights;

/// The name of this order of bytes in files: panels of 32 outputs, units of 4 bytes, and a version.
///
/// With one scale per output, 8-bit integers are −127 … 127. Nobody looks for a −128 in a file, since that would take reading all
/// of it: with one, NEON without the dot product comes to other numbers than the other instruction sets. In blocks any integer may be.
pub(crate) const LAYOUT: &str = "panel32x4.1";
const _: () = assert!(PANEL == 32 && UNIT == 4 && BLOCK == 32);

/// How the elements of a packed matrix are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 8-bit integers with one scale per output.
    Int8,
    /// 8-bit integers with one scale per output and block of 32 inputs: what a q8_0 matrix holds, without loss. Its
    /// product takes a fifth more time than that of [`Element::Int8`] on AVX-512, and on ARM about twice the instructions.
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
    /// A matrix that lies packed in a file that is in memory or mapped, from byte `start` on.
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
            Memory::File(weights) => weights.storage().view().expect("a file in memory or mapped"),
        };
        &memory[self.start..][..self.layout.bytes()]
    }

    /// Bytes that it takes beside a file.
    pub fn own_bytes(&self) -> usize {
        match self.memory {
            Memory::Own(_) => place_bytes(self.layout),
            Memory::File(_) => 0,
        }
    }

    /// Keeps its bytes from being swapped out or evicted, for as long as they are mapped.
    ///
    /// # Errors
    /// [`Error::Lock`].
    pub fn lock(&self) -> Result<(), Error> {
        ggml::lock(self.bytes())
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
