//! The matrix product: one tile of sums, and what is done with the sums.
//!
//! A tile is a few rows times the columns of one panel, over the whole length of both. Its sums stay in registers from
//! the first unit to the last, so that a step costs one multiplication per register of sums, one load per register of columns
//! and one broadcast per row. While it runs, the panel that comes next is fetched into the second-level cache, since
//! a model's weights fit no cache: the memory streams while the registers multiply.

use super::math::activate;
use crate::kernels::vector::{Dot, Vector};
use crate::kernels::{Activation, BLOCK, Finish, LINE, PANEL, PANEL_STEP, RowScale, Tile, UNIT};

/// Sums of products of `ROWS` rows with the columns of a panel.
///
/// # Safety
/// The CPU has the instructions of `D`. `tile.panel` holds `units` steps of a panel, `tile.rows` as many steps of `ROWS`
/// units, `sums` room for `ROWS` times [`PANEL`] sums.
#[inline(always)]
pub unsafe fn tile<D: Dot, const ROWS: usize, const AHEAD: usize>(tile: &Tile, sums: *mut u32) {
    const { assert!(PANEL.is_multiple_of(D::LANES * D::VECTORS) && ROWS <= D::ROWS && D::VECTORS == 2) };
    let parts = PANEL / (D::LANES * D::VECTORS);
    for part in 0..parts {
        let first = part * D::LANES * D::VECTORS;
        // SAFETY: as the caller vouches; the part's columns lie within each step and its sums within each row of sums.
        unsafe {
            let panel = tile.panel.add(first * size_of::<u32>());
            let ahead = tile.ahead.wrapping_add(part * tile.units * AHEAD * LINE);
            columns::<D, ROWS, AHEAD>(panel, tile.rows, tile.units, ahead, sums.add(first));
        }
    }
}

/// As [`tile`], for the first two registers of columns.
#[inline(always)]
unsafe fn columns<D: Dot, const ROWS: usize, const AHEAD: usize>(
    mut panel: *const u8,
    mut rows: *const u8,
    units: usize,
    mut ahead: *const u8,
    sums: *mut u32,
) {
    // SAFETY: `panel` and `rows` are read for as many steps as the caller vouches for, and `sums` has a row of `PANEL` for
    // each of `ROWS`.
    unsafe {
        let mut totals = [[D::zero(); 2]; ROWS];
        for _ in 0..units {
            step::<D, ROWS, AHEAD>(panel, rows, &mut ahead, &mut totals);
            panel = panel.add(PANEL_STEP);
            rows = rows.add(ROWS * UNIT);
        }
        for row in 0..ROWS {
            D::store(sums.add(row * PANEL), totals[row][0]);
            D::store(sums.add(row * PANEL + D::LANES), totals[row][1]);
        }
    }
}

/// Adds the products of one unit of each row with two registers of columns, and fetches ahead.
///
/// # Safety
/// The CPU has the instructions of `D`; `panel` holds the columns' units, `rows` one for each row.
#[inline(always)]
unsafe fn step<D: Dot, const ROWS: usize, const AHEAD: usize>(
    panel: *const u8,
    rows: *const u8,
    ahead: &mut *const u8,
    sums: &mut [[D::Sum; 2]; ROWS],
) {
    // SAFETY: as the caller vouches; a prefetch may name any address.
    unsafe {
        for line in 0..AHEAD {
            prefetch(ahead.wrapping_add(line * LINE));
        }
        *ahead = ahead.wrapping_add(AHEAD * LINE);
        let columns = [D::columns(panel), D::columns(panel.add(D::LANES * UNIT))];
        for row in 0..ROWS {
            let unit = D::row(rows.add(row * UNIT));
            sums[row][0] = D::add(sums[row][0], unit, columns[0]);
            sums[row][1] = D::add(sums[row][1], unit, columns[1]);
        }
    }
}

/// Steps of a block of 8-bit integers, after one step of its scales.
const BLOCK_UNITS: usize = BLOCK / UNIT;

/// As [`tile`], for columns of 8-bit integers with a scale for every [`BLOCK`] of them: the sums are f32, and `units`
/// is a whole number of blocks.
///
/// # Safety
/// As [`tile`]; the panel holds one more step per block, with the scales of its columns.
#[inline(always)]
pub unsafe fn tile_of_blocks<V, D, const ROWS: usize, const AHEAD: usize>(tile: &Tile, sums: *mut u32)
where
    V: Vector,
    D: Dot<Sum = V::I>,
{
    const { assert!(PANEL.is_multiple_of(V::LANES) && D::LANES == V::LANES) };
    let blocks = tile.units / BLOCK_UNITS;
    let mut ahead = tile.ahead;
    for first in (0..PANEL).step_by(2 * V::LANES) {
        // SAFETY: as the caller vouches; the two registers of columns from `first` lie within each step.
        unsafe {
            let mut panel = tile.panel.add(first * size_of::<u32>());
            let mut rows = tile.rows;
            let mut totals = [[V::splat(0.0); 2]; ROWS];
            for _ in 0..blocks {
                let scales = [V::load(panel.cast()), V::load(panel.cast::<f32>().add(V::LANES))];
                panel = panel.add(PANEL_STEP);
                let mut block = [[D::zero(); 2]; ROWS];
                for _ in 0..BLOCK_UNITS {
                    step::<D, ROWS, AHEAD>(panel, rows, &mut ahead, &mut block);
                    panel = panel.add(PANEL_STEP);
                    rows = rows.add(ROWS * UNIT);
                }
                for row in 0..ROWS {
                    for half in 0..2 {
                        let sum = V::to_float(block[row][half]);
                        totals[row][half] = V::mul_add(sum, scales[half], totals[row][half]);
                    }
                }
            }
            for row in 0..ROWS {
                let sums = sums.add(row * PANEL + first).cast::<f32>();
                V::store(sums, totals[row][0]);
                V::store(sums.add(V::LANES), totals[row][1]);
            }
        }
    }
}

/// Asks for a cache line to be brought to the second-level cache. Any address will do: a wrong one is ignored.
#[inline(always)]
unsafe fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, and it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// How the sums of a tile become numbers.
pub(in crate::kernels) trait Scaling<V: Vector> {
    /// What the columns of one register have in common for all rows.
    type Columns: Copy;

    /// For `LANES` columns from `column` of the panel on.
    ///
    /// # Safety
    /// The CPU has the instructions of `V`, here and below; the panel's numbers per column are padded by a register.
    unsafe fn columns(&self, column: usize) -> Self::Columns;

    /// The numbers of those columns in one row, bias included.
    ///
    /// # Safety
    /// `sums` holds `LANES` sums; there is such a row.
    unsafe fn scaled(&self, sums: *const u32, row: usize, columns: Self::Columns, bias: V::F) -> V::F;
}

/// Turns the sums of a tile into results: scale, bias, activation, residual. Results beyond the columns to keep are not stored.
///
/// # Safety
/// The CPU has the instructions of `V`. `sums` holds `finish.rows` rows of [`PANEL`] sums; `to` and `residual` are valid for
/// those rows and the columns to keep. Sums and whatever there is per column of the panel may be read for
/// `LANES` columns from any of the panel on.
#[inline(always)]
pub(in crate::kernels) unsafe fn finish<V: Vector, S: Scaling<V>>(
    sums: *const u32,
    scaling: &S,
    finish: &Finish,
) {
    let mut column = finish.first;
    while column < finish.end {
        let count = V::LANES.min(finish.end - column);
        let at = column - finish.first;
        // SAFETY: as the caller vouches; of results and residuals only `count` numbers are touched.
        unsafe {
            let columns = scaling.columns(column);
            let bias = V::load(finish.bias.add(column));
            let sums = sums.add(column);
            let to = finish.to.add(at);
            if !finish.residual.is_null() {
                for row in 0..finish.rows {
                    let sum = scaling.scaled(sums.add(row * PANEL), row, columns, bias);
                    let residual =
                        V::load_first(finish.residual.add(row * finish.residual_stride + at), count);
                    let result = V::add(activate::<V>(finish.activation, sum), residual);
                    V::store_first(to.add(row * finish.stride), result, count);
                }
            } else if finish.activation == Activation::Gelu {
                // The usual one gets a loop of its own, in which nothing is decided.
                for row in 0..finish.rows {
                    let sum = scaling.scaled(sums.add(row * PANEL), row, columns, bias);
                    V::store_first(to.add(row * finish.stride), activate::<V>(Activation::Gelu, sum), count);
                }
            } else {
                for row in 0..finish.rows {
                    let sum = scaling.scaled(sums.add(row * PANEL), row, columns, bias);
                    V::store_first(to.add(row * finish.stride), activate::<V>(finish.activation, sum), count);
                }
            }
        }
        column += V::LANES;
    }
}

/// Sums that are the results already: products of f32 or bf16.
pub(in crate::kernels) struct Exact;

impl<V: Vector> Scaling<V> for Exact {
    type Columns = ();

    #[inline(always)]
    unsafe fn columns(&self, _: usize) {}

    #[inline(always)]
    unsafe fn scaled(&self, sums: *const u32, _: usize, (): (), bias: V::F) -> V::F {
        // SAFETY: as the caller vouches.
        unsafe { V::add(V::load(sums.cast()), bias) }
    }
}

/// Sums of products of 8-bit integers. With rows x ≈ s (u − z) and columns w ≈ t q the product is
/// s t (Σ u q − z Σ q).
pub(in crate::kernels) struct Quantized {
    /// s and z of each row.
    pub rows: *const RowScale,
    /// t of each column of the panel.
    pub scales: *const f32,
    /// Σ q of each column of the panel.
    pub totals: *const i32,
}

impl<V: Vector> Scaling<V> for Quantized {
    type Columns = [V::F; 2];

    #[inline(always)]
    unsafe fn columns(&self, column: usize) -> [V::F; 2] {
        // SAFETY: as the caller vouches.
        unsafe { [V::load(self.scales.add(column)), V::to_float(V::load_int(self.totals.add(column)))] }
    }

    #[inline(always)]
    unsafe fn scaled(&self, sums: *const u32, row: usize, [scales, totals]: [V::F; 2], bias: V::F) -> V::F {
        // SAFETY: as the caller vouches.
        unsafe {
            let row = &*self.rows.add(row);
            let sum = V::to_float(V::load_int(sums.cast()));
            let centred = V::mul_add(totals, V::splat(-(row.zero as f32)), sum);
            V::mul_add(centred, V::mul(scales, V::splat(row.scale)), bias)
        }
    }
}

/// Sums of products of 8-bit integers whose columns have a scale per block: with w ≈ t_b q in block b, they are Σ u t_b q,
/// and the product is s (Σ u t_b q − z Σ t_b q).
pub(in crate::kernels) struct BlockScaling {
    /// s and z of each row.
    pub rows: *const RowScale,
    /// Σ t_b q of each column of the panel.
    pub totals: *const f32,
}

impl<V: Vector> Scaling<V> for BlockScaling {
    type Columns = V::F;

    #[inline(always)]
    unsafe fn columns(&self, column: usize) -> V::F {
        // SAFETY: as the caller vouches.
        unsafe { V::load(self.totals.add(column)) }
    }

    #[inline(always)]
    unsafe fn scaled(&self, sums: *const u32, row: usize, totals: V::F, bias: V::F) -> V::F {
        // SAFETY: as the caller vouches.
        unsafe {
            let row = &*self.rows.add(row);
            let sum = V::mul_add(totals, V::splat(-(row.zero as f32)), V::load(sums.cast()));
            V::mul_add(sum, V::splat(row.scale), bias)
        }
    }
}
