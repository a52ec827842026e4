//! The stages as graphs of ggml operations on a device beside the CPU.
//!
//! Weights, scratch and the encoded images stay there. A stage's inputs go up in one copy, its results come down in one; a graph is built for
//! the first run of its shape, and used again by all later ones.
//!
//! Where the device lacks an operation, or each is to be timed, ggml's scheduler runs the graphs: it splits them between the device and the
//! CPU, and places what lies between inputs and results. It cannot run a graph twice, so one is built for each run then.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{Mask, Masks, copy_rows, fill_mask};
use crate::Error;
use crate::ggml::{
    ALIGNMENT, AlignedBuffer, Backend, Described, Device, DeviceGraph, DeviceMemory, Graph, GraphMemory,
    MemoryPlan, Places, Region, Scheduler, Tensors, Timed,
};
use crate::kernels::{self, OperationTime};
use crate::model::{Config, Masked, Model, Output, Shape, WordKind, image_stage, node_limit, question_stage};
use crate::session::inputs::{ImageInput, QuestionInput, Text};
use crate::session::stop::Stop;
use crate::session::{SessionOptions, limit_bytes};

/// How many graphs a session keeps: images mostly come in one shape, questions in some lengths.
const IMAGE_GRAPHS: usize = 1;
const QUESTION_GRAPHS: usize = 4;
const GRAPHS: usize = IMAGE_GRAPHS + QUESTION_GRAPHS;

/// The place of the vision stream among the inputs of a question's graph.
const STREAM: usize = 5;

/// A started device, and planned graphs.
pub(in crate::session) struct DevicePlan {
    /// What runs the graphs that the device does not run as they are. Freed before the device is.
    scheduler: Option<Scheduler>,
    backend: Backend,
    tensors: Arc<Tensors>,
    plans: Plans,
    /// The operations that the device lacks, by ggml's names.
    missing: BTreeSet<&'static str>,
    /// Bytes of the descriptions of all graphs, of that of the device's memory, of what is copied, and of a row of embeddings.
    parts: [usize; 4],
    weight_bytes: usize,
}

/// Where everything lies in a session's memory on the device, of which the first two parts are copied:
///
/// ```text
/// │ inputs and results of the image stage │ of the question stage │ scratch of whichever runs │
/// ```
struct Plans {
    image: MemoryPlan,
    question: MemoryPlan,
    outputs: Vec<Output>,
    /// Bytes on the device and on the CPU that a scheduler takes instead of scratch, if one runs the graphs.
    scheduled: Option<[usize; 2]>,
}

impl Plans {
    fn copied_bytes(&self) -> usize {
        self.image.kept_bytes() + self.question.kept_bytes()
    }

    /// Bytes of the session's block on the device.
    fn block_bytes(&self) -> usize {
        let scratch = self.image.scratch_bytes().max(self.question.scratch_bytes());
        self.copied_bytes() + if self.scheduled.is_some() { 0 } else { scratch }
    }

    /// Bytes on the device.
    fn bytes(&self) -> usize {
        self.block_bytes() + self.scheduled.map_or(0, |[device, _]| device)
    }

    /// Where the graphs' shared scratch begins, if it is planned.
    fn scratch(&self) -> Option<usize> {
        self.scheduled.is_none().then(|| self.copied_bytes())
    }
}

impl DevicePlan {
    pub fn new(model: &Model, options: &SessionOptions, device: Device) -> Result<Self, Error> {
        let backend = Backend::new(device, options.lacking)?;
        let config = model.config();
        let tensors = match model.on_device(device) {
            Some(tensors) => tensors,
            None => Arc::new(model.described_on(&backend)?),
        };
        let nodes = node_limit(config);
        let description = GraphMemory::bytes(nodes);
        let room = AlignedBuffer::new(description, "the description of the graph")?;
        let mut room = GraphMemory::new(nodes, room)?;
        // A head that reads several images at once only knows whole batches.
        let batch = options.max_batch.next_multiple_of(config.head.images());
        let shape = Shape { batch, tokens: options.max_tokens, regions: options.max_regions };
        let masked = Masked { text: true, visual: true };
        let outputs = options.outputs.clone();
        let demanded = outputs.clone();
        let stages: [&dyn Fn(&mut Graph<'_>); 2] =
            [&|graph| drop(image_stage(graph, config, shape, masked, &demanded)), &|graph| {
                drop(question_stage(graph, config, shape, masked, &demanded, WordKind::Summed))
            }];
        let mut missing = BTreeSet::new();
        let mut planned = |build: &dyn Fn(&mut Graph<'_>)| {
            let mut graph = Graph::new(&mut room, &tensors);
            graph.keep_on(&backend);
            build(&mut graph);
            backend.check_results(&graph)?;
            missing.append(&mut backend.missing(&graph));
            Ok::<_, Error>(backend.plan(&graph))
        };
        let (image, question) = (planned(stages[0])?, planned(stages[1])?);
        let mut plans = Plans { image, question, outputs, scheduled: None };
        limit_bytes(model, plans.bytes())?;
        let mut scheduler = None;
        if options.profile || !missing.is_empty() {
            let scheduler = scheduler.insert(Scheduler::new(&backend, nodes, options.threads)?);
            for build in stages {
                let mut graph = Graph::new(&mut room, &tensors);
                graph.keep_on(&backend);
                build(&mut graph);
                // It has to be done to know what it takes.
                scheduler.reserve(&backend, graph)?;
            }
        }
        plans.scheduled = scheduler.as_ref().map(|scheduler| {
            let [device, cpu] = scheduler.bytes(&backend);
            [device, cpu + Scheduler::table_bytes(nodes)]
        });
        limit_bytes(model, plans.bytes())?;
        let row = config.hidden_size * size_of::<f32>();
        let parts = [
            GRAPHS * description.next_multiple_of(ALIGNMENT),
            DeviceMemory::description_bytes(),
            plans.copied_bytes(),
            row,
        ];
        let weight_bytes = tensors.device_bytes(&backend);
        Ok(DevicePlan { scheduler, backend, tensors, plans, missing, parts, weight_bytes })
    }

    /// Bytes of the session's block on the host.
    pub fn session_bytes(&self) -> usize {
        self.parts.iter().map(|bytes| bytes.next_multiple_of(ALIGNMENT)).sum()
    }

    /// Bytes of the device's memory: of the weights, and of the session.
    pub fn device_bytes(&self) -> usize {
        self.weight_bytes + self.plans.bytes()
    }

    /// Bytes on the host beside the session's block.
    pub fn host_bytes(&self) -> usize {
        self.plans.scheduled.map_or(0, |[_, cpu]| cpu)
    }

    pub fn device(&self) -> Device {
        self.backend.device()
    }
}

/// A device with everything that runs there. What lies there is freed before the device is.
pub(in crate::session) struct DeviceEngine {
    scheduler: Option<Scheduler>,
    image: Graphs,
    question: Graphs,
    memory: DeviceMemory,
    tensors: Arc<Tensors>,
    backend: Backend,
    model: Model,
    plans: Plans,
    /// What is copied, as it lies on the device.
    host: AlignedBuffer,
    /// A row of an embedding that is read from the file.
    row: AlignedBuffer,
    /// The vision stream of the images that were encoded last.
    stream: Option<Region>,
    /// Their mask, without what is padding.
    visual_mask: Vec<f32>,
    /// What the operations of either stage have cost, in a session that is to tell.
    profile: Option<[Vec<OperationTime>; 2]>,
}

/// The graphs of a stage, that used last at the end.
struct Graphs {
    graphs: Vec<Built>,
    free: Vec<GraphMemory>,
}

struct Built {
    shape: Shape,
    masked: Masked,
    graph: DeviceGraph,
    outputs: Vec<Output>,
}

impl Graphs {
    /// The graph of that shape, which `build` makes if there is none or graphs do not `serve_again`, in room that another one gives up if
    /// need be.
    fn get(
        &mut self,
        shape: Shape,
        masked: Masked,
        serve_again: bool,
        build: impl FnOnce(GraphMemory) -> Result<(DeviceGraph, Vec<Output>), (Error, GraphMemory)>,
    ) -> Result<&mut Built, Error> {
        let serves = |built: &Built| serve_again && built.shape == shape && built.masked == masked;
        let found = self.graphs.iter().position(serves);
        let built = match found {
            Some(n) => self.graphs.remove(n),
            None => {
                let room = match self.free.pop() {
                    Some(room) => room,
                    None => self.graphs.remove(0).graph.into_memory(),
                };
                match build(room) {
                    Ok((graph, outputs)) => Built { shape, masked, graph, outputs },
                    Err((error, room)) => {
                        self.free.push(room);
                        return Err(error);
                    }
                }
            }
        };
        self.graphs.push(built);
        Ok(self.graphs.last_mut().expect("pushed right here"))
    }

    /// Where an output of the last run lies.
    fn region(&self, output: Output) -> Option<Region> {
        let last = self.graphs.last()?;
        let n = last.outputs.iter().position(|known| *known == output)?;
        Some(last.graph.results[n])
    }
}

impl DeviceEngine {
    pub fn new(
        model: &Model,
        options: &SessionOptions,
        plan: DevicePlan,
        memory: AlignedBuffer,
    ) -> Result<Self, Error> {
        let DevicePlan { backend, tensors, plans, scheduler, missing, parts, .. } = plan;
        if !missing.is_empty() {
            let missing: Vec<_> = missing.into_iter().collect();
            log::warn!("{} lacks {}: the CPU computes it", backend.device(), missing.join(", "));
        }
        let ready = |share| options.progress.as_ref().is_none_or(|progress| progress(share));
        let tensors = model.upload(&backend, tensors, &ready)?;
        model.load_tables()?;
        let [descriptions, description, host, row] = memory.cut(parts);
        let nodes = node_limit(model.config());
        let rooms: [AlignedBuffer; GRAPHS] = descriptions.cut([GraphMemory::bytes(nodes); GRAPHS]);
        let rooms = rooms.into_iter().map(|room| GraphMemory::new(nodes, room));
        let mut image = rooms.collect::<Result<Vec<_>, _>>()?;
        let question = image.split_off(IMAGE_GRAPHS);
        let memory = DeviceMemory::new(&backend, plans.copied_bytes(), plans.block_bytes(), description)?;
        Ok(DeviceEngine {
            scheduler,
            image: Graphs { graphs: Vec::with_capacity(IMAGE_GRAPHS), free: image },
            question: Graphs { graphs: Vec::with_capacity(QUESTION_GRAPHS), free: question },
            memory,
            tensors,
            backend,
            model: model.clone(),
            plans,
            host,
            row,
            stream: None,
            visual_mask: Vec::new(),
            profile: options.profile.then(Default::default),
        })
    }

    /// What each operation has cost.
    pub fn profile(&self) -> Vec<OperationTime> {
        self.profile.iter().flatten().flatten().cloned().collect()
    }

    pub fn memory(&self) -> &AlignedBuffer {
        &self.host
    }

    /// Where an output of the last run lies.
    pub fn region(&self, output: Output) -> Option<Region> {
        self.image.region(output).or_else(|| self.question.region(output))
    }

    pub fn run_image(
        &mut self,
        shape: Shape,
        input: &ImageInput<'_>,
        mask: Option<Mask<'_>>,
        stop: &Stop,
    ) -> Result<(), Error> {
        self.stream = None;
        self.backend.check()?;
        let config = self.model.config();
        let masked = Masked { visual: mask.is_some(), text: false };
        let Self { scheduler, image, plans, tensors, backend, memory, host, profile, .. } = self;
        let builder = Builder { config, plans, tensors, backend, memory };
        let built = image.get(shape, masked, scheduler.is_none(), |room| {
            builder.image(room, shape, masked, profile.is_some())
        })?;
        let [features, boxes, mask_input] = built.graph.inputs[..] else {
            unreachable!("the stage's inputs")
        };
        let target = features.write(host);
        copy_rows(target, input.features, config.visual_feat_dim, input.regions, shape.regions);
        let target = boxes.write(host);
        copy_rows(target, input.boxes, config.visual_pos_dim, input.regions, shape.regions);
        let mut inputs = span([features, boxes]);
        if let Some(mask) = mask {
            fill_mask(mask_input.write(host), mask);
            inputs = span([features, boxes, mask_input]);
        }
        // The stream, which the next stage reads where it is, is demanded last.
        let (stream, results) = built.graph.results.split_last().expect("a stream");
        let (stream, results) = (*stream, span(results.iter().copied()));
        let way = Runner { scheduler: scheduler.as_mut(), profile: profile.as_mut().map(|[image, _]| image) };
        way.run(&mut built.graph, memory, backend, host, [inputs, results], stop)?;
        self.stream = Some(stream);
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
        self.backend.check()?;
        let stream = self.stream.ok_or(Error::NoImage)?;
        let masked = Masked { text: masks.text.is_some(), visual: masks.visual };
        let Self { scheduler, question, plans, tensors, backend, memory, host, row, model, .. } = self;
        let (visual_mask, profile) = (&self.visual_mask, &mut self.profile);
        let config = model.config();
        let builder = Builder { config, plans, tensors, backend, memory };
        let built = question.get(shape, masked, scheduler.is_none(), |room| {
            builder.question(room, shape, masked, stream.offset(), profile.is_some())
        })?;
        let [words, _, _, text_mask, visual, _] = built.graph.inputs[..] else {
            unreachable!("the stage's inputs")
        };
        let tables = model.tables(false);
        let given = match input.text {
            Text::Ids(ids) => kernels::Words::Ids(ids),
            Text::Embeddings(values) => kernels::Words::Embeddings(values),
        };
        for (n, to) in words.write(host).chunks_exact_mut(config.hidden_size).enumerate() {
            let (element, token) = (n / shape.tokens, n % shape.tokens);
            let word = element * input.tokens + token;
            let token_type = input.token_types.map_or(0, |types| types[word] as usize);
            let storage = model.weights().storage();
            tables.embed(given, word, [token, token_type], storage, row.as_mut_slice(), to)?;
        }
        let mut inputs = span([words]);
        if let Some(mask) = masks.text {
            fill_mask(text_mask.write(host), mask);
            inputs = span([words, text_mask]);
        }
        if masks.visual {
            let mask = Mask { values: visual_mask, given: shape.regions, used: shape.regions };
            fill_mask(visual.write(host), mask);
            inputs = span([words, text_mask, visual]);
        }
        let results = span(built.graph.results.iter().copied());
        let profile = profile.as_mut().map(|[_, question]| question);
        let way = Runner { scheduler: scheduler.as_mut(), profile };
        way.run(&mut built.graph, memory, backend, host, [inputs, results], stop)
    }
}

/// What graphs are built from.
struct Builder<'a> {
    config: &'a Config,
    plans: &'a Plans,
    tensors: &'a Arc<Tensors>,
    backend: &'a Backend,
    memory: &'a DeviceMemory,
}

impl Builder<'_> {
    /// The first stage's graph, and the outputs among its results.
    fn image(
        &self,
        room: GraphMemory,
        shape: Shape,
        masked: Masked,
        describes: bool,
    ) -> Result<(DeviceGraph, Vec<Output>), (Error, GraphMemory)> {
        let Self { config, plans, tensors, backend, memory } = *self;
        let places =
            Places { memory, plan: &plans.image, kept: 0, scratch: plans.scratch(), elsewhere: None };
        DeviceGraph::new(room, tensors, backend, &places, describes, |graph| {
            let stage = image_stage(graph, config, shape, masked, &plans.outputs);
            stage.results.iter().map(|(output, _)| *output).collect()
        })
    }

    /// The second stage's, which reads the vision stream at that offset.
    fn question(
        &self,
        room: GraphMemory,
        shape: Shape,
        masked: Masked,
        stream: usize,
        describes: bool,
    ) -> Result<(DeviceGraph, Vec<Output>), (Error, GraphMemory)> {
        let Self { config, plans, tensors, backend, memory } = *self;
        let places = Places {
            memory,
            plan: &plans.question,
            kept: plans.image.kept_bytes(),
            scratch: plans.scratch(),
            elsewhere: Some((STREAM, stream)),
        };
        DeviceGraph::new(room, tensors, backend, &places, describes, |graph| {
            let stage = question_stage(graph, config, shape, masked, &plans.outputs, WordKind::Summed);
            stage.results.iter().map(|(output, _)| *output).collect()
        })
    }
}

/// From the first of these regions to the last.
fn span(regions: impl IntoIterator<Item = Region>) -> Range<usize> {
    let bytes = regions.into_iter().map(Region::bytes);
    bytes.reduce(|all, one| all.start.min(one.start)..all.end.max(one.end)).unwrap_or_default()
}

/// What runs graphs: the device, unless there is a scheduler; and where what the operations cost is added up, if anybody wants to know.
struct Runner<'a> {
    scheduler: Option<&'a mut Scheduler>,
    profile: Option<&'a mut Vec<OperationTime>>,
}

impl Runner<'_> {
    /// Copies the inputs up, computes, and copies the results down, unless somebody gives up before or after.
    fn run(
        self,
        graph: &mut DeviceGraph,
        memory: &DeviceMemory,
        backend: &mut Backend,
        host: &mut AlignedBuffer,
        [inputs, results]: [Range<usize>; 2],
        stop: &Stop,
    ) -> Result<(), Error> {
        if stop.is_wanted() {
            return Err(stop.error());
        }
        memory.upload(backend, host, inputs)?;
        match (self.scheduler, self.profile) {
            (None, _) => graph.compute(backend)?,
            (Some(scheduler), None) => scheduler.compute(backend, graph, None)?,
            (Some(scheduler), Some(profile)) => {
                let mut times = Vec::new();
                scheduler.compute(backend, graph, Some(&mut times))?;
                if !add(profile, backend.device(), &graph.described, &times) {
                    return Err(backend.failed("operations of the profile were not run one by one"));
                }
            }
        }
        if !results.is_empty() {
            memory.download(backend, host, results)?;
        }
        if stop.is_wanted() { Err(stop.error()) } else { Ok(()) }
    }
}

/// Adds a run's times, which may be in another order than the operations, to those before. What another shape or mask computes beside the
/// operations so far comes between them. Returns whether there was one time for each operation: else nothing is added.
fn add(profile: &mut Vec<OperationTime>, device: Device, described: &[Described], times: &[Timed]) -> bool {
    let by_id: HashMap<_, _> = times.iter().map(|timed| (timed.id, timed)).collect();
    let is_each_there = described.iter().all(|operation| by_id.contains_key(&operation.id));
    if times.len() != described.len() || !is_each_there {
        return false;
    }
    let mut at = 0;
    for operation in described {
        let timed = by_id[&operation.id];
        let same = |sum: &OperationTime| sum.kind == operation.kind && sum.name == operation.name;
        at = match profile[at..].iter().position(same) {
            Some(further) => at + further,
            None => {
                let new = OperationTime {
                    kind: operation.kind,
                    name: operation.name.clone(),
                    device,
                    time: Duration::ZERO,
                    multiplications: 0,
                };
                profile.insert(at, new);
                at
            }
        };
        let sum = &mut profile[at];
        sum.time += timed.time;
        sum.multiplications += operation.multiplications;
        if timed.on_cpu {
            sum.device = Device::Cpu;
        }
        at += 1;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ggml::NodeId;
    use crate::session::Session;
    use crate::session::engine::Engine;

    /// The scores of a question about some regions.
    fn ask_about(session: &mut Session, regions: usize) -> Result<Vec<f32>, Error> {
        let features = vec![0.5; regions * session.model().config().visual_feat_dim];
        session.encode_regions(regions, &features, &[0.1, 0.1, 0.5, 0.5].repeat(regions))?;
        Ok(session.ask_tokens(&[1, 2, 3])?.logits().to_vec())
    }

    fn ask(session: &mut Session) -> Result<Vec<f32>, Error> {
        ask_about(session, 2)
    }

    /// Times come in the order in which a device runs operations, and each still goes to its own.
    #[test]
    fn a_profile_does_not_depend_on_the_order_of_a_run() {
        let operation =
            |n, kind| Described { id: NodeId(n), kind, name: format!("blk.{n}"), multiplications: 1 };
        let described = [operation(1, "MUL_MAT"), operation(2, "ADD"), operation(3, "MUL_MAT")];
        let timed = |n: usize| Timed { id: NodeId(n), on_cpu: n == 2, time: Duration::from_millis(n as u64) };
        let mut profile = Vec::new();
        assert!(add(&mut profile, Device::Emulated, &described, &[3, 1, 2].map(timed)));
        assert!(add(&mut profile, Device::Emulated, &described, &[2, 3, 1].map(timed)));
        let found: Vec<_> = profile
            .iter()
            .map(|sum| {
                (sum.name.as_str(), sum.device == Device::Cpu, sum.time.as_millis(), sum.multiplications)
            })
            .collect();
        assert_eq!(found, [("blk.1", false, 2, 2), ("blk.2", true, 4, 2), ("blk.3", false, 6, 2)]);
        for times in [&[1, 2][..], &[1, 2, 3, 4], &[1, 2, 4]] {
            let times: Vec<_> = times.iter().map(|n| timed(*n)).collect();
            assert!(!add(&mut profile, Device::Emulated, &described, &times));
        }
        assert_eq!(profile.len(), 3);
    }

    /// A graph that cannot be built costs no room: a call after a failed one fails in the same way, whatever shape it has.
    #[test]
    fn a_lost_device_is_an_error_at_every_later_call() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/easy-vqa/easy-vqa-q8_0.gguf");
        let model = Model::open(file).unwrap();
        for profile in [false, true] {
            let mut options = SessionOptions::new(&model);
            options.device = Device::Emulated;
            (options.lowering, options.profile) = (crate::Lowering::Ggml, profile);
            let mut session = Session::new(&model, options).unwrap();
            ask(&mut session).unwrap();
            let Engine::Device(engine) = &mut session.engine else { panic!("another engine") };
            engine.backend.lose(c"it fell off the bus");
            let shape = |regions| Shape { batch: 1, tokens: 3, regions };
            for regions in [1, 3, 2, 1] {
                // As if the device were lost after it was looked at.
                let DeviceEngine { image, plans, tensors, backend, memory, model, .. } = &mut **engine;
                let builder = Builder { config: model.config(), plans, tensors, backend, memory };
                let masked = Masked { text: false, visual: false };
                let built = image.get(shape(regions), masked, false, |room| {
                    builder.image(room, shape(regions), masked, profile)
                });
                assert!(matches!(built.err(), Some(Error::Device { .. })), "{regions}");
                assert_eq!(image.free.len() + image.graphs.len(), IMAGE_GRAPHS);
            }
            for regions in [1, 3, 2, 1] {
                let error = ask_about(&mut session, regions).unwrap_err();
                assert!(matches!(error, Error::Device { .. }), "{error}");
            }
        }
    }

    #[test]
    fn a_session_fails_once_its_device_is_lost_and_one_on_the_cpu_takes_its_place() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/easy-vqa/easy-vqa-q8_0.gguf");
        let model = Model::open(file).unwrap();
        let session = |device| {
            let mut options = SessionOptions::new(&model);
            (options.device, options.lowering) = (device, crate::Lowering::Ggml);
            Session::new(&model, options).unwrap()
        };
        let mut on_device = session(Device::Emulated);
        let expected = ask(&mut on_device).unwrap();
        let Engine::Device(engine) = &on_device.engine else { panic!("another engine") };
        let problem = engine.backend.lose(c"it fell off the bus");
        assert!(problem.to_string().contains("it fell off the bus"), "{problem}");
        for _ in 0..2 {
            let error = ask(&mut on_device).unwrap_err();
            assert!(matches!(error, Error::Device { .. }), "{error}");
            assert!(
                error.to_string().contains("emulated") && error.to_string().contains("it was lost"),
                "{error}"
            );
        }
        drop(on_device);
        let found = ask(&mut session(Device::Cpu)).unwrap();
        let close = |(found, expected): (&f32, &f32)| (found - expected).abs() < 1e-3;
        assert!(found.iter().zip(&expected).all(close), "{found:?} {expected:?}");
    }
}
