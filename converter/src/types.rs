//! The types that a file can be made of, and which type each tensor gets.

use std::fmt;
use std::str::FromStr;

use lxmert::gguf::TensorType;
use lxmert::model::Role;
use serde::Serialize;

use crate::recipe::{Q4_K_M, Q5_K_M, Rule, recipe_type};

/// What a file is made of: one type for all matrices, or a recipe that gives some of them a better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileType {
    name: &'static str,
    /// llama-quantize's other name for it, if it has one.
    alias: Option<&'static str>,
    /// llama.cpp's number for such a file (`LLAMA_FTYPE`).
    number: u32,
    base: TensorType,
    recipe: &'static [Rule],
}

/// Every type that a file can be made of. The plain K types are uniform, as llama.cpp's `_S` mixes nearly are, and
/// carry their numbers; `_M` names a recipe.
pub const FILE_TYPES: [FileType; 16] = [
    FileType::uniform(TensorType::F32, None, 0),
    FileType::uniform(TensorType::F16, None, 1),
    FileType::uniform(TensorType::BF16, None, 32),
    FileType::uniform(TensorType::Q8_0, None, 7),
    FileType::uniform(TensorType::Q6K, None, 18),
    FileType { name: "q5_K_M", alias: None, number: 17, base: TensorType::Q5K, recipe: Q5_K_M },
    FileType::uniform(TensorType::Q5K, Some("q5_K_S"), 16),
    FileType::uniform(TensorType::Q5_1, None, 9),
    FileType::uniform(TensorType::Q5_0, None, 8),
    FileType { name: "q4_K_M", alias: None, number: 15, base: TensorType::Q4K, recipe: Q4_K_M },
    FileType::uniform(TensorType::Q4K, Some("q4_K_S"), 14),
    FileType::uniform(TensorType::IQ4NL, None, 25),
    FileType::uniform(TensorType::Q4_1, None, 3),
    FileType::uniform(TensorType::Q4_0, None, 2),
    FileType::uniform(TensorType::Q3K, None, 11),
    FileType::uniform(TensorType::Q2K, None, 10),
];

impl FileType {
    const fn uniform(base: TensorType, alias: Option<&'static str>, number: u32) -> Self {
        FileType { name: base.name(), alias, number, base, recipe: &[] }
    }

    /// Its name, such as `q8_0` or `q4_K_M`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// All names that it is known by.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.alias)
    }

    /// The type of every matrix that no recipe improves.
    pub fn base(self) -> TensorType {
        self.base
    }

    /// llama.cpp's number for a file made of it.
    pub(crate) fn number(self) -> u32 {
        self.number
    }

    /// The type that the recipe gives to that tensor.
    pub(crate) fn of(self, tensor: &str) -> TensorType {
        recipe_type(self.recipe, tensor).unwrap_or(self.base)
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name)
    }
}

impl FromStr for FileType {
    type Err = String;

    /// Finds a type by one of its names in any mixture of cases.
    fn from_str(name: &str) -> Result<Self, String> {
        let is_it = |file_type: &FileType| file_type.names().any(|known| known.eq_ignore_ascii_case(name));
        FILE_TYPES
            .into_iter()
            .find(is_it)
            .ok_or_else(|| format!("no type {name:?}: choose one of {}", names()))
    }
}

impl From<TensorType> for FileType {
    /// A file of that type throughout. One of integers is refused when it is to be made.
    fn from(tensor_type: TensorType) -> Self {
        let uniform =
            FILE_TYPES.into_iter().find(|known| known.recipe.is_empty() && known.base == tensor_type);
        uniform.unwrap_or(FileType::uniform(tensor_type, None, u32::MAX))
    }
}

/// Whether weights can be stored in it.
pub(crate) fn holds_weights(tensor_type: TensorType) -> bool {
    FILE_TYPES.iter().any(|known| known.base == tensor_type)
}

/// The names of all [`FILE_TYPES`], for messages.
pub(crate) fn names() -> String {
    FILE_TYPES.map(|known| known.to_string()).join(", ")
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

/// Whether a tensor may be quantized.
pub(crate) fn is_matrix(role: Role) -> bool {
    matches!(role, Role::Matrix | Role::WordEmbedding)
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
    if !is_matrix(role) {
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
