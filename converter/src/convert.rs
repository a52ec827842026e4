//! The conversion: plan, check, write.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;
use std::time::Instant;

use lxmert::atomic_file::AtomicFile;
use lxmert::gguf::{TensorSpec, WriteError, Writer};
use lxmert::model::{Packer, Packing};
use lxmert::reserve::{Threads, Watch};
use lxmert::{InstructionSet, Limits};

use crate::Error;
use crate::check::check;
use crate::checkpoint::Checkpoint;
use crate::difference::Difference;
use crate::encode::encode;
use crate::importance::Importance;
use crate::job::Job;
use crate::overrides::{KeyOverride, TypeOverrides};
use crate::plan::Plan;
use crate::recognise::recognise;
use crate::report::Report;
use crate::source::Synthetic;
use crate::stream::stream;
use crate::types::{FileType, holds_weights};

/// How to convert.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Threads that work at a time; one for each core unless told otherwise. The output does not depend on it.
    pub threads: Option<NonZeroUsize>,
    /// A JSON file with the answers, which goes before those in the checkpoint's directory.
    pub labels: Option<PathBuf>,
    /// A `config.json`, which goes before that of the checkpoint's directory.
    pub config: Option<PathBuf>,
    /// A `tokenizer.json` or `vocab.txt`, or a directory with one; goes before that of the checkpoint's directory.
    pub tokenizer: Option<PathBuf>,
    /// Whether a GGUF file may be converted whose tensors are quantized already.
    pub allow_requantize: bool,
    /// The least cosine between a tensor and what its type makes of it; no file is written if one has less.
    pub min_cosine: Option<f64>,
    /// Decide on everything and report it, but write nothing.
    pub dry_run: bool,
    /// Other types than the file type has for some of the matrices.
    pub types: TypeOverrides,
    /// Values of the metadata to set last; what they say of the model has to stay true.
    pub keys: Vec<KeyOverride>,
    /// How much the columns of the matrices matter.
    pub importance: Option<Importance>,
    /// Store the matrices in the order in which the kernels for that instruction set read them. The answers are the same to the
    /// bit as from the file without, when its matrices are packed for the same instruction set at each start.
    pub pack: Option<InstructionSet>,
    /// How much is taken from the files of a checkpoint.
    pub limits: Limits,
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which of the two passes.
    pub stage: Stage,
    /// Weights that it has been through.
    pub done: u64,
    /// Weights in all.
    pub total: u64,
}

/// The two passes over the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Every value is looked at.
    Checking,
    /// Every value is converted and written.
    Writing,
}

/// More threads than these only take memory: reading and writing are sequential.
const MAX_THREADS: usize = 64;

/// Converts a checkpoint's directory or file; see [`Checkpoint::open_with`] for what it may be.
///
/// # Errors
/// Those of [`Checkpoint::open_with`] and [`convert`].
pub fn convert_directory(
    path: &Path,
    file_type: impl Into<FileType>,
    out: &Path,
    options: &Options,
) -> Result<Report, Error> {
    let checkpoint = Checkpoint::open_with(path, options)?;
    convert(&checkpoint, file_type, out, options, &mut |_| {})
}

/// Makes a file of random weights.
///
/// # Errors
/// Those of [`Checkpoint::synthetic`] and [`convert`].
pub fn convert_synthetic(
    synthetic: &Synthetic,
    file_type: impl Into<FileType>,
    out: &Path,
    options: &Options,
) -> Result<Report, Error> {
    let checkpoint = Checkpoint::synthetic(synthetic, options.labels.as_deref(), &options.limits)?;
    convert(&checkpoint, file_type, out, options, &mut |_| {})
}

/// Writes the checkpoint to `out`, its matrices in the given type, which may be a plain [`TensorType`](lxmert::gguf::TensorType).
///
/// The file appears whole or not at all, and the same weights, configuration, tokenizer and answers give the
/// same bytes, whatever container the weights come in. Only a small part of the weights is in memory at a time.
///
/// # Errors
/// [`Error::Tensors`] with everything that is wrong with the tensors; [`Error::Labels`], [`Error::Tokenizer`] and
/// [`Error::Preprocessing`] where one of these does not fit the model; [`Error::TensorType`] for a type that is
/// not among [`FILE_TYPES`](crate::FILE_TYPES); [`Error::Pattern`] and [`Error::Overrides`] for wishes that do not go
/// with the model, [`Error::Importance`] for columns that it does not have; [`Error::TooFar`] for tensors below [`Options::min_cosine`];
/// [`Error::OutputIsInput`]; [`Error::Io`] and [`Error::Write`].
pub fn convert(
    checkpoint: &Checkpoint,
    file_type: impl Into<FileType>,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    let started = Instant::now();
    let watch = Watch::start(Threads::All, "a part of the conversion");
    let file_type = file_type.into();
    if !holds_weights(file_type.base()) {
        return Err(Error::TensorType(file_type.base()));
    }
    checkpoint.check_output(out)?;
    if !options.dry_run {
        // A place that cannot be written is told at once, not after everything has been read.
        let refused = |source| WriteError::Io { path: out.to_owned(), source };
        drop(AtomicFile::create(out).map_err(refused)?);
    }
    let threads =
        options.threads.or(available_parallelism().ok()).map_or(1, NonZeroUsize::get).min(MAX_THREADS);
    let source = checkpoint.source.as_ref();

    let recognised = recognise(source.tensors(), &checkpoint.config)?;
    let plan = Plan::new(source.tensors(), recognised)?;
    let mut counter = Counter { progress, stage: Stage::Checking, done: 0, total: plan.parameters() };
    let checked = check(source, &plan, threads, &mut |values| counter.add(values))?;
    let job = Job::new(checkpoint, plan, checked, file_type, options)?;

    let (metadata, specs) = (job.metadata()?, job.specs());
    if options.dry_run {
        let file_bytes = Writer::file_bytes(&metadata, &specs)?;
        return Ok(job.report(None, file_bytes, &[], started.elapsed()));
    }
    watch.check()?;
    let writer = Writer::create(out, &metadata, &specs)?;
    counter = Counter { stage: Stage::Writing, done: 0, ..counter };
    let mut differences = vec![Difference::default(); specs.len()];
    let mut sink = Sink { writer, packing: job.packing.as_ref(), packer: None, packed: Vec::new() };
    stream(
        source,
        &job.plan.tensors,
        threads,
        |piece, values, bytes| {
            let row_len = job.plan.tensors[piece.tensor].row_len() as usize;
            let tensor_type = job.choices[piece.tensor].0;
            encode(tensor_type, values, row_len, job.importance(piece.tensor), bytes);
            Difference::of_encoded(tensor_type, values, bytes)
        },
        |piece, difference, bytes| {
            differences[piece.tensor].add(&difference);
            let tensor = &job.plan.tensors[piece.tensor];
            let is_last = piece.is_last_of(tensor);
            sink.write(&tensor.name, bytes, is_last)?;
            counter.add(piece.len);
            Ok(())
        },
    )?;
    if let Some(limit) = options.min_cosine {
        check_cosines(&specs, &differences, limit)?;
    }
    // The last moment to give up: then the file is there.
    watch.check()?;
    sink.writer.finish()?;

    let file_bytes = std::fs::metadata(out).map_err(Error::io(out))?.len();
    Ok(job.report(Some(out), file_bytes, &differences, started.elapsed()))
}

/// Writes tensors as they come, packing those that are to be packed.
struct Sink<'p> {
    writer: Writer,
    packing: Option<&'p Packing>,
    /// Of the tensor that is being packed.
    packer: Option<Packer>,
    packed: Vec<u8>,
}

impl Sink<'_> {
    fn write(&mut self, name: &str, bytes: &[u8], is_last: bool) -> Result<(), WriteError> {
        if self.packer.is_none() {
            self.packer = self.packing.and_then(|packing| packing.packer(name));
        }
        let Some(packer) = &mut self.packer else { return self.writer.write(bytes) };
        self.packed.clear();
        packer.add(bytes, &mut self.packed);
        if is_last && let Some(packer) = self.packer.take() {
            packer.finish(&mut self.packed);
        }
        self.writer.write(&self.packed)
    }
}

/// Refuses tensors that their types have changed too much.
fn check_cosines(specs: &[TensorSpec], differences: &[Difference], limit: f64) -> Result<(), Error> {
    let cosines = specs.iter().zip(differences).map(|(spec, sums)| (spec.name.clone(), sums.report().cosine));
    // A cosine that is no number, of values whose squares overflow, is not above the limit either.
    let tensors: Vec<_> = cosines.filter(|(_, cosine)| cosine.is_nan() || *cosine < limit).collect();
    if tensors.is_empty() { Ok(()) } else { Err(Error::TooFar { limit, tensors }) }
}

/// Tells how far a pass is.
struct Counter<'a> {
    progress: &'a mut dyn FnMut(Progress),
    stage: Stage,
    done: u64,
    total: u64,
}

impl Counter<'_> {
    fn add(&mut self, values: u64) {
        self.done += values;
        (self.progress)(Progress { stage: self.stage, done: self.done, total: self.total });
    }
}
