//! The stages as a program of kernels.

use std::collections::HashSet;

use super::{Mask, Masks, copy_rows};
use crate::Error;
use crate::ggml::{self, AlignedBuffer, Region};
use crate::kernels::{
    Call, Interrupted, Kernels, OperationTime, Program, Sizes, StageName, Words, Workers, place_bytes,
};
use crate::model::{FusedModel, Model, Output, Shape};
use crate::session::inputs::{ImageInput, QuestionInput, Text};
use crate::session::stop::Stop;
use crate::session::{Residency, SessionOptions, limit_bytes};

/// What a program's tables take more for a matrix that stands than for one that is streamed, at most.
const TABLE_BYTES: usize = 256;

/// A planned program, and where its weights will be.
pub(in crate::session) struct FusedPlan {
    fused: FusedModel,
    kernels: Kernels,
    residency: Residency,
}

impl FusedPlan {
    pub fn new(
        model: &Model,
        options: &SessionOptions,
        kernels: Kernels,
        residency: Residency,
    ) -> Result<Self, Error> {
        Self::with(model, options, kernels, residency, &HashSet::new())
    }

    /// The same with as many of the streamed matrices in memory as there is room for, those of the questions first.
    pub fn filled(&self, model: &Model, options: &SessionOptions, room: usize) -> Result<Self, Error> {
        let mut left = room;
        let mut standing = HashSet::new();
        for (name, layout) in self.fused.plan.streamed() {
            // What is known of it stands in the program's tables.
            let bytes = place_bytes(layout) + TABLE_BYTES;
            if bytes <= left && standing.insert(name.to_owned()) {
                left -= bytes;
            }
        }
        Self::with(model, options, self.kernels, self.residency, &standing)
    }

    fn with(
        model: &Model,
        options: &SessionOptions,
        kernels: Kernels,
        residency: Residency,
        standing: &HashSet<String>,
    ) -> Result<Self, Error> {
        crate::ggml::check_threads(options.threads)?;
        let images = model.config().head.images();
        let largest = Sizes {
            // A head that reads several images at once only knows whole batches.
            batch: options.max_batch.next_multiple_of(images),
            tokens: options.max_tokens,
            regions: options.max_regions,
            images,
        };
        let streamed = (residency == Residency::Streamed).then_some(standing);
        let fused = FusedModel::plan(model, kernels, largest, &options.outputs, options.threads, streamed)?;
        let bytes = fused.plan.memory_bytes();
        limit_bytes(model, bytes)?;
        Ok(FusedPlan { fused, kernels, residency })
    }

    /// Bytes of mapped weights, and of weights in memory of their own.
    pub fn weights(&self, model: &Model) -> [usize; 2] {
        let wanted = self.fused.plan.matrices();
        let [mut mapped, mut private] = model.standing_bytes(wanted, self.residency);
        let storage = model.weights().storage();
        // What the model holds already, for this session or for others.
        private += storage.own_bytes() + model.other_packed_bytes(wanted);
        let tables = model.table_bytes();
        match self.residency {
            Residency::Streamed => private += model.own_table_bytes(),
            _ if storage.is_mapped() => mapped += tables,
            _ if storage.view().is_none() => private += tables,
            _ => {}
        }
        [mapped, private]
    }

    pub fn session_bytes(&self) -> usize {
        self.fused.plan.memory_bytes()
    }
}

/// A program with its threads.
pub(in crate::session) struct FusedEngine {
    program: Program,
    /// The buffers of the results of both stages.
    results: Vec<(Output, usize)>,
    workers: Workers,
    model: Model,
    streamed: bool,
    images: usize,
}

impl FusedEngine {
    pub fn new(
        model: &Model,
        options: &SessionOptions,
        plan: FusedPlan,
        memory: AlignedBuffer,
    ) -> Result<Self, Error> {
        let FusedPlan { fused, kernels, residency } = plan;
        let mut workers = Workers::new(options.threads, options.cpus.as_deref())?;
        let wanted = fused.plan.matrices();
        let ready = |share| options.progress.as_ref().is_none_or(|progress| progress(share));
        let standing = model.standing(wanted, residency, kernels, &mut workers, &ready)?;
        let streamed = residency == Residency::Streamed;
        if !streamed {
            model.load_tables()?;
        }
        if options.lock_memory {
            standing.iter().try_for_each(|matrix| matrix.lock())?;
            model.lock_tables(streamed)?;
        }
        if options.prefault {
            standing.iter().for_each(|matrix| ggml::touch(matrix.bytes()));
            model.touch_tables(streamed);
        }
        let program = fused.plan.build(memory, model.weights(), standing, options.profile)?;
        let results = fused.image.into_iter().chain(fused.question).collect();
        let images = model.config().head.images();
        Ok(FusedEngine { program, results, workers, model: model.clone(), streamed, images })
    }

    pub fn profile(&self) -> Vec<OperationTime> {
        self.program.profile()
    }

    pub fn memory(&self) -> &AlignedBuffer {
        self.program.memory()
    }

    /// Where an output lies after a run of that shape.
    pub fn region(&self, output: Output, shape: Shape) -> Option<Region> {
        let (_, buffer) = self.results.iter().find(|(known, _)| *known == output)?;
        Some(self.program.region(*buffer, self.sizes(shape)))
    }

    pub fn run_image(
        &mut self,
        shape: Shape,
        input: &ImageInput<'_>,
        mask: Option<Mask<'_>>,
        stop: &Stop,
    ) -> Result<(), Error> {
        let sizes = self.sizes(shape);
        let config = self.model.config();
        let (features, boxes) = (config.visual_feat_dim, config.visual_pos_dim);
        let inputs = self.program.inputs();
        let target = self.program.numbers(inputs.features, sizes);
        copy_rows(target, input.features, features, input.regions, sizes.regions);
        let target = self.program.numbers(inputs.boxes, sizes);
        copy_rows(target, input.boxes, boxes, input.regions, sizes.regions);
        self.fill_mask(inputs.visual_mask, sizes, mask);
        let call = Call {
            stage: StageName::Image,
            sizes,
            text_masked: false,
            visual_masked: mask.is_some(),
            words: Words::None,
            given_tokens: 0,
            token_types: None,
            tables: self.model.tables(self.streamed),
            give_up: &|| stop.is_wanted(),
        };
        let done = self.program.run(&call, &mut self.workers);
        done.map_err(|interrupted| error_of(interrupted, stop))
    }

    pub fn run_question(
        &mut self,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: Masks<'_>,
        stop: &Stop,
    ) -> Result<(), Error> {
        let sizes = self.sizes(shape);
        let inputs = self.program.inputs();
        self.fill_mask(inputs.text_mask, sizes, masks.text);
        let call = Call {
            stage: StageName::Question,
            sizes,
            text_masked: masks.text.is_some(),
            // The image's stage has left it where it is.
            visual_masked: masks.visual,
            words: match input.text {
                Text::Ids(ids) => Words::Ids(ids),
                Text::Embeddings(values) => Words::Embeddings(values),
            },
            given_tokens: input.tokens,
            token_types: input.token_types,
            tables: self.model.tables(self.streamed),
            give_up: &|| stop.is_wanted(),
        };
        let done = self.program.run(&call, &mut self.workers);
        done.map_err(|interrupted| error_of(interrupted, stop))
    }

    fn sizes(&self, shape: Shape) -> Sizes {
        Sizes { batch: shape.batch, tokens: shape.tokens, regions: shape.regions, images: self.images }
    }

    fn fill_mask(&mut self, buffer: usize, sizes: Sizes, mask: Option<Mask<'_>>) {
        let Some(mask) = mask else { return };
        let target = self.program.numbers(buffer, sizes);
        for (score, masked) in target.iter_mut().zip(mask.scores().flatten()) {
            *score = masked;
        }
    }
}

fn error_of(interrupted: Interrupted, stop: &Stop) -> Error {
    match interrupted {
        Interrupted::GivenUp => stop.error(),
        Interrupted::Failed(error) => error,
    }
}
