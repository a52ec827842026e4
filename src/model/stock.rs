//! The model lowered to ggml's stock operations, which every backend has.

use super::graph::{self, Results};
use super::operations::{Attend, Attended, Keys, Operations};
use super::{Config, LAYER_NORM_EPSILON, Output, SMALL_MATRIX, Shape};
use crate::ggml::{Graph, Tensor};
use crate::kernels::Activation;

/// The first stage as a graph.
pub(crate) struct ImageStage<'g> {
    /// `[visual_feat_dim, regions · batch]`.
    pub features: Tensor<'g>,
    /// `[visual_pos_dim, regions · batch]`.
    pub boxes: Tensor<'g>,
    /// Added to the scores: `[regions, regions, 1, batch]`.
    pub mask: Tensor<'g>,
    /// The vision stream: `[hidden, regions · batch]`.
    pub stream: Tensor<'g>,
    pub results: Results<Tensor<'g>>,
}

/// How words enter the second stage.
#[derive(Clone, Copy)]
pub(crate) enum Words<'g> {
    /// Rows of the word embedding: `[tokens · batch]`.
    Ids(Tensor<'g>),
    /// Embeddings of the caller's own: `[hidden, tokens · batch]`.
    Embeddings(Tensor<'g>),
    /// Embeddings to which those of positions and token types have been added: `[hidden, tokens · batch]`.
    Summed(Tensor<'g>),
}

/// Which kind of [`Words`] a graph is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum WordKind {
    Ids,
    Embeddings,
    Summed,
}

/// The second stage as a graph.
pub(crate) struct QuestionStage<'g> {
    pub words: Words<'g>,
    /// `[tokens · batch]`.
    pub token_types: Tensor<'g>,
    /// `[tokens · batch]`.
    pub positions: Tensor<'g>,
    /// Added to the scores where tokens are keys: `[tokens, max(tokens, regions), 1, batch]`.
    pub text_mask: Tensor<'g>,
    /// Added to the scores where regions are keys: `[regions, max(tokens, regions), 1, batch]`.
    pub visual_mask: Tensor<'g>,
    /// The first stage's vision stream: `[hidden, regions · batch]`.
    pub stream: Tensor<'g>,
    pub results: Results<Tensor<'g>>,
}

/// Which keys are masked. Unmasked scores skip an addition, but the operations are the same.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Masked {
    pub text: bool,
    pub visual: bool,
}

/// Adds the first stage to the graph.
pub(crate) fn image_stage<'g>(
    graph: &mut Graph<'g>,
    config: &Config,
    Shape { batch, regions, .. }: Shape,
    masked: Masked,
    wanted: &[Output],
) -> ImageStage<'g> {
    let features = graph.input_f32([config.visual_feat_dim, regions * batch, 1, 1]);
    let boxes = graph.input_f32([config.visual_pos_dim, regions * batch, 1, 1]);
    let mask = graph.input_f32([regions, regions, 1, batch]);
    let inputs = StageInputs::Image { features, boxes };
    let visual_keys = masked.visual.then_some(mask);
    let mut ops = Stock { graph, config, batch, inputs, text_keys: None, visual_keys };
    let (stream, results) = graph::image_stage(&mut ops, config, wanted);
    keep(graph, results.iter().map(|(_, tensor)| *tensor).chain([stream]));
    ImageStage { features, boxes, mask, stream, results }
}

/// Adds the second stage to the graph, which reads words of that kind.
pub(crate) fn question_stage<'g>(
    graph: &mut Graph<'g>,
    config: &Config,
    Shape { batch, tokens, regions }: Shape,
    masked: Masked,
    wanted: &[Output],
    words: WordKind,
) -> QuestionStage<'g> {
    let rows = tokens * batch;
    let words = match words {
        WordKind::Ids => Words::Ids(graph.input_i32([rows, 1, 1, 1])),
        WordKind::Embeddings => Words::Embeddings(graph.input_f32([config.hidden_size, rows, 1, 1])),
        WordKind::Summed => Words::Summed(graph.input_f32([config.hidden_size, rows, 1, 1])),
    };
    let token_types = graph.input_i32([rows, 1, 1, 1]);
    let positions = graph.input_i32([rows, 1, 1, 1]);
    let text_mask = graph.input_f32([tokens, tokens.max(regions), 1, batch]);
    let visual_mask = graph.input_f32([regions, tokens.max(regions), 1, batch]);
    let stream = graph.input_f32([config.hidden_size, regions * batch, 1, 1]);
    let inputs = StageInputs::Question { words, positions, token_types };
    let (text_keys, visual_keys) = (masked.text.then_some(text_mask), masked.visual.then_some(visual_mask));
    let mut ops = Stock { graph, config, batch, inputs, text_keys, visual_keys };
    let results = graph::question_stage(&mut ops, config, wanted, stream);
    keep(graph, results.iter().map(|(_, tensor)| *tensor));
    QuestionStage { words, token_types, positions, text_mask, visual_mask, stream, results }
}

fn keep<'g>(graph: &mut Graph<'g>, tensors: impl Iterator<Item = Tensor<'g>>) {
    for tensor in tensors {
        graph.keep(tensor);
    }
}

/// What a stage begins with.
#[derive(Clone, Copy)]
enum StageInputs<'g> {
    Image { features: Tensor<'g>, boxes: Tensor<'g> },
    Question { words: Words<'g>, positions: Tensor<'g>, token_types: Tensor<'g> },
}

/// Adds operations to a graph.
struct Stock<'a, 'g> {
    graph: &'a Graph<'g>,
    config: &'a Config,
    batch: usize,
    inputs: StageInputs<'g>,
    text_keys: Option<Tensor<'g>>,
    visual_keys: Option<Tensor<'g>>,
}

impl<'g> Operations for Stock<'_, 'g> {
    type Stream = Tensor<'g>;

    fn features(&mut self) -> Tensor<'g> {
        match self.inputs {
            StageInputs::Image { features, .. } => features,
            StageInputs::Question { .. } => unreachable!("the image's stage reads the features"),
        }
    }

    fn boxes(&mut self) -> Tensor<'g> {
        match self.inputs {
            StageInputs::Image { boxes, .. } => boxes,
            StageInputs::Question { .. } => unreachable!("the image's stage reads the boxes"),
        }
    }

    fn text(&mut self) -> Tensor<'g> {
        let StageInputs::Question { words, positions, token_types } = self.inputs else {
            unreachable!("the question's stage reads the text")
        };
        let graph = self.graph;
        let words = match words {
            Words::Ids(ids) => graph.get_rows(graph.weight("token_embd.weight"), ids),
            Words::Embeddings(embeddings) => embeddings,
            Words::Summed(sum) => return sum,
        };
        let positions = graph.get_rows(graph.weight("position_embd.weight"), positions);
        let token_types = graph.get_rows(graph.weight("token_types.weight"), token_types);
        graph.add(graph.add(words, positions), token_types)
    }

    fn linear(&mut self, name: &str, x: Tensor<'g>, activation: Activation) -> Tensor<'g> {
        let sum = self.linear_of(&format!("{name}.weight"), &format!("{name}.bias"), x);
        self.activate(activation, sum)
    }

    fn linear_add(&mut self, name: &str, x: Tensor<'g>, residual: Tensor<'g>) -> Tensor<'g> {
        let sum = self.linear(name, x, Activation::None);
        self.graph.add(sum, residual)
    }

    fn linear_of(&mut self, matrix: &str, bias: &str, x: Tensor<'g>) -> Tensor<'g> {
        let stored = self.graph.weight(matrix);
        let product = self.graph.mul_mat(self.unpacked_if_small(stored, stored), x);
        self.graph.add(product, self.graph.weight(bias))
    }

    fn layer_norm(&mut self, name: &str, x: Tensor<'g>) -> Tensor<'g> {
        let norm = self.graph.norm(x, LAYER_NORM_EPSILON);
        let scaled = self.graph.mul(norm, self.graph.weight(&format!("{name}.weight")));
        self.graph.add(scaled, self.graph.weight(&format!("{name}.bias")))
    }

    fn mean(&mut self, a: Tensor<'g>, b: Tensor<'g>) -> Tensor<'g> {
        self.graph.scale(self.graph.add(a, b), 0.5)
    }

    fn attention(&mut self, qkv: &str, attend: Attend<Tensor<'g>>, keys: Keys) -> Attended<Tensor<'g>> {
        let hidden = self.config.hidden_size;
        let mask = match keys {
            Keys::Tokens => self.text_keys,
            Keys::Regions => self.visual_keys,
        };
        // Each part is a matrix that holds it and the first of its rows there.
        let (queries, keys, values) = match attend {
            Attend::Within(x) => {
                let all = self.linear(qkv, x, Activation::None);
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
        Attended { output: graph.reshape(joined, [hidden, rows * batch, 1, 1]), probabilities }
    }

    fn first_rows(&mut self, x: Tensor<'g>) -> Tensor<'g> {
        let [width, all_rows, ..] = x.dims();
        let stride = all_rows / self.batch * width * size_of::<f32>();
        let whole = stride * self.batch;
        self.graph.contiguous(self.graph.view(x, [width, self.batch, 1, 1], [stride, whole, whole], 0))
    }

    fn side_by_side(&mut self, x: Tensor<'g>, images: usize) -> Tensor<'g> {
        let [hidden, batch, ..] = x.dims();
        self.graph.reshape(x, [images * hidden, batch / images, 1, 1])
    }
}

impl<'g> Stock<'_, 'g> {
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

    fn activate(&self, activation: Activation, x: Tensor<'g>) -> Tensor<'g> {
        match activation {
            Activation::None => x,
            Activation::Gelu => self.graph.gelu_erf(x),
            Activation::Relu => self.graph.relu(x),
            Activation::Silu => self.graph.silu(x),
            Activation::GeluNew => self.gelu_new(x),
            Activation::Tanh => self.graph.tanh(x),
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

    /// One of queries, keys and values, which starts at row `first` of `x`, as `[head_size, heads, rows, batch]`.
    fn heads(&self, (x, first): (Tensor<'g>, usize)) -> Tensor<'g> {
        let (size, heads) = (self.config.head_size(), self.config.num_attention_heads);
        let [width, all_rows, ..] = x.dims();
        let rows = all_rows / self.batch;
        const F32: usize = size_of::<f32>();
        let strides = [size * F32, width * F32, rows * width * F32];
        self.graph.view(x, [size, heads, rows, self.batch], strides, first * F32)
    }
}

/// A bound on the operations and inputs of either stage.
pub(crate) fn node_limit(config: &Config) -> usize {
    // A self-attention takes up to 36 and a feed-forward block with gelu_new 21; a cross layer has two such pairs and two
    // attentions more; embeddings and heads are described even where nobody wants them.
    let blocks = config.l_layers + config.r_layers + 4 * config.x_layers;
    64 * blocks + 256
}
