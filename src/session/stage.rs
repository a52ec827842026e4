//! The two stages of a run in the session's memory: planned once for the largest shapes, then built, bound, filled and
//! computed for the shape at hand.

use super::SessionOptions;
use super::inputs::{ImageInput, QuestionInput, Text};
use crate::Error;
use crate::ggml::{AlignedBuffer, BoundGraph, Graph, GraphMemory, MemoryPlan, Region, Tensor, ThreadPool};
use crate::model::{Masked, Model, Output, Shape, Words, image_stage, question_stage};

/// Where everything lies in a session's memory:
///
/// ```text
/// │ inputs and results of the image stage │ of the question stage │ scratch of whichever runs │
/// ```
pub(super) struct Plans {
    image: MemoryPlan,
    ids: MemoryPlan,
    embeddings: Option<MemoryPlan>,
    work_bytes: usize,
    outputs: Vec<Output>,
    /// Whether runs keep what their matrices are multiplied with.
    observed: bool,
}

/// The memory and threads that a stage runs with.
pub(super) struct StageMemory<'s> {
    pub graph: &'s mut GraphMemory,
    pub memory: &'s mut AlignedBuffer,
    pub work: &'s mut AlignedBuffer,
    pub pool: &'s mut ThreadPool,
}

/// Where a stage has left what was asked for.
#[derive(Default)]
pub(super) struct Results {
    pub outputs: Vec<(Output, Region)>,
    /// What each matrix was multiplied with, as rows of that width, in a session that observes it.
    pub factors: Vec<(String, usize, Region)>,
}

impl Plans {
    pub fn new(
        model: &Model,
        options: &SessionOptions,
        observed: bool,
        memory: &mut GraphMemory,
        pool: &ThreadPool,
    ) -> Self {
        let config = model.config();
        // A head that reads several images at once only knows whole batches.
        let batch = options.max_batch.next_multiple_of(config.head.images());
        let shape = Shape { batch, tokens: options.max_tokens, regions: options.max_regions };
        let masked = Masked { text: true, visual: true };
        let mut work_bytes = 0;
        let mut plan = |build: &dyn Fn(&mut Graph<'_>)| {
            let mut graph = Graph::new(memory, model.weights());
            build(&mut graph);
            if observed {
                graph.keep_factors();
            }
            work_bytes = work_bytes.max(graph.work_bytes(pool));
            graph.plan()
        };
        let outputs = options.outputs.clone();
        let image = plan(&|graph| drop(image_stage(graph, config, shape, masked, &outputs)));
        let ids = plan(&|graph| drop(question_stage(graph, config, shape, masked, &outputs, false)));
        let embeddings = options
            .inputs_embeds
            .then(|| plan(&|graph| drop(question_stage(graph, config, shape, masked, &outputs, true))));
        Plans { image, ids, embeddings, work_bytes, outputs, observed }
    }

    /// Bytes of memory for both stages.
    pub fn memory_bytes(&self) -> usize {
        let scratch = self.all().map(MemoryPlan::scratch_bytes).max().unwrap_or(0);
        self.scratch_start() + scratch
    }

    /// Bytes of work memory, which holds nothing between two operations.
    pub fn work_bytes(&self) -> usize {
        self.work_bytes
    }

    fn all(&self) -> impl Iterator<Item = &MemoryPlan> {
        [&self.image, &self.ids].into_iter().chain(&self.embeddings)
    }

    fn question_start(&self) -> usize {
        self.image.kept_bytes()
    }

    fn scratch_start(&self) -> usize {
        let question = self.all().skip(1).map(MemoryPlan::kept_bytes).max();
        self.question_start() + question.unwrap_or(0)
    }

    fn factors<'g>(&self, graph: &mut Graph<'g>) -> Vec<(String, Tensor<'g>)> {
        if self.observed { graph.keep_factors() } else { Vec::new() }
    }

    /// Encodes images. Returns the vision stream, which the next stage reads, and the results.
    pub fn run_image(
        &self,
        model: &Model,
        stage: StageMemory<'_>,
        shape: Shape,
        input: &ImageInput<'_>,
        mask: Option<&[f32]>,
    ) -> Result<(Region, Results), Error> {
        let config = model.config();
        let mut graph = Graph::new(stage.graph, model.weights());
        let masked = Masked { visual: mask.is_some(), text: false };
        let nodes = image_stage(&mut graph, config, shape, masked, &self.outputs);
        let factors = self.factors(&mut graph);
        let mut bound = graph.bind(&self.image, stage.memory, 0, self.scratch_start());

        fill_rows(&mut bound, nodes.features, input.features, input.regions, shape.regions);
        fill_rows(&mut bound, nodes.boxes, input.boxes, input.regions, shape.regions);
        if let Some(mask) = mask {
            fill_mask(&mut bound, nodes.mask, mask, shape.regions);
        }
        bound.compute(stage.pool, stage.work)?;
        Ok((bound.region(nodes.stream), regions_of(&bound, nodes.results, factors)))
    }

    /// Answers questions about images that [`Plans::run_image`] has encoded. `masks` are of tokens and of regions.
    pub fn run_question(
        &self,
        model: &Model,
        stage: StageMemory<'_>,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: (Option<&[f32]>, Option<&[f32]>),
        image: Region,
    ) -> Result<Results, Error> {
        let own_embeddings = matches!(input.text, Text::Embeddings(_));
        let plan = match &self.embeddings {
            Some(plan) if own_embeddings => plan,
            _ => &self.ids,
        };
        let mut graph = Graph::new(stage.graph, model.weights());
        let masked = Masked { text: masks.0.is_some(), visual: masks.1.is_some() };
        let nodes = question_stage(&mut graph, model.config(), shape, masked, &self.outputs, own_embeddings);
        let factors = self.factors(&mut graph);
        let mut bound = graph.bind(plan, stage.memory, self.question_start(), self.scratch_start());

        match (nodes.words, input.text) {
            (Words::Ids(tensor), Text::Ids(ids)) => {
                fill_indices(&mut bound, tensor, shape, |element, token| ids[element * input.tokens + token]);
            }
            (Words::Embeddings(tensor), Text::Embeddings(values)) => {
                fill_rows(&mut bound, tensor, values, input.tokens, shape.tokens);
            }
            _ => unreachable!("the stage was built for this kind of words"),
        }
        fill_indices(&mut bound, nodes.token_types, shape, |element, token| {
            input.token_types.map_or(0, |types| types[element * input.tokens + token])
        });
        fill_indices(&mut bound, nodes.positions, shape, |_, token| token as u32);
        if let Some(mask) = masks.0 {
            fill_mask(&mut bound, nodes.text_mask, mask, shape.tokens);
        }
        if let Some(mask) = masks.1 {
            fill_mask(&mut bound, nodes.visual_mask, mask, shape.regions);
        }
        bound.copy(image, nodes.stream);
        bound.compute(stage.pool, stage.work)?;
        Ok(regions_of(&bound, nodes.results, factors))
    }
}

fn regions_of<'g>(
    bound: &BoundGraph<'g, '_>,
    results: Vec<(Output, Tensor<'g>)>,
    factors: Vec<(String, Tensor<'g>)>,
) -> Results {
    let outputs = results.into_iter().map(|(output, tensor)| (output, bound.region(tensor)));
    let factors = factors.into_iter().map(|(name, tensor)| (name, tensor.dims()[0], bound.region(tensor)));
    Results { outputs: outputs.collect(), factors: factors.collect() }
}

/// Copies the first `used` of every `given` rows.
fn fill_rows<'g>(
    bound: &mut BoundGraph<'g, '_>,
    input: Tensor<'g>,
    values: &[f32],
    given: usize,
    used: usize,
) {
    let [width, ..] = input.dims();
    let target = bound.f32s_mut(input).chunks_exact_mut(used * width);
    for (target, source) in target.zip(values.chunks_exact(given * width)) {
        target.copy_from_slice(&source[..used * width]);
    }
}

fn fill_indices<'g>(
    bound: &mut BoundGraph<'g, '_>,
    input: Tensor<'g>,
    shape: Shape,
    index: impl Fn(usize, usize) -> u32,
) {
    let count = shape.batch * shape.tokens;
    bound.set_indices(input, (0..count).map(|n| index(n / shape.tokens, n % shape.tokens)));
}

/// Writes what is added to the scores of every query: 0 for a key with mask 1, f32's least for one with mask 0. A row
/// of the least everywhere becomes uniform, as in transformers.
fn fill_mask<'g>(bound: &mut BoundGraph<'g, '_>, input: Tensor<'g>, mask: &[f32], keys: usize) {
    let [_, queries, ..] = input.dims();
    let rows = bound.f32s_mut(input).chunks_exact_mut(keys * queries);
    for (rows, mask) in rows.zip(mask.chunks_exact(keys)) {
        for row in rows.chunks_exact_mut(keys) {
            for (score, keep) in row.iter_mut().zip(mask) {
                *score = (1.0 - keep) * f32::MIN;
            }
        }
    }
}
