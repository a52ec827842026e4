//! What LXMERT computes, in two stages: the image alone, then the question over it.
//!
//! The object-relationship encoder reads nothing of the question, so its result is kept and serves every further
//! question about the same image. Formulas: Tan & Bansal 2019, "LXMERT", section 2; `modeling_lxmert.py` of transformers.

use super::operations::{Attend, Attended, Keys, Operations};
use super::{Config, Output};
use crate::kernels::Activation;

/// The sizes of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub batch: usize,
    pub tokens: usize,
    pub regions: usize,
}

/// The results that somebody asked for.
pub(super) type Results<S> = Vec<(Output, S)>;

/// The first stage: embedding and object-relationship encoder of the regions. Returns the vision stream, `[hidden,
/// regions · batch]`, and the results.
pub(super) fn image_stage<O: Operations>(
    ops: &mut O,
    config: &Config,
    wanted: &[Output],
) -> (O::Stream, Results<O::Stream>) {
    let mut encoder = Encoder { ops, config, wanted, results: Vec::new() };
    let mut stream = encoder.region_embedding();
    for n in 0..config.r_layers {
        let block = encoder.block(&format!("v.blk.{n}"), stream, Keys::Regions, Rows::All);
        stream = block.output;
        encoder.collect(Output::VisionAttentions(n), block.probabilities);
        encoder.collect(Output::VisionHiddenStates(n), stream);
    }
    (stream, encoder.results)
}

/// The second stage: language encoder, cross-modality encoder and heads, over the first stage's vision stream.
pub(super) fn question_stage<O: Operations>(
    ops: &mut O,
    config: &Config,
    wanted: &[Output],
    stream: O::Stream,
) -> Results<O::Stream> {
    let mut encoder = Encoder { ops, config, wanted, results: Vec::new() };
    let mut language = encoder.text_embedding();
    let mut vision = stream;
    let layers = config.l_layers + config.x_layers;
    for n in 0..config.l_layers {
        let rows = encoder.rows_of_layer(n, layers);
        let block = encoder.block(&format!("blk.{n}"), language, Keys::Tokens, rows);
        language = block.output;
        encoder.collect(Output::LanguageAttentions(n), block.probabilities);
        encoder.collect(Output::LanguageHiddenStates(n), language);
    }
    for n in 0..config.x_layers {
        let rows = encoder.rows_of_layer(config.l_layers + n, layers);
        let cross = encoder.cross_layer(n, language, vision, rows);
        (language, vision) = (cross.language, cross.vision);
        encoder.collect(Output::CrossEncoderAttentions(n), cross.probabilities);
        encoder.collect(Output::LanguageHiddenStates(config.l_layers + n), language);
        encoder.collect(Output::VisionHiddenStates(config.r_layers + n), vision);
    }
    encoder.heads(language, vision);
    encoder.results
}

/// Which rows of a layer's output anybody reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    All,
    /// The first token of every batch element, which is all that the pooler reads.
    First,
}

struct CrossLayer<S> {
    language: S,
    vision: S,
    probabilities: S,
}

struct Encoder<'a, O: Operations> {
    ops: &'a mut O,
    config: &'a Config,
    wanted: &'a [Output],
    results: Results<O::Stream>,
}

impl<O: Operations> Encoder<'_, O> {
    fn collect(&mut self, output: Output, stream: O::Stream) {
        if self.wants(output) {
            self.results.push((output, stream));
        }
    }

    fn wants(&self, output: Output) -> bool {
        self.wanted.contains(&output)
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

    /// Features and boxes, each projected and normed, and their mean: `[hidden, regions · batch]`.
    fn region_embedding(&mut self) -> O::Stream {
        let (features, boxes) = (self.ops.features(), self.ops.boxes());
        let mut embed = |name: &str, input| {
            let projected = self.ops.linear(name, input, Activation::None);
            self.ops.layer_norm(&format!("{name}_norm"), projected)
        };
        let (features, boxes) = (embed("v.feat_embd", features), embed("v.pos_embd", boxes));
        self.ops.mean(features, boxes)
    }

    /// Words, positions and token types, added and normed: `[hidden, tokens · batch]`.
    fn text_embedding(&mut self) -> O::Stream {
        let sum = self.ops.text();
        self.ops.layer_norm("token_embd_norm", sum)
    }

    /// A BERT layer: self-attention and feed-forward, each with residual and layer norm.
    fn block(&mut self, name: &str, x: O::Stream, keys: Keys, rows: Rows) -> Attended<O::Stream> {
        let (residual, attend) = match rows {
            Rows::All => (x, Attend::Within(x)),
            Rows::First => {
                let first = self.ops.first_rows(x);
                (first, Attend::Across { queries: first, context: x })
            }
        };
        let attention = self.ops.attention(&format!("{name}.attn_qkv"), attend, keys);
        let attended = self.project(&format!("{name}.attn_output"), attention.output, residual);
        let inner = self.ops.linear(&format!("{name}.ffn_up"), attended, self.config.hidden_act.into());
        let down = self.ops.linear_add(&format!("{name}.ffn_down"), inner, attended);
        let output = self.ops.layer_norm(&format!("{name}.layer_output_norm"), down);
        Attended { output, probabilities: attention.probabilities }
    }

    /// The output projection of an attention, residual and layer norm.
    fn project(&mut self, name: &str, attended: O::Stream, residual: O::Stream) -> O::Stream {
        let projected = self.ops.linear_add(name, attended, residual);
        self.ops.layer_norm(&format!("{name}_norm"), projected)
    }

    /// A cross layer: both streams attend to the other's *input* with the same weights, then each to itself.
    fn cross_layer(
        &mut self,
        n: usize,
        language: O::Stream,
        vision: O::Stream,
        rows: Rows,
    ) -> CrossLayer<O::Stream> {
        let (qkv, output) = (format!("x.blk.{n}.cross_attn_qkv"), format!("x.blk.{n}.cross_attn_output"));
        let mut across = |queries, context, keys| {
            let attention = self.ops.attention(&qkv, Attend::Across { queries, context }, keys);
            (self.project(&output, attention.output, queries), attention.probabilities)
        };
        let (seen, probabilities) = across(language, vision, Keys::Regions);
        let (told, _) = across(vision, language, Keys::Tokens);
        CrossLayer {
            language: self.block(&format!("x.blk.{n}.l"), seen, Keys::Tokens, rows).output,
            vision: self.block(&format!("x.blk.{n}.v"), told, Keys::Regions, Rows::All).output,
            probabilities,
        }
    }

    /// Everything after the encoders. What nobody wants is described here but never computed.
    fn heads(&mut self, language: O::Stream, vision: O::Stream) {
        self.collect(Output::LanguageOutput, language);
        self.collect(Output::VisionOutput, vision);

        let first = self.ops.first_rows(language);
        let pooled = self.ops.linear("pooler", first, Activation::Tanh);
        self.collect(Output::PooledOutput, pooled);
        if self.wants(Output::QuestionAnsweringScore) {
            let images = self.config.head.images();
            let pooled = if images > 1 { self.ops.side_by_side(pooled, images) } else { pooled };
            // Exact GELU whatever the configuration's activation is.
            let inner = self.ops.linear("cls.answer.0", pooled, Activation::Gelu);
            let normed = self.ops.layer_norm("cls.answer.norm", inner);
            let scores = self.ops.linear("cls.answer.1", normed, Activation::None);
            self.results.push((Output::QuestionAnsweringScore, scores));
        }
        if self.wants(Output::CrossRelationshipScore) {
            let scores = self.ops.linear("cls.match", pooled, Activation::None);
            self.results.push((Output::CrossRelationshipScore, scores));
        }
        if self.wants(Output::PredictionLogits) {
            let transformed = self.transform("cls.mlm", language);
            let logits = self.ops.linear_of("token_embd.weight", "cls.mlm.output.bias", transformed);
            self.results.push((Output::PredictionLogits, logits));
        }
        let parts = [
            (Output::VisualObjScore, "cls.object.label"),
            (Output::VisualAttrScore, "cls.object.attribute"),
            (Output::VisualFeatScore, "cls.object.feature"),
        ];
        if parts.iter().any(|(output, _)| self.wants(*output)) {
            let transformed = self.transform("cls.object", vision);
            for (output, name) in parts {
                if self.wants(output) {
                    let scores = self.ops.linear(name, transformed, Activation::None);
                    self.results.push((output, scores));
                }
            }
        }
    }

    /// The transform of the masked-language and object heads.
    fn transform(&mut self, name: &str, x: O::Stream) -> O::Stream {
        let inner = self.ops.linear(&format!("{name}.transform"), x, self.config.hidden_act.into());
        self.ops.layer_norm(&format!("{name}.norm"), inner)
    }
}
