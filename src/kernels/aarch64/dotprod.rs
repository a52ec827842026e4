//! The dot product of Armv8.2: sums of four products of 8-bit integers in each lane.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::{Float, Neon, each_row, two_columns, units_in_fours};
use crate::kernels::generic::product::{BlockScaling, Quantized};
use crate::kernels::generic::{attention, product, rows};
use crate::kernels::vector::{Dot, cpu_functions};
use crate::kernels::{Finish, Functions, Head, PANEL_STEP, RowScale, UNIT, functions, tiles_of};

functions! {
    FUNCTIONS, features: "neon,dotprod", vector: Neon, int8: Int8 [1 2 3 4 5 6 7 8 9 10 11 12],
    blocks: Int8 [1 2], float: Float [1 2 3 4 5 6 7 8 9 10 11 12], bf16: None
}

/// Adds the products of four columns' units with that of one row, whose lane the register of rows has. An instruction by hand,
/// since Rust's name for it is not stable yet.
macro_rules! sdot {
    ($sum:expr, $columns:expr, $rows:expr, $lane:literal) => {{
        let mut sum = $sum;
        asm!(
            concat!("sdot {sum:v}.4s, {columns:v}.16b, {rows:v}.4b[", $lane, "]"),
            sum = inout(vreg) sum, columns = in(vreg) $columns, rows = in(vreg) $rows,
            options(pure, nomem, nostack, preserves_flags),
        );
        sum
    }};
}

/// Signed rows times signed columns by `sdot`.
#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Dot for Int8 {
    const LANES: usize = 4;
    // 12 · 2 sums, 2 columns and 3 of rows of 32 registers.
    const ROWS: usize = 12;
    // One unit would do; two halve what the loop takes beside its products.
    const DEPTH: usize = 2;
    const SIGNED_ROWS: bool = true;
    type Sum = int32x4_t;
    type Total = int32x4_t;

    cpu_functions! {
        fn zero() -> int32x4_t { vdupq_n_s32(0) }
        fn store(to: *mut u32, total: int32x4_t) { vst1q_s32(to.cast(), total) }
    }

    #[inline(always)]
    unsafe fn step<const ROWS: usize>(panel: *const u8, rows: *const u8, sums: &mut [[int32x4_t; 2]; ROWS]) {
        for unit in 0..Self::DEPTH {
            // SAFETY: as the caller vouches.
            unsafe {
                let columns = two_columns(panel.add(unit * PANEL_STEP));
                let units = units_in_fours::<ROWS>(rows.add(unit * ROWS * UNIT));
                each_row!(ROWS, |row| {
                    for half in 0..2 {
                        let (sum, columns, units) = (sums[row][half], columns[half], units[row / 4]);
                        sums[row][half] = match row % 4 {
                            0 => sdot!(sum, columns, units, "0"),
                            1 => sdot!(sum, columns, units, "1"),
                            2 => sdot!(sum, columns, units, "2"),
                            _ => sdot!(sum, columns, units, "3"),
                        };
                    }
                });
            }
        }
    }

    #[inline(always)]
    unsafe fn totals<const ROWS: usize>(sums: [[int32x4_t; 2]; ROWS]) -> [[int32x4_t; 2]; ROWS] {
        sums
    }
}
