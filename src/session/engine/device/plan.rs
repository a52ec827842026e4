//! What a session takes on a device and on the host, before it is made.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::GRAPHS;
use crate::Error;
use crate::ggml::{
    ALIGNMENT, AlignedBuffer, Backend, Device, DeviceMemory, Graph, GraphMemory, MemoryPlan, Scheduler,
    Tensors,
};
use crate::model::{Masked, Model, Output, Shape, WordKind, image_stage, node_limit, question_stage};
use crate::session::{SessionOptions, limit_bytes};

/// A started device, and planned graphs.
pub(in crate::session) struct DevicePlan {
    /// What runs the graphs that the device does not run as they are. Freed before the device is.
    pub(super) scheduler: Option<Scheduler>,
    pub(super) backend: Backend,
    pub(super) tensors: Arc<Tensors>,
    pub(super) plans: Plans,
    /// The operations that the device lacks, by ggml's names.
    pub(super) missing: BTreeSet<&'static str>,
    /// Bytes of the descriptions of all graphs, of that of the device's memory, of what is copied, and of a row of embeddings.
    pub(super) parts: [usize; 4],
    weight_bytes: usize,
}

/// Where everything lies in a session's memory on the device, of which the first two parts are copied:
///
/// ```text
/// │ inputs and results of the image stage │ of the question stage │ scratch of whichever runs │
/// ```
pub(super) struct Plans {
    pub image: MemoryPlan,
    pub question: MemoryPlan,
    pub outputs: Vec<Output>,
    /// Bytes on the device and on the CPU that a scheduler takes instead of scratch, if one runs the graphs.
    scheduled: Option<[usize; 2]>,
}

impl Plans {
    pub fn copied_bytes(&self) -> usize {
        self.image.kept_bytes() + self.question.kept_bytes()
    }

    /// Bytes of the session's block on the device.
    pub fn block_bytes(&self) -> usize {
        let scratch = self.image.scratch_bytes().max(self.question.scratch_bytes());
        self.copied_bytes() + if self.scheduled.is_some() { 0 } else { scratch }
    }

    /// Bytes on the device.
    fn bytes(&self) -> usize {
        self.block_bytes() + self.scheduled.map_or(0, |[device, _]| device)
    }

    /// Where the graphs' shared scratch begins, if it is planned.
    pub fn scratch(&self) -> Option<usize> {
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
