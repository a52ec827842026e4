//! The stages as graphs of ggml operations: planned once for the largest shapes, then built, bound, filled and computed for
//! the shape at hand.

use super::{Mask, Masks, copy_rows, fill_mask};
use crate::Error;
use crate::ggml::{
    ALIGNMENT, AlignedBuffer, BoundGraph, Graph, GraphMemory, MemoryPlan, Region, Tensor, Tensors, ThreadPool,
};
use crate::model::{
    Config, Masked, Model, Output, Shape, WordKind, Words, image_stage, node_limit, question_stage,
};
use crate::session::inputs::{ImageInput, QuestionInput, Text};
use crate::session::stop::Stop;
use crate::session::{SessionOptions, limit_bytes};

/// Planned graphs.
pub(in crate::session) struct StockPlan {
    plans: Plans,
    /// Bytes of what describes a graph, of the tensors, and of ggml's own work memory.
    parts: [usize; 3],
}

impl StockPlan {
    pub fn new(model: &Model, options: &SessionOptions, observed: bool) -> Result<Self, Error> {
        if options.cpus.is_some() {
            return Err(Error::Input {
                name: "cpus".to_owned(),
                expected: "none with ggml's operations, whose threads run anywhere".to_owned(),
                found: "a list of CPUs".to_owned(),
            });
        }
        crate::ggml::check_threads(options.threads)?;
        let nodes = node_limit(model.config());
        let bytes = GraphMemory::bytes(nodes);
        let room = AlignedBuffer::new(bytes, "the description of the graph")?;
        let mut graph_memory = GraphMemory::new(nodes, room)?;
        let plans = Plans::new(model, options, observed, &mut graph_memory)?;
        let (memory, work) = (plans.memory_bytes(), plans.work_bytes());
        limit_bytes(model, memory.saturating_add(work))?;
        Ok(StockPlan { plans, parts: [bytes, memory, work] })
    }

    /// Bytes of the session's block.
    pub fn session_bytes(&self) -> usize {
        self.parts.iter().map(|bytes| bytes.next_multiple_of(ALIGNMENT)).sum()
    }
}

/// Plans with the memory and threads to run them.
pub(in crate::session) struct StockEngine {
    model: Model,
    room: Room,
    plans: Plans,
    /// The vision stream of the images that were encoded last, and their mask, without what is padding.
    stream: Option<Region>,
    visual_mask: Vec<f32>,
    image: Results,
    question: Results,
}

/// Where a stage has left what was asked for.
#[derive(Default)]
struct Results {
    outputs: Vec<(Output, Region)>,
    /// What each matrix was multiplied with, as rows of that width, in a session that observes it.
    factors: Vec<(String, usize, Region)>,
}

impl StockEngine {
    pub fn new(
        model: &Model,
        options: &SessionOptions,
        plan: StockPlan,
        memory: AlignedBuffer,
    ) -> Result<Self, Error> {
        let StockPlan { plans, parts } = plan;
        model.tensors()?;
        if options.lock_memory {
            model.lock_file()?;
        } else if options.prefault {
            model.touch_file();
        }
        let pool = ThreadPool::new(options.threads)?;
        let [graph, memory, work] = memory.cut(parts);
        Ok(StockEngine {
            model: model.clone(),
            room: Room { graph: GraphMemory::new(node_limit(model.config()), graph)?, memory, work, pool },
            plans,
            stream: None,
            visual_mask: Vec::new(),
            image: Results::default(),
            question: Results::default(),
        })
    }

    pub fn memory(&self) -> &AlignedBuffer {
        &self.room.memory
    }

    /// Where an output of the last run lies.
    pub fn region(&self, output: Output) -> Option<Region> {
        let results = self.image.outputs.iter().chain(&self.question.outputs);
        results.into_iter().find(|(known, _)| *known == output).map(|(_, region)| *region)
    }

    pub fn factors(&self) -> [&[(String, usize, Region)]; 2] {
        [&self.image.factors, &self.question.factors]
    }

    pub fn run_image(
        &mut self,
        shape: Shape,
        input: &ImageInput<'_>,
        mask: Option<Mask<'_>>,
        stop: &Stop,
    ) -> Result<(), Error> {
        self.stream = None;
        (self.image, self.question) = Default::default();
        let stage = self.room.stage(self.model.tensors()?, stop);
        let (stream, results) = self.plans.run_image(self.model.config(), stage, shape, input, mask)?;
        self.stream = Some(stream);
        self.image = results;
        self.visual_mask.clear();
        let rows = mask
            .into_iter()
            .flat_map(|mask| mask.values.chunks_exact(mask.given).map(move |row| &row[..mask.used]));
        rows.for_each(|row| self.visual_mask.extend_from_slice(row));
        Ok(())
    }

    pub fn run_question(
        &mut self,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: Masks<'_>,
        stop: &Stop,
    ) -> Result<(), Error> {
        let stream = self.stream.ok_or(Error::NoImage)?;
        self.question = Results::default();
        let visual = Mask { values: &self.visual_mask, given: shape.regions, used: shape.regions };
        let masks = StageMasks { text: masks.text, visual: masks.visual.then_some(visual) };
        let stage = self.room.stage(self.model.tensors()?, stop);
        self.question = self.plans.run_question(self.model.config(), stage, shape, input, masks, stream)?;
        Ok(())
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

/// The memory and threads of a session.
struct Room {
    graph: GraphMemory,
    memory: AlignedBuffer,
    work: AlignedBuffer,
    pool: ThreadPool,
}

impl Room {
    /// What a stage runs with.
    fn stage<'s>(&'s mut self, tensors: &'s Tensors, stop: &'s Stop) -> StageMemory<'s> {
        let Room { graph, memory, work, pool } = self;
        StageMemory { tensors, graph, memory, work, pool, stop }
    }
}

/// The memory and threads that a stage runs with.
struct StageMemory<'s> {
    tensors: &'s Tensors,
    graph: &'s mut GraphMemory,
    memory: &'s mut AlignedBuffer,
    work: &'s mut AlignedBuffer,
    pool: &'s mut ThreadPool,
    stop: &'s Stop,
}

/// The masks of a question's keys, if any is masked.
#[derive(Clone, Copy)]
struct StageMasks<'m> {
    text: Option<Mask<'m>>,
    visual: Option<Mask<'m>>,
}

impl Plans {
    fn new(
        model: &Model,
        options: &SessionOptions,
        observed: bool,
        memory: &mut GraphMemory,
    ) -> Result<Self, Error> {
        let config = model.config();
        // A head that reads several images at once only knows whole batches.
        let batch = options.max_batch.next_multiple_of(config.head.images());
        let shape = Shape { batch, tokens: options.max_tokens, regions: options.max_regions };
        let masked = Masked { text: true, visual: true };
        let mut work_bytes = 0;
        // Shapes are enough, and the file may not be in memory yet.
        let tensors = &Tensors::new(model.weights())?;
        let mut plan = |build: &dyn Fn(&mut Graph<'_>)| -> Result<MemoryPlan, Error> {
            let mut graph = Graph::new(memory, tensors);
            build(&mut graph);
            if observed {
                graph.keep_factors();
            }
            work_bytes = work_bytes.max(graph.work_bytes(options.threads)?);
            Ok(graph.plan())
        };
        let outputs = options.outputs.clone();
        let image = plan(&|graph| drop(image_stage(graph, config, shape, masked, &outputs)))?;
        let ids = plan(&|graph| drop(question_stage(graph, config, shape, masked, &outputs, WordKind::Ids)))?;
        let embeddings = options
            .inputs_embeds
            .then(|| {
                plan(&|graph| {
                    drop(question_stage(graph, config, shape, masked, &outputs, WordKind::Embeddings))
                })
            })
            .transpose()?;
        Ok(Plans { image, ids, embeddings, work_bytes, outputs, observed })
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
        config: &Config,
        stage: StageMemory<'_>,
        shape: Shape,
        input: &ImageInput<'_>,
        mask: Option<Mask<'_>>,
    ) -> Result<(Region, Results), Error> {
        let mut graph = Graph::new(stage.graph, stage.tensors);
        let masked = Masked { visual: mask.is_some(), text: false };
        let nodes = image_stage(&mut graph, config, shape, masked, &self.outputs);
        let factors = self.factors(&mut graph);
        let mut bound = graph.bind(&self.image, stage.memory, 0, self.scratch_start());

        fill_rows(&mut bound, nodes.features, input.features, input.regions, shape.regions);
        fill_rows(&mut bound, nodes.boxes, input.boxes, input.regions, shape.regions);
        if let Some(mask) = mask {
            fill_mask(bound.f32s_mut(nodes.mask), mask);
        }
        compute(&mut bound, stage.pool, stage.work, stage.stop)?;
        Ok((bound.region(nodes.stream), regions_of(&bound, nodes.results, factors)))
    }

    /// Answers questions about images that [`Plans::run_image`] has encoded.
    fn run_question(
        &self,
        config: &Config,
        stage: StageMemory<'_>,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: StageMasks<'_>,
        image: Region,
    ) -> Result<Results, Error> {
        let (kind, plan) = match (&self.embeddings, input.text) {
            (Some(plan), Text::Embeddings(_)) => (WordKind::Embeddings, plan),
            _ => (WordKind::Ids, &self.ids),
        };
        let mut graph = Graph::new(stage.graph, stage.tensors);
        let masked = Masked { text: masks.text.is_some(), visual: masks.visual.is_some() };
        let nodes = question_stage(&mut graph, config, shape, masked, &self.outputs, kind);
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
            fill_mask(bound.f32s_mut(nodes.text_mask), mask);
        }
        if let Some(mask) = masks.visual {
            fill_mask(bound.f32s_mut(nodes.visual_mask), mask);
        }
        bound.copy(image, nodes.stream);
        compute(&mut bound, stage.pool, stage.work, stage.stop)?;
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

/// Runs the operations, unless somebody gives up.
fn compute(
    bound: &mut BoundGraph<'_, '_>,
    pool: &mut ThreadPool,
    work: &mut AlignedBuffer,
    stop: &Stop,
) -> Result<(), Error> {
    match bound.compute(pool, work, &|| stop.is_wanted())? {
        true => Ok(()),
        false => Err(stop.error()),
    }
}
