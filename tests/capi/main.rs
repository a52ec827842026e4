//! The C interface, called as C calls it: what it computes, what it refuses, and that nothing breaks it.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "calls of C, in which every pointer is a test's own or wrong on purpose"
)]

/// Calls a function of the interface.
macro_rules! c {
    ($call:expr) => {
        unsafe { $call }
    };
}

#[path = "../common/allocations.rs"]
mod allocations;
mod answers;
#[path = "../common/mod.rs"]
mod common;
mod devices;
mod loaders;
mod log;
mod memory;
mod refusals;
mod stopping;
mod support;
mod tensors;
mod versions;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
