//! The tensors of a model file, lying where the file lies.

use std::collections::HashMap;
use std::ffi::CString;
use std::ops::Range;
use std::ptr::NonNull;

use ggml_sys_bindings as sys;

use super::{AlignedBuffer, Tensor};
use crate::Error;
use crate::gguf;
use crate::storage::Storage;

/// Read-only tensors by name. Their data is the file's own bytes: nothing is copied.
pub(crate) struct Weights {
    context: NonNull<sys::ggml_context>,
    tensors: HashMap<String, NonNull<sys::ggml_tensor>>,
    infos: HashMap<String, gguf::TensorInfo>,
    // Both are referred to by `context`, so they are dropped after it (see `Drop`).
    _metadata: AlignedBuffer,
    storage: Storage,
}

/// A tensor as the file holds it: rows of numbers of some type.
#[derive(Clone, Copy)]
pub(crate) struct Stored<'w> {
    pub tensor_type: gguf::TensorType,
    pub columns: usize,
    pub rows: usize,
    bytes: &'w [u8],
}

impl<'w> Stored<'w> {
    /// The bytes of one row.
    pub fn row(&self, row: usize) -> &'w [u8] {
        self.some_rows(row..row + 1)
    }

    /// The bytes of neighbouring rows.
    pub fn some_rows(&self, rows: Range<usize>) -> &'w [u8] {
        let bytes = self.bytes.len() / self.rows;
        &self.bytes[rows.start * bytes..rows.end * bytes]
    }

    /// All numbers.
    pub fn to_f32(self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.columns];
        super::dequantize(self.tensor_type, self.bytes, &mut values);
        values
    }
}

// SAFETY: after construction nothing writes to the context, the tensors or their data: each has a name, and naming
// a leaf is all that ggml does to one when it builds or computes a graph.
unsafe impl Send for Weights {}
// SAFETY: as above.
unsafe impl Sync for Weights {}

impl Weights {
    /// Wraps the given tensors of `storage`, whose ranges the reader has checked.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is no room for the tensors' descriptions.
    ///
    /// # Panics
    /// If a tensor lies outside of `storage`: a [`gguf::TensorInfo`] cannot when both are of one file.
    pub fn new(storage: Storage, infos: &[gguf::TensorInfo]) -> Result<Self, Error> {
        // SAFETY: returns a constant of the build.
        let overhead = unsafe { sys::ggml_tensor_overhead() };
        let mut metadata = AlignedBuffer::new(overhead * infos.len().max(1), "the list of tensors")?;
        let params = sys::ggml_init_params {
            mem_size: metadata.len(),
            mem_buffer: metadata.as_mut_ptr().cast(),
            no_alloc: true,
        };
        super::silence();
        // SAFETY: the buffer is aligned and outlives the context.
        let context = unsafe { sys::ggml_init(params) };
        let context = NonNull::new(context).ok_or(Error::Ggml("no context"))?;
        let by_name = infos.iter().map(|info| (info.name().to_owned(), info.clone())).collect();
        let mut weights =
            Weights { context, tensors: HashMap::new(), infos: by_name, _metadata: metadata, storage };
        for info in infos {
            let tensor = weights.describe(info);
            weights.tensors.insert(info.name().to_owned(), tensor);
        }
        Ok(weights)
    }

    fn describe(&self, info: &gguf::TensorInfo) -> NonNull<sys::ggml_tensor> {
        let data = &self.storage.as_slice()[info.range()];
        let dims: Vec<i64> = info.dims().iter().map(|dim| *dim as i64).collect();
        let name = CString::new(info.name()).expect("the reader refuses names with NUL");
        // SAFETY: the context was made with room for every tensor; type, rank and sizes passed the reader.
        let tensor = unsafe {
            let tensor_type = sys::ggml_type(info.tensor_type().id());
            sys::ggml_new_tensor(self.context.as_ptr(), tensor_type, dims.len() as i32, dims.as_ptr())
        };
        let tensor = NonNull::new(tensor).expect("room for every tensor");
        // SAFETY: the tensor was just made and is not shared yet. ggml only reads data of leaves, so the cast to a
        // mutable pointer is never used to write.
        unsafe {
            assert_eq!(sys::ggml_nbytes(tensor.as_ptr()), data.len(), "the reader's size is ggml's");
            sys::ggml_set_name(tensor.as_ptr(), name.as_ptr());
            (*tensor.as_ptr()).data = data.as_ptr().cast_mut().cast();
        }
        tensor
    }

    /// The tensor of that name.
    ///
    /// # Panics
    /// If there is none: a model is only made once all its tensors are known to be there.
    pub fn tensor(&self, name: &str) -> Tensor<'_> {
        let tensor = self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name:?}"));
        // SAFETY: lives as long as `self`.
        unsafe { Tensor::new(*tensor) }
    }

    /// The tensor of that name as the file holds it.
    ///
    /// # Panics
    /// As [`Weights::tensor`].
    pub fn stored(&self, name: &str) -> Stored<'_> {
        let info = self.infos.get(name).unwrap_or_else(|| panic!("no tensor {name:?}"));
        let columns = info.dims()[0] as usize;
        Stored {
            tensor_type: info.tensor_type(),
            columns,
            rows: info.elements() as usize / columns,
            bytes: &self.storage.as_slice()[info.range()],
        }
    }

    /// The whole file.
    pub fn file(&self) -> &[u8] {
        self.storage.as_slice()
    }

    /// Where the data of the tensor of that name lies in the file.
    ///
    /// # Panics
    /// As [`Weights::tensor`].
    pub fn range(&self, name: &str) -> Range<usize> {
        self.infos.get(name).unwrap_or_else(|| panic!("no tensor {name:?}")).range()
    }

    /// The name of a tensor, if it is one of these.
    pub fn name(&self, tensor: NonNull<sys::ggml_tensor>) -> Option<&str> {
        self.tensors.iter().find(|(_, known)| **known == tensor).map(|(name, _)| name.as_str())
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once, while its memory still stands.
        unsafe { sys::ggml_free(self.context.as_ptr()) }
    }
}
