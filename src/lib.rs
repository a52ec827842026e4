//! Embedded, quantized inference for LXMERT, the vision-and-language model with three encoders.
//!
//! A [`Model`] is one GGUF file, loaded once and shared. A [`Session`] runs it: it encodes an image, then answers
//! questions about it.
//!
//! ```no_run
//! use lxmert::vision::{FeatureOptions, load_features};
//! use lxmert::{Model, Session, SessionOptions};
//!
//! let model = Model::open("lxmert-vqa-q8_0.gguf")?;
//! let mut session = Session::new(&model, SessionOptions::new(&model))?;
//! session.encode_image(&load_features("kitchen.npz".as_ref(), &FeatureOptions::default())?)?;
//! for question in ["What is on the table?", "What colour is it?"] {
//!     let answers = session.ask(question)?;
//!     println!("{question} {}", answers.top(1)[0].text.unwrap_or("(the file holds no answers)"));
//! }
//! # Ok::<(), lxmert::Error>(())
//! ```
//!
//! C programs use the same through `include/lxmert.h`: see [`capi`].

mod answers;
#[doc(hidden)] // for the programs of this repository
pub mod atomic_file;
pub mod capi;
mod error;
pub mod ggml;
pub mod gguf;
mod kernels;
mod limits;
pub mod model;
#[doc(hidden)] // for the programs of this repository
pub mod numbers;
mod session;
mod shown;
pub mod text;
pub mod vision;
mod weights;

pub use answers::{Answer, Answers};
pub use error::Error;
pub use ggml::{Device, DeviceInfo, ForeignMemory, devices};
#[doc(hidden)] // for the benchmarks of this repository
pub use kernels::measure;
pub use kernels::{InstructionSet, OperationTime};
pub use limits::Limits;
pub use model::{Config, Dims, Model, ModelOptions, Output};
pub use session::{
    Abort, Canceller, Factor, Inputs, Lowering, MemoryPlan, OutputTensor, Progress, Residency, Session,
    SessionOptions, Text,
};
#[doc(hidden)] // for the programs of this repository
pub use shown::shown;
pub use weights::Loader;

/// What this build is: version, target and backends.
pub const BUILD: &str = env!("LXMERT_BUILD");

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
