//! What the opaque pointers point to.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Failure;
use crate::reserve::{Threads, watched};

/// A kind of handle.
pub(super) trait Kind: Sized {
    /// Stands at the start of every live handle of the kind, and of nothing else that a program is likely to have.
    const MARK: u64;
    /// The parameter's name in the header, and that of the kind.
    const NAME: &'static str;
    /// The type that C knows, of which it only ever sees pointers.
    type Opaque;
}

/// The mark that gives away most pointers which are no such handle, or no longer; then the thing itself.
#[repr(C)]
pub(super) struct Handle<T> {
    mark: AtomicU64,
    value: T,
}

impl<T: Kind> Handle<T> {
    /// Makes a handle of what `make` makes, or neither.
    pub fn new(make: impl FnOnce() -> Result<T, Failure>) -> Result<Box<Self>, Failure> {
        watched(Threads::This, "a handle", || {
            Ok(Box::new(Handle { mark: AtomicU64::new(T::MARK), value: make()? }))
        })
    }

    /// The handle as C knows it, until [`Handle::free`].
    pub fn give_out(handle: Box<Self>) -> *mut T::Opaque {
        Box::into_raw(handle).cast()
    }

    /// The thing that a handle stands for.
    ///
    /// # Safety
    /// The pointer is NULL, or points to at least eight readable bytes; if they are the kind's mark, it comes from
    /// [`Handle::give_out`] and is not freed during `'h`.
    pub unsafe fn get<'h>(handle: *const T::Opaque) -> Result<&'h T, Failure> {
        let handle = handle.cast::<Self>();
        if handle.is_null() {
            return Err(Failure::argument(format_args!("{0} is NULL: give the handle of a {0}", T::NAME)));
        }
        // SAFETY: aligned when it is asked, readable by this function's contract; marks are only written as atomics.
        let marked = || unsafe { &(*handle).mark }.load(Ordering::Acquire) == T::MARK;
        if !handle.is_aligned() || !marked() {
            return Err(none::<T>());
        }
        // SAFETY: the mark says that it is a live handle of the kind.
        Ok(unsafe { &(*handle).value })
    }

    /// Wipes the mark and drops the thing.
    ///
    /// # Safety
    /// As for [`Handle::get`], and nothing else uses the handle, now or later.
    pub unsafe fn free(handle: *mut T::Opaque) -> Result<(), Failure> {
        // SAFETY: the contracts are the same.
        unsafe { Self::get(handle) }?;
        let handle = handle.cast::<Self>();
        // SAFETY: aligned and readable, as `get` has found.
        let mark = unsafe { &(*handle).mark };
        // Of two threads that free it by mistake, one wins.
        if mark.compare_exchange(T::MARK, 0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Err(none::<T>());
        }
        // SAFETY: a live handle comes from `give_out`, and this is its last use.
        drop(unsafe { Box::from_raw(handle) });
        Ok(())
    }
}

fn none<T: Kind>() -> Failure {
    Failure::argument(format_args!(
        "{0} is not the handle of a {0}: it is of another kind, or freed",
        T::NAME
    ))
}
