//! The few operations that LXMERT is made of, lowered to ggml's stock operations, which every backend has.
//!
//! Streams are matrices `[hidden, rows]` with the rows of all batch elements one after the other.

use super::{Config, HiddenAct, LAYER_NORM_EPSILON};
use crate::ggml::{Graph, Tensor};

/// Elements of a matrix whose f32 form still fits the second-level cache of a small core.
const SMALL_MATRIX: usize = 1 << 16;

/// Lowers operations of a model with this configuration.
#[derive(Clone, Copy)]
pub(super) struct Lowering<'a, 'g> {
    pub graph: &'a Graph<'g>,
    pub config: &'a Config,
    pub batch: usize,
}

/// Who attends to what in [`Lowering::attention`].
#[derive(Clone, Copy)]
pub(super) enum Attend<'g> {
    /// Every row to all rows of its own stream.
    Within(Tensor<'g>),
    /// The rows of one stream to the rows of another.
    Across { queries: Tensor<'g>, context: Tensor<'g> },
}

/// The result of [`Lowering::attention`].
pub(super) struct Attention<'g> {
    /// The weighted values, heads side by side: `[hidden, queries]`.
    pub output: Tensor<'g>,
    /// The weights: `[keys, queries, heads, batch]`.
    pub probabilities: Tensor<'g>,
}

impl<'g> Lowering<'_, 'g> {
    /// W x + b.
    pub fn linear(&self, name: &str, x: Tensor<'g>) -> Tensor<'g> {
        let stored = self.graph.weight(&format!("{name}.weight"));
        let product = self.product(stored, x);
        self.graph.add(product, self.graph.weight(&format!("{name}.bias")))
    }

    /// W x.
    pub fn product(&self, matrix: Tensor<'g>, x: Tensor<'g>) -> Tensor<'g> {
        self.graph.mul_mat(self.unpacked_if_small(matrix, matrix), x)
    }

    /// ggml rounds x to eight bits beside a quantized matrix, which costs more accuracy the fewer terms there are to average
    /// over; a small matrix is therefore unpacked first, in time that nobody notices. The stored matrix decides for
    /// its parts, so that a part's product is the same as within the whole.
    fn unpacked_if_small(&self, stored: Tensor<'g>, part: Tensor<'g>) -> Tensor<'g> {
        let small = stored.is_quantized() && stored.elements() <= SMALL_MATRIX;
        if small { self.graph.to_f32(part) } else { part }
    }

    /// The outputs `start..start + count` of W x + b.
    fn linear_part(&self, name: &str, x: Tensor<'g>, start: usize, count: usize) -> Tensor<'g> {
        let stored = self.graph.weight(&format!("{name}.weight"));
        let part = self.unpacked_if_small(stored, self.graph.rows(stored, start, count));
        let bias = self.graph.rows(self.graph.weight(&format!("{name}.bias")), start, count);
        self.graph.add(self.graph.mul_mat(part, x), bias)
    }

    /// Layer norm with scale and shift.
    pub fn layer_norm(&self, name: &str, x: Tensor<'g>) -> Tensor<'g> {
        let norm = self.graph.norm(x, LAYER_NORM_EPSILON);
        let scaled = self.graph.mul(norm, self.graph.weight(&format!("{name}.weight")));
        self.graph.add(scaled, self.graph.weight(&format!("{name}.bias")))
    }

    /// The configuration's activation.
    pub fn hidden_act(&self, x: Tensor<'g>) -> Tensor<'g> {
        match self.config.hidden_act {
            HiddenAct::Gelu => self.graph.gelu_erf(x),
            HiddenAct::Relu => self.graph.relu(x),
            HiddenAct::Silu => self.graph.silu(x),
            HiddenAct::GeluNew => self.gelu_new(x),
        }
    }

    /// x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))), from exact operations: ggml's own looks values up in a table of
    /// f16, whose error shows beside PyTorch.
    fn gelu_new(&self, x: Tensor<'g>) -> Tensor<'g> {
        let graph = self.graph;
        let cube = graph.mul(graph.mul(x, x), x);
        let inner = graph.add(graph.scale(cube, 0.044_715), x);
        let tanh = graph.tanh(graph.scale(inner, (2.0 / std::f32::consts::PI).sqrt()));
        graph.scale(graph.add(graph.mul(tanh, x), x), 0.5)
    }

    /// Scaled dot-product attention of every head. `qkv` names the fused matrix of queries, keys and values; the mask
    /// `[keys, ≥ queries, 1, batch]` is added to the scores.
    pub fn attention(&self, qkv: &str, attend: Attend<'g>, mask: Option<Tensor<'g>>) -> Attention<'g> {
        let hidden = self.config.hidden_size;
        // Each part is a matrix that holds it and the first of its rows there.
        let (queries, keys, values) = match attend {
            Attend::Within(x) => {
                let all = self.linear(qkv, x);
                ((all, 0), (all, hidden), (all, 2 * hidden))
            }
            Attend::Across { queries, context } => {
                let queries = self.linear_part(qkv, queries, 0, hidden);
                let both = self.linear_part(qkv, context, hidden, 2 * hidden);
                ((queries, 0), (both, 0), (both, hidden))
            }
        };
        let graph = self.graph;
        // [head_size, heads, rows, batch] → [head_size, rows, heads, batch]
        let queries = graph.permute(self.heads(queries), [0, 2, 1, 3]);
        let keys = graph.permute(self.heads(keys), [0, 2, 1, 3]);
        // → [rows, head_size, heads, batch]
        let values = graph.contiguous(graph.permute(self.heads(values), [1, 2, 0, 3]));
        let scores = graph.mul_mat(keys, queries);
        let scale = (self.config.head_size() as f32).sqrt().recip();
        let probabilities = graph.soft_max(scores, mask, scale);
        let mixed = graph.mul_mat(values, probabilities);
        let [_, rows, _, batch] = mixed.dims();
        let joined = graph.contiguous(graph.permute(mixed, [0, 2, 1, 3]));
        Attention { output: graph.reshape(joined, [hidden, rows * batch, 1, 1]), probabilities }
    }

    /// One of queries, keys and values, which starts at row `first` of `x`, as `[head_size, heads, rows, batch]`.
    fn heads(&self, (x, first): (Tensor<'g>, usize)) -> Tensor<'g> {
        let (size, heads) = (self.config.head_size(), self.config.num_attention_heads);
        let [width, all_rows, ..] = x.dims();
        let rows = all_rows / self.batch;
        const F32: usize = size_of::<f32>();
        let strides = [size * F32, width * F32, rows * width * F32];
        self.graph.view(x, [size, heads, rows, self.batch], strides, first * F32)
    }

    /// The first row of every batch element: `[hidden, rows · batch]` → `[hidden, batch]`.
    pub fn first_rows(&self, x: Tensor<'g>) -> Tensor<'g> {
        let [width, all_rows, ..] = x.dims();
        let stride = all_rows / self.batch * width * size_of::<f32>();
        let whole = stride * self.batch;
        self.graph.contiguous(self.graph.view(x, [width, self.batch, 1, 1], [stride, whole, whole], 0))
    }
}
