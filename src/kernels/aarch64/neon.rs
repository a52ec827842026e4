//! NEON as every 64-bit ARM CPU has it.

use std::arch::aarch64::*;

use crate::kernels::generic::product::{BlockScaling, Quantized};
use crate::kernels::generic::{attention, product, rows};
use crate::kernels::vector::{Dot, ROW_OFFSET, Vector, cpu_functions};
use crate::kernels::{Finish, Functions, Head, PANEL_STEP, RowScale, UNIT, functions, tiles_of};

const _: () = assert!(ROW_OFFSET == 1 << 7);

functions! {
    FUNCTIONS, features: "neon", vector: Neon, int8: Int8 [1 2 3 4], blocks: Int8Exact [1 2 3 4],
    float: Float [1 2 3 4 5 6 7 8 9 10 11 12], bf16: None
}

#[derive(Clone, Copy)]
pub(super) struct Neon;

impl Vector for Neon {
    const LANES: usize = 4;
    type F = float32x4_t;
    type I = int32x4_t;

    cpu_functions! {
        fn splat(value: f32) -> float32x4_t { vdupq_n_f32(value) }
        fn load(from: *const f32) -> float32x4_t { vld1q_f32(from) }
        fn load_part(from: *const f32, count: usize) -> float32x4_t {
            let lane = |lane: usize| if lane < count { from.add(lane).read_unaligned() } else { 0.0 };
            let lanes = [lane(0), lane(1), lane(2), 0.0];
            vld1q_f32(lanes.as_ptr())
        }
        fn store(to: *mut f32, x: float32x4_t) { vst1q_f32(to, x) }
        fn store_part(to: *mut f32, x: float32x4_t, count: usize) {
            // Rust's `vst1q_lane_f32` wants a number's alignment.
            if count > 0 { to.write_unaligned(vgetq_lane_f32::<0>(x)) }
            if count > 1 { to.add(1).write_unaligned(vgetq_lane_f32::<1>(x)) }
            if count > 2 { to.add(2).write_unaligned(vgetq_lane_f32::<2>(x)) }
        }
        fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t { vaddq_f32(a, b) }
        fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t { vsubq_f32(a, b) }
        fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
        fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t { vdivq_f32(a, b) }
        fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
        // `fmin` and `fmax` are no number where either is none.
        fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcltq_f32(a, b), a, b) }
        fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t { vbslq_f32(vcgtq_f32(a, b), a, b) }
        fn round(x: float32x4_t) -> float32x4_t { vrndnq_f32(x) }
        fn pow2(n: float32x4_t) -> float32x4_t {
            // The exponent's bits, by hand.
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtnq_s32_f32(n), vdupq_n_s32(127))))
        }
        fn to_int(x: float32x4_t) -> int32x4_t { vcvtnq_s32_f32(x) }
        fn to_float(x: int32x4_t) -> float32x4_t { vcvtq_f32_s32(x) }
        fn transpose(rows: [float32x4_t; 16]) -> [float32x4_t; 16] {
            let wide = |x: float32x4_t| vreinterpretq_f64_f32(x);
            let narrow = |x: float64x2_t| vreinterpretq_f32_f64(x);
            let (even_low, odd_low) = (vtrn1q_f32(rows[0], rows[1]), vtrn2q_f32(rows[0], rows[1]));
            let (even_high, odd_high) = (vtrn1q_f32(rows[2], rows[3]), vtrn2q_f32(rows[2], rows[3]));
            let mut columns = rows;
            columns[0] = narrow(vtrn1q_f64(wide(even_low), wide(even_high)));
            columns[1] = narrow(vtrn1q_f64(wide(odd_low), wide(odd_high)));
            columns[2] = narrow(vtrn2q_f64(wide(even_low), wide(even_high)));
            columns[3] = narrow(vtrn2q_f64(wide(odd_low), wide(odd_high)));
            columns
        }
        fn load_int(from: *const i32) -> int32x4_t { vld1q_s32(from) }
        fn add_int(a: int32x4_t, b: int32x4_t) -> int32x4_t { vaddq_s32(a, b) }
        fn offset(x: int32x4_t) -> int32x4_t { vshlq_n_s32::<7>(x) }
        fn store_bytes(to: *mut u8, x: int32x4_t) {
            let halves = vqmovun_s32(x);
            let bytes = vqmovn_u16(vcombine_u16(halves, halves));
            to.cast::<u32>().write_unaligned(vget_lane_u32::<0>(vreinterpret_u32_u8(bytes)));
        }
        fn sum(x: float32x4_t) -> f32 {
            let halves = vadd_f32(vget_low_f32(x), vget_high_f32(x));
            vget_lane_f32::<0>(halves) + vget_lane_f32::<1>(halves)
        }
        fn largest(x: float32x4_t) -> f32 { vmaxnmvq_f32(x) }
        fn smallest(x: float32x4_t) -> f32 { vminnmvq_f32(x) }
    }
}

/// The units of up to four rows, which lie side by side, from row `first` on; nothing beyond the last of `ROWS` is read.
///
/// # Safety
/// `rows` is `ROWS` units.
#[inline(always)]
pub(super) unsafe fn four_units<const ROWS: usize>(rows: *const u8, first: usize) -> int32x4_t {
    // SAFETY: as the caller vouches; each arm reads as many units as there are.
    unsafe {
        let from = rows.add(first * UNIT).cast::<i32>();
        let nothing = vdup_n_s32(0);
        match ROWS - first {
            1 => vcombine_s32(one_unit(from), nothing),
            2 => vcombine_s32(vld1_s32(from), nothing),
            3 => vcombine_s32(vld1_s32(from), one_unit(from.add(2))),
            _ => vld1q_s32(from),
        }
    }
}

/// A unit and a zero. Rust's `vld1_lane_s32` wants an integer's alignment, which bytes do not have.
///
/// # Safety
/// There is a unit.
#[inline(always)]
unsafe fn one_unit(from: *const i32) -> int32x2_t {
    // SAFETY: as the caller vouches.
    unsafe { vset_lane_s32::<0>(from.read_unaligned(), vdup_n_s32(0)) }
}

/// The most groups of four rows in a tile.
pub(super) const MAX_FOURS: usize = 3;

/// The units of all rows, in fours.
///
/// # Safety
/// As [`four_units`].
#[inline(always)]
pub(super) unsafe fn units_in_fours<const ROWS: usize>(rows: *const u8) -> [int32x4_t; MAX_FOURS] {
    const { assert!(ROWS.div_ceil(4) <= MAX_FOURS) };
    // SAFETY: as the caller vouches; no lane is read before its row exists.
    unsafe {
        std::array::from_fn(
            |four| {
                if four * 4 < ROWS { four_units::<ROWS>(rows, four * 4) } else { vdupq_n_s32(0) }
            },
        )
    }
}

/// The body for every row below `$rows`, at most twelve, each time with a number that the compiler knows: a loop that it left as
/// one would keep sums in memory, and lanes are part of an instruction.
macro_rules! each_row {
    ($rows:expr, |$row:ident| $body:block) => {
        each_row!($rows, $row, $body, 0 1 2 3 4 5 6 7 8 9 10 11)
    };
    ($rows:expr, $row:ident, $body:block, $($number:literal)*) => {
        $(
            if $rows > $number {
                let $row: usize = $number;
                $body
            }
        )*
    };
}
pub(super) use each_row;

/// The units of two registers of columns.
///
/// # Safety
/// There are as many.
#[inline(always)]
pub(super) unsafe fn two_columns(panel: *const u8) -> [int8x16_t; 2] {
    // SAFETY: as the caller vouches.
    unsafe { [vld1q_s8(panel.cast()), vld1q_s8(panel.add(16).cast())] }
}

/// The sums of one row's products with four columns of 8-bit integers: of the first two columns, and of the others, for each
/// column that of the first halves of its units and that of the second.
type HalfSums = [int32x4_t; 2];

/// One row's unit, in all lanes.
///
/// # Safety
/// As [`Dot`], here and below.
#[inline(always)]
unsafe fn unit_of(units: int32x4_t, row: usize) -> int8x16_t {
    // SAFETY: as the caller vouches.
    unsafe {
        vreinterpretq_s8_s32(match row % 4 {
            0 => vdupq_laneq_s32::<0>(units),
            1 => vdupq_laneq_s32::<1>(units),
            2 => vdupq_laneq_s32::<2>(units),
            _ => vdupq_laneq_s32::<3>(units),
        })
    }
}

/// The halves added up.
#[inline(always)]
unsafe fn whole_sums<const ROWS: usize>(sums: [[HalfSums; 2]; ROWS]) -> [[int32x4_t; 2]; ROWS] {
    // Two levels of `map` would be a call for every row.
    // SAFETY: as the caller vouches.
    sums.map(|[[a, b], [c, d]]| unsafe { [vpaddq_s32(a, b), vpaddq_s32(c, d)] })
}

/// Signed rows times signed columns by way of 16 bits, two products of which are added before they are widened. The sum is exact for
/// columns of ±127, which is all that packing leaves: 2 · 128 · 127 fits 16 bits. With −128 on both sides it would wrap.
#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Dot for Int8 {
    const LANES: usize = 4;
    // 4 · 4 sums, 4 columns, 2 of rows, 2 of a row and 2 of products, of 32 registers.
    const ROWS: usize = 4;
    const DEPTH: usize = 2;
    const SIGNED_ROWS: bool = true;
    type Sum = HalfSums;
    type Total = int32x4_t;

    cpu_functions! {
        fn zero() -> HalfSums { [vdupq_n_s32(0); 2] }
        fn store(to: *mut u32, total: int32x4_t) { vst1q_s32(to.cast(), total) }
    }

    #[inline(always)]
    unsafe fn step<const ROWS: usize>(panel: *const u8, rows: *const u8, sums: &mut [[HalfSums; 2]; ROWS]) {
        // SAFETY: as the caller vouches.
        unsafe {
            let (first, second) = (two_columns(panel), two_columns(panel.add(PANEL_STEP)));
            let units = [units_in_fours::<ROWS>(rows), units_in_fours::<ROWS>(rows.add(ROWS * UNIT))];
            each_row!(ROWS, |row| {
                let (a, b) = (unit_of(units[0][row / 4], row), unit_of(units[1][row / 4], row));
                for half in 0..2 {
                    let low = vmull_s8(vget_low_s8(a), vget_low_s8(first[half]));
                    let low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(second[half]));
                    let high = vmull_high_s8(a, first[half]);
                    let high = vmlal_high_s8(high, b, second[half]);
                    let [low_sum, high_sum] = &mut sums[row][half];
                    *low_sum = vpadalq_s16(*low_sum, low);
                    *high_sum = vpadalq_s16(*high_sum, high);
                }
            });
        }
    }

    #[inline(always)]
    unsafe fn totals<const ROWS: usize>(sums: [[HalfSums; 2]; ROWS]) -> [[int32x4_t; 2]; ROWS] {
        // SAFETY: as the caller vouches.
        unsafe { whole_sums(sums) }
    }
}

/// As [`Int8`], for any integers: each product is widened before it is added.
#[derive(Clone, Copy)]
pub(super) struct Int8Exact;

impl Dot for Int8Exact {
    const LANES: usize = 4;
    const ROWS: usize = 4;
    const DEPTH: usize = 1;
    const SIGNED_ROWS: bool = true;
    type Sum = HalfSums;
    type Total = int32x4_t;

    cpu_functions! {
        fn zero() -> HalfSums { [vdupq_n_s32(0); 2] }
        fn store(to: *mut u32, total: int32x4_t) { vst1q_s32(to.cast(), total) }
    }

    #[inline(always)]
    unsafe fn step<const ROWS: usize>(panel: *const u8, rows: *const u8, sums: &mut [[HalfSums; 2]; ROWS]) {
        // SAFETY: as the caller vouches.
        unsafe {
            let (columns, units) = (two_columns(panel), units_in_fours::<ROWS>(rows));
            each_row!(ROWS, |row| {
                let unit = unit_of(units[row / 4], row);
                for half in 0..2 {
                    let [low_sum, high_sum] = &mut sums[row][half];
                    let low = vmull_s8(vget_low_s8(unit), vget_low_s8(columns[half]));
                    *low_sum = vpadalq_s16(*low_sum, low);
                    *high_sum = vpadalq_s16(*high_sum, vmull_high_s8(unit, columns[half]));
                }
            });
        }
    }

    #[inline(always)]
    unsafe fn totals<const ROWS: usize>(sums: [[HalfSums; 2]; ROWS]) -> [[int32x4_t; 2]; ROWS] {
        // SAFETY: as the caller vouches.
        unsafe { whole_sums(sums) }
    }
}

/// f32 by fused multiply-add.
#[derive(Clone, Copy)]
pub(super) struct Float;

impl Dot for Float {
    const LANES: usize = 4;
    // 12 · 2 sums, 2 columns and 3 of rows of 32 registers.
    const ROWS: usize = 12;
    const DEPTH: usize = 1;
    const SIGNED_ROWS: bool = false;
    type Sum = float32x4_t;
    type Total = float32x4_t;

    cpu_functions! {
        fn zero() -> float32x4_t { vdupq_n_f32(0.0) }
        fn store(to: *mut u32, total: float32x4_t) { vst1q_f32(to.cast(), total) }
    }

    #[inline(always)]
    unsafe fn step<const ROWS: usize>(
        panel: *const u8,
        rows: *const u8,
        sums: &mut [[float32x4_t; 2]; ROWS],
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            let columns = two_columns(panel).map(|columns| vreinterpretq_f32_s8(columns));
            let rows = units_in_fours::<ROWS>(rows).map(|units| vreinterpretq_f32_s32(units));
            each_row!(ROWS, |row| {
                for half in 0..2 {
                    let (sum, columns, rows) = (sums[row][half], columns[half], rows[row / 4]);
                    sums[row][half] = match row % 4 {
                        0 => vfmaq_laneq_f32::<0>(sum, columns, rows),
                        1 => vfmaq_laneq_f32::<1>(sum, columns, rows),
                        2 => vfmaq_laneq_f32::<2>(sum, columns, rows),
                        _ => vfmaq_laneq_f32::<3>(sum, columns, rows),
                    };
                }
            });
        }
    }

    #[inline(always)]
    unsafe fn totals<const ROWS: usize>(sums: [[float32x4_t; 2]; ROWS]) -> [[float32x4_t; 2]; ROWS] {
        sums
    }
}
