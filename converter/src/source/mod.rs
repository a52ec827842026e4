//! Where a checkpoint's tensors come from.
//!
//! A [`Source`] lists its tensors and hands out any run of a tensor's values as f32. Values are read
//! into the caller's buffer rather than mapped: on a small board the pages of a mapped checkpoint would count
//! as memory of the conversion.

mod data_file;
mod gguf;
mod index;
mod pickle;
mod rename;
mod safetensors;
mod stored;
mod synthetic;
mod torch;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use self::gguf::GgufSource;
pub use self::stored::FileSource;
pub use self::synthetic::{Synthetic, SyntheticSource};

use crate::Error;

/// A tensor as its container describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTensor {
    /// The shape as PyTorch gives it, slowest axis first: `[outputs, inputs]` for a matrix.
    pub shape: Vec<usize>,
    /// The element type's name in safetensors, such as `F32`.
    pub dtype: String,
    /// Whether [`Source::read`] can turn elements of this type into f32.
    pub readable: bool,
}

/// A container of named tensors that can be read in any order and from several threads.
pub trait Source: Sync {
    /// What the source is, in a few words for the report.
    fn description(&self) -> String;

    /// Every tensor, by Hugging Face's name.
    fn tensors(&self) -> &BTreeMap<String, SourceTensor>;

    /// Every file that the source reads, so that none of them is overwritten.
    fn files(&self) -> Vec<PathBuf>;

    /// What the container itself calls the tensor that is `name` here.
    fn own_name(&self, name: &str) -> String {
        name.to_owned()
    }

    /// What a person should know about the container, one line each.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    /// Fills `out` with the elements of tensor `name` from number `start` on, in row-major order.
    ///
    /// # Errors
    /// [`Error::Io`] where the container can no longer be read.
    ///
    /// # Panics
    /// If the tensor does not exist, is not readable or has fewer elements.
    fn read(&self, name: &str, start: u64, out: &mut [f32]) -> Result<(), Error>;
}
