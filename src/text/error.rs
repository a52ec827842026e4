//! Why a question or a tokenizer is refused.

use crate::limits::raise;
use crate::shown;

/// Why a tokenizer could not be built or a question could not be tokenized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The question has no token of its own: it is empty, or only white space and control characters.
    #[error("the question is empty; ask something")]
    EmptyQuestion,
    /// The question is longer than [`Limits::question_bytes`](crate::Limits::question_bytes).
    #[error("the question is {bytes} bytes long; shorten it to {limit}, or {}", raise!(question_bytes))]
    TooLong {
        /// Length of the question in bytes.
        bytes: usize,
        /// Longest allowed.
        limit: usize,
    },
    /// The limit for truncation leaves no room for a token between `[CLS]` and `[SEP]`.
    #[error("a limit of {limit} tokens leaves no room for a question; give at least 3")]
    LimitTooSmall {
        /// The limit that was asked for.
        limit: usize,
    },
    /// The `tokenizer.json`, vocabulary or options are not those of a BERT tokenizer.
    #[error("not a usable BERT tokenizer: {}", shown(reason))]
    Invalid {
        /// What is wrong, and with which part.
        reason: String,
    },
    /// The question could not be tokenized, for a reason that the tokenizer's checks should have excluded.
    #[error("the question could not be tokenized: {}", shown(reason))]
    Failed {
        /// The message of the tokenizer library.
        reason: String,
    },
}

impl Error {
    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Error::Invalid { reason: reason.into() }
    }
}
