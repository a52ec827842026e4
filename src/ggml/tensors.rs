//! The tensors of a model file as ggml sees them.

use std::collections::HashMap;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use ggml_sys_bindings as sys;

use super::{AlignedBuffer, Tensor};
use crate::Error;
use crate::gguf::TensorInfo;
use crate::weights::Weights;

/// A model's weights, described to ggml. Their data are the file's own bytes: nothing is copied.
pub(crate) struct Tensors {
    context: NonNull<sys::ggml_context>,
    tensors: HashMap<String, NonNull<sys::ggml_tensor>>,
    // Both are referred to by `context`, so they are dropped after it (see `Drop`).
    _metadata: AlignedBuffer,
    _weights: Arc<Weights>,
}

// SAFETY: after construction nothing writes to the context, the tensors or their data: each has a name, and naming
// a leaf is all that ggml does to one when it builds or computes a graph.
unsafe impl Send for Tensors {}
// SAFETY: as above.
unsafe impl Sync for Tensors {}

impl Tensors {
    /// Describes all tensors: their shapes, and their data if the file is in memory or mapped.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is no room for the descriptions.
    pub fn new(weights: &Arc<Weights>) -> Result<Self, Error> {
        let file = weights.storage().view();
        // SAFETY: returns a constant of the build.
        let overhead = unsafe { sys::ggml_tensor_overhead() };
        let count = weights.infos().len();
        let mut metadata = AlignedBuffer::new(overhead * count.max(1), "the list of tensors")?;
        let params = sys::ggml_init_params {
            mem_size: metadata.len(),
            mem_buffer: metadata.as_mut_ptr().cast(),
            no_alloc: true,
        };
        super::silence();
        // SAFETY: the buffer is aligned and outlives the context.
        let context = unsafe { sys::ggml_init(params) };
        let context = NonNull::new(context).ok_or(Error::Ggml("no context"))?;
        let mut tensors = Tensors {
            context,
            tensors: HashMap::with_capacity(count),
            _metadata: metadata,
            _weights: Arc::clone(weights),
        };
        for info in weights.infos() {
            let tensor = tensors.describe(info, file.map(|file| &file[info.range()]));
            tensors.tensors.insert(info.name().to_owned(), tensor);
        }
        Ok(tensors)
    }

    fn describe(&self, info: &TensorInfo, data: Option<&[u8]>) -> NonNull<sys::ggml_tensor> {
        let dims: Vec<i64> = info.dims().iter().map(|dim| *dim as i64).collect();
        let name = CString::new(info.name()).expect("the reader refuses names with NUL");
        // SAFETY: the context was made with room for every tensor; type, rank and sizes passed the reader.
        let tensor = unsafe {
            let tensor_type = sys::ggml_type(info.tensor_type().id());
            sys::ggml_new_tensor(self.context.as_ptr(), tensor_type, dims.len() as i32, dims.as_ptr())
        };
        let tensor = NonNull::new(tensor).expect("room for every tensor");
        // SAFETY: the tensor was just made and is not shared yet. ggml only reads data of leaves, so the cast to a
        // mutable pointer is never used to write. The data live as long as the weights.
        unsafe {
            assert_eq!(sys::ggml_nbytes(tensor.as_ptr()), info.range().len(), "the reader's size is ggml's");
            sys::ggml_set_name(tensor.as_ptr(), name.as_ptr());
            (*tensor.as_ptr()).data =
                data.map_or(std::ptr::null_mut(), |data| data.as_ptr().cast_mut().cast());
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

    /// The name of a tensor, if it is one of these.
    pub fn name(&self, tensor: NonNull<sys::ggml_tensor>) -> Option<&str> {
        self.tensors.iter().find(|(_, known)| **known == tensor).map(|(name, _)| name.as_str())
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once, while its memory still stands.
        unsafe { sys::ggml_free(self.context.as_ptr()) }
    }
}
