//! The tensors of a model file as ggml sees them.

use std::collections::HashMap;
use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::Arc;

use ggml_sys_bindings as sys;

use super::{AlignedBuffer, Backend, DeviceBuffer, GraphMemory, Tensor};
use crate::Error;
use crate::gguf::{TensorInfo, TensorType};
use crate::weights::Weights;

/// A model's weights, described to ggml.
pub(crate) struct Tensors {
    context: NonNull<sys::ggml_context>,
    tensors: HashMap<String, NonNull<sys::ggml_tensor>>,
    // What is left is referred to by `context`, so it is dropped after it (see `Drop`).
    _metadata: AlignedBuffer,
    /// Their data on the host are the file's own bytes: nothing is copied.
    weights: Arc<Weights>,
    /// Their data on a device.
    blocks: Vec<DeviceBuffer>,
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
        let mut tensors = Self::empty(weights)?;
        for info in weights.infos() {
            let tensor = tensors.describe(info, info.tensor_type());
            // SAFETY: the tensor was just made and is not shared yet. ggml only reads data of leaves, so the cast to a mutable pointer
            // is never used to write. The data live as long as the weights.
            unsafe {
                assert_eq!(
                    sys::ggml_nbytes(tensor.as_ptr()),
                    info.range().len(),
                    "the reader's size is ggml's"
                );
                (*tensor.as_ptr()).data =
                    file.map_or(std::ptr::null_mut(), |file| file[info.range()].as_ptr().cast_mut().cast());
            }
        }
        Ok(tensors)
    }

    /// Describes the tensors that `is_wanted` as they will be on a device: as stored, or as f32 where `is_unpacked` or the device does not
    /// multiply the type. They have no data yet.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if there is no room for the descriptions.
    pub fn on_device(
        weights: &Arc<Weights>,
        backend: &Backend,
        is_wanted: impl Fn(&TensorInfo) -> bool,
        is_unpacked: impl Fn(&TensorInfo) -> bool,
    ) -> Result<Self, Error> {
        let mut tensors = Self::empty(weights)?;
        let mut multiplied = HashMap::new();
        for info in weights.infos().filter(|info| is_wanted(info)) {
            let stored = info.tensor_type();
            let mut can_multiply = true;
            if stored != TensorType::F32 && !is_unpacked(info) {
                can_multiply = match multiplied.get(&stored) {
                    Some(known) => *known,
                    None => {
                        let found = multiplies(backend, info)?;
                        multiplied.insert(stored, found);
                        found
                    }
                };
            }
            let unpacked = is_unpacked(info) || !can_multiply;
            tensors.describe(info, if unpacked { TensorType::F32 } else { stored });
        }
        Ok(tensors)
    }

    fn empty(weights: &Arc<Weights>) -> Result<Self, Error> {
        // SAFETY: returns a constant of the build.
        let overhead = unsafe { sys::ggml_tensor_overhead() };
        let count = weights.infos().len();
        let mut metadata = AlignedBuffer::new(overhead * count.max(1), "the list of tensors")?;
        let params = sys::ggml_init_params {
            mem_size: metadata.len(),
            mem_buffer: metadata.as_mut_ptr().cast(),
            no_alloc: true,
        };
        // SAFETY: the buffer is aligned and outlives the context.
        let context = unsafe { super::context(params) }?;
        Ok(Tensors {
            context,
            tensors: HashMap::with_capacity(count),
            _metadata: metadata,
            weights: Arc::clone(weights),
            blocks: Vec::new(),
        })
    }

    fn describe(&mut self, info: &TensorInfo, tensor_type: TensorType) -> NonNull<sys::ggml_tensor> {
        let dims: Vec<i64> = info.dims().iter().map(|dim| *dim as i64).collect();
        let name = CString::new(info.name()).expect("the reader refuses names with NUL");
        // SAFETY: the context was made with room for every tensor; type, rank and sizes passed the reader.
        let tensor = unsafe {
            let tensor_type = sys::ggml_type(tensor_type.id());
            sys::ggml_new_tensor(self.context.as_ptr(), tensor_type, dims.len() as i32, dims.as_ptr())
        };
        let tensor = NonNull::new(tensor).expect("room for every tensor");
        // SAFETY: the tensor was just made, and the name is a string.
        unsafe { sys::ggml_set_name(tensor.as_ptr(), name.as_ptr()) };
        self.tensors.insert(info.name().to_owned(), tensor);
        tensor
    }

    /// Which tensors share a block of the device's memory, with their places there, and the blocks' sizes.
    fn blocks(&self, backend: &Backend) -> Vec<(usize, Vec<(&str, usize)>)> {
        let alignment = backend.alignment();
        let mut names: Vec<&str> = self.tensors.keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut blocks: Vec<(usize, Vec<(&str, usize)>)> = Vec::new();
        for name in names {
            let bytes = backend.bytes_of(self.tensor(name)).next_multiple_of(alignment);
            match blocks.last_mut().filter(|(len, _)| len + bytes <= backend.max_block()) {
                Some((len, places)) => {
                    places.push((name, *len));
                    *len += bytes;
                }
                None => blocks.push((bytes, vec![(name, 0)])),
            }
        }
        blocks
    }

    /// Bytes that the tensors take on the device.
    pub fn device_bytes(&self, backend: &Backend) -> usize {
        self.blocks(backend).iter().map(|(len, _)| len).sum()
    }

    /// Copies the tensors to the device, and tells the share that is there; gives up when `ready` returns false.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`], [`Error::Read`], [`Error::Cancelled`].
    pub fn upload(&mut self, backend: &Backend, ready: &dyn Fn(f32) -> bool) -> Result<(), Error> {
        let mut blocks = Vec::new();
        let (mut done, all) = (0, self.device_bytes(backend).max(1));
        let (mut bytes, mut numbers) = (Vec::new(), Vec::new());
        for (len, places) in self.blocks(backend) {
            let block = DeviceBuffer::new(backend, len, "the weights on the device")?;
            for (name, offset) in places {
                let tensor = self.tensor(name);
                block.place(backend, tensor, offset)?;
                let stored = self.weights.stored(name);
                bytes.resize(stored.range().len(), 0);
                let mut data = self.weights.storage().fetch(stored.range(), &mut bytes)?;
                if !tensor.is_of(stored.tensor_type) {
                    numbers.resize(stored.rows * stored.columns, 0.0);
                    super::dequantize(stored.tensor_type, data, &mut numbers);
                    data = as_bytes(&numbers);
                }
                backend.set(tensor, data)?;
                done += data.len();
                if !ready((done as f32 / all as f32).min(1.0)) {
                    return Err(Error::Cancelled);
                }
            }
            blocks.push(block);
        }
        self.blocks = blocks;
        Ok(())
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

/// Whether the device multiplies that matrix as it is stored.
fn multiplies(backend: &Backend, info: &TensorInfo) -> Result<bool, Error> {
    const NODES: usize = 4;
    /// Rows of an input: more than what the backends' kernels for a single one take.
    const ROWS: i64 = 20;
    let room = AlignedBuffer::new(GraphMemory::bytes(NODES), "the description of a product")?;
    let memory = GraphMemory::new(NODES, room)?;
    let dims: Vec<i64> = info.dims().iter().map(|dim| *dim as i64).collect();
    // SAFETY: the context has room for three tensors; type, rank and sizes passed the reader, and a matrix's first size is its columns.
    Ok(unsafe {
        let context = memory.context();
        let tensor_type = sys::ggml_type(info.tensor_type().id());
        let matrix = sys::ggml_new_tensor(context, tensor_type, dims.len() as i32, dims.as_ptr());
        let x = sys::ggml_new_tensor_2d(context, sys::ggml_type::GGML_TYPE_F32, dims[0], ROWS);
        let product = NonNull::new(sys::ggml_mul_mat(context, matrix, x)).expect("room for a product");
        backend.supports(Tensor::new(product))
    })
}

fn as_bytes(numbers: &[f32]) -> &[u8] {
    // SAFETY: any bits of an f32 are four bytes.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once, while its memory still stands.
        unsafe { sys::ggml_free(self.context.as_ptr()) }
    }
}
