//! A model as a list of operations on rows of numbers, planned once and run many times.
//!
//! ```text
//! Recorder (operations, in the model's order) ─► schedule (phases, memory) ─► Program ─► run on Workers
//! ```
//!
//! Operations that do not wait for each other share a phase: the two streams of a cross layer go side by side, and where both
//! multiply with the same matrix, each of its panels is read once for both. Nothing is allocated in a run: sizes are those
//! of the shape at hand, places those of the largest shape that the program was made for.

mod profile;
mod record;
mod run;
mod schedule;

use std::ops::Range;

pub use profile::OperationTime;
use profile::Profile;
pub(crate) use record::Linear;
pub(crate) use record::Recorder;
pub(crate) use run::{Call, Tables, Words};

use super::workers::Workers;
use super::{Activation, Element, Kernels, PackedMatrix};
use crate::ggml::{AlignedBuffer, Region};

/// The sizes of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub batch: usize,
    pub tokens: usize,
    pub regions: usize,
    /// Batch elements that one answer is about.
    pub images: usize,
}

/// What the rows of a stream stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rows {
    /// The tokens of all batch elements.
    Tokens,
    /// The regions of all batch elements.
    Regions,
    /// The batch elements.
    Elements,
    /// The answers, of which each is about one or several batch elements.
    Answers,
}

impl Rows {
    fn count(self, sizes: Sizes) -> usize {
        match self {
            Rows::Tokens => sizes.batch * sizes.tokens,
            Rows::Regions => sizes.batch * sizes.regions,
            Rows::Elements => sizes.batch,
            Rows::Answers => sizes.batch / sizes.images,
        }
    }

    /// Rows of one batch element.
    fn per_element(self, sizes: Sizes) -> usize {
        self.count(sizes) / sizes.batch
    }
}

/// Rows of numbers: all of a buffer, or some of its columns, or the first row of every element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Stream {
    buffer: usize,
    rows: Rows,
    /// Of which rows each is the first of its element, if not all rows are meant.
    first_of: Option<Rows>,
    /// The first column, and how many there are.
    start: usize,
    width: usize,
    /// Numbers from one row of the buffer to the next.
    stride: usize,
}

/// Memory for one intermediate result.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    content: Content,
    /// Whether it stands after the run: inputs and results.
    kept: bool,
    /// Bytes from the start of the session's memory.
    offset: usize,
}

#[derive(Clone, Copy, Debug)]
enum Content {
    /// Rows of that many numbers.
    Numbers { rows: Rows, width: usize },
    /// Rows prepared for a product, and a scale for each.
    Prepared { rows: Rows, layout: PreparedLayout },
    /// The weights of an attention: `[batch, heads, queries, keys]`.
    Probabilities { queries: Rows, keys: Rows, heads: usize },
    /// What is added to the scores of keys: `[batch, keys]`.
    Mask { keys: Rows },
}

/// How rows are prepared for a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PreparedLayout {
    form: Form,
    units: usize,
    /// The most rows of a tile that reads them.
    tile_rows: usize,
}

/// The form in which a product reads rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Form {
    Bytes,
    Bf16,
    F32,
}

impl From<Element> for Form {
    fn from(element: Element) -> Self {
        match element {
            Element::Int8 | Element::Int8Blocks => Form::Bytes,
            Element::Bf16 => Form::Bf16,
            Element::F32 => Form::F32,
        }
    }
}

impl Content {
    fn bytes(self, sizes: Sizes) -> usize {
        let numbers = match self {
            Content::Numbers { rows, width } => rows.count(sizes) * width,
            Content::Prepared { rows, layout } => {
                // A unit is as long as a number, and a scale with its zero as two.
                rows.count(sizes) * (layout.units + 2)
            }
            Content::Probabilities { queries, keys, heads } => {
                sizes.batch * heads * queries.per_element(sizes) * keys.per_element(sizes)
            }
            Content::Mask { keys } => keys.count(sizes),
        };
        numbers * size_of::<f32>()
    }
}

/// One operation. Numbers that name buffers, matrices and constants index the program's lists.
#[derive(Clone, Debug)]
enum Op {
    /// Words, positions and token types, added.
    Embed {
        to: Stream,
    },
    /// Rows in the form in which a product reads them.
    Prepare {
        from: Stream,
        to: usize,
    },
    /// Layer norm; the result is also prepared for the products that read it.
    Norm {
        from: Stream,
        scale: usize,
        shift: usize,
        to: Stream,
        prepared: Vec<usize>,
    },
    /// (a + b) / 2.
    Mean {
        a: Stream,
        b: Stream,
        to: Stream,
    },
    Product(Product),
    Attention(Attention),
}

/// activation(W x + b) + residual.
#[derive(Clone, Debug)]
struct Product {
    matrix: usize,
    prepared: usize,
    rows: Rows,
    /// Which rows of W.
    outputs: Range<usize>,
    bias: usize,
    activation: Activation,
    residual: Option<Stream>,
    to: Stream,
}

#[derive(Clone, Debug)]
struct Attention {
    q: Stream,
    k: Stream,
    v: Stream,
    heads: usize,
    /// The buffer of what is added to the scores.
    mask: usize,
    /// Whose mask it is.
    keys: Rows,
    to: Stream,
    /// The buffer of weights to keep.
    probabilities: Option<usize>,
}

/// An operation with its name in a profile.
#[derive(Clone, Debug)]
struct Node {
    name: String,
    op: Op,
}

/// Operations of one phase that are shared out together: one, or products with the same matrix.
type Item = Vec<usize>;

/// What runs from one end to the other.
#[derive(Default)]
struct Stage {
    nodes: Vec<Node>,
    phases: Vec<Vec<Item>>,
}

/// Which of a program's two stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StageName {
    /// The image alone.
    Image,
    /// The question over it.
    Question,
}

/// A planned model.
pub(crate) struct Program {
    kernels: Kernels,
    stages: [Stage; 2],
    buffers: Vec<Buffer>,
    matrices: Vec<PackedMatrix>,
    /// Biases, and scales and shifts of layer norms. Each is padded by a register.
    constants: Vec<f32>,
    largest: Sizes,
    inputs: InputBuffers,
    memory_bytes: usize,
    /// Where the workers' own scratch begins, and how many bytes each has.
    scratch: (usize, usize),
    threads: usize,
    /// Tasks of each phase in the present run.
    tasks: Vec<usize>,
    profile: Option<Profile>,
}

/// The buffers that a caller fills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InputBuffers {
    pub features: usize,
    pub boxes: usize,
    pub text_mask: usize,
    pub visual_mask: usize,
}

impl Program {
    /// Bytes of memory that a run needs.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// The buffers to fill before a run.
    pub fn inputs(&self) -> InputBuffers {
        self.inputs
    }

    /// The numbers of a buffer in a run of those sizes.
    pub fn numbers<'m>(&self, buffer: usize, sizes: Sizes, memory: &'m mut AlignedBuffer) -> &'m mut [f32] {
        let buffer = &self.buffers[buffer];
        memory.f32s_mut(buffer.offset, buffer.content.bytes(sizes) / size_of::<f32>())
    }

    /// Where a kept result lies after a run of those sizes.
    pub fn region(&self, buffer: usize, sizes: Sizes) -> Region {
        let buffer = &self.buffers[buffer];
        Region::new(buffer.offset, buffer.content.bytes(sizes) / size_of::<f32>())
    }

    /// Which kernels run it.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }
}

#[cfg(test)]
mod tests;
