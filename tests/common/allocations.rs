//! What code asks of the allocator. A test binary that measures it makes [`Counting`] its global allocator.
#![allow(dead_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts and on demand refuses. Per thread, since tests run side by
/// side.
pub struct Counting;

#[derive(Clone, Copy)]
struct Counts {
    allocations: usize,
    live: usize,
    peak: usize,
    /// How many more allocations succeed before one fails.
    before_failure: Option<usize>,
}

const NONE: Counts = Counts { allocations: 0, live: 0, peak: 0, before_failure: None };

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(NONE) };
}

/// Whether the next allocation may go ahead.
fn permitted() -> bool {
    let mut counts = COUNTS.get();
    let failing = counts.before_failure == Some(0);
    counts.before_failure = match counts.before_failure {
        Some(0) | None => None,
        Some(left) => Some(left - 1),
    };
    COUNTS.set(counts);
    !failing
}

fn count(freed: usize, allocated: usize) {
    let mut counts = COUNTS.get();
    counts.allocations += usize::from(allocated > 0);
    // Memory of other threads may be freed here, so it cannot be an exact difference.
    counts.live = (counts.live + allocated).saturating_sub(freed);
    counts.peak = counts.peak.max(counts.live);
    COUNTS.set(counts);
}

// SAFETY: every call goes to `System` unchanged, or fails as an allocator may.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !permitted() {
            return std::ptr::null_mut();
        }
        count(0, layout.size());
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        // SAFETY: the caller's promise that both belong together.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !permitted() {
            return std::ptr::null_mut();
        }
        // Counted as if both blocks lived for a moment, which they may.
        count(0, size);
        count(layout.size(), 0);
        // SAFETY: the caller's promise about all three.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What some work allocated on its thread.
#[derive(Clone, Copy, Debug)]
pub struct Allocated {
    /// How often memory was asked for.
    pub times: usize,
    /// The most bytes that were held at a time.
    pub peak: usize,
    /// The bytes that were held at the end, by the result if at all.
    pub rest: usize,
}

/// Does some work, and tells what it allocated.
pub fn allocated<T>(work: impl FnOnce() -> T) -> (T, Allocated) {
    let before = COUNTS.replace(NONE);
    let result = work();
    let during = COUNTS.replace(before);
    (result, Allocated { times: during.allocations, peak: during.peak, rest: during.live })
}

/// Does some work with the `k`-th allocation failing; tells whether there were as many.
pub fn with_failure<T>(k: usize, work: impl FnOnce() -> T) -> (T, bool) {
    COUNTS.set(Counts { before_failure: Some(k), ..COUNTS.get() });
    let result = work();
    let failed = COUNTS.get().before_failure.is_none();
    COUNTS.set(Counts { before_failure: None, ..COUNTS.get() });
    (result, failed)
}
