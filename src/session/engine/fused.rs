//! The stages as a program of kernels.

use super::{Masks, Results, copy_rows, masked_score};
use crate::Error;
use crate::ggml::AlignedBuffer;
use crate::kernels::{
    Call, InstructionSet, Kernels, OperationTime, Sizes, StageName, Tables, Words, Workers,
};
use crate::model::{FusedModel, Model, Shape};
use crate::session::inputs::{ImageInput, QuestionInput, Text};
use crate::session::{MAX_BYTES, SCRATCH, SessionOptions};

/// A program with its memory and threads.
pub(in crate::session) struct FusedEngine {
    fused: FusedModel,
    memory: AlignedBuffer,
    workers: Workers,
    images: usize,
}

impl FusedEngine {
    pub fn new(model: &Model, options: &SessionOptions, kernels: Kernels) -> Result<Self, Error> {
        let images = model.config().head.images();
        let largest = Sizes {
            // A head that reads several images at once only knows whole batches.
            batch: options.max_batch.next_multiple_of(images),
            tokens: options.max_tokens,
            regions: options.max_regions,
            images,
        };
        let mut workers = Workers::new(options.threads, options.cpus.as_deref())?;
        let admit = |bytes| match bytes <= MAX_BYTES {
            true => Ok(()),
            false => Err(Error::OutOfMemory { what: SCRATCH, bytes }),
        };
        let mut fused = FusedModel::new(model, kernels, largest, &options.outputs, &mut workers, admit)?;
        if options.profile {
            fused.program.start_profile();
        }
        let memory = AlignedBuffer::new(fused.program.memory_bytes(), SCRATCH)?;
        Ok(FusedEngine { fused, memory, workers, images })
    }

    pub fn instruction_set(&self) -> InstructionSet {
        self.fused.program.kernels().set()
    }

    pub fn profile(&self) -> Vec<OperationTime> {
        self.fused.program.profile()
    }

    pub fn scratch_bytes(&self) -> usize {
        self.memory.len()
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
    ) -> Results {
        let sizes = self.sizes(shape);
        let config = model.config();
        let (features, boxes) = (config.visual_feat_dim, config.visual_pos_dim);
        let inputs = self.fused.program.inputs();
        let program = &self.fused.program;
        let target = program.numbers(inputs.features, sizes, &mut self.memory);
        copy_rows(target, input.features, features, input.regions, sizes.regions);
        let target = program.numbers(inputs.boxes, sizes, &mut self.memory);
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
            tables: tables(model),
        };
        self.fused.program.run(&call, &mut self.memory, &mut self.workers);
        self.results(&self.fused.image, sizes)
    }

    pub fn run_question(
        &mut self,
        model: &Model,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: Masks<'_>,
    ) -> Results {
        let sizes = self.sizes(shape);
        let inputs = self.fused.program.inputs();
        self.fill_mask(inputs.text_mask, sizes, masks.text);
        self.fill_mask(inputs.visual_mask, sizes, masks.visual);
        let call = Call {
            stage: StageName::Question,
            sizes,
            text_masked: masks.text.is_some(),
            visual_masked: masks.visual.is_some(),
            words: match input.text {
                Text::Ids(ids) => Words::Ids(ids),
                Text::Embeddings(values) => Words::Embeddings(values),
            },
            given_tokens: input.tokens,
            token_types: input.token_types,
            tables: tables(model),
        };
        self.fused.program.run(&call, &mut self.memory, &mut self.workers);
        self.results(&self.fused.question, sizes)
    }

    fn sizes(&self, shape: Shape) -> Sizes {
        Sizes { batch: shape.batch, tokens: shape.tokens, regions: shape.regions, images: self.images }
    }

    fn fill_mask(&mut self, buffer: usize, sizes: Sizes, mask: Option<&[f32]>) {
        let Some(mask) = mask else { return };
        let target = self.fused.program.numbers(buffer, sizes, &mut self.memory);
        for (score, keep) in target.iter_mut().zip(mask) {
            *score = masked_score(*keep);
        }
    }

    fn results(&self, buffers: &[(crate::Output, usize)], sizes: Sizes) -> Results {
        let region = |(output, buffer): &(_, usize)| (*output, self.fused.program.region(*buffer, sizes));
        Results { outputs: buffers.iter().map(region).collect(), factors: Vec::new() }
    }
}

fn tables(model: &Model) -> Tables<'_> {
    let stored = |name| model.weights().stored(name);
    Tables {
        words: stored("token_embd.weight"),
        positions: stored("position_embd.weight"),
        types: stored("token_types.weight"),
    }
}
