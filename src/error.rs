//! Everything that can go wrong, with what a person needs to mend it.

use std::path::{Path, PathBuf};

use crate::model::Output;
use crate::{gguf, shown, text, vision};

/// What went wrong. Every text is one line that names the thing at fault and, where there is one, the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened, read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Something is wrong with a file; the source says what.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A file that breaks a rule of the GGUF format.
    #[error("not a valid GGUF file: {0}")]
    Gguf(#[from] gguf::Error),
    /// A tensor's data are not what they were when the file was made.
    #[error(
        "tensor {tensor:?}: its data have the checksum {found:016x}, and had {expected:016x} when the file was made: \
         it is damaged, get it again or convert the checkpoint again"
    )]
    Checksum {
        /// The tensor.
        tensor: String,
        /// The file's checksum for it.
        expected: u64,
        /// That of its data.
        found: u64,
    },
    /// A model's file was written over while the model was in use.
    #[error(
        "the file holds another model than when it was opened: load it again, and replace models by renaming a new file over the old"
    )]
    Replaced,
    /// A model file's bytes could not be read.
    #[error("the model could not be read at byte {offset}: {source}")]
    Read {
        /// Where, from the start of the file.
        offset: u64,
        /// What the operating system or the loader said.
        source: std::io::Error,
    },
    /// A GGUF file of another model.
    #[error("the file's architecture is {}, not \"lxmert\": make the file with lxmert-quantize", shown(format_args!("{found:?}")))]
    Architecture {
        /// The architecture that the file names.
        found: String,
    },
    /// A hyper-parameter that is out of the range which the runtime accepts.
    #[error(
        "{key} is {}, expected {expected}: the file is damaged or made for another program",
        shown(found)
    )]
    Hyperparameter {
        /// The key in the file.
        key: String,
        /// The accepted values.
        expected: String,
        /// The file's value.
        found: String,
    },
    /// The file's front end makes regions that the model does not take.
    #[error("the front end does not fit the model: {reason}; convert the checkpoint again")]
    FrontEnd {
        /// What does not fit.
        reason: String,
    },
    /// The file's tensors are not those that its hyper-parameters demand.
    #[error(
        "tensor {name:?}: expected {expected}, found {found}: the file is damaged or made for another program"
    )]
    Tensor {
        /// The tensor.
        name: String,
        /// What the configuration demands.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// The file's matrices are packed in an order that does not serve here.
    #[error("the file is packed as {}, {problem}: convert the checkpoint again {remedy}", shown(layout))]
    Packed {
        /// The order's name.
        layout: String,
        /// Why it does not serve.
        problem: &'static str,
        /// How to convert.
        remedy: &'static str,
    },
    /// An input that the model cannot take.
    #[error("{name}: expected {expected}, found {found}")]
    Input {
        /// The input's name, as Hugging Face spells it.
        name: String,
        /// What the model takes.
        expected: String,
        /// What was given.
        found: String,
    },
    /// An input that is larger than the session was made for.
    #[error("{found} {what}, but the limit is {limit}: {remedy}")]
    Limit {
        /// The thing that there is too much of.
        what: &'static str,
        /// How many were given.
        found: usize,
        /// How many are allowed.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
    /// Something was asked of a model that does not have it.
    #[error("the model has no {what}: {remedy}")]
    Missing {
        /// What the model lacks.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A question was asked while no single image is encoded.
    #[error("no single image is encoded: encode one before asking")]
    NoImage,
    /// The question or the tokenizer.
    #[error(transparent)]
    Text(#[from] text::Error),
    /// An image, a feature file, or the regions made from one.
    #[error(transparent)]
    Vision(#[from] vision::Error),
    /// Memory could not be had.
    #[error("out of memory: {}", lacking(what, *bytes))]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// The size that was asked for; 0 where ggml or a driver does not tell.
        bytes: usize,
    },
    /// A session is asked for what it was not made to compute.
    #[error("{output} is not there: nothing has run since, or the session's outputs do not name it")]
    NotRequested {
        /// The output.
        output: Output,
    },
    /// Scores that are no numbers: an intermediate result left the range of the weights' type.
    #[error(
        "{output} is not finite: features or weights are beyond the range of this file's type; f32 has the widest"
    )]
    NotFinite {
        /// The output.
        output: Output,
    },
    /// The operating system gave no more threads.
    #[error("{threads} threads could not be started: {source}; ask for fewer")]
    Threads {
        /// How many were asked for.
        threads: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// ggml's operations were compiled with instructions that this CPU does not have.
    #[error(
        "ggml's operations were compiled for {built_for}, and this CPU lacks {missing}: build with LXMERT_CPU=baseline, or for an architecture that this CPU has, such as x86-64-v3 or armv8.2-a+dotprod, or choose another lowering"
    )]
    Instructions {
        /// What `LXMERT_CPU` was in the build, or in words that it was built for the machine that built it.
        built_for: &'static str,
        /// The instructions, by the names that Rust and compilers have for them.
        missing: String,
    },
    /// A device, or its driver, failed. A session on it is of no more use; one on the CPU can be made in its place.
    #[error("device {device} failed: {problem}; the CPU (device cpu) computes the same")]
    Device {
        /// The device.
        device: String,
        /// What ggml or the driver said.
        problem: String,
    },
    /// Somebody gave the call up: a [`Canceller`](crate::Canceller), or a callback of the session's.
    #[error("cancelled")]
    Cancelled,
    /// A call took longer than it may.
    #[error("not done within the time limit of {} ms: allow more, or fewer tokens and regions", limit.as_secs_f64() * 1e3)]
    TimeLimit {
        /// The most that the call might take.
        limit: std::time::Duration,
    },
    /// No way to run fits the memory budget.
    #[error(
        "no way to run fits a memory budget of {}: the smallest that would do is {}MiB",
        size(*budget),
        smallest.div_ceil(1 << 20)
    )]
    Budget {
        /// The budget, in bytes.
        budget: usize,
        /// The smallest that would do, in bytes.
        smallest: usize,
    },
    /// Memory could not be locked.
    #[error(
        "{bytes} bytes could not be locked in memory: {source}; raise the limit (ulimit -l), or do not ask for lock_memory"
    )]
    Lock {
        /// How many.
        bytes: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Memory of the caller's own that a session cannot live in.
    #[error("the session's memory: expected {expected}, found {found}")]
    Memory {
        /// What [`Model::plan`](crate::Model::plan) tells.
        expected: String,
        /// What was given.
        found: String,
    },
    /// ggml reported a failure that no input should cause.
    #[error("ggml failed: {0}; this is a fault of the program, please report it")]
    Ggml(&'static str),
}

/// A number of bytes as it was likely named: in MiB, or in bytes where it is less than one.
fn size(bytes: usize) -> String {
    match bytes >> 20 {
        0 => format!("{bytes} bytes"),
        mebibytes => format!("{mebibytes}MiB"),
    }
}

impl Error {
    /// An [`Error::File`] around what is wrong with that path's content.
    pub(crate) fn in_file(path: &Path) -> impl FnOnce(Error) -> Error {
        move |source| Error::File { path: path.to_owned(), source: Box::new(source) }
    }

    /// An [`Error::Io`] for that path.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::Io { path, source }
    }
}
fn lacking(what: &str, bytes: usize) -> String {
    match bytes {
        0 => format!("there is too little for {what}"),
        _ => format!("{what} takes {bytes} bytes"),
    }
}
