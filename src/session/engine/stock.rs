//! The stages as graphs of ggml operations: planned once for the largest shapes, then built, bound, filled and computed for
//! the shape at hand.

use super::{Masks, Results, copy_rows, masked_score};
use crate::Error;
use crate::ggml::{AlignedBuffer, BoundGraph, Graph, GraphMemory, MemoryPlan, Region, Tensor, ThreadPool};
use crate::model::{Masked, Model, Output, Shape, Words, image_stage, node_limit, question_stage};
use crate::session::inputs::{ImageInput, QuestionInput, Text};
use crate::session::{MAX_BYTES, SCRATCH, SessionOptions};

/// Plans with the memory and threads to run them.
pub(in crate::session) struct StockEngine {
    pool: ThreadPool,
    graph_memory: GraphMemory,
    memory: AlignedBuffer,
    work: AlignedBuffer,
    plans: Plans,
    /// The vision stream of the images that were encoded last.
    stream: Option<Region>,
}

impl StockEngine {
    pub fn new(model: &Model, options: &SessionOptions, observed: bool) -> Result<Self, Error> {
        if options.cpus.is_some() {
            return Err(Error::Input {
                name: "cpus".to_owned(),
                expected: "none with ggml's operations, whose threads run anywhere".to_owned(),
                found: "a list of CPUs".to_owned(),
            });
        }
        let pool = ThreadPool::new(options.threads)?;
        let mut graph_memory = GraphMemory::new(node_limit(model.config()))?;
        let plans = Plans::new(model, options, observed, &mut graph_memory, &pool);
        let (memory, work) = (plans.memory_bytes(), plans.work_bytes());
        if memory.saturating_add(work) > MAX_BYTES {
            return Err(Error::OutOfMemory { what: SCRATCH, bytes: memory.saturating_add(work) });
        }
        Ok(StockEngine {
            pool,
            graph_memory,
            memory: AlignedBuffer::new(memory, SCRATCH)?,
            work: AlignedBuffer::new(work, SCRATCH)?,
            plans,
            stream: None,
        })
    }

    pub fn scratch_bytes(&self) -> usize {
        self.memory.len() + self.work.len() + self.graph_memory.bytes()
    }

    pub fn memory(&self) -> &AlignedBuffer {
        &self.memory
    }

    pub fn run_image(
        &mut self,
        model: &Model,
        shape: Shape,
        input: &ImageInput<'_>,
        mask: Option<&[f32]>,
    ) -> Result<Results, Error> {
        self.stream = None;
        let (plans, stage) = self.parts();
        let (stream, results) = plans.run_image(model, stage, shape, input, mask)?;
        self.stream = Some(stream);
        Ok(results)
    }

    pub fn run_question(
        &mut self,
        model: &Model,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: Masks<'_>,
    ) -> Result<Results, Error> {
        let stream = self.stream.ok_or(Error::NoImage)?;
        let (plans, stage) = self.parts();
        plans.run_question(model, stage, shape, input, masks, stream)
    }

    fn parts(&mut self) -> (&Plans, StageMemory<'_>) {
        let stage = StageMemory {
            graph: &mut self.graph_memory,
            memory: &mut self.memory,
            work: &mut self.work,
            pool: &mut self.pool,
        };
        (&self.plans, stage)
    }
}

/// Where everything lies in a session's memory:
///
/// ```text
/// │ inputs and results of the image stage │ of the question stage │ scratch of whichever runs │
/// ```
struct Plans {
    image: MemoryPlan,
    ids: MemoryPlan,
    embeddings: Option<MemoryPlan>,
    work_bytes: usize,
    outputs: Vec<Output>,
    /// Whether runs keep what their matrices are multiplied with.
    observed: bool,
}

/// The memory and threads that a stage runs with.
struct StageMemory<'s> {
    graph: &'s mut GraphMemory,
    memory: &'s mut AlignedBuffer,
    work: &'s mut AlignedBuffer,
    pool: &'s mut ThreadPool,
}

impl Plans {
    fn new(
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
    fn memory_bytes(&self) -> usize {
        let scratch = self.all().map(MemoryPlan::scratch_bytes).max().unwrap_or(0);
        self.scratch_start() + scratch
    }

    /// Bytes of work memory, which holds nothing between two operations.
    fn work_bytes(&self) -> usize {
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
    fn run_image(
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

    /// Answers questions about images that [`Plans::run_image`] has encoded.
    fn run_question(
        &self,
        model: &Model,
        stage: StageMemory<'_>,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: Masks<'_>,
        image: Region,
    ) -> Result<Results, Error> {
        let own_embeddings = matches!(input.text, Text::Embeddings(_));
        let plan = match &self.embeddings {
            Some(plan) if own_embeddings => plan,
            _ => &self.ids,
        };
        let mut graph = Graph::new(stage.graph, model.weights());
        let masked = Masked { text: masks.text.is_some(), visual: masks.visual.is_some() };
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
        if let Some(mask) = masks.text {
            fill_mask(&mut bound, nodes.text_mask, mask, shape.tokens);
        }
        if let Some(mask) = masks.visual {
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
    copy_rows(bound.f32s_mut(input), values, width, given, used);
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

/// Writes what is added to the scores of every query.
fn fill_mask<'g>(bound: &mut BoundGraph<'g, '_>, input: Tensor<'g>, mask: &[f32], keys: usize) {
    let [_, queries, ..] = input.dims();
    let rows = bound.f32s_mut(input).chunks_exact_mut(keys * queries);
    for (rows, mask) in rows.zip(mask.chunks_exact(keys)) {
        for row in rows.chunks_exact_mut(keys) {
            for (score, keep) in row.iter_mut().zip(mask) {
                *score = masked_score(*keep);
            }
        }
    }
}
