//! What LXMERT computes, in two stages: the image alone, then the question over it.
//!
//! The object-relationship encoder reads nothing of the question, so its result is kept and serves every further
//! question about the same image. Formulas: Tan & Bansal 2019, "LXMERT", section 2; `modeling_lxmert.py` of transformers.

use super::lower::{Attend, Lowering};
use super::{Config, Output};
use crate::ggml::{Graph, Tensor};

/// The sizes of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub batch: usize,
    pub tokens: usize,
    pub regions: usize,
}

/// The results that somebody asked for.
type Results<'g> = Vec<(Output, Tensor<'g>)>;

/// The first stage: embedding and object-relationship encoder of the regions.
pub(crate) struct ImageStage<'g> {
    /// `[visual_feat_dim, regions · batch]`.
    pub features: Tensor<'g>,
    /// `[visual_pos_dim, regions · batch]`.
    pub boxes: Tensor<'g>,
    /// Added to the scores: `[regions, regions, 1, batch]`.
    pub mask: Tensor<'g>,
    /// The vision stream: `[hidden, regions · batch]`.
    pub stream: Tensor<'g>,
    pub results: Results<'g>,
}

/// How words enter the second stage.
#[derive(Clone, Copy)]
pub(crate) enum Words<'g> {
    /// Rows of the word embedding: `[tokens · batch]`.
    Ids(Tensor<'g>),
    /// Embeddings of the caller's own: `[hidden, tokens · batch]`.
    Embeddings(Tensor<'g>),
}

/// The second stage: language encoder, cross-modality encoder and heads.
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
    pub results: Results<'g>,
}

/// Which keys are masked. Unmasked scores skip an addition, but the operations are the same.
#[derive(Clone, Copy, Default)]
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
    let keys = masked.visual.then_some(mask);

    let encoder = Encoder { ops: Lowering { graph, config, batch }, wanted };
    let ops = encoder.ops;
    let mut results = Vec::new();
    let features_norm = ops.layer_norm("v.feat_embd_norm", ops.linear("v.feat_embd", features));
    let boxes_norm = ops.layer_norm("v.pos_embd_norm", ops.linear("v.pos_embd", boxes));
    let mut stream = graph.scale(graph.add(features_norm, boxes_norm), 0.5);
    for n in 0..config.r_layers {
        let block = encoder.block(&format!("v.blk.{n}"), stream, keys, Rows::All);
        stream = block.stream;
        encoder.collect(&mut results, Output::VisionAttentions(n), block.probabilities);
        encoder.collect(&mut results, Output::VisionHiddenStates(n), stream);
    }
    for (_, tensor) in &results {
        graph.keep(*tensor);
    }
    graph.keep(stream);
    ImageStage { features, boxes, mask, stream, results }
}

/// Adds the second stage to the graph. `own_embeddings` makes it read [`Words::Embeddings`].
pub(crate) fn question_stage<'g>(
    graph: &mut Graph<'g>,
    config: &Config,
    Shape { batch, tokens, regions }: Shape,
    masked: Masked,
    wanted: &[Output],
    own_embeddings: bool,
) -> QuestionStage<'g> {
    let rows = tokens * batch;
    let words = if own_embeddings {
        Words::Embeddings(graph.input_f32([config.hidden_size, rows, 1, 1]))
    } else {
        Words::Ids(graph.input_i32([rows, 1, 1, 1]))
    };
    let token_types = graph.input_i32([rows, 1, 1, 1]);
    let positions = graph.input_i32([rows, 1, 1, 1]);
    let text_mask = graph.input_f32([tokens, tokens.max(regions), 1, batch]);
    let visual_mask = graph.input_f32([regions, tokens.max(regions), 1, batch]);
    let stream = graph.input_f32([config.hidden_size, regions * batch, 1, 1]);
    let text_keys = masked.text.then_some(text_mask);
    let visual_keys = masked.visual.then_some(visual_mask);

    let encoder = Encoder { ops: Lowering { graph, config, batch }, wanted };
    let mut results = Vec::new();
    let mut language = encoder.text_embedding(words, positions, token_types);
    let mut vision = stream;
    let layers = config.l_layers + config.x_layers;
    for n in 0..config.l_layers {
        let rows = encoder.rows_of_layer(n, layers);
        let block = encoder.block(&format!("blk.{n}"), language, text_keys, rows);
        language = block.stream;
        encoder.collect(&mut results, Output::LanguageAttentions(n), block.probabilities);
        encoder.collect(&mut results, Output::LanguageHiddenStates(n), language);
    }
    for n in 0..config.x_layers {
        let rows = encoder.rows_of_layer(config.l_layers + n, layers);
        let cross = encoder.cross_layer(n, language, vision, text_keys, visual_keys, rows);
        (language, vision) = (cross.language, cross.vision);
        encoder.collect(&mut results, Output::CrossEncoderAttentions(n), cross.probabilities);
        encoder.collect(&mut results, Output::LanguageHiddenStates(config.l_layers + n), language);
        encoder.collect(&mut results, Output::VisionHiddenStates(config.r_layers + n), vision);
    }
    encoder.heads(&mut results, language, vision);
    for (_, tensor) in &results {
        graph.keep(*tensor);
    }
    QuestionStage { words, token_types, positions, text_mask, visual_mask, stream, results }
}

/// Which rows of a layer's output anybody reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    All,
    /// The first token of every batch element, which is all that the pooler reads.
    First,
}

struct Block<'g> {
    stream: Tensor<'g>,
    probabilities: Tensor<'g>,
}

struct CrossLayer<'g> {
    language: Tensor<'g>,
    vision: Tensor<'g>,
    probabilities: Tensor<'g>,
}

struct Encoder<'a, 'g> {
    ops: Lowering<'a, 'g>,
    wanted: &'a [Output],
}

impl<'g> Encoder<'_, 'g> {
    fn collect(&self, results: &mut Results<'g>, output: Output, tensor: Tensor<'g>) {
        if self.wanted.contains(&output) {
            results.push((output, tensor));
        }
    }

    /// All rows, unless the layer is the last one and only the pooled output is made of it.
    fn rows_of_layer(&self, layer: usize, layers: usize) -> Rows {
        let reads_all = |output: &Output| match output {
            Output::LanguageOutput | Output::PredictionLogits => true,
            Output::LanguageHiddenStates(n) | Output::LanguageAttentions(n) => *n == layer,
            _ => false,
        };
        if layer + 1 < layers || self.wanted.iter().any(reads_all) { Rows::All } else { Rows::First }
    }

    /// Words, positions and token types, added and normed: `[hidden, tokens · batch]`.
    fn text_embedding(&self, words: Words<'g>, positions: Tensor<'g>, token_types: Tensor<'g>) -> Tensor<'g> {
        let graph = self.ops.graph;
        let words = match words {
            Words::Ids(ids) => graph.get_rows(graph.weight("token_embd.weight"), ids),
            Words::Embeddings(embeddings) => embeddings,
        };
        let positions = graph.get_rows(graph.weight("position_embd.weight"), positions);
        let token_types = graph.get_rows(graph.weight("token_types.weight"), token_types);
        self.ops.layer_norm("token_embd_norm", graph.add(graph.add(words, positions), token_types))
    }

    /// A BERT layer: self-attention and feed-forward, each with residual and layer norm.
    fn block(&self, name: &str, x: Tensor<'g>, mask: Option<Tensor<'g>>, rows: Rows) -> Block<'g> {
        let (residual, attend) = match rows {
            Rows::All => (x, Attend::Within(x)),
            Rows::First => {
                let first = self.ops.first_rows(x);
                (first, Attend::Across { queries: first, context: x })
            }
        };
        let attention = self.ops.attention(&format!("{name}.attn_qkv"), attend, mask);
        let attended = self.project(&format!("{name}.attn_output"), attention.output, residual);
        let inner = self.ops.hidden_act(self.ops.linear(&format!("{name}.ffn_up"), attended));
        let down = self.ops.linear(&format!("{name}.ffn_down"), inner);
        let stream =
            self.ops.layer_norm(&format!("{name}.layer_output_norm"), self.ops.graph.add(down, attended));
        Block { stream, probabilities: attention.probabilities }
    }

    /// The output projection of an attention, residual and layer norm.
    fn project(&self, name: &str, attended: Tensor<'g>, residual: Tensor<'g>) -> Tensor<'g> {
        let projected = self.ops.graph.add(self.ops.linear(name, attended), residual);
        self.ops.layer_norm(&format!("{name}_norm"), projected)
    }

    /// A cross layer: both streams attend to the other's *input* with the same weights, then each to itself.
    fn cross_layer(
        &self,
        n: usize,
        language: Tensor<'g>,
        vision: Tensor<'g>,
        text_keys: Option<Tensor<'g>>,
        visual_keys: Option<Tensor<'g>>,
        rows: Rows,
    ) -> CrossLayer<'g> {
        let (qkv, output) = (format!("x.blk.{n}.cross_attn_qkv"), format!("x.blk.{n}.cross_attn_output"));
        let across = |queries, context, mask| {
            let attention = self.ops.attention(&qkv, Attend::Across { queries, context }, mask);
            (self.project(&output, attention.output, queries), attention.probabilities)
        };
        let (seen, probabilities) = across(language, vision, visual_keys);
        let (told, _) = across(vision, language, text_keys);
        CrossLayer {
            language: self.block(&format!("x.blk.{n}.l"), seen, text_keys, rows).stream,
            vision: self.block(&format!("x.blk.{n}.v"), told, visual_keys, Rows::All).stream,
            probabilities,
        }
    }

    /// Everything after the encoders. What nobody wants is described here but never becomes part of the graph.
    fn heads(&self, results: &mut Results<'g>, language: Tensor<'g>, vision: Tensor<'g>) {
        let (ops, graph) = (self.ops, self.ops.graph);
        let wants = |output| self.wanted.contains(&output);
        self.collect(results, Output::LanguageOutput, language);
        self.collect(results, Output::VisionOutput, vision);

        let pooled = graph.tanh(ops.linear("pooler", ops.first_rows(language)));
        self.collect(results, Output::PooledOutput, pooled);
        if wants(Output::QuestionAnsweringScore) {
            // Exact GELU whatever the configuration's activation is.
            let inner = graph.gelu_erf(ops.linear("cls.answer.0", self.side_by_side(pooled)));
            let scores = ops.linear("cls.answer.1", ops.layer_norm("cls.answer.norm", inner));
            results.push((Output::QuestionAnsweringScore, scores));
        }
        if wants(Output::CrossRelationshipScore) {
            results.push((Output::CrossRelationshipScore, ops.linear("cls.match", pooled)));
        }
        if wants(Output::PredictionLogits) {
            let transformed = self.transform("cls.mlm", language);
            let product = ops.product(graph.weight("token_embd.weight"), transformed);
            let logits = graph.add(product, graph.weight("cls.mlm.output.bias"));
            results.push((Output::PredictionLogits, logits));
        }
        let parts = [
            (Output::VisualObjScore, "cls.object.label"),
            (Output::VisualAttrScore, "cls.object.attribute"),
            (Output::VisualFeatScore, "cls.object.feature"),
        ];
        if parts.iter().any(|(output, _)| wants(*output)) {
            let transformed = self.transform("cls.object", vision);
            for (output, name) in parts.into_iter().filter(|(output, _)| wants(*output)) {
                results.push((output, ops.linear(name, transformed)));
            }
        }
    }

    /// The pooled outputs of the images that one answer is about, in one row: `[hidden, batch]` →
    /// `[images · hidden, batch / images]`.
    fn side_by_side(&self, pooled: Tensor<'g>) -> Tensor<'g> {
        let images = self.ops.config.head.images();
        let [hidden, batch, ..] = pooled.dims();
        if images == 1 {
            return pooled;
        }
        self.ops.graph.reshape(pooled, [images * hidden, batch / images, 1, 1])
    }

    /// The transform of the masked-language and object heads.
    fn transform(&self, name: &str, x: Tensor<'g>) -> Tensor<'g> {
        let inner = self.ops.hidden_act(self.ops.linear(&format!("{name}.transform"), x));
        self.ops.layer_norm(&format!("{name}.norm"), inner)
    }
}

/// A bound on the operations and inputs of either stage.
pub(crate) fn node_limit(config: &Config) -> usize {
    // A self-attention takes up to 36 and a feed-forward block with gelu_new 21; a cross layer has two such pairs and two
    // attentions more; embeddings and heads are described even where nobody wants them.
    let blocks = config.l_layers + config.r_layers + 4 * config.x_layers;
    64 * blocks + 256
}
