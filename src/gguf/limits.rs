//! What the format and ggml bound, whatever a file and its reader want. How large a header may be, which is held in memory, is for
//! [`Limits`](crate::Limits) to say.

use std::ops::RangeInclusive;

/// Bytes of a key.
pub const KEY_BYTES: usize = 65535;

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

/// Whether the key's value counts against [`vocabulary_bytes`](crate::Limits::vocabulary_bytes) instead of
/// [`header_bytes`](crate::Limits::header_bytes).
pub(super) fn is_vocabulary(key: &str) -> bool {
    key.starts_with("tokenizer.") || key.ends_with(".classifier.output_labels")
}
