//! State dicts as `torch.save` writes them: a pickle that describes the tensors, and their numbers beside it.
//!
//! Of the two forms, [`archive`] is the one since PyTorch 1.6 and [`legacy`] the one before. Either tells where
//! each storage's numbers lie in the file, so that they can be read a piece at a time.

mod archive;
mod legacy;
mod state_dict;

use std::collections::HashMap;

use lxmert::numbers::Float;

use super::data_file::DataFile;
use super::pickle::{self, Dtype, Pickle, Storage, Tensor};
use super::stored::{Entry, Layout, Listing};
use crate::Error;

/// As many bytes as tell the format.
pub(super) const START: u64 = 16;

/// Where storages start in the file, by key.
type Places = HashMap<String, u64>;

/// Whether a file that starts so is of `torch.save`.
pub(super) fn is_torch(start: &[u8]) -> bool {
    // A safetensors file starts with the length of its header, which may well look like a pickle, and then a brace.
    start.starts_with(archive::MAGIC) || (start.first() == Some(&0x80) && start.get(8) != Some(&b'{'))
}

/// Reads the description of the tensors.
pub(super) fn list(file: &DataFile) -> Result<Listing, Error> {
    let is_archive = file.start(START)?.starts_with(archive::MAGIC);
    if is_archive { archive::list(file) } else { legacy::list(file) }
}

fn broken(file: &DataFile, reason: impl ToString) -> Error {
    Error::Torch { path: file.path.clone(), reason: reason.to_string() }
}

fn refused(file: &DataFile, refusal: &pickle::Refusal) -> Error {
    broken(file, format_args!("its pickle is refused: {refusal}"))
}

/// Brings the pickle's tensors and the places of their storages together.
fn listing(
    file: &DataFile,
    pickle: &Pickle<'_>,
    place_of: impl Fn(&Storage<'_>) -> Result<u64, String>,
) -> Result<Listing, Error> {
    let state_dict = state_dict::find(pickle).map_err(|reason| broken(file, reason))?;
    let mut entries = Vec::new();
    for (name, tensor) in state_dict.tensors {
        let start =
            place_of(&tensor.storage).map_err(|reason| broken(file, format_args!("{name:?}: {reason}")))?;
        entries.push(entry(name, tensor, start));
    }
    Ok(Listing { entries, notes: state_dict.notes })
}

fn entry(name: &str, tensor: &Tensor<'_>, storage_start: u64) -> Entry {
    let shape: Vec<_> = tensor.shape.iter().map(|size| *size as usize).collect();
    let element = match tensor.dtype {
        Dtype::F16 => Some(Float::F16),
        Dtype::BF16 => Some(Float::BF16),
        Dtype::F32 => Some(Float::F32),
        Dtype::F64 => Some(Float::F64),
        _ => None,
    };
    let layout = layout(tensor);
    let type_name = format!("{:?}", tensor.dtype);
    Entry {
        name: name.to_owned(),
        dtype: match layout {
            Some(_) => type_name,
            None => format!("{type_name} with strides {:?}", tensor.strides),
        },
        element: element.filter(|_| layout.is_some()),
        // Inside the file, as the pickle's tensors are inside their storages.
        offset: storage_start + tensor.offset * tensor.dtype.bytes(),
        layout: layout.unwrap_or(Layout::Contiguous),
        shape,
    }
}

/// The order of the elements, if it is one of those that are read.
fn layout(tensor: &Tensor<'_>) -> Option<Layout> {
    let mut dense = 1;
    let is_contiguous = tensor.shape.iter().zip(&tensor.strides).rev().all(|(size, stride)| {
        // The stride of an axis of one is never used.
        let fits = *size == 1 || *stride == dense;
        dense *= size;
        fits
    });
    if is_contiguous || tensor.shape.contains(&0) {
        return Some(Layout::Contiguous);
    }
    let ([_, columns], [by_row, by_column]) = (&tensor.shape[..], &tensor.strides[..]) else { return None };
    let columns = *columns as usize;
    match (*by_row, *by_column) {
        (stride, 1) => Some(Layout::Rows { columns, stride }),
        (1, stride) => Some(Layout::Columns { columns, stride }),
        _ => None,
    }
}
