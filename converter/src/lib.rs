//! Converts LXMERT checkpoints to GGUF files for the `lxmert` runtime.
//!
//! A file holds all that an answer needs: the weights, quantized as asked for, the configuration, the tokenizer,
//! the answers, and how an image becomes regions. [`convert_directory`] is the whole way at once:
//!
//! ```no_run
//! use lxmert::gguf::TensorType;
//! use lxmert_converter::{Options, convert_directory};
//!
//! let report = convert_directory(
//!     "lxmert-vqa-uncased".as_ref(),
//!     TensorType::Q8_0,
//!     "lxmert-vqa-q8_0.gguf".as_ref(),
//!     &Options::default(),
//! )?;
//! println!("{report}");
//! # Ok::<(), lxmert_converter::Error>(())
//! ```
//!
//! # The way of a conversion
//!
//! A [`Checkpoint`] is a [`source::Source`] of tensors and the small files beside it. Its kind is recognised from
//! the tensors and compared with `config.json`; a plan then says which source tensors each GGUF tensor is made of
//! and what is missing, unknown or of the wrong shape. Two passes over the values follow, both a piece
//! at a time on all cores: the first checks and hashes, the second converts and writes. Checkpoints come
//! from strangers: whatever their files hold, the result is a file that the runtime accepts or an [`Error`].

mod check;
mod checkpoint;
mod convert;
mod difference;
mod encode;
mod error;
mod files;
mod frontend;
mod hf_config;
mod importance;
mod job;
mod labels;
mod names;
mod overrides;
mod plan;
mod recipe;
mod recognise;
mod report;
pub mod source;
mod stream;
mod tokenizer;
mod types;

pub use checkpoint::Checkpoint;
pub use convert::{Options, Progress, Stage, convert, convert_directory, convert_synthetic};
pub use difference::{Difference, ErrorReport};
pub use error::{Error, Problem};
pub use importance::{Collector, Importance};
pub use overrides::{KeyOverride, TypeOverrides};
pub use report::{AnswerReport, Report, TensorReport, TokenizerReport, TypeReport, WorstTensor};
pub use source::Synthetic;
pub use types::{FILE_TYPES, FileType, Reason};
