//! A safe face for ggml, and the only place that calls it.
//!
//! ggml aborts the process when an assertion fails or memory runs out, so nothing here lets it come to that:
//! the memory is allocated in Rust and handed over (`AlignedBuffer`), where each tensor lies in it is planned in
//! Rust (`MemoryPlan`), and the operations of `Graph` check the shapes that ggml would assert.
//!
//! ```text
//! Tensors ─► Graph (operations) ─► MemoryPlan (offsets) ─► BoundGraph ─► compute on a ThreadPool
//!                                                       └► DeviceGraph ─► compute on a Backend, or by a Scheduler on it and the CPU
//! ```

mod buffer;
mod cpu;
mod device;
mod device_graph;
mod graph;
mod memory_plan;
mod pages;
mod quantize;
mod scheduler;
mod tensors;
mod threads;

pub(crate) use buffer::AlignedBuffer;
pub use buffer::ForeignMemory;
pub(crate) use cpu::check_cpu;
pub use cpu::cpu_features;
pub(crate) use device::{Backend, DeviceBuffer};
pub use device::{Device, DeviceInfo, devices};
pub(crate) use device_graph::{DeviceGraph, DeviceMemory, Places, Unbuilt};
#[cfg(test)]
pub(crate) use graph::NodeId;
pub(crate) use graph::{BoundGraph, Described, Graph, GraphMemory, Region, Tensor};
pub(crate) use memory_plan::MemoryPlan;
pub(crate) use pages::{lock, release, touch};
pub use quantize::{dequantize, quantize, quantize_with_importance};
pub(crate) use scheduler::{Scheduler, Timed};
pub(crate) use tensors::Tensors;
pub use threads::MAX_THREADS;
pub(crate) use threads::{ThreadPool, check_threads};

use std::ptr::NonNull;

use ggml_sys_bindings as sys;

use crate::Error;

/// The version of ggml that this build contains.
pub fn version() -> &'static str {
    // SAFETY: returns a pointer to a string literal.
    let version = unsafe { std::ffi::CStr::from_ptr(ggml_sys_bindings::ggml_version()) };
    version.to_str().unwrap_or("unknown")
}

/// Keeps ggml from writing to standard error: a library says what it has to say through its errors.
fn silence() {
    unsafe extern "C" fn ignore(
        _: ggml_sys_bindings::ggml_log_level,
        _: *const std::ffi::c_char,
        _: *mut std::ffi::c_void,
    ) {
    }
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: the callback ignores its arguments, so it needs no user data.
    ONCE.call_once(|| unsafe { ggml_sys_bindings::ggml_log_set(Some(ignore), std::ptr::null_mut()) });
}

/// A context for descriptions in memory that is given.
///
/// # Errors
/// [`Error::OutOfMemory`]: of the context itself ggml asks the system.
///
/// # Safety
/// The memory must be aligned to [`ALIGNMENT`] and outlive the context.
unsafe fn context(params: sys::ggml_init_params) -> Result<NonNull<sys::ggml_context>, Error> {
    silence();
    // SAFETY: this function's contract; the closure owns nothing.
    let context = unsafe { sys::guarded(|| sys::ggml_init(params)) };
    let context = context.ok().and_then(NonNull::new);
    context.ok_or(Error::OutOfMemory { what: "a context of ggml", bytes: CONTEXT_BYTES })
}

/// What a context takes itself, about.
const CONTEXT_BYTES: usize = 64;

/// The alignment that ggml's kernels and its memory pools want, and a cache line.
pub(crate) const ALIGNMENT: usize = 64;
