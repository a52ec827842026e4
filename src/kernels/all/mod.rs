//! Kernels in plain Rust. They run anywhere and are compared with every other.

mod portable;

use super::generic::product::{BlockScaling, Quantized};
use super::generic::{attention, product, rows};
use super::{Finish, Functions, Head, RowScale, functions, tiles_of};
use portable::{Float, Int8, Portable};

functions! {
    FUNCTIONS, vector: Portable, int8: Int8 [1 2 3 4], blocks: Int8 [1 2], float: Float [1 2 3 4], bf16: None
}
