//! The algorithms, written once over [`Vector`](super::vector::Vector) and [`Dot`](super::vector::Dot). `x86_64` and `all`
//! compile them for each instruction set.

pub(super) mod attention;
pub(super) mod math;
pub(super) mod product;
pub(super) mod rows;
