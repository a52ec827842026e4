//! What runs a model: all scratch memory, and the state between an image and its questions.

mod engine;
mod inputs;
mod observe;

use crate::kernels::OperationTime;
use crate::model::{Model, Output, Shape};
use crate::vision::{FrontEnd, Regions};
use crate::{Answers, Error};

pub use engine::Lowering;
use engine::{Engine, Masks};
use inputs::{ImageInput, QuestionInput, check_images, limit, used_keys};
pub use inputs::{Inputs, Text};
pub use observe::Factor;

/// What a session is made for. Memory for all of it is taken once, when the session is made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The longest question in tokens, `[CLS]` and `[SEP]` included.
    pub max_tokens: usize,
    /// The most regions of an image.
    pub max_regions: usize,
    /// The most pairs of image and question in one [`Session::run`].
    pub max_batch: usize,
    /// The threads that compute, the calling one included.
    pub threads: usize,
    /// The CPUs that threads other than the calling one may run on, by Linux's numbers; `None` for all. Elsewhere, and with ggml's
    /// operations, only `None` is possible.
    pub cpus: Option<Vec<usize>>,
    /// How the model is computed.
    pub lowering: Lowering,
    /// Whether [`Session::profile`] is to tell where the time goes.
    pub profile: bool,
    /// What each run computes. Nothing else is.
    pub outputs: Vec<Output>,
    /// Whether [`Session::run`] is to take [`Text::Embeddings`] too.
    pub inputs_embeds: bool,
}

/// A file may claim far more positions than any question needs, and memory for attention grows with their square.
const MAX_DEFAULT_TOKENS: usize = 512;

/// Below this many parameters an operation takes no longer than it takes two threads to meet.
const SMALL_MODEL: u64 = 10_000_000;

impl SessionOptions {
    /// One question at a time, of any length that the model takes up to 512 tokens: the answer's scores, or the pooled output of a
    /// model without answers. On all cores, unless the model is so small that threads would mostly wait for each other. For NLVR2,
    /// where an answer is about two images, a batch of two.
    pub fn new(model: &Model) -> Self {
        let config = model.config();
        let answers = Output::QuestionAnsweringScore;
        let cores = std::thread::available_parallelism().map_or(1, usize::from).min(crate::ggml::MAX_THREADS);
        SessionOptions {
            max_tokens: config.max_position_embeddings.min(MAX_DEFAULT_TOKENS),
            max_regions: match model.front_end() {
                FrontEnd::PatchGrid(grid) => grid.region_count(),
                _ => 100,
            },
            max_batch: config.head.images(),
            threads: if model.parameters() < SMALL_MODEL { 1 } else { cores },
            cpus: None,
            lowering: Lowering::Fastest,
            profile: false,
            outputs: vec![if answers.exists_in(config) { answers } else { Output::PooledOutput }],
            inputs_embeds: false,
        }
    }
}

/// The most pairs of image and question in one run.
pub(crate) const MAX_BATCH: usize = 1024;

/// More outputs than the largest configuration has.
const MAX_OUTPUTS: usize = 1024;

/// The most bytes that a session may take, so that limits beyond reason are refused rather than tried.
const MAX_BYTES: usize = 1 << 34;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the ranges of sizes that are computed here assume 64-bit addresses");

const SCRATCH: &str = "a session of these limits (max_tokens, max_regions, max_batch, outputs)";

/// Runs one model. Made for the largest input it will see, it takes the memory for a run's tensors once; it is for one
/// thread at a time, while any number of sessions share one [`Model`].
pub struct Session {
    model: Model,
    options: SessionOptions,
    engine: Engine,
    image: Option<Image>,
    /// The sizes and results of the last run.
    results: Results,
}

/// The images that were encoded last.
struct Image {
    batch: usize,
    /// Regions as given, and as computed.
    given: usize,
    used: usize,
    /// The mask of the images, kept for the stages that read them.
    mask: Option<Vec<f32>>,
}

#[derive(Default)]
struct Results {
    shape: Option<Shape>,
    image: engine::Results,
    question: engine::Results,
}

/// One output of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputTensor<'s> {
    /// Which output.
    pub output: Output,
    /// Slowest axis first, as in PyTorch.
    pub shape: Vec<usize>,
    /// The numbers, without gaps.
    pub data: &'s [f32],
}

impl Session {
    /// Makes a session and takes all its memory.
    ///
    /// # Errors
    /// [`Error::Limit`] if an option is beyond what the model or the machine can do, [`Error::Input`] for an output that
    /// the model does not have, or threads, CPUs or a lowering that cannot be had; [`Error::Packed`] for a lowering that does not
    /// read what the model's file is packed in; [`Error::OutOfMemory`], [`Error::Threads`].
    pub fn new(model: &Model, options: SessionOptions) -> Result<Self, Error> {
        Self::with(model, options, false)
    }

    fn with(model: &Model, options: SessionOptions, observed: bool) -> Result<Self, Error> {
        check_options(model, &options)?;
        let engine = Engine::new(model, &options, observed)?;
        Ok(Session { model: model.clone(), engine, options, image: None, results: Results::default() })
    }

    /// The model that this session runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What this session was made for.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// How the model is computed: never [`Lowering::Fastest`], but what that stands for here.
    pub fn lowering(&self) -> Lowering {
        self.engine.lowering()
    }

    /// What each operation has cost since the session was made, in the order in which they run. Empty unless the session was made
    /// with [`SessionOptions::profile`], and with ggml's operations, which are not measured one by one.
    pub fn profile(&self) -> Vec<OperationTime> {
        self.engine.profile()
    }

    /// Bytes of scratch memory that the session holds, on top of the model's weights and of [`Model::packed_bytes`].
    pub fn scratch_bytes(&self) -> usize {
        self.engine.scratch_bytes()
    }

    /// Encodes an image, to be asked any number of questions.
    ///
    /// # Errors
    /// [`Error::Input`] if the regions are not of the model's width, [`Error::Limit`] if there are more than the session
    /// was made for, [`Error::Ggml`].
    pub fn encode_image(&mut self, regions: &Regions) -> Result<(), Error> {
        let input = ImageInput::of_regions(regions, self.model.config(), &self.options)?;
        self.run_image(&input)
    }

    /// Asks a question about the image that was encoded last.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Missing`] or [`Error::Hyperparameter`] if the model has no tokenizer that fits it;
    /// [`Error::Text`]; [`Error::Limit`] for a question of more tokens than the session was made for;
    /// [`Error::NotRequested`] if the session computes no answers; [`Error::NotFinite`]; [`Error::Ggml`].
    pub fn ask(&mut self, question: &str) -> Result<Answers<'_>, Error> {
        let ids = self.model.tokenizer()?.encode(question)?;
        self.ask_tokens(&ids)
    }

    /// Asks a question that is token ids already, `[CLS]` and `[SEP]` included.
    ///
    /// # Errors
    /// As [`Session::ask`]; [`Error::Input`] for an id beyond the model's words.
    pub fn ask_tokens(&mut self, ids: &[u32]) -> Result<Answers<'_>, Error> {
        let output = Output::QuestionAnsweringScore;
        if !self.options.outputs.contains(&output) {
            return Err(Error::NotRequested { output });
        }
        if self.model.config().head.images() > 1 {
            return Err(Error::Missing {
                what: "answers about one image",
                remedy: "an NLVR2 model judges a statement by two images: use Session::run with a batch of two",
            });
        }
        // What is encoded may also be a batch of `run`, which is no image to ask about.
        if self.image.as_ref().is_none_or(|image| image.batch != 1) {
            return Err(Error::NoImage);
        }
        let input = QuestionInput::of_tokens(ids, self.model.config(), &self.options)?;
        self.run_question(&input)?;
        let scores = self.output(output)?.data;
        if scores.iter().any(|score| !score.is_finite()) {
            return Err(Error::NotFinite { output });
        }
        Ok(Answers::new(scores, self.model.labels()))
    }

    /// Runs the whole model on a batch of raw tensors.
    ///
    /// # Errors
    /// [`Error::Input`] names the tensor that the model cannot take, [`Error::Limit`] what the session was not made for;
    /// [`Error::Vision`] for boxes that are not of corners within the image; [`Error::Ggml`].
    pub fn run(&mut self, inputs: &Inputs<'_>) -> Result<(), Error> {
        check_images(inputs.batch, self.model.config(), &self.options)?;
        let image = ImageInput::of_tensors(inputs, self.model.config(), &self.options)?;
        let question = QuestionInput::of_tensors(inputs, self.model.config(), &self.options)?;
        self.run_image(&image)?;
        self.run_question(&question)
    }

    /// An output of the last run.
    ///
    /// # Errors
    /// [`Error::NotRequested`] if nothing has run yet or the session was not made to compute it.
    pub fn output(&self, output: Output) -> Result<OutputTensor<'_>, Error> {
        let results = self.results.image.outputs.iter().chain(&self.results.question.outputs);
        let found = results.into_iter().find(|(known, _)| *known == output);
        let (Some(shape), Some((_, region))) = (self.results.shape, found) else {
            return Err(Error::NotRequested { output });
        };
        Ok(OutputTensor {
            output,
            shape: output.shape(self.model.config(), shape.batch, shape.tokens, shape.regions),
            data: region.read(self.engine.memory()),
        })
    }

    /// Refuses sizes that the session was not made for, before anything of those sizes is looked at.
    ///
    /// # Errors
    /// [`Error::Limit`], and [`Error::Input`] for sizes of 0.
    pub(crate) fn check_sizes(&self, batch: usize, tokens: usize, regions: usize) -> Result<(), Error> {
        inputs::check_sizes(batch, tokens, regions, self.model.config(), &self.options)
    }

    fn run_image(&mut self, input: &ImageInput<'_>) -> Result<(), Error> {
        self.image = None;
        self.results = Results::default();
        let rows_are_wanted = self.options.outputs.iter().any(|output| output.has_regions());
        let used = used_keys(input.mask, input.regions, rows_are_wanted);
        let mask = input.mask.map(|mask| first_columns(mask, input.regions, used));
        let shape = Shape { batch: input.batch, tokens: 1, regions: used };
        self.results.image = self.engine.run_image(&self.model, shape, input, mask.as_deref())?;
        self.image = Some(Image { batch: input.batch, given: input.regions, used, mask });
        Ok(())
    }

    fn run_question(&mut self, input: &QuestionInput<'_>) -> Result<(), Error> {
        let image = self.image.as_ref().ok_or(Error::NoImage)?;
        self.results.shape = None;
        let rows_are_wanted = self.options.outputs.iter().any(|output| output.has_tokens());
        let used = used_keys(input.mask, input.tokens, rows_are_wanted);
        let mask = input.mask.map(|mask| first_columns(mask, input.tokens, used));
        let shape = Shape { batch: input.batch, tokens: used, regions: image.used };
        let masks = Masks { text: mask.as_deref(), visual: image.mask.as_deref() };
        self.results.question = self.engine.run_question(&self.model, shape, input, masks)?;
        self.results.shape = Some(Shape { tokens: input.tokens, regions: image.given, ..shape });
        Ok(())
    }
}

/// The first `used` columns of a matrix with rows of `width`.
fn first_columns(matrix: &[f32], width: usize, used: usize) -> Vec<f32> {
    matrix.chunks_exact(width).flat_map(|row| &row[..used]).copied().collect()
}

fn check_options(model: &Model, options: &SessionOptions) -> Result<(), Error> {
    let config = model.config();
    limit("tokens", options.max_tokens, config.max_position_embeddings, inputs::SHORTEN)?;
    limit("regions", options.max_regions, crate::vision::MAX_REGIONS, "keep the best regions")?;
    limit("pairs in a batch", options.max_batch, MAX_BATCH, "run smaller batches")?;
    let missing = options.outputs.iter().find(|output| !output.exists_in(config));
    if let Some(output) = missing {
        return Err(Error::Input {
            name: output.to_string(),
            expected: "an output that the model has".to_owned(),
            found: format!("a model with head {:?}", config.head.name()),
        });
    }
    limit("outputs", options.outputs.len(), MAX_OUTPUTS, "name each output once")
}
