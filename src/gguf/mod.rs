//! The GGUF v3 file format: a reader that checks everything, and a writer.
//!
//! A GGUF file is a list of typed key/value pairs, a list of tensors, and the tensors' data. This
//! module knows the format and nothing of any model: which keys and tensors have to be there is
//! decided by whoever reads them.
//!
//! Model files come from strangers, so [`Header::parse`] takes any bytes and gives either a
//! [`Header`] whose every tensor lies inside the file, or an [`Error`] that names the broken rule,
//! the key or tensor, and the place. It never panics, and it allocates no more than a small
//! multiple of the bytes it was given, because every count is compared with the bytes that could
//! hold it before memory is taken. The sizes it accepts are in [`Limits`](crate::Limits) and [`limits`].
//!
//! Reading is stricter than ggml's own reader in one respect, the exact-cover rule: header, tensor
//! data and zeroed alignment padding together are the file, with no overlap, hole or trailing
//! byte. So a file means the same to every reader, and no bytes of it are hidden from a checksum
//! of its tensors. The `gguf` Python package and llama.cpp write files of just this form.
//!
//! A file may hold checksums of its parts: see [`reserve_checksums`] and [`Header::checksums`].
//!
//! ```
//! use lxmert::gguf::{Header, Metadata, TensorSpec, TensorType, Writer};
//!
//! let mut metadata = Metadata::new();
//! metadata.insert("general.architecture", "example")?;
//! metadata.insert("example.block_count", 12u32)?;
//! let tensors = [TensorSpec {
//!     name: "token_embd.weight".to_string(),
//!     tensor_type: TensorType::F32,
//!     dims: vec![2, 1],
//! }];
//! let file = Writer::to_vec(&metadata, &tensors, &[&[0; 8]])?;
//!
//! let header = Header::parse(&file)?;
//! assert_eq!(header.metadata().u32("example.block_count")?, 12);
//! assert_eq!(&file[header.tensors()[0].range()], &[0; 8]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod checksums;
mod cursor;
mod encode;
mod error;
mod file;
mod header;
pub mod limits;
mod metadata;
mod tensor;
mod tensor_type;
mod value;
mod writer;

#[cfg(test)]
mod tests;

pub(crate) use checksums::Checksum;
pub use checksums::{CHECKSUM_KEYS, reserve_checksums};
pub use error::{Error, Rule};
pub use file::File;
pub use header::Header;
pub use metadata::Metadata;
pub use tensor::{TensorInfo, TensorSpec};
pub use tensor_type::{TensorType, UnknownTensorType};
pub use value::{Array, Value};
pub use writer::{WriteError, Writer};

/// What every file starts with.
const MAGIC: [u8; 4] = *b"GGUF";

/// The one version that is read and written.
const VERSION: u32 = 3;

/// The key that moves the data section's alignment away from [`limits::DEFAULT_ALIGNMENT`].
const ALIGNMENT_KEY: &str = "general.alignment";
