//! A graph in a session's own memory, where the CPU computes it.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use ggml_sys_bindings as sys;

use super::{Graph, Tensor};
use crate::Error;
use crate::ggml::memory_plan::{Place, Slot};
use crate::ggml::{AlignedBuffer, MemoryPlan, ThreadPool};

/// Numbers in a session's memory: an input to fill, or a result to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    offset: usize,
    elements: usize,
}

impl<'g> Graph<'g> {
    /// Gives every tensor its place in `memory`: this graph's own part starts at `kept`, the shared part at `scratch`.
    ///
    /// # Panics
    /// If the plan is not for this graph or `memory` is smaller than it demands.
    pub fn bind<'m>(
        self,
        plan: &MemoryPlan,
        memory: &'m mut AlignedBuffer,
        kept: usize,
        scratch: usize,
    ) -> BoundGraph<'g, 'm> {
        assert!(kept + plan.kept_bytes() <= memory.len() && scratch + plan.scratch_bytes() <= memory.len());
        assert_eq!(
            (plan.inputs.len(), plan.steps.len()),
            (self.inputs.len(), self.len()),
            "another graph's plan"
        );
        let base = memory.as_mut_ptr();
        let place = |tensor: NonNull<sys::ggml_tensor>, slot: &Slot| {
            // SAFETY: nothing refers to the tensor, and its memory lies within `memory`: the plan's parts do, as checked
            // above, and the tensor is no larger than its slot.
            unsafe {
                let raw = tensor.as_ptr();
                let data = match slot.place {
                    Place::Viewed => {
                        let viewed = (*raw).view_src;
                        assert!(
                            !viewed.is_null() && !(*viewed).data.is_null(),
                            "a view of memory with a place"
                        );
                        (*viewed).data.cast::<u8>().add((*raw).view_offs)
                    }
                    Place::Kept(offset) => base.add(kept + offset),
                    Place::Scratch(offset) => base.add(scratch + offset),
                };
                assert!(
                    slot.place == Place::Viewed || sys::ggml_nbytes(raw) <= slot.bytes,
                    "a larger graph's plan"
                );
                (*raw).data = data.cast();
            }
        };
        for (input, slot) in self.inputs.iter().zip(&plan.inputs) {
            place(input.raw, slot);
        }
        for (node, slot) in self.nodes().zip(&plan.steps) {
            place(node, slot);
        }
        BoundGraph { graph: self, memory }
    }
}

/// A graph whose tensors have their memory.
pub(crate) struct BoundGraph<'g, 'm> {
    graph: Graph<'g>,
    memory: &'m mut AlignedBuffer,
}

impl<'g> BoundGraph<'g, '_> {
    /// Where a tensor of the graph without gaps lies.
    ///
    /// # Panics
    /// If it has gaps, or does not lie in the graph's memory.
    pub fn region(&self, tensor: Tensor<'g>) -> Region {
        let (start, len) = (self.memory.as_slice().as_ptr().addr(), self.memory.len());
        let offset = tensor.get().data.addr().checked_sub(start).filter(|offset| *offset < len);
        assert!(tensor.is_contiguous(), "a region without gaps");
        Region { offset: offset.expect("memory of this graph"), elements: tensor.elements() }
    }

    /// The numbers of an f32 input, to fill.
    pub fn f32s_mut(&mut self, input: Tensor<'g>) -> &mut [f32] {
        let region = self.region(input);
        self.memory.f32s_mut(region.offset, region.elements)
    }

    /// Fills an input of indices.
    ///
    /// # Panics
    /// If there are not as many indices as the input has room for.
    pub fn set_indices(&mut self, input: Tensor<'g>, indices: impl ExactSizeIterator<Item = u32>) {
        let region = self.region(input);
        assert_eq!(indices.len(), region.elements, "as many indices as the input has");
        let bytes = &mut self.memory.as_mut_slice()[region.offset..][..4 * region.elements];
        for (bytes, index) in bytes.as_chunks_mut().0.iter_mut().zip(indices) {
            *bytes = index.to_ne_bytes();
        }
    }

    /// Copies what another graph has left in the same memory into an f32 input.
    ///
    /// # Panics
    /// If the sizes differ.
    pub fn copy(&mut self, from: Region, input: Tensor<'g>) {
        let to = self.region(input);
        assert_eq!(from.elements, to.elements, "as many numbers as the input has");
        let bytes = from.offset..from.offset + 4 * from.elements;
        self.memory.as_mut_slice().copy_within(bytes, to.offset);
    }

    /// Runs the operations, and asks before the first and after each whether to give up. Returns false if somebody wanted to.
    ///
    /// # Errors
    /// [`Error::Ggml`] if ggml reports a failure, or `work` is smaller than [`Graph::work_bytes`] says.
    ///
    /// # Panics
    /// If `give_up` does.
    pub fn compute(
        &mut self,
        pool: &mut ThreadPool,
        work: &mut AlignedBuffer,
        give_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, Error> {
        /// Who is asked, and what a panic of theirs said.
        struct Asked<'a> {
            give_up: &'a (dyn Fn() -> bool + Sync),
            panic: Mutex<Option<Box<dyn Any + Send>>>,
        }
        unsafe extern "C" fn ask(asked: *mut c_void) -> bool {
            // SAFETY: points to the variable below, which outlives the computation.
            let asked = unsafe { &*asked.cast::<Asked<'_>>() };
            // A panic must not unwind through ggml.
            catch_unwind(AssertUnwindSafe(asked.give_up)).unwrap_or_else(|panic| {
                asked.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                true
            })
        }
        if give_up() {
            return Ok(false);
        }
        let asked = Asked { give_up, panic: Mutex::new(None) };
        let mut plan = self.graph.compute_plan(pool.threads(), pool.as_ptr())?;
        if plan.work_size > work.len() {
            return Err(Error::Ggml("a run needs more work memory than its limits said"));
        }
        plan.work_data = work.as_mut_ptr();
        plan.abort_callback = Some(ask);
        plan.abort_callback_data = (&raw const asked).cast_mut().cast();
        // SAFETY: every tensor has memory of its size within `self.memory` or the model's storage, the work memory is
        // large enough, and pool, work and memory are borrowed exclusively until the call returns.
        let status = unsafe { sys::ggml_graph_compute(self.graph.graph.as_ptr(), &mut plan) };
        if let Some(panic) = asked.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
        match status {
            sys::ggml_status::GGML_STATUS_SUCCESS => Ok(true),
            sys::ggml_status::GGML_STATUS_ABORTED => Ok(false),
            sys::ggml_status::GGML_STATUS_ALLOC_FAILED => Err(Error::Ggml("out of memory")),
            _ => Err(Error::Ggml("the computation failed")),
        }
    }
}

impl Region {
    /// That many numbers, so many bytes from the start of the memory.
    pub fn new(offset: usize, elements: usize) -> Self {
        Region { offset, elements }
    }

    /// Where it begins, from the start of the memory.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// The bytes that it takes there.
    pub fn bytes(self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.elements * size_of::<f32>()
    }

    /// The numbers that lie there, to write.
    pub fn write(self, memory: &mut AlignedBuffer) -> &mut [f32] {
        memory.f32s_mut(self.offset, self.elements)
    }

    /// The numbers that lie there.
    pub fn read(self, memory: &AlignedBuffer) -> &[f32] {
        memory.f32s(self.offset, self.elements)
    }
}
