//! Memory of the caller's own for a session.

use std::ffi::c_void;
use std::ptr::NonNull;

use super::arguments::{UserData, one};
use super::options::LXMERT_MEMORY_ALIGNMENT;
use super::{Failure, lxmert_status};
use crate::{ForeignMemory, Model, Session, SessionOptions};

/// Where a session gets its memory from: one block, taken while the session is made. Both functions are needed, and must not call
/// functions with the session. The struct has no struct_size, and never changes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_allocator {
    /// Returns size bytes that begin at a multiple of alignment, or NULL if it cannot. Called once, on the thread that makes the
    /// session.
    pub allocate:
        Option<unsafe extern "C" fn(user_data: *mut c_void, size: usize, alignment: usize) -> *mut c_void>,
    /// Takes them back. Called once, on the thread that frees the session, or if it could not be made.
    pub release: Option<unsafe extern "C" fn(user_data: *mut c_void, memory: *mut c_void, size: usize)>,
    /// Given to both functions.
    pub user_data: *mut c_void,
}

/// Where a session is to live.
pub(super) enum Memory {
    Heap,
    Block {
        start: NonNull<u8>,
        len: usize,
    },
    Allocator {
        allocate: unsafe extern "C" fn(*mut c_void, usize, usize) -> *mut c_void,
        release: unsafe extern "C" fn(*mut c_void, *mut c_void, usize),
        user_data: UserData,
    },
}

impl Memory {
    /// # Safety
    /// The allocator is NULL or keeps the header's rules; the block is NULL or of that size, and the session's until it is freed.
    pub unsafe fn read(
        allocator: *const lxmert_allocator,
        block: *mut c_void,
        len: usize,
    ) -> Result<Self, Failure> {
        let block = NonNull::new(block.cast::<u8>());
        if allocator.is_null() {
            return match (block, len) {
                (None, 0) => Ok(Memory::Heap),
                (None, len) => Err(Failure::argument(format_args!(
                    "options->memory is NULL, but memory_size {len}: give both, or neither"
                ))),
                (Some(start), len) => Ok(Memory::Block { start, len }),
            };
        }
        if block.is_some() || len > 0 {
            return Err(Failure::argument(format_args!(
                "options has an allocator and memory, or its size: give one of them"
            )));
        }
        // SAFETY: an allocator, by contract.
        let allocator = unsafe { one("options->allocator", allocator) }?;
        let (Some(allocate), Some(release)) = (allocator.allocate, allocator.release) else {
            return Err(Failure::argument(format_args!(
                "options->allocator lacks allocate or release: it needs a function for each"
            )));
        };
        Ok(Memory::Allocator { allocate, release, user_data: UserData::new(allocator.user_data) })
    }

    /// Makes a session that lives there.
    pub fn session(self, model: &Model, options: SessionOptions) -> Result<Session, Failure> {
        let memory = match self {
            Memory::Heap => return Ok(Session::new(model, options)?),
            // SAFETY: the bytes are the session's until it is freed, by contract of `read`.
            Memory::Block { start, len } => unsafe { ForeignMemory::new(start, len, None) },
            Memory::Allocator { allocate, release, user_data } => {
                let bytes = model.plan(&options)?.session;
                // SAFETY: the caller's function takes the caller's data, by the header's rules.
                let start = unsafe { allocate(user_data.get(), bytes, LXMERT_MEMORY_ALIGNMENT) };
                let Some(start) = NonNull::new(start.cast::<u8>()) else {
                    return Err(Failure::new(
                        lxmert_status::LXMERT_OUT_OF_MEMORY,
                        format_args!("out of memory: the allocator has no {bytes} bytes for the session"),
                    ));
                };
                let release = move |start: NonNull<u8>, bytes| {
                    // SAFETY: the caller's function gets back what `allocate` gave, once.
                    unsafe { release(user_data.get(), start.as_ptr().cast(), bytes) }
                };
                // SAFETY: `allocate` has given the bytes away until `release` takes them back.
                unsafe { ForeignMemory::new(start, bytes, Some(Box::new(release))) }
            }
        };
        Ok(Session::new_in(model, options, memory)?)
    }
}
