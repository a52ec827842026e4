//! The model lowered to the project's own kernels.

use std::collections::HashSet;

use super::graph::{self, Results};
use super::operations::{Attend, Attended, Keys, Operations};
use super::{Config, Model, Output, Packing, SMALL_MATRIX};
use crate::Error;
use crate::gguf::TensorType;
use crate::kernels::{
    Activation, Element, Kernels, Layout, Linear, Placing, Plan, Recorder, Rows, Sizes, StageName, Stream,
};
use crate::weights::{Stored, Weights};

/// A model as a planned program, and where a run of it leaves its results.
pub(crate) struct FusedModel {
    pub plan: Plan,
    /// The buffers of the results of either stage.
    pub image: Results<usize>,
    pub question: Results<usize>,
}

impl FusedModel {
    /// Plans the model for sizes up to `largest`, with matrices that stand in memory, all or, if the others are `streamed`, those.
    ///
    /// # Errors
    /// [`Error::Packed`] for a file that is packed in elements which the kernels do not read.
    pub fn plan(
        model: &Model,
        kernels: Kernels,
        largest: Sizes,
        wanted: &[Output],
        threads: usize,
        streamed: Option<&HashSet<String>>,
    ) -> Result<Self, Error> {
        let config = model.config();
        let packing = model.packing();
        if packing.is_some_and(|packing| packing.has(Element::Bf16)) && !kernels.has_bf16() {
            return Err(Packing::refusal(
                "in bf16, which the kernels for this CPU do not multiply",
                "with --pack avx2 or neon, or without --pack",
            ));
        }
        let recorder = Recorder::new(kernels, config.visual_feat_dim, config.visual_pos_dim);
        let mut ops = Fused { recorder, config, weights: model.weights(), packing, kernels };
        let (stream, image) = graph::image_stage(&mut ops, config, wanted);
        ops.recorder.begin(StageName::Question);
        let question = graph::question_stage(&mut ops, config, wanted, stream);
        let mut keep = |results: Results<Stream>| {
            results.into_iter().map(|(output, stream)| (output, ops.recorder.keep(stream))).collect()
        };
        let (image, question) = (keep(image), keep(question));
        let source = |name: &str, layout: Layout| model.source(name, layout);
        let stands = |name: &str| streamed.is_some_and(|standing| standing.contains(name));
        let placing = match streamed {
            None => Placing::Standing,
            Some(_) => Placing::Streamed { source: &source, stands: &stands },
        };
        Ok(FusedModel { plan: ops.recorder.plan(largest, threads, &placing), image, question })
    }
}

/// Records operations.
struct Fused<'m> {
    recorder: Recorder,
    config: &'m Config,
    weights: &'m Weights,
    packing: Option<&'m Packing>,
    kernels: Kernels,
}

/// What a matrix of that type is packed in, for a CPU that multiplies bf16 or one that does not.
pub(super) fn element_of(
    matrix: &str,
    inputs: usize,
    outputs: usize,
    tensor_type: TensorType,
    has_bf16: bool,
) -> Element {
    let large = inputs * outputs > SMALL_MATRIX && Element::Int8.fits(inputs);
    match (large, tensor_type.is_quantized()) {
        (true, true) if directly_visible(matrix) => Element::Int8Blocks,
        (true, true) => Element::Int8,
        (true, false) if tensor_type.is_half() && has_bf16 => Element::Bf16,
        _ => Element::F32,
    }
}

impl Fused<'_> {
    /// How a matrix is packed, or is to be.
    fn layout(&self, matrix: &str) -> Layout {
        let packed = self.packing.and_then(|packing| packing.layout(matrix));
        packed.unwrap_or_else(|| {
            let Stored { tensor_type, columns: inputs, rows: outputs, .. } = self.weights.stored(matrix);
            let element = element_of(matrix, inputs, outputs, tensor_type, self.kernels.has_bf16());
            Layout { element, inputs, outputs }
        })
    }

    fn described<'n>(&self, matrix: &'n str, bias: &'n str) -> Linear<'n> {
        let layout = self.layout(matrix);
        Linear { matrix, bias, layout, outputs: None, activation: Activation::None, residual: None }
    }
}

/// Whether the rounding of a matrix shows in the scores at once, with no layer norm after it to average it. These
/// matrices have few rows to multiply with, so that a finer scale costs no time.
fn directly_visible(matrix: &str) -> bool {
    matrix == "pooler.weight" || matrix == "token_embd.weight" || matrix.starts_with("cls.")
}

impl Operations for Fused<'_> {
    type Stream = Stream;

    fn features(&mut self) -> Stream {
        self.recorder.features()
    }

    fn boxes(&mut self) -> Stream {
        self.recorder.boxes()
    }

    fn text(&mut self) -> Stream {
        self.recorder.embed(self.config.hidden_size)
    }

    fn linear(&mut self, name: &str, x: Stream, activation: Activation) -> Stream {
        let (matrix, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let linear = Linear { activation, ..self.described(&matrix, &bias) };
        self.recorder.product(x, linear)
    }

    fn linear_add(&mut self, name: &str, x: Stream, residual: Stream) -> Stream {
        let (matrix, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        let linear = Linear { residual: Some(residual), ..self.described(&matrix, &bias) };
        self.recorder.product(x, linear)
    }

    fn linear_of(&mut self, matrix: &str, bias: &str, x: Stream) -> Stream {
        let linear = self.described(matrix, bias);
        self.recorder.product(x, linear)
    }

    fn layer_norm(&mut self, name: &str, x: Stream) -> Stream {
        self.recorder.norm(name, x)
    }

    fn mean(&mut self, a: Stream, b: Stream) -> Stream {
        self.recorder.mean(a, b)
    }

    fn attention(&mut self, qkv: &str, attend: Attend<Stream>, keys: Keys) -> Attended<Stream> {
        let hidden = self.config.hidden_size;
        let (matrix, bias) = (format!("{qkv}.weight"), format!("{qkv}.bias"));
        let linear = self.described(&matrix, &bias);
        let [q, k, v] = match attend {
            Attend::Within(x) => {
                let all = self.recorder.product(x, linear);
                [0, 1, 2].map(|part| all.columns(part * hidden..(part + 1) * hidden))
            }
            Attend::Across { queries, context } => {
                let q = self.recorder.product(queries, Linear { outputs: Some(0..hidden), ..linear.clone() });
                let both =
                    self.recorder.product(context, Linear { outputs: Some(hidden..3 * hidden), ..linear });
                [q, both.columns(0..hidden), both.columns(hidden..2 * hidden)]
            }
        };
        let keys = match keys {
            Keys::Tokens => Rows::Tokens,
            Keys::Regions => Rows::Regions,
        };
        let heads = self.config.num_attention_heads;
        let (output, probabilities) = self.recorder.attention(qkv, [q, k, v], heads, keys);
        Attended { output, probabilities }
    }

    fn first_rows(&mut self, x: Stream) -> Stream {
        x.first_rows()
    }

    fn side_by_side(&mut self, x: Stream, images: usize) -> Stream {
        x.side_by_side(images)
    }
}
