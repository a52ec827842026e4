//! The stages as graphs of ggml operations on a device beside the CPU.
//!
//! Weights, scratch and the encoded images stay there. A stage's inputs go up in one copy, its results come down in one; a graph is built for
//! the first run of its shape, and used again by all later ones.
//!
//! Where the device lacks an operation, or each is to be timed, ggml's scheduler runs the graphs: it splits them between the device and the
//! CPU, and places what lies between inputs and results. It cannot run a graph twice, so one is built for each run then.

mod graphs;
mod plan;
mod run;

use std::ops::Range;
use std::sync::Arc;

use graphs::{Builder, Graphs};
pub(in crate::session) use plan::DevicePlan;
use plan::Plans;
use run::Runner;

use super::{Mask, Masks, copy_rows, fill_mask};
use crate::Error;
use crate::ggml::{AlignedBuffer, Backend, DeviceMemory, GraphMemory, Region, Scheduler, Tensors};
use crate::kernels::{self, OperationTime};
use crate::model::{Masked, Model, Output, Shape, node_limit};
use crate::session::SessionOptions;
use crate::session::inputs::{ImageInput, QuestionInput, Text};
use crate::session::stop::Stop;

/// How many graphs a session keeps: images mostly come in one shape, questions in some lengths.
const IMAGE_GRAPHS: usize = 1;
const QUESTION_GRAPHS: usize = 4;
const GRAPHS: usize = IMAGE_GRAPHS + QUESTION_GRAPHS;

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
            image: Graphs::new(image),
            question: Graphs::new(question),
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

/// From the first of these regions to the last.
fn span(regions: impl IntoIterator<Item = Region>) -> Range<usize> {
    let bytes = regions.into_iter().map(Region::bytes);
    bytes.reduce(|all, one| all.start.min(one.start)..all.end.max(one.end)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
