//! Raw bindings to ggml 0.26.0, and the library itself, compiled from its pinned source and
//! linked statically. The pin is `vendor/ggml`; `build.rs` tells how the source is found and
//! which variables steer the build.
//!
//! Everything is as the headers `ggml.h`, `ggml-alloc.h`, `ggml-backend.h` and `ggml-cpu.h` have
//! it, under the same names, and documented there. Two things differ from plain C:
//!
//! - An enum is a struct around its number, with the constants inside: `ggml_type::GGML_TYPE_F32`.
//!   One enum is not taken for another, and a number without a name, which C is free to return,
//!   is an ordinary value, so a `match` needs its `_` arm.
//! - `ggml_fopen` is left out, for it returns C's `FILE`.
//!
//! ggml's reader of GGUF files (`gguf.h`) is not bound: it accepts files that it should not.
//!
//! A violated precondition of most functions ends the process: they check with `GGML_ASSERT`,
//! and [`ggml_set_abort_callback`] can look on but not prevent it. Within [`guarded`] it is an error.

#[rustfmt::skip] // generated: tests/bindings.rs writes it
#[allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
mod bindings;

pub mod features;
mod guard;

pub use bindings::*;
pub use guard::{OUT_OF_MEMORY, guarded};

/// What the CPU backend was compiled for: `native`, or the name given to `-march=`.
pub const CPU: &str = env!("GGML_CPU");

/// The backends that are compiled in, and for what, for people: `cpu native, cuda 13.0 for 87, vulkan`. Which devices there
/// are is for [`ggml_backend_dev_count`] to say.
pub const BACKENDS: &str = env!("GGML_BACKENDS");

/// The instructions that it was compiled with, of those in [`features`], with spaces between. Where the CPU lacks one, no function
/// of `ggml-cpu.h` may be called.
pub const CPU_FEATURES: &str = env!("GGML_CPU_FEATURES");
