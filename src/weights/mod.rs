//! The tensors of a model file, lying where the file lies.

mod storage;

use std::collections::HashMap;
use std::ops::Range;

use crate::Error;
use crate::gguf::{TensorInfo, TensorType};

pub use storage::Loader;
pub(crate) use storage::Storage;

/// Read-only tensors by name. Their data are the file's own bytes: nothing is copied.
pub(crate) struct Weights {
    infos: HashMap<String, TensorInfo>,
    storage: Storage,
}

/// A tensor as the file holds it: rows of numbers of some type.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'w> {
    pub tensor_type: TensorType,
    pub columns: usize,
    pub rows: usize,
    /// Where it begins in the file.
    pub start: usize,
    bytes: usize,
    storage: &'w Storage,
}

impl Stored<'_> {
    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.bytes / self.rows
    }

    /// Where it lies in the file.
    pub fn range(&self) -> Range<usize> {
        self.start..self.start + self.bytes
    }

    /// Reads the numbers of an f32 tensor.
    ///
    /// # Errors
    /// [`Error::Read`].
    ///
    /// # Panics
    /// If there are not as many, or they are of another type.
    pub fn read_f32(self, values: &mut [f32]) -> Result<(), Error> {
        assert!(
            self.tensor_type == TensorType::F32 && values.len() == self.rows * self.columns,
            "f32 numbers"
        );
        let mut buffer = [0; 4096];
        let mut at = self.start;
        for values in values.chunks_mut(buffer.len() / size_of::<f32>()) {
            let bytes = self.storage.fetch(at..at + size_of_val(values), &mut buffer)?;
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            at += size_of_val(values);
        }
        Ok(())
    }

    /// All numbers.
    ///
    /// # Errors
    /// [`Error::Read`].
    #[cfg(test)]
    pub fn to_f32(self) -> Result<Vec<f32>, Error> {
        let mut buffer = vec![0; self.bytes];
        let mut values = vec![0.0; self.rows * self.columns];
        let bytes = self.storage.fetch(self.range(), &mut buffer)?;
        crate::ggml::dequantize(self.tensor_type, bytes, &mut values);
        Ok(values)
    }
}

impl Weights {
    /// The given tensors of `storage`, whose ranges the reader has checked.
    pub fn new(storage: Storage, infos: &[TensorInfo]) -> Self {
        let infos = infos.iter().map(|info| (info.name().to_owned(), info.clone())).collect();
        Weights { infos, storage }
    }

    /// The tensor of that name.
    ///
    /// # Panics
    /// If there is none: a model is only made once all its tensors are known to be there.
    pub fn stored(&self, name: &str) -> Stored<'_> {
        let info = self.infos.get(name).unwrap_or_else(|| panic!("no tensor {name:?}"));
        let columns = info.dims()[0] as usize;
        Stored {
            tensor_type: info.tensor_type(),
            columns,
            rows: info.elements() as usize / columns,
            start: info.range().start,
            bytes: info.range().len(),
            storage: &self.storage,
        }
    }

    /// All tensors.
    pub fn infos(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.infos.values()
    }

    /// What they lie in.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }
}
