//! The number formats of tensors, and how many bytes a row of each takes.

use std::fmt;
use std::str::FromStr;

/// How a tensor's elements are stored.
///
/// Ids, names and block layouts are those of ggml (`enum ggml_type`, and the `block_*` structs of
/// `ggml-common.h`). Types that ggml has and this list lacks are unknown to the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[repr(u32)]
pub enum TensorType {
    /// 32-bit float.
    F32 = 0,
    /// 16-bit IEEE float.
    F16 = 1,
    /// 4 bits, one scale per 32.
    Q4_0 = 2,
    /// 4 bits, scale and minimum per 32.
    Q4_1 = 3,
    /// 5 bits, one scale per 32.
    Q5_0 = 6,
    /// 5 bits, scale and minimum per 32.
    Q5_1 = 7,
    /// 8 bits, one scale per 32.
    Q8_0 = 8,
    /// 2 bits, with 4-bit scales and minimums per 16 in a block of 256.
    Q2K = 10,
    /// 3 bits, with 6-bit scales per 16 in a block of 256.
    Q3K = 11,
    /// 4 bits, with 6-bit scales and minimums per 32 in a block of 256.
    Q4K = 12,
    /// 5 bits, with 6-bit scales and minimums per 32 in a block of 256.
    Q5K = 13,
    /// 6 bits, with 8-bit scales per 16 in a block of 256.
    Q6K = 14,
    /// 4 bits that index a table of unevenly spaced levels, one scale per 32.
    IQ4NL = 20,
    /// 8-bit signed integer, or any byte.
    I8 = 24,
    /// 32-bit signed integer.
    I32 = 26,
    /// The upper half of a 32-bit float.
    BF16 = 30,
}

impl TensorType {
    /// Every type, in the order of their ids.
    pub const ALL: [Self; 16] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::IQ4NL,
        Self::I8,
        Self::I32,
        Self::BF16,
    ];

    /// The type with this number in a file, if it is known.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.id() == id)
    }

    /// The type's number in a file, which is ggml's too.
    pub const fn id(self) -> u32 {
        self as u32
    }

    /// ggml's name of the type, such as `f32`, `q8_0` or `q4_K`.
    pub const fn name(self) -> &'static str {
        self.layout().0
    }

    /// How many elements share one block; 1 for types that are not quantized.
    pub const fn block_len(self) -> usize {
        self.layout().1
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.layout().2
    }

    /// Bytes of a row of `len` elements. `None` if no whole number of blocks makes up the row, or
    /// if the size does not fit.
    pub const fn row_bytes(self, len: u64) -> Option<u64> {
        let block = self.block_len() as u64;
        if !len.is_multiple_of(block) {
            return None;
        }
        (len / block).checked_mul(self.block_bytes() as u64)
    }

    /// Whether elements are numbers of 16 bits.
    pub const fn is_half(self) -> bool {
        matches!(self, Self::F16 | Self::BF16)
    }

    /// Whether elements are integers, which no weights are.
    pub const fn is_integer(self) -> bool {
        matches!(self, Self::I8 | Self::I32)
    }

    /// Whether elements share a scale.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// Name, elements of a block, and bytes of a block.
    const fn layout(self) -> (&'static str, usize, usize) {
        match self {
            Self::F32 => ("f32", 1, 4),
            Self::F16 => ("f16", 1, 2),
            Self::Q4_0 => ("q4_0", 32, 18),
            Self::Q4_1 => ("q4_1", 32, 20),
            Self::Q5_0 => ("q5_0", 32, 22),
            Self::Q5_1 => ("q5_1", 32, 24),
            Self::Q8_0 => ("q8_0", 32, 34),
            Self::Q2K => ("q2_K", 256, 84),
            Self::Q3K => ("q3_K", 256, 110),
            Self::Q4K => ("q4_K", 256, 144),
            Self::Q5K => ("q5_K", 256, 176),
            Self::Q6K => ("q6_K", 256, 210),
            Self::IQ4NL => ("iq4_nl", 32, 18),
            Self::I8 => ("i8", 1, 1),
            Self::I32 => ("i32", 1, 4),
            Self::BF16 => ("bf16", 1, 2),
        }
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TensorType {
    type Err = UnknownTensorType;

    /// Finds a type by its name in any mixture of cases.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownTensorType(name.to_string()))
    }
}

/// A name that no [`TensorType`] has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownTensorType(pub String);

impl fmt::Display for UnknownTensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown tensor type {:?}; known are", self.0)?;
        for (position, known) in TensorType::ALL.iter().enumerate() {
            let separator = if position == 0 { "" } else { "," };
            write!(f, "{separator} {known}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UnknownTensorType {}
