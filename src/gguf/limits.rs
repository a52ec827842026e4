//! How large each part of a file may be.
//!
//! A header is held in memory, so its size is bounded apart from the file's: a file of many
//! gigabytes that claims to be all metadata is refused after [`HEADER_BYTES`].

use std::ops::RangeInclusive;

/// Bytes of the header that are not vocabulary: keys, values, and the list of tensors.
/// A model with a thousand tensors and a hundred keys needs about a tenth of it.
pub const HEADER_BYTES: usize = 1 << 20;

/// Bytes of all vocabulary values together, which are bounded apart from the rest because they
/// are the one legitimate large part of a header: the values of keys that start with `tokenizer.`
/// or end in `.classifier.output_labels`.
pub const VOCABULARY_BYTES: usize = 64 << 20;

/// The longest start of a file that a header and its padding can take up.
pub const START_BYTES: usize = HEADER_BYTES + VOCABULARY_BYTES + 65536;

/// Bytes of a key. The format allows 65535; the longest key in use has about 60.
pub const KEY_BYTES: usize = 1024;

/// Bytes of a tensor's name: ggml keeps it in 64, the last of which is a NUL.
pub const TENSOR_NAME_BYTES: usize = 63;

/// Dimensions of a tensor, as in ggml.
pub const MAX_DIMENSIONS: usize = 4;

/// Elements of a tensor, and bytes of its data: ggml counts both in signed 64-bit integers.
pub const TENSOR_SIZE: u64 = i64::MAX as u64;

/// Alignment of the tensor data in bytes where the file names none, and in every file that the
/// writer is not told otherwise about.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// Alignments that a file may ask for, in bytes; only the powers of two among them. Below 8, the
/// format's own 64-bit fields would be misaligned; above 64 KiB, which is the largest page of a
/// common system, padding would be all that it buys.
pub const ALIGNMENTS: RangeInclusive<u64> = 8..=65536;

/// Whether the key's value counts against [`VOCABULARY_BYTES`] instead of [`HEADER_BYTES`].
pub(super) fn is_vocabulary(key: &str) -> bool {
    key.starts_with("tokenizer.") || key.ends_with(".classifier.output_labels")
}
