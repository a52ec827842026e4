//! A model as a list of operations on rows of numbers, planned once and run many times.
//!
//! ```text
//! Recorder (operations, in the model's order) ─► schedule (phases, memory) ─► Plan ─► Program ─► run on Workers
//! ```
//!
//! A [`Plan`] knows to the byte what the program will take. All of that is one block of memory, the program's own tables included:
//!
//! ```text
//! │ inputs, results, intermediate results │ scratch of each worker │ streamed matrices │ constants │ tables │
//! ```
//!
//! Operations that do not wait for each other share a phase: the two streams of a cross layer go side by side, and where both
//! multiply with the same matrix, each of its panels is read once for both. Nothing is allocated in a run: sizes are those
//! of the shape at hand, places those of the largest shape that the program was made for.
//!
//! Matrices stand in memory, or are streamed, all or some: then each is fetched from the file while the one before it is multiplied with, and
//! there is room for those of two phases at a time. Fetching is an operation like any other, shared out to the same workers.

mod plan;
mod profile;
mod record;
mod run;
mod schedule;
mod table;

use std::ops::Range;

use std::sync::{Arc, Mutex};

pub(crate) use plan::{Placing, Plan};
pub use profile::OperationTime;
use profile::Profile;
pub(crate) use record::{Linear, Recorder};
pub(crate) use run::{Call, Interrupted, Lookup, Tables, Words};
use table::Table;

use super::{Activation, Element, Kernels, Layout, PackedMatrix, RowOrder, RowScale, Source};
use crate::Error;
use crate::ggml::{AlignedBuffer, Region};
use crate::weights::Weights;

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
    order: RowOrder,
}

impl PreparedLayout {
    fn row_bytes(self) -> usize {
        self.order.row_bytes(self.units)
    }
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
                rows.count(sizes) * (layout.row_bytes() + size_of::<RowScale>()) / size_of::<f32>()
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
    /// A matrix that is streamed, for the products of a later phase.
    Fetch {
        matrix: usize,
        source: usize,
    },
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
        prepared: Few,
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

/// The numbers of a few buffers: products read a row in at most as many forms as there are elements.
#[derive(Clone, Copy, Debug, Default)]
struct Few {
    numbers: [usize; Element::ALL.len()],
    len: usize,
}

impl Few {
    fn push(&mut self, number: usize) {
        self.numbers[self.len] = number;
        self.len += 1;
    }
}

impl std::ops::Deref for Few {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.numbers[..self.len]
    }
}

/// Operations of one phase that are shared out together: one, or products with the same matrix.
#[derive(Clone, Debug, PartialEq)]
struct Item {
    /// The operations, by their numbers in the stage.
    ops: Range<usize>,
    /// The panels of the matrix that products read.
    panels: Range<usize>,
}

/// What runs from one end to the other.
struct Stage {
    ops: Table<Op>,
    items: Table<Item>,
    /// Which items each phase has.
    phases: Table<Range<usize>>,
}

/// A packed matrix where products read it.
struct Matrix {
    layout: Layout,
    start: *const u8,
}

// SAFETY: the pointer is to memory that the program owns or keeps. It is read, and only a run, which is exclusive, writes to it.
unsafe impl Send for Matrix {}
// SAFETY: as above; a run's tasks keep apart from each other (see `run`).
unsafe impl Sync for Matrix {}

/// Which of a program's two stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StageName {
    /// The image alone.
    Image,
    /// The question over it.
    Question,
}

/// A model, ready to run. It owns its memory, in which its tables lie, too.
pub(crate) struct Program {
    kernels: Kernels,
    stages: [Stage; 2],
    buffers: Table<Buffer>,
    matrices: Table<Matrix>,
    /// What stands in memory, kept for `matrices`.
    _standing: Table<PackedMatrix>,
    /// Where those matrices come from that are streamed.
    sources: Table<Source>,
    /// Where biases, and scales and shifts of layer norms begin in the memory. Each is padded by a register.
    constants: usize,
    weights: Arc<Weights>,
    largest: Sizes,
    inputs: InputBuffers,
    /// Where the workers' own scratch begins, and how many bytes each has.
    scratch: (usize, usize),
    threads: usize,
    /// Tasks of each phase in the present run.
    tasks: Table<usize>,
    /// What a task of the present run could not do.
    failure: Mutex<Option<Error>>,
    profile: Option<Profile>,
    // After the tables, which lie in it.
    memory: AlignedBuffer,
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
    /// The memory that results lie in.
    pub fn memory(&self) -> &AlignedBuffer {
        &self.memory
    }

    /// The buffers to fill before a run.
    pub fn inputs(&self) -> InputBuffers {
        self.inputs
    }

    /// The numbers of a buffer in a run of those sizes.
    pub fn numbers(&mut self, buffer: usize, sizes: Sizes) -> &mut [f32] {
        let Buffer { content, offset, .. } = self.buffers[buffer];
        self.memory.f32s_mut(offset, content.bytes(sizes) / size_of::<f32>())
    }

    /// Where a kept result lies after a run of those sizes.
    pub fn region(&self, buffer: usize, sizes: Sizes) -> Region {
        let buffer = &self.buffers[buffer];
        Region::new(buffer.offset, buffer.content.bytes(sizes) / size_of::<f32>())
    }
}

#[cfg(test)]
mod tests;
