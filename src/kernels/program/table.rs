//! Lists that lie in a program's memory.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A list in memory that somebody else owns.
pub(super) struct Table<T> {
    start: NonNull<T>,
    len: usize,
}

// SAFETY: a table owns its values, as a vector does.
unsafe impl<T: Send> Send for Table<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Table<T> {}

impl<T> Table<T> {
    /// Moves values to `start`, where there is room for that many bytes.
    ///
    /// # Panics
    /// If there is less room than the values take, or the room is not aligned for them.
    ///
    /// # Safety
    /// The room must be valid for as long as the table exists, and nobody else may touch it.
    pub unsafe fn at(start: *mut u8, room: usize, values: Vec<T>) -> Self {
        assert!(
            values.len() * size_of::<T>() <= room && start.addr().is_multiple_of(align_of::<T>()),
            "room for a table"
        );
        let start = NonNull::new(start.cast::<T>()).expect("memory does not begin at 0");
        let len = values.len();
        for (n, value) in values.into_iter().enumerate() {
            // SAFETY: there is room for `len` values.
            unsafe { start.add(n).write(value) };
        }
        Table { start, len }
    }
}

impl<T> Deref for Table<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` values were written in `at`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Table<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the values were written in `at` and are dropped once; their memory still stands.
        unsafe { std::ptr::drop_in_place(&raw mut **self) }
    }
}
