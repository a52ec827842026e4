//! What a file says about one tensor.

use std::ops::Range;

use super::error::{Error, Rule};
use super::limits;
use super::metadata::check_text;
use super::tensor_type::TensorType;

/// A tensor of a file that was checked: its data lies inside the file, and its length follows from
/// type and dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub(super) name: String,
    pub(super) tensor_type: TensorType,
    /// The unused ones are 1.
    pub(super) dims: [u64; limits::MAX_DIMENSIONS],
    pub(super) dim_count: usize,
    pub(super) size: Size,
    /// From the start of the file. Offset plus bytes fit a `usize`.
    pub(super) offset: u64,
}

impl TensorInfo {
    /// The name, 1 to 63 bytes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the elements are stored.
    pub fn tensor_type(&self) -> TensorType {
        self.tensor_type
    }

    /// One to four dimensions in ggml's order, the fastest first: a matrix of `[out, in]` in
    /// PyTorch is `[in, out]` here.
    pub fn dims(&self) -> &[u64] {
        self.dims.get(..self.dim_count).unwrap_or(&self.dims)
    }

    /// How many elements there are: the product of the dimensions.
    pub fn elements(&self) -> u64 {
        self.size.elements
    }

    /// Where the data starts, in bytes from the start of the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes of the data, without padding.
    pub fn bytes(&self) -> u64 {
        self.size.bytes
    }

    /// Where the data is in the file.
    pub fn range(&self) -> Range<usize> {
        self.offset as usize..(self.offset + self.size.bytes) as usize
    }
}

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name, 1 to 63 bytes of UTF-8 without NUL.
    pub name: String,
    /// How the elements are stored.
    pub tensor_type: TensorType,
    /// One to four dimensions in ggml's order, the fastest first. The first is a whole number of
    /// the type's blocks.
    pub dims: Vec<u64>,
}

/// What a tensor's type and dimensions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub elements: u64,
    pub bytes: u64,
}

impl Size {
    /// Computes in 128 bits: a product of dimensions that wraps would give a small size to a large
    /// tensor.
    pub fn of(tensor_type: TensorType, dims: &[u64]) -> Result<Self, Error> {
        if !(1..=limits::MAX_DIMENSIONS).contains(&dims.len()) {
            return Err(dimension_count(dims.len() as u64));
        }
        if let Some(position) = dims.iter().position(|dim| *dim == 0) {
            return Err(Error::new(
                Rule::DimensionZero,
                format_args!("at least 1"),
                format_args!("0 as dimension {position}"),
            ));
        }
        let elements = dims
            .iter()
            .try_fold(1u128, |product, dim| product.checked_mul(u128::from(*dim)))
            .filter(|elements| *elements <= u128::from(limits::TENSOR_SIZE))
            .ok_or_else(|| {
                Error::new(
                    Rule::TensorTooLarge,
                    format_args!("at most {} elements", limits::TENSOR_SIZE),
                    format_args!("dimensions {dims:?}"),
                )
            })?;
        let row = dims.first().copied().unwrap_or(0);
        let block = tensor_type.block_len() as u64;
        if !row.is_multiple_of(block) {
            return Err(Error::new(
                Rule::RowLength,
                format_args!("a multiple of {block} for {tensor_type}"),
                format_args!("{row}"),
            ));
        }
        // The rows are whole blocks, so all of the tensor is. 2^63 elements of up to 4 bytes are
        // far from the end of a u128.
        let bytes = elements / u128::from(block) * tensor_type.block_bytes() as u128;
        if bytes > u128::from(limits::TENSOR_SIZE) {
            return Err(Error::new(
                Rule::TensorTooLarge,
                format_args!("at most {} bytes", limits::TENSOR_SIZE),
                format_args!("{bytes}"),
            ));
        }
        Ok(Self { elements: elements as u64, bytes: bytes as u64 })
    }
}

pub(super) fn dimension_count(found: u64) -> Error {
    Error::new(Rule::DimensionCount, format_args!("1 to {}", limits::MAX_DIMENSIONS), format_args!("{found}"))
}

/// Checks what ggml asks of a tensor's name.
pub(super) fn check_tensor_name(name: &[u8]) -> Result<&str, Error> {
    if name.is_empty() {
        return Err(Error::new(Rule::TensorNameEmpty, format_args!("at least 1 byte"), format_args!("none")));
    }
    if name.len() > limits::TENSOR_NAME_BYTES {
        return Err(tensor_name_too_long(name.len() as u64));
    }
    check_text(name, Rule::TensorNameNotUtf8, Rule::TensorNameNul)
}

pub(super) fn tensor_name_too_long(found: u64) -> Error {
    Error::new(
        Rule::TensorNameTooLong,
        format_args!("at most {} bytes", limits::TENSOR_NAME_BYTES),
        format_args!("{found}"),
    )
}
