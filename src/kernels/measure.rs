//! Single kernels for benchmarks: products, operations on rows, and the speed that the instructions alone allow.

mod peak;

use super::generic::attention::scratch_len;
use super::generic::product::{BlockScaling, Quantized};
pub use super::packed::Element;
use super::packed::Layout;
use super::{
    Activation, Ahead, Finish, Functions, Head, InstructionSet, Kernels, LINE, PANEL, RowOrder, RowScale,
    Tile, UNIT, even_block,
};
use crate::ggml::AlignedBuffer;
pub use peak::peak;

/// Panels of up to that many bytes take turns in a product with weights in cache: half of a second-level cache.
const CACHED_BYTES: usize = 512 << 10;

/// Any numbers, the same each time.
fn numbers(count: usize) -> Vec<f32> {
    (0..count).map(|n| (n * 7919 % 1000) as f32 / 500.0 - 1.0).collect()
}

fn memory(bytes: usize) -> Option<AlignedBuffer> {
    AlignedBuffer::new(bytes, "a measurement").ok()
}

/// A product of some rows with a matrix, by one thread. The rows are prepared already.
pub struct BenchProduct {
    kernels: Kernels,
    layout: Layout,
    rows: usize,
    /// Panels that there are; further ones are the first ones again.
    panels: usize,
    weights: AlignedBuffer,
    prepared: AlignedBuffer,
    scales: Vec<RowScale>,
    /// A number for each column of a panel, and a register more.
    constants: [f32; 2 * PANEL],
    sums: AlignedBuffer,
    results: Vec<f32>,
}

impl BenchProduct {
    /// `None` if this CPU does not have the instructions, or memory is short. If `cached`, as many panels as fit half
    /// of a second-level cache take turns; otherwise the whole matrix is read.
    pub fn new(
        set: InstructionSet,
        element: Element,
        rows: usize,
        (inputs, outputs): (usize, usize),
        cached: bool,
    ) -> Option<Self> {
        let kernels = Kernels::new(set)?;
        if element == Element::Bf16 && !kernels.has_bf16() {
            return None;
        }
        let layout = Layout { element, inputs, outputs };
        let fitting = if cached { (CACHED_BYTES / layout.panel_bytes()).max(1) } else { usize::MAX };
        let panels = fitting.min(layout.panels());
        let mut weights = memory(panels * layout.panel_bytes())?;
        let mut prepared = memory(rows * kernels.tiles(layout).order.row_bytes(layout.units()))?;
        for buffer in [&mut weights, &mut prepared] {
            // No denormal numbers in any element: these cost time.
            let (words, _) = buffer.as_mut_slice().as_chunks_mut::<4>();
            for (word, number) in words.iter_mut().zip(numbers(4096).into_iter().cycle()) {
                *word = match element {
                    Element::Int8 | Element::Int8Blocks | Element::F32 => number.to_le_bytes(),
                    Element::Bf16 => {
                        let [a, b] = half::bf16::from_f32(number).to_le_bytes();
                        [a, b, a, b]
                    }
                };
            }
        }
        Some(BenchProduct {
            kernels,
            layout,
            rows,
            panels,
            weights,
            prepared,
            scales: vec![RowScale { scale: 0.01, zero: 100 }; rows],
            constants: [0.25; 2 * PANEL],
            sums: memory((super::MAX_TILE_ROWS + 1) * PANEL * size_of::<f32>())?,
            results: vec![0.0; rows * outputs],
        })
    }

    /// Multiplications of a run.
    pub fn multiplications(&self) -> u64 {
        (self.rows * self.layout.inputs * self.layout.outputs) as u64
    }

    /// Computes all results once.
    pub fn run(&mut self) {
        let functions = self.kernels.functions;
        let layout = self.layout;
        let tiles = self.kernels.tiles(layout);
        let per_block = even_block(self.rows, tiles.max_rows());
        let blocks = || (0..self.rows).step_by(per_block);
        let sums = self.sums.as_mut_ptr().cast();
        let panel_at = |panel: usize| &self.weights.as_slice()[panel % self.panels * layout.panel_bytes()..];
        for panel in 0..layout.panels() {
            let first = panel * PANEL;
            let columns = PANEL.min(layout.outputs - first);
            let mut ahead = Ahead::new(tiles, layout, blocks().count(), panel_at(panel + 1).as_ptr());
            for row in blocks() {
                let count = per_block.min(self.rows - row);
                let (times, ahead) = ahead.take();
                let tile = Tile {
                    panel: panel_at(panel).as_ptr(),
                    count,
                    rows: self.prepared.as_slice()[row * tiles.order.row_bytes(layout.units())..].as_ptr(),
                    units: layout.units(),
                    ahead,
                };
                let finish = Finish {
                    rows: count,
                    first: 0,
                    end: columns,
                    bias: self.constants.as_ptr(),
                    activation: Activation::None,
                    residual: std::ptr::null(),
                    residual_stride: 0,
                    to: self.results[row * layout.outputs + first..].as_mut_ptr(),
                    stride: layout.outputs,
                };
                let rows = self.scales[row..].as_ptr();
                let constants = self.constants.as_ptr();
                // SAFETY: the kernels exist, so the CPU has their instructions. A panel and the prepared rows are as long as
                // their layouts say, `sums` holds a tile and a register more, and so do the constants of a panel's columns.
                unsafe {
                    tiles.by_rows[count - 1][times](&tile, sums);
                    match layout.element {
                        Element::Int8 => {
                            let scaling = Quantized { rows, scales: constants, totals: constants.cast() };
                            (functions.finish_quantized)(sums, &scaling, &finish);
                        }
                        Element::Int8Blocks => {
                            (functions.finish_blocks)(
                                sums,
                                &BlockScaling { rows, totals: constants },
                                &finish,
                            );
                        }
                        Element::Bf16 | Element::F32 => (functions.finish_exact)(sums, &finish),
                    }
                }
            }
        }
    }
}

/// An operation on rows, by one thread.
pub struct BenchRows {
    functions: &'static Functions,
    /// How products of 8-bit integers want rows of that width.
    order: RowOrder,
    operation: Operation,
    rows: usize,
    width: usize,
    /// Read by every operation; twice as many as the keys or rows need.
    numbers: Vec<f32>,
    to: Vec<f32>,
    scratch: Vec<f32>,
}

enum Operation {
    Attention { keys: usize, heads: usize },
    LayerNorm,
    Quantize,
}

impl BenchRows {
    fn new(
        set: InstructionSet,
        operation: Operation,
        rows: usize,
        width: usize,
        read: usize,
    ) -> Option<Self> {
        let scratch = match operation {
            Operation::Attention { keys, heads } => scratch_len(rows, keys, width / heads),
            Operation::LayerNorm | Operation::Quantize => 0,
        };
        let kernels = Kernels::new(set)?;
        let layout = Layout { element: Element::Int8, inputs: width, outputs: PANEL };
        Some(BenchRows {
            functions: kernels.functions,
            order: kernels.tiles(layout).order,
            operation,
            rows,
            width,
            numbers: numbers(read),
            // Rows one after the other are padded to an odd number of cache lines.
            to: vec![0.0; rows * (width + 2 * LINE)],
            scratch: vec![0.0; scratch],
        })
    }

    /// All heads of an attention, whose queries, keys and values lie in rows of `3 * width` numbers.
    pub fn attention(
        set: InstructionSet,
        queries: usize,
        keys: usize,
        width: usize,
        heads: usize,
    ) -> Option<Self> {
        let operation = Operation::Attention { keys, heads };
        Self::new(set, operation, queries, width, queries.max(keys) * 3 * width)
    }

    /// Layer norm of rows.
    pub fn layer_norm(set: InstructionSet, rows: usize, width: usize) -> Option<Self> {
        Self::new(set, Operation::LayerNorm, rows, width, (rows + 2) * width)
    }

    /// The rounding of rows to 8 bits.
    pub fn quantize(set: InstructionSet, rows: usize, width: usize) -> Option<Self> {
        Self::new(set, Operation::Quantize, rows, width, rows * width)
    }

    /// Rows of a run: queries of an attention.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Does all rows once.
    pub fn run(&mut self) {
        let (rows, width) = (self.rows, self.width);
        let (from, to) = (self.numbers.as_ptr(), self.to.as_mut_ptr());
        match self.operation {
            Operation::Attention { keys, heads } => {
                let size = width / heads;
                for first in (0..heads).map(|head| head * size) {
                    let head = Head {
                        queries: rows,
                        keys,
                        size,
                        q: from.wrapping_add(first),
                        q_stride: 3 * width,
                        k: from.wrapping_add(width + first),
                        k_stride: 3 * width,
                        v: from.wrapping_add(2 * width + first),
                        v_stride: 3 * width,
                        mask: std::ptr::null(),
                        scale: 1.0 / (size as f32).sqrt(),
                        to: to.wrapping_add(first),
                        stride: width,
                        probabilities: std::ptr::null_mut(),
                    };
                    // SAFETY: the CPU has the instructions, since `new` found them; there are rows for queries and keys, and
                    // scratch for a head.
                    unsafe { (self.functions.attention)(&head, self.scratch.as_mut_ptr()) };
                }
            }
            Operation::LayerNorm => {
                let (scale, shift) = (from.wrapping_add(rows * width), from.wrapping_add((rows + 1) * width));
                for first in (0..rows).map(|row| row * width) {
                    let (from, to) = (from.wrapping_add(first), to.wrapping_add(first));
                    // SAFETY: as above; the numbers end with a scale and a shift for each column.
                    unsafe { (self.functions.layer_norm)(from, scale, shift, 1e-12, width, to) };
                }
            }
            Operation::Quantize => {
                // As a product reads them.
                for row in 0..rows {
                    let from = from.wrapping_add(row * width);
                    let (start, stride) = self.order.place(row, rows, width.div_ceil(UNIT));
                    let to = to.cast::<u8>().wrapping_add(start);
                    // SAFETY: as above; a row's bytes take less room than its numbers would.
                    unsafe { (self.functions.quantize)(from, width, to, stride) };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_can_run() {
        for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
            for element in [Element::Int8, Element::Int8Blocks, Element::Bf16, Element::F32] {
                for (rows, cached) in [(1, true), (29, false)] {
                    let product = BenchProduct::new(set, element, rows, (768, 100), cached);
                    assert!(product.is_some() || element == Element::Bf16);
                    if let Some(mut product) = product {
                        product.run();
                        assert_eq!(product.multiplications(), rows as u64 * 76_800);
                        assert!(product.results.iter().all(|result| result.is_finite() && *result != 0.0));
                        assert!(
                            peak(set, element).is_some_and(|peak| peak > 0.0)
                                || set == InstructionSet::Portable
                        );
                    }
                }
            }
            for rows in [
                BenchRows::attention(set, 20, 36, 768, 12),
                BenchRows::layer_norm(set, 3, 768),
                BenchRows::quantize(set, 3, 768),
            ] {
                let mut rows = rows.unwrap();
                rows.run();
                assert!(rows.to[..rows.rows() * 768 / 4].iter().any(|result| *result != 0.0));
            }
        }
    }
}
