//! The algorithms, written once over [`Vector`](super::vector::Vector) and [`Dot`](super::vector::Dot). `x86_64` and `all`
//! compile them for each instruction set.

// A loop over rows or lanes indexes several arrays of registers at once.
#![allow(clippy::needless_range_loop)]

pub(super) mod attention;
pub(super) mod math;
pub(super) mod product;
pub(super) mod rows;
