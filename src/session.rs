//! What runs a model: all scratch memory, and the state between an image and its questions.

mod engine;
mod inputs;
mod memory;
mod observe;
mod stop;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::ggml::{AlignedBuffer, Device, ForeignMemory};
use crate::kernels::OperationTime;
use crate::limits::raise;
use crate::model::{Dims, Model, Output, Shape};
use crate::reserve::{Threads, Watch, watched};
use crate::vision::{FrontEnd, PatchGrid, Pixels, Regions};
use crate::{Answers, Error};

pub use engine::Lowering;
use engine::{Engine, Mask, Masks};
use inputs::{ImageInput, QuestionInput, check_images, limit, used_keys};
pub use inputs::{Inputs, Text};
pub use memory::{MemoryPlan, Residency};
pub use observe::Factor;
use stop::Stop;
pub use stop::{Abort, Canceller};

/// Told the share of the weights that is ready while a session is made, in rising order up to 1; gives up by returning false. One call at
/// a time, by any thread of the session. It may not make another session of the same model, which would wait for this one.
pub type Progress = Arc<dyn Fn(f32) -> bool + Send + Sync>;

/// What a session is made for. Memory for all of it is taken once, when the session is made.
#[derive(Clone)]
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
    /// Where the model is computed. With another device than the CPU, `threads`, `lock_memory` and `prefault` say nothing of the device.
    pub device: Device,
    /// How the model is computed on the CPU.
    pub lowering: Lowering,
    /// The most bytes that the model and the session may hold together, as [`Model::plan`] counts them; `None` for no limit. The fastest
    /// way to run that keeps to it is chosen.
    pub memory_budget: Option<usize>,
    /// Where the weights are while the session runs.
    pub residency: Residency,
    /// Whether all memory of the session, and the weights if they are in memory, may never be swapped out or evicted (Linux).
    pub lock_memory: bool,
    /// Whether every page of that memory is touched when the session is made, so that no run has to wait for one.
    pub prefault: bool,
    /// Whether [`Session::profile`] is to tell where the time goes.
    pub profile: bool,
    /// Asked between operations whether to give up.
    pub abort: Option<Abort>,
    /// Told how many of the weights are ready.
    pub progress: Option<Progress>,
    /// What each run computes. Nothing else is.
    pub outputs: Vec<Output>,
    /// Whether [`Session::run`] is to take [`Text::Embeddings`] too.
    pub inputs_embeds: bool,
    /// An operation, by ggml's name, that the device is taken to lack: for tests.
    #[doc(hidden)]
    pub lacking: Option<&'static str>,
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
            device: Device::Auto,
            lowering: Lowering::Fastest,
            memory_budget: None,
            residency: Residency::Auto,
            lock_memory: false,
            prefault: false,
            profile: false,
            abort: None,
            progress: None,
            outputs: vec![if answers.exists_in(config) { answers } else { Output::PooledOutput }],
            inputs_embeds: false,
            lacking: None,
        }
    }
}

impl std::fmt::Debug for SessionOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionOptions")
            .field("max_tokens", &self.max_tokens)
            .field("max_regions", &self.max_regions)
            .field("max_batch", &self.max_batch)
            .field("threads", &self.threads)
            .field("device", &self.device)
            .field("lowering", &self.lowering)
            .field("residency", &self.residency)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

/// More outputs than the largest configuration has.
pub(crate) const MAX_OUTPUTS: usize = 1024;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the ranges of sizes that are computed here assume 64-bit addresses");

const SCRATCH: &str = "a session of these limits (max_tokens, max_regions, max_batch, outputs)";

/// What lacks memory, when it is for one of many small things of a session, or of a run.
const PART: &str = "a part of the session";
const RUN_PART: &str = "a part of the run";

/// Runs one model. Made for the largest input it will see, it takes the memory for a run's tensors once; it is for one
/// thread at a time, while any number of sessions share one [`Model`].
///
/// On the project's own kernels, [`encode_image`](Self::encode_image), [`ask_tokens`](Self::ask_tokens), [`run`](Self::run) and
/// [`output`](Self::output) allocate nothing, start no thread and, unless the weights are streamed, read no file.
pub struct Session {
    model: Model,
    options: SessionOptions,
    plan: MemoryPlan,
    engine: Engine,
    stop: Stop,
    /// Room for a picture that is cut into regions; none if the model does not cut pictures.
    picture: AlignedBuffer,
    image: Option<Image>,
    /// The sizes of the last run: as computed, and as given.
    shapes: Option<Shapes>,
}

/// The images that were encoded last.
#[derive(Clone, Copy)]
struct Image {
    batch: usize,
    /// Regions as given, and as computed.
    given: usize,
    used: usize,
    masked: bool,
}

#[derive(Clone, Copy)]
struct Shapes {
    used: Shape,
    given: Shape,
}

/// One output of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputTensor<'s> {
    /// Which output.
    pub output: Output,
    /// Slowest axis first, as in PyTorch.
    pub shape: Dims,
    /// The numbers, without gaps.
    pub data: &'s [f32],
}

impl Session {
    /// Makes a session and takes all its memory.
    ///
    /// # Errors
    /// [`Error::Limit`] if an option is beyond what the model or the machine can do, [`Error::Input`] for an output that
    /// the model does not have, or threads, CPUs, a lowering or a residency that cannot be had; [`Error::Packed`] for a lowering that does
    /// not read what the model's file is packed in; [`Error::Budget`] if no way to run fits the memory budget;
    /// [`Error::OutOfMemory`], [`Error::Threads`], [`Error::Read`], [`Error::Lock`]; [`Error::Cancelled`] if the progress callback gave
    /// up.
    pub fn new(model: &Model, options: SessionOptions) -> Result<Self, Error> {
        Self::with(model, options, false, None)
    }

    /// As [`Session::new`], in memory of the caller's own: at least [`MemoryPlan::session`] bytes, aligned to
    /// [`ForeignMemory::ALIGNMENT`]. Beside it a session has some kilobytes: its handle and options, the list of its outputs,
    /// and what the standard library holds for each thread; with ggml's operations also the plans of its graphs and, in each
    /// run, what describes them.
    ///
    /// # Errors
    /// As [`Session::new`]; [`Error::Memory`] if the memory is too small.
    pub fn new_in(model: &Model, options: SessionOptions, memory: ForeignMemory) -> Result<Self, Error> {
        Self::with(model, options, false, Some(memory))
    }

    fn with(
        model: &Model,
        mut options: SessionOptions,
        observed: bool,
        memory: Option<ForeignMemory>,
    ) -> Result<Self, Error> {
        let watch = Watch::start(Threads::All, PART);
        check_options(model, &options)?;
        let (engine, plan) = memory::plan(model, &options, observed)?;
        watch.check()?;
        let mut memory = match memory {
            Some(memory) => AlignedBuffer::in_foreign(memory, plan.session)?,
            None => AlignedBuffer::pages(plan.session, SCRATCH)?,
        };
        // What is locked is there, and stays there.
        if options.lock_memory {
            memory.lock()?;
        } else if options.prefault {
            memory.prefault();
        }
        let picture = memory::picture_bytes(model, &options);
        let [memory, picture] = memory.cut([plan.session - picture, picture]);
        let engine = Engine::new(model, &options, engine, memory)?;
        // Whoever was told may go.
        options.progress = None;
        log::info!(
            "made a session: on {} by {}, weights {}, {} bytes of its own, {} with the model",
            plan.device,
            plan.lowering,
            plan.residency,
            plan.session,
            plan.total()
        );
        let session = Session {
            model: model.clone(),
            stop: Stop::new(options.abort.clone()),
            options,
            plan,
            engine,
            picture,
            image: None,
            shapes: None,
        };
        watch.check()?;
        Ok(session)
    }

    /// What gives up a call of this session from another thread.
    pub fn canceller(&self) -> Canceller {
        self.stop.canceller()
    }

    /// How long a call that computes may take from now on; `None` for as long as it likes. One that takes longer returns
    /// [`Error::TimeLimit`] when the operation at hand is done: what tokenizes a question or scales a picture is not interrupted.
    pub fn set_time_limit(&mut self, limit: Option<Duration>) {
        self.stop.set_limit(limit);
    }

    /// The model that this session runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What this session was made for.
    pub fn options(&self) -> &SessionOptions {
        &self.options
    }

    /// What the session and its model hold, and how it runs.
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// How the model is computed: never [`Lowering::Fastest`], but what that stands for here.
    pub fn lowering(&self) -> Lowering {
        self.plan.lowering
    }

    /// What each operation has cost since the session was made, in the order in which they run. Empty unless the session was made
    /// with [`SessionOptions::profile`], and with ggml's operations on the CPU, which are not measured one by one. On a device they are,
    /// each from when it is given to the device until that is done: a session that tells runs nothing ahead, and fuses nothing.
    pub fn profile(&self) -> Vec<OperationTime> {
        self.engine.profile()
    }

    /// Encodes an image, to be asked any number of questions.
    ///
    /// # Errors
    /// [`Error::Input`] if the regions are not of the model's width, [`Error::Limit`] if there are more than the session
    /// was made for, [`Error::Cancelled`], [`Error::TimeLimit`], [`Error::Read`], [`Error::OutOfMemory`], [`Error::Device`],
    /// [`Error::Ggml`].
    pub fn encode_image(&mut self, regions: &Regions) -> Result<(), Error> {
        self.stop.begin();
        let input = ImageInput::of_regions(regions, self.model.config(), &self.options)?;
        self.run_image(&input)
    }

    /// As [`Session::encode_image`], from features `[regions, visual_feat_dim]` and boxes `[regions, visual_pos_dim]` where they lie.
    ///
    /// # Errors
    /// As [`Session::encode_image`]; [`Error::Input`] for a number that is not finite, [`Error::Vision`] for a box that is not of
    /// corners within the image.
    pub fn encode_regions(&mut self, regions: usize, features: &[f32], boxes: &[f32]) -> Result<(), Error> {
        self.stop.begin();
        let input = ImageInput::of_slices(regions, features, boxes, self.model.config(), &self.options)?;
        self.run_image(&input)
    }

    /// As [`Session::encode_image`], from pixels, by the model's front end.
    ///
    /// # Errors
    /// As [`Session::encode_image`]; [`Error::Missing`] if the model takes ready features.
    pub fn encode_pixels(&mut self, pixels: &Pixels<'_>) -> Result<(), Error> {
        self.stop.begin();
        let FrontEnd::PatchGrid(grid) = *self.model.front_end() else {
            return Err(Error::Missing {
                what: "front end for pixels",
                remedy: "it takes regions from a detector: encode those",
            });
        };
        let regions = grid.region_count();
        inputs::limit_regions(regions, &self.options)?;
        // Out of the session while it runs on it.
        let mut picture = std::mem::replace(&mut self.picture, AlignedBuffer::empty());
        let done = catch_unwind(AssertUnwindSafe(|| self.encode_cut(&grid, pixels, &mut picture)));
        self.picture = picture;
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }

    fn encode_cut(
        &mut self,
        grid: &PatchGrid,
        pixels: &Pixels<'_>,
        picture: &mut AlignedBuffer,
    ) -> Result<(), Error> {
        let regions = grid.region_count();
        let numbers = picture.f32s_mut(0, picture.len() / size_of::<f32>());
        let (features, rest) = numbers.split_at_mut(regions * grid.feature_len());
        let (boxes, scratch) = rest.split_at_mut(regions * PatchGrid::BOX_LEN);
        grid.cut(pixels, scratch, features, boxes)?;
        self.run_image(&ImageInput { batch: 1, regions, features, boxes, mask: None })
    }

    /// Asks a question about the image that was encoded last.
    ///
    /// # Errors
    /// [`Error::NoImage`]; [`Error::Missing`] or [`Error::Hyperparameter`] if the model has no tokenizer that fits it;
    /// [`Error::Text`]; [`Error::Limit`] for a question of more tokens than the session was made for;
    /// [`Error::NotRequested`] if the session computes no answers; [`Error::NotFinite`]; [`Error::Cancelled`], [`Error::TimeLimit`],
    /// [`Error::Read`], [`Error::OutOfMemory`], [`Error::Device`], [`Error::Ggml`]; [`Error::Replaced`] or [`Error::Gguf`] if the
    /// tokenizer is to be made of a file that has changed.
    pub fn ask(&mut self, question: &str) -> Result<Answers<'_>, Error> {
        self.stop.begin();
        let tokenize = || Ok::<_, Error>(self.model.tokenizer()?.encode(question)?);
        let ids = watched(Threads::This, "a part of the question", tokenize)?;
        self.answer(&ids)
    }

    /// Asks a question that is token ids already, `[CLS]` and `[SEP]` included.
    ///
    /// # Errors
    /// As [`Session::ask`]; [`Error::Input`] for an id beyond the model's words.
    pub fn ask_tokens(&mut self, ids: &[u32]) -> Result<Answers<'_>, Error> {
        self.stop.begin();
        self.answer(ids)
    }

    fn answer(&mut self, ids: &[u32]) -> Result<Answers<'_>, Error> {
        let output = Output::QuestionAnsweringScore;
        if !self.options.outputs.contains(&output) {
            return Err(Error::NotRequested { output });
        }
        if self.model.config().head.images() > 1 {
            return Err(Error::Missing {
                what: "answers about one image",
                remedy: "an NLVR2 model judges a statement by two images: run a batch of two",
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
    /// [`Error::Vision`] for boxes that are not of corners within the image; [`Error::Cancelled`], [`Error::TimeLimit`], [`Error::Read`],
    /// [`Error::OutOfMemory`], [`Error::Device`], [`Error::Ggml`].
    pub fn run(&mut self, inputs: &Inputs<'_>) -> Result<(), Error> {
        self.stop.begin();
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
        let missing = Error::NotRequested { output };
        let Some(Shapes { used, given }) = self.shapes else { return Err(missing) };
        let Some(region) = self.engine.region(output, used) else { return Err(missing) };
        Ok(OutputTensor {
            output,
            shape: output.shape(self.model.config(), given.batch, given.tokens, given.regions),
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
        self.shapes = None;
        let rows_are_wanted = self.options.outputs.iter().any(|output| output.has_regions());
        let used = used_keys(input.mask, input.regions, rows_are_wanted);
        let shape = Shape { batch: input.batch, tokens: 1, regions: used };
        let mask = input.mask.map(|values| Mask { values, given: input.regions, used });
        watched(Threads::This, RUN_PART, || self.engine.run_image(shape, input, mask, &self.stop))?;
        let masked = input.mask.is_some();
        self.image = Some(Image { batch: input.batch, given: input.regions, used, masked });
        Ok(())
    }

    fn run_question(&mut self, input: &QuestionInput<'_>) -> Result<(), Error> {
        let Image { given, used: regions, masked, .. } = self.image.ok_or(Error::NoImage)?;
        self.shapes = None;
        let rows_are_wanted = self.options.outputs.iter().any(|output| output.has_tokens());
        let used = used_keys(input.mask, input.tokens, rows_are_wanted);
        let shape = Shape { batch: input.batch, tokens: used, regions };
        let masks = Masks {
            text: input.mask.map(|values| Mask { values, given: input.tokens, used }),
            visual: masked,
        };
        watched(Threads::This, RUN_PART, || self.engine.run_question(shape, input, masks, &self.stop))?;
        let given = Shape { tokens: input.tokens, regions: given, ..shape };
        self.shapes = Some(Shapes { used: shape, given });
        Ok(())
    }
}

impl Model {
    /// What this model and a session of it will hold, and how the session will run, before any of it is taken.
    ///
    /// # Errors
    /// As [`Session::new`], for what can be told beforehand.
    pub fn plan(&self, options: &SessionOptions) -> Result<MemoryPlan, Error> {
        watched(Threads::This, PART, || {
            check_options(self, options)?;
            memory::plan(self, options, false).map(|(_, plan)| plan)
        })
    }
}

/// Refuses to make a session of more bytes than the model's limits allow.
fn limit_bytes(model: &Model, bytes: usize) -> Result<(), Error> {
    let limit = model.limits().session_bytes;
    if bytes > limit {
        let what = "bytes of memory for a session of these max_tokens, max_regions, max_batch and outputs";
        return Err(Error::Limit { what, found: bytes, limit, remedy: raise!(session_bytes) });
    }
    Ok(())
}

fn check_options(model: &Model, options: &SessionOptions) -> Result<(), Error> {
    let config = model.config();
    let limits = model.limits();
    limit("tokens", options.max_tokens, config.max_position_embeddings, inputs::SHORTEN)?;
    limit("tokens", options.max_tokens, limits.tokens, raise!(tokens))?;
    limit("regions", options.max_regions, limits.regions, raise!(regions))?;
    limit("pairs in a batch", options.max_batch, limits.batch, raise!(batch))?;
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
