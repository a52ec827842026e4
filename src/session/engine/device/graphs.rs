//! A stage's graphs: how they are built, and which are kept.

use std::sync::Arc;

use super::plan::Plans;
use crate::Error;
use crate::ggml::{Backend, DeviceGraph, DeviceMemory, GraphMemory, Places, Region, Tensors, Unbuilt};
use crate::model::{Config, Masked, Output, Shape, WordKind, image_stage, question_stage};

/// The place of the vision stream among the inputs of a question's graph.
const STREAM: usize = 5;

/// The graphs of a stage, that used last at the end.
pub(super) struct Graphs {
    graphs: Vec<Built>,
    free: Vec<GraphMemory>,
}

pub(super) struct Built {
    shape: Shape,
    masked: Masked,
    pub graph: DeviceGraph,
    outputs: Vec<Output>,
}

impl Graphs {
    /// For as many graphs as there are rooms.
    pub fn new(rooms: Vec<GraphMemory>) -> Self {
        Graphs { graphs: Vec::with_capacity(rooms.len()), free: rooms }
    }

    /// How many rooms there are.
    #[cfg(test)]
    pub fn rooms(&self) -> usize {
        self.graphs.len() + self.free.len()
    }

    /// The graph of that shape, which `build` makes if there is none or graphs do not `serve_again`, in room that another one gives up if
    /// need be.
    pub fn get(
        &mut self,
        shape: Shape,
        masked: Masked,
        serve_again: bool,
        build: impl FnOnce(GraphMemory) -> Result<(DeviceGraph, Vec<Output>), Unbuilt>,
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
                    Err(unbuilt) => {
                        let (error, room) = *unbuilt;
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
    pub fn region(&self, output: Output) -> Option<Region> {
        let last = self.graphs.last()?;
        let n = last.outputs.iter().position(|known| *known == output)?;
        Some(last.graph.results[n])
    }
}

/// What graphs are built from.
pub(super) struct Builder<'a> {
    pub config: &'a Config,
    pub plans: &'a Plans,
    pub tensors: &'a Arc<Tensors>,
    pub backend: &'a Backend,
    pub memory: &'a DeviceMemory,
}

impl Builder<'_> {
    /// The first stage's graph, and the outputs among its results.
    pub fn image(
        &self,
        room: GraphMemory,
        shape: Shape,
        masked: Masked,
        describes: bool,
    ) -> Result<(DeviceGraph, Vec<Output>), Unbuilt> {
        let Self { config, plans, tensors, backend, memory } = *self;
        let places =
            Places { memory, plan: &plans.image, kept: 0, scratch: plans.scratch(), elsewhere: None };
        DeviceGraph::new(room, tensors, backend, &places, describes, |graph| {
            let stage = image_stage(graph, config, shape, masked, &plans.outputs);
            stage.results.iter().map(|(output, _)| *output).collect()
        })
    }

    /// The second stage's, which reads the vision stream at that offset.
    pub fn question(
        &self,
        room: GraphMemory,
        shape: Shape,
        masked: Masked,
        stream: usize,
        describes: bool,
    ) -> Result<(DeviceGraph, Vec<Output>), Unbuilt> {
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
