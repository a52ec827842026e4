//! The matrix products of Armv8.6: two rows times two columns in one instruction, of eight 8-bit integers or of four bf16 each.
//!
//! A register holds two units of two rows or of two columns, and one of sums the four products. Panels hold one unit of each
//! column side by side, and prepared rows one unit of each row: the units of two steps are interleaved on the way. A last row
//! without a partner takes the dot product.

use std::arch::aarch64::*;
use std::arch::asm;
use std::marker::PhantomData;

use super::neon::{Float, MAX_FOURS, Neon, each_row, two_columns, units_in_fours};
use crate::kernels::generic::product::{BlockScaling, Quantized};
use crate::kernels::generic::{attention, product, rows};
use crate::kernels::vector::{Dot, cpu_functions};
use crate::kernels::{Finish, Functions, Head, PANEL_STEP, RowScale, UNIT, functions, tiles_of};

/// 8-bit integers by `usmmla`, unsigned rows times signed columns.
type Int8 = Matrices<Int8Product>;

/// bf16 by `bfmmla`.
type Bf16 = Matrices<Bf16Product>;

functions! {
    FUNCTIONS, features: "neon,dotprod,i8mm", vector: Neon, int8: Int8 [1 2 3 4 5 6 7 8 9 10],
    blocks: Int8 [1 2 3 4], float: Float [1 2 3 4 5 6 7 8 9 10 11 12], bf16: None
}

/// Those of a CPU that multiplies bf16.
pub(super) const FUNCTIONS_BF16: Functions = Functions {
    bf16: Some(tiles_of!(tile_bf16 ["neon,dotprod,i8mm,bf16"] tile<Bf16> [1 2 3 4 5 6 7 8 9 10])),
    ..FUNCTIONS
};

/// sum + a · b by an instruction that Rust has no stable name for yet.
macro_rules! add_product {
    ($instruction:expr, $sum:expr, $a:expr, $b:expr) => {{
        let mut sum = $sum;
        asm!(
            $instruction, sum = inout(vreg) sum, a = in(vreg) $a, b = in(vreg) $b,
            options(pure, nomem, nostack, preserves_flags),
        );
        sum
    }};
}

/// The products of one element type.
///
/// # Safety
/// As [`Dot`].
trait Product: Copy + 'static {
    /// Four sums.
    type Sum: Copy;

    unsafe fn zero() -> Self::Sum;
    unsafe fn store(to: *mut u32, total: Self::Sum);
    /// Adds the products of two rows with two columns: both of the first row, and both of the second.
    unsafe fn add_pair(sum: Self::Sum, rows: int32x4_t, columns: int32x4_t) -> Self::Sum;
    /// Adds the products of the row in lane `row` mod 4 with four columns.
    unsafe fn add_single(sum: Self::Sum, rows: int32x4_t, row: usize, columns: int8x16_t) -> Self::Sum;
    /// From the sums of two rows with a first and a second pair of columns to those of each row with all four.
    unsafe fn by_row(first: Self::Sum, second: Self::Sum) -> [Self::Sum; 2];
}

#[derive(Clone, Copy)]
struct Int8Product;

impl Product for Int8Product {
    type Sum = int32x4_t;

    cpu_functions! {
        fn zero() -> int32x4_t { vdupq_n_s32(0) }
        fn store(to: *mut u32, total: int32x4_t) { vst1q_s32(to.cast(), total) }
        fn add_pair(sum: int32x4_t, rows: int32x4_t, columns: int32x4_t) -> int32x4_t {
            add_product!("usmmla {sum:v}.4s, {a:v}.16b, {b:v}.16b", sum, rows, columns)
        }
        fn add_single(sum: int32x4_t, rows: int32x4_t, row: usize, columns: int8x16_t) -> int32x4_t {
            match row % 4 {
                0 => add_product!("sudot {sum:v}.4s, {a:v}.16b, {b:v}.4b[0]", sum, columns, rows),
                1 => add_product!("sudot {sum:v}.4s, {a:v}.16b, {b:v}.4b[1]", sum, columns, rows),
                2 => add_product!("sudot {sum:v}.4s, {a:v}.16b, {b:v}.4b[2]", sum, columns, rows),
                _ => add_product!("sudot {sum:v}.4s, {a:v}.16b, {b:v}.4b[3]", sum, columns, rows),
            }
        }
        fn by_row(first: int32x4_t, second: int32x4_t) -> [int32x4_t; 2] {
            let (first, second) = (vreinterpretq_s64_s32(first), vreinterpretq_s64_s32(second));
            [vtrn1q_s64(first, second), vtrn2q_s64(first, second)].map(|row| vreinterpretq_s32_s64(row))
        }
    }
}

#[derive(Clone, Copy)]
struct Bf16Product;

impl Product for Bf16Product {
    type Sum = float32x4_t;

    cpu_functions! {
        fn zero() -> float32x4_t { vdupq_n_f32(0.0) }
        fn store(to: *mut u32, total: float32x4_t) { vst1q_f32(to.cast(), total) }
        fn add_pair(sum: float32x4_t, rows: int32x4_t, columns: int32x4_t) -> float32x4_t {
            add_product!("bfmmla {sum:v}.4s, {a:v}.8h, {b:v}.8h", sum, rows, columns)
        }
        fn add_single(sum: float32x4_t, rows: int32x4_t, row: usize, columns: int8x16_t) -> float32x4_t {
            match row % 4 {
                0 => add_product!("bfdot {sum:v}.4s, {a:v}.8h, {b:v}.2h[0]", sum, columns, rows),
                1 => add_product!("bfdot {sum:v}.4s, {a:v}.8h, {b:v}.2h[1]", sum, columns, rows),
                2 => add_product!("bfdot {sum:v}.4s, {a:v}.8h, {b:v}.2h[2]", sum, columns, rows),
                _ => add_product!("bfdot {sum:v}.4s, {a:v}.8h, {b:v}.2h[3]", sum, columns, rows),
            }
        }
        fn by_row(first: float32x4_t, second: float32x4_t) -> [float32x4_t; 2] {
            let (first, second) = (vreinterpretq_f64_f32(first), vreinterpretq_f64_f32(second));
            [vtrn1q_f64(first, second), vtrn2q_f64(first, second)].map(|row| vreinterpretq_f32_f64(row))
        }
    }
}

/// A [`Dot`] of pairs of rows. The sums of two paired rows with a register of columns are those with its first two columns, in
/// the place of the first row, and those with the others.
#[derive(Clone, Copy)]
struct Matrices<P>(PhantomData<P>);

impl<P: Product> Dot for Matrices<P> {
    const LANES: usize = 4;
    // 10 · 2 sums, 4 columns, 2 of rows and a pair of 32 registers. With 12 rows all would be taken, and half of the instructions
    // would move sums about.
    const ROWS: usize = 10;
    const DEPTH: usize = 2;
    const SIGNED_ROWS: bool = false;
    type Sum = P::Sum;
    type Total = P::Sum;

    #[inline(always)]
    unsafe fn zero() -> P::Sum {
        // SAFETY: as the caller vouches.
        unsafe { P::zero() }
    }

    #[inline(always)]
    unsafe fn step<const ROWS: usize>(panel: *const u8, rows: *const u8, sums: &mut [[P::Sum; 2]; ROWS]) {
        // SAFETY: as the caller vouches.
        unsafe {
            let columns = [two_columns(panel), two_columns(panel.add(PANEL_STEP))];
            let words = |unit: usize, half: usize| vreinterpretq_s32_s8(columns[unit][half]);
            let units = [units_in_fours::<ROWS>(rows), units_in_fours::<ROWS>(rows.add(ROWS * UNIT))];
            // Two levels of `map` would be a call in every step.
            let [[a, b], [c, d]] = [[words(0, 0), words(0, 1)], [words(1, 0), words(1, 1)]];
            let pairs_of_columns =
                [[vzip1q_s32(a, c), vzip2q_s32(a, c)], [vzip1q_s32(b, d), vzip2q_s32(b, d)]];
            each_row!(ROWS / 2, |pair| {
                let row = 2 * pair;
                // The macro goes on to pairs beyond the last, which no code is made of.
                let four = row / 4 % MAX_FOURS;
                let (first, second) = (units[0][four], units[1][four]);
                let rows = if pair.is_multiple_of(2) {
                    vzip1q_s32(first, second)
                } else {
                    vzip2q_s32(first, second)
                };
                for half in 0..2 {
                    for n in 0..2 {
                        sums[row + n][half] =
                            P::add_pair(sums[row + n][half], rows, pairs_of_columns[half][n]);
                    }
                }
            });
            if ROWS % 2 == 1 {
                let row = ROWS - 1;
                for half in 0..2 {
                    for unit in 0..2 {
                        let (units, columns) = (units[unit][row / 4], columns[unit][half]);
                        sums[row][half] = P::add_single(sums[row][half], units, row, columns);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn totals<const ROWS: usize>(mut sums: [[P::Sum; 2]; ROWS]) -> [[P::Sum; 2]; ROWS] {
        for row in (0..ROWS - ROWS % 2).step_by(2) {
            let ([a, b], [c, d]) = (sums[row], sums[row + 1]);
            // SAFETY: as the caller vouches.
            let ([a, c], [b, d]) = unsafe { (P::by_row(a, c), P::by_row(b, d)) };
            (sums[row], sums[row + 1]) = ([a, b], [c, d]);
        }
        sums
    }

    #[inline(always)]
    unsafe fn store(to: *mut u32, total: P::Sum) {
        // SAFETY: as the caller vouches.
        unsafe { P::store(to, total) }
    }
}
