//! The tensor types that a conversion writes, and which of them each tensor gets.

use lxmert::gguf::TensorType;
use lxmert::model::Role;
use serde::Serialize;

/// The types that can be asked for, each with llama.cpp's number for a file made of it (`LLAMA_FTYPE`; for the
/// K types the `_S` mixes, which are uniform as files here are).
pub const TENSOR_TYPES: [(TensorType, u32); 11] = [
    (TensorType::F32, 0),
    (TensorType::F16, 1),
    (TensorType::BF16, 32),
    (TensorType::Q8_0, 7),
    (TensorType::Q5_1, 9),
    (TensorType::Q5_0, 8),
    (TensorType::Q4_1, 3),
    (TensorType::Q4_0, 2),
    (TensorType::Q6K, 18),
    (TensorType::Q5K, 16),
    (TensorType::Q4K, 14),
];

/// llama.cpp's number for a file made of that type; `None` if conversions do not write it.
pub(crate) fn file_type(tensor_type: TensorType) -> Option<u32> {
    TENSOR_TYPES.iter().find(|(known, _)| *known == tensor_type).map(|(_, number)| *number)
}

/// The names of all [`TENSOR_TYPES`], for messages.
pub(crate) fn names() -> String {
    TENSOR_TYPES.map(|(known, _)| known.to_string()).join(", ")
}

/// Why a matrix did not get the type that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// Its rows are no whole number of the type's blocks.
    RowLength,
    /// Its rows are shorter than any block, and so it weighs next to nothing.
    ShortRows,
    /// It has values beyond the range of the type's 16-bit floats.
    Range,
}

impl Reason {
    /// The reason in words.
    pub fn describe(self) -> &'static str {
        match self {
            Reason::RowLength => "rows are no whole number of blocks",
            Reason::ShortRows => "rows are shorter than a block",
            Reason::Range => "values are beyond the range of 16-bit floats",
        }
    }
}

/// Rows below this are shorter than the smallest block of any type.
const SHORT_ROW: u64 = 32;

/// The type of a tensor with rows of `row_len` and no value above `max_abs`, where `requested` is asked for.
pub(crate) fn choose(
    role: Role,
    row_len: u64,
    max_abs: f32,
    requested: TensorType,
) -> (TensorType, Option<Reason>) {
    if matches!(role, Role::Vector | Role::Table) {
        return (TensorType::F32, None);
    }
    let (fitting, reason) = if requested.row_bytes(row_len).is_some() {
        (requested, None)
    } else if row_len < SHORT_ROW {
        (TensorType::F32, Some(Reason::ShortRows))
    } else {
        (TensorType::F16, Some(Reason::RowLength))
    };
    // The scales of all quantized types are f16, so that these overflow where f16 does.
    let limit = match fitting {
        TensorType::F32 => f32::MAX,
        TensorType::BF16 => half::bf16::MAX.to_f32(),
        _ => half::f16::MAX.to_f32(),
    };
    if max_abs > limit { (TensorType::F32, Some(Reason::Range)) } else { (fitting, reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_vectors_and_tables_whole() {
        assert_eq!(choose(Role::Vector, 256, 1.0, TensorType::Q8_0), (TensorType::F32, None));
        assert_eq!(choose(Role::Table, 256, 1.0, TensorType::F16), (TensorType::F32, None));
    }

    #[test]
    fn gives_matrices_the_type_that_their_rows_allow() {
        let choose = |row_len, requested| choose(Role::Matrix, row_len, 1.0, requested);
        assert_eq!(choose(768, TensorType::Q4K), (TensorType::Q4K, None));
        assert_eq!(choose(128, TensorType::Q4K), (TensorType::F16, Some(Reason::RowLength)));
        assert_eq!(choose(128, TensorType::Q8_0), (TensorType::Q8_0, None));
        assert_eq!(choose(4, TensorType::Q8_0), (TensorType::F32, Some(Reason::ShortRows)));
        assert_eq!(choose(4, TensorType::F16), (TensorType::F16, None));
    }

    #[test]
    fn keeps_values_that_would_overflow() {
        let choose = |max_abs, requested| choose(Role::WordEmbedding, 768, max_abs, requested);
        let kept = (TensorType::F32, Some(Reason::Range));
        assert_eq!(choose(65_504.0, TensorType::F16), (TensorType::F16, None));
        assert_eq!(choose(65_505.0, TensorType::F16), kept);
        assert_eq!(choose(65_505.0, TensorType::Q4_1), kept);
        assert_eq!(choose(65_505.0, TensorType::BF16), (TensorType::BF16, None));
        assert_eq!(choose(f32::MAX, TensorType::BF16), kept);
        assert_eq!(choose(f32::MAX, TensorType::F32), (TensorType::F32, None));
    }
}
