//! Everything that can go wrong in a conversion, with what a person needs to mend it.

use std::fmt;
use std::path::{Path, PathBuf};

use lxmert::{gguf, shown};

/// How to raise the limit on descriptions of checkpoints.
pub(crate) const RAISE_DESCRIPTION: &str =
    "raise the limit description_bytes: --limit description_bytes=N, Limits::description_bytes";

/// Why a conversion failed. Every text is one line; [`Error::Tensors`] has a list beside it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The directory lacks a file that a conversion needs.
    #[error("{}: no {name}: {remedy}", directory.display())]
    MissingFile {
        /// The directory.
        directory: PathBuf,
        /// The file's name.
        name: &'static str,
        /// What to do.
        remedy: String,
    },
    /// A file is larger than any of its kind.
    #[error("{}: {bytes} bytes are too many, the limit is {limit}: {RAISE_DESCRIPTION}", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The largest size that is read.
        limit: u64,
    },
    /// A file is not JSON, or not of the expected form.
    #[error("{}: not the JSON that is expected here: {}", path.display(), shown(source))]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The configuration asks for what the runtime lacks.
    #[error("{}: {field} is {}: {remedy}", path.display(), shown(found))]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What is possible instead.
        remedy: String,
    },
    /// A file breaks a rule of the safetensors format.
    #[error("{}: not a valid safetensors file: {}", path.display(), shown(reason))]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The rule.
        reason: String,
    },
    /// A file is not what `torch.save` makes of a state dict, or asks for more than a state dict does.
    #[error("{}: not a usable file of torch.save: {}", path.display(), shown(reason))]
    Torch {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Something was given beside a GGUF file, which holds it already.
    #[error("{}: {option} does not go with a GGUF file, whose own metadata is kept", path.display())]
    Given {
        /// The GGUF file.
        path: PathBuf,
        /// The option.
        option: &'static str,
    },
    /// A GGUF file's tensors are quantized already.
    #[error(
        "{}: its tensors are {found} already, and quantizing them again costs accuracy: convert the original \
         checkpoint, or insist with --allow-requantize",
        path.display()
    )]
    Requantize {
        /// The file.
        path: PathBuf,
        /// A type that it has.
        found: gguf::TensorType,
    },
    /// A GGUF file's matrices are packed, which no conversion can start from.
    #[error("{}: its matrices are packed to be run, not to be converted: convert the original checkpoint", path.display())]
    Packed {
        /// The file.
        path: PathBuf,
    },
    /// A key was given a value that follows from the rest of the file.
    #[error("{key} cannot be overridden: it is the checksum of what is written")]
    ChecksumKey {
        /// The key.
        key: String,
    },
    /// A key was given a value that follows from how the matrices are packed.
    #[error("{key} cannot be overridden in a packed file: it follows from --pack")]
    PackedKey {
        /// The key.
        key: String,
    },
    /// The index of a sharded checkpoint is unusable.
    #[error("{}: {}", path.display(), shown(reason))]
    Index {
        /// The index.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Tensors are missing, unknown, of another shape or hold values that are no numbers.
    #[error("the checkpoint's tensors have {}", count(problems.len()))]
    Tensors {
        /// All of them, so that one run tells everything.
        problems: Vec<Problem>,
    },
    /// The answers cannot be used.
    #[error("{origin}: {}", shown(reason))]
    Labels {
        /// Where the answers come from.
        origin: String,
        /// What is wrong with them.
        reason: String,
    },
    /// The tokenizer cannot be used.
    #[error("{}: {}", path.display(), shown(reason))]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The description of the image preprocessing cannot be used.
    #[error("{}: {}", path.display(), shown(reason))]
    Preprocessing {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A type that tensors can have but conversions do not write.
    #[error("no conversion to {0}: choose one of {list}", list = crate::types::names())]
    TensorType(gguf::TensorType),
    /// A pattern for names of tensors that no matrix has.
    #[error("no matrix has a name with {pattern:?} in it")]
    Pattern {
        /// The pattern.
        pattern: String,
    },
    /// The metadata was given values that make it another model's.
    #[error("the overridden keys describe another model than the tensors")]
    Overrides,
    /// An importance matrix cannot be used.
    #[error("{}: {}", path.display(), shown(reason))]
    Importance {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Tensors lose more in their types than was allowed.
    #[error("{} below the cosine {limit} that was asked for", tensor_count(tensors.len()))]
    TooFar {
        /// The least cosine that was allowed.
        limit: f64,
        /// The tensors below it, with their cosines.
        tensors: Vec<(String, f64)>,
    },
    /// The output would overwrite what it is made from.
    #[error("{}: the output is one of the input files", path.display())]
    OutputIsInput {
        /// The file.
        path: PathBuf,
    },
    /// The output could not be written.
    #[error(transparent)]
    Write(#[from] gguf::WriteError),
    /// The runtime would refuse the model.
    #[error(transparent)]
    Model(#[from] lxmert::Error),
}

impl Error {
    /// An [`Error::Io`] for that path.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { path: path.to_owned(), source }
    }
}

impl From<gguf::Error> for Error {
    fn from(error: gguf::Error) -> Self {
        Error::Model(error.into())
    }
}

fn tensor_count(tensors: usize) -> String {
    if tensors == 1 { "1 tensor is".to_owned() } else { format!("{tensors} tensors are") }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}

/// One thing that is wrong with a checkpoint's tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// `config.json` and the tensors disagree about a size.
    Size {
        /// The field of `config.json`.
        field: &'static str,
        /// Its value.
        config: usize,
        /// The value that the tensors tell.
        tensors: usize,
        /// The tensors that tell it.
        evidence: String,
    },
    /// `config.json` and the tensors disagree about which heads there are.
    Class {
        /// What `config.json` says.
        config: String,
        /// What the tensors tell.
        tensors: String,
    },
    /// A tensor that the model needs is not there.
    Missing {
        /// Its name.
        name: String,
        /// The shape that it would have.
        shape: Vec<usize>,
    },
    /// A tensor that the model has no place for.
    Unknown {
        /// Its name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor of another shape than the model needs.
    Shape {
        /// Its name.
        name: String,
        /// The shape that the model needs.
        expected: Vec<usize>,
        /// Its shape.
        found: Vec<usize>,
    },
    /// A tensor of a type that is not converted.
    Dtype {
        /// Its name.
        name: String,
        /// The type.
        dtype: String,
    },
    /// A tensor with values that are NaN or infinite, or too large for f32.
    NotFinite {
        /// Its name.
        name: String,
        /// How many such values it has.
        count: u64,
        /// The first one's position, one index for each axis.
        first: Vec<u64>,
    },
    /// The word embedding and the decoder that is tied to it are not the same.
    NotTied {
        /// The decoder's name.
        name: String,
        /// The word embedding's name.
        embedding: String,
        /// The first difference's position.
        first: Vec<u64>,
    },
    /// Two tensors of a checkpoint come to the same name.
    SameName {
        /// The name that both have in transformers.
        name: String,
        /// What the checkpoint calls them.
        own_names: [String; 2],
    },
    /// A shard lacks a tensor that the index puts there.
    NotInShard {
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
    /// A shard has a tensor that the index does not list.
    NotInIndex {
        /// The tensor.
        name: String,
        /// The shard.
        shard: String,
    },
}

impl fmt::Display for Problem {
    /// One line; names and shapes come from the checkpoint.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", shown(Words(self)))
    }
}

/// A problem in as many words as its names and shapes take.
struct Words<'a>(&'a Problem);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Problem::Size { field, config, tensors, evidence } => {
                write!(f, "config.json: {field} is {config}, but {evidence} tell {tensors}")
            }
            Problem::Class { config, tensors } => write!(f, "config.json: {config}, but {tensors}"),
            Problem::Missing { name, shape } => write!(f, "missing: {name:?} {shape:?}"),
            Problem::Unknown { name, shape } => write!(f, "unknown: {name:?} {shape:?}"),
            Problem::Shape { name, expected, found } => {
                write!(f, "wrong shape: {name:?} is {found:?}, expected {expected:?}")
            }
            Problem::Dtype { name, dtype } => {
                write!(f, "unsupported type: {name:?} is {dtype}, expected F32, F16, BF16 or F64")
            }
            Problem::NotFinite { name, count, first } => {
                write!(f, "not finite: {name:?} has {count} NaN or infinite values, the first at {first:?}")
            }
            Problem::NotTied { name, embedding, first } => {
                write!(f, "not tied: {name:?} differs from {embedding:?}, first at {first:?}")
            }
            Problem::SameName { name, own_names: [first, second] } => {
                write!(f, "the same: {first:?} and {second:?} are both {name:?}")
            }
            Problem::NotInShard { name, shard } => {
                write!(f, "not in its shard: the index puts {name:?} into {shard:?}")
            }
            Problem::NotInIndex { name, shard } => write!(f, "not in the index: {name:?} of {shard:?}"),
        }
    }
}
