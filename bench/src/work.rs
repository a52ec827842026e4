//! What is run: a question about an image, or a batch of raw tensors.

use std::error::Error;
use std::path::PathBuf;

use lxmert::model::Config;
use lxmert::vision::Regions;
use lxmert::{MemoryPlan, Model, OperationTime, Output, Session, SessionOptions};

use crate::measure::Case;
use crate::tensors::{Tensors, Words, in_file};

/// Where the input comes from.
#[derive(Clone)]
pub enum Input {
    File(PathBuf),
    MadeUp(Sizes),
}

/// How large an input is, padding included.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub batch: usize,
    pub tokens: usize,
    pub regions: usize,
}

/// A session, and what to run on it.
pub struct Work {
    session: Session,
    task: Task,
    input: Input,
    pub sizes: Sizes,
}

enum Task {
    /// The image is encoded apart from the question.
    Question {
        regions: Regions,
        ids: Vec<u32>,
    },
    Batch(Tensors),
}

impl Work {
    pub fn new(model: &Model, case: &Case) -> Result<Self, Box<dyn Error>> {
        Self::with(model, case, false)
    }

    /// As [`Work::new`], for [`Work::profile`] to tell where the time goes.
    pub fn profiled(model: &Model, case: &Case) -> Result<Self, Box<dyn Error>> {
        Self::with(model, case, true)
    }

    fn with(model: &Model, case: &Case, profile: bool) -> Result<Self, Box<dyn Error>> {
        let config = model.config();
        let session = |sizes, embeddings| {
            let mut options = options(model, case, sizes, embeddings)?;
            options.profile = profile;
            Session::new(model, options).map_err(|error| case.memory.explain(error))
        };
        let (session, tensors, sizes) = match &case.input {
            Input::File(path) => {
                let tensors = Tensors::open(path)?;
                let sizes = Sizes { batch: tensors.batch, tokens: tensors.tokens, regions: tensors.regions };
                let embeddings = matches!(tensors.words, Words::Embeddings(_));
                (session(sizes, embeddings).map_err(in_file(path))?, tensors, sizes)
            }
            // The session knows which sizes are beyond reason, so it comes first.
            Input::MadeUp(sizes) => (session(*sizes, false)?, made_up(*sizes, config), *sizes),
        };
        let task = explained(Task::of(tensors, config), &case.input)?;
        Ok(Work { session, task, input: case.input.clone(), sizes })
    }

    /// The whole input: image and question.
    pub fn run(&mut self) -> Result<(), Box<dyn Error>> {
        let result = match &self.task {
            Task::Question { regions, ids } => {
                self.session.encode_image(regions).and_then(|()| self.session.ask_tokens(ids).map(drop))
            }
            Task::Batch(tensors) => self.session.run(&tensors.inputs()),
        };
        explained(result, &self.input)
    }

    /// The question alone, about the image of the last [`Work::run`]. Only where [`Work::has_next`].
    pub fn run_next(&mut self) -> Result<(), Box<dyn Error>> {
        match &self.task {
            Task::Question { ids, .. } => explained(self.session.ask_tokens(ids).map(drop), &self.input),
            Task::Batch(_) => Err("a batch has no next question".into()),
        }
    }

    /// Whether a second question can be asked about the image.
    pub fn has_next(&self) -> bool {
        matches!(self.task, Task::Question { .. })
    }

    /// What each operation has cost so far.
    pub fn profile(&self) -> Vec<OperationTime> {
        self.session.profile()
    }

    pub fn plan(&self) -> &MemoryPlan {
        self.session.plan()
    }
}

fn options(
    model: &Model,
    case: &Case,
    sizes: Sizes,
    embeddings: bool,
) -> Result<SessionOptions, lxmert::Error> {
    let mut options = SessionOptions::new(model);
    options.max_tokens = sizes.tokens;
    options.max_regions = sizes.regions;
    options.max_batch = sizes.batch;
    options.device = case.device;
    options.lowering = case.lowering;
    options.threads = case.threads;
    options.cpus.clone_from(&case.cpus);
    options.inputs_embeds = embeddings;
    case.memory.apply(&mut options)?;
    Ok(options)
}

/// An error with the name of the file that the input is from.
fn explained<T>(result: Result<T, lxmert::Error>, input: &Input) -> Result<T, Box<dyn Error>> {
    match input {
        Input::File(path) => result.map_err(in_file(path)),
        Input::MadeUp(_) => Ok(result?),
    }
}

impl Task {
    /// One pair is a question if its masks only cut padding off and the model answers about one image.
    fn of(tensors: Tensors, config: &Config) -> Result<Self, lxmert::Error> {
        let asks = Output::QuestionAnsweringScore.exists_in(config) && config.head.images() == 1;
        let one_type = tensors.token_type_ids.iter().flatten().all(|token_type| *token_type == 0);
        let tokens = unpadded(tensors.attention_mask.as_deref(), tensors.tokens);
        let regions = unpadded(tensors.visual_attention_mask.as_deref(), tensors.regions);
        match (tensors, tokens, regions) {
            (
                Tensors { batch: 1, words: Words::Ids(mut ids), mut visual_feats, mut visual_pos, .. },
                Some((tokens, _)),
                Some((regions, given)),
            ) if asks && one_type => {
                let (feature_len, box_len) = (visual_feats.len() / given, visual_pos.len() / given);
                ids.truncate(tokens);
                visual_feats.truncate(regions * feature_len);
                visual_pos.truncate(regions * box_len);
                Ok(Task::Question {
                    regions: Regions::new(visual_feats, feature_len, visual_pos, box_len)?,
                    ids,
                })
            }
            (tensors, ..) => Ok(Task::Batch(tensors)),
        }
    }
}

/// How many are kept and how many there are, if the mask keeps the first and drops the rest.
fn unpadded(mask: Option<&[f32]>, len: usize) -> Option<(usize, usize)> {
    let Some(mask) = mask else { return (len > 0).then_some((len, len)) };
    let (kept, dropped) = mask.split_at(mask.iter().take_while(|keep| **keep == 1.0).count());
    let is_padding = !kept.is_empty() && dropped.iter().all(|keep| *keep == 0.0);
    is_padding.then_some((kept.len(), len))
}

/// Inputs like a tokenizer's and a detector's: word ids all over the vocabulary, features after a ReLU, boxes within
/// the image.
fn made_up(sizes: Sizes, config: &Config) -> Tensors {
    let Sizes { batch, tokens, regions } = sizes;
    let id = |n: usize| (n * 311 % config.vocab_size) as u32;
    let feature = |n: usize| ((n * 7919 % 1000) as f32 / 250.0 - 2.0).max(0.0);
    let corner = |n: usize| (n * 31 % 100) as f32 / 100.0;
    Tensors {
        batch,
        tokens,
        regions,
        words: Words::Ids((0..batch * tokens).map(id).collect()),
        attention_mask: None,
        token_type_ids: None,
        visual_feats: (0..batch * regions * config.visual_feat_dim).map(feature).collect(),
        visual_pos: (0..batch * regions * config.visual_pos_dim).map(corner).collect(),
        visual_attention_mask: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_padding_from_other_masks() {
        assert_eq!(unpadded(None, 3), Some((3, 3)));
        assert_eq!(unpadded(Some(&[1.0, 1.0, 0.0]), 3), Some((2, 3)));
        assert_eq!(unpadded(Some(&[1.0, 0.0, 1.0]), 3), None);
        assert_eq!(unpadded(Some(&[1.0, 0.5, 0.0]), 3), None);
        assert_eq!(unpadded(Some(&[0.0, 0.0]), 2), None);
        assert_eq!(unpadded(None, 0), None);
    }
}
