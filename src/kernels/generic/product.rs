//! The matrix product: one tile of sums, and what is done with the sums.
//!
//! A tile is a few rows times the columns of one panel, over the whole length of both. Its sums stay in registers from
//! the first unit to the last, so that a step costs one multiplication per register of sums, one load per register of columns
//! and one broadcast per row. While it runs, the panel that comes next is fetched into the second-level cache, since
//! a model's weights fit no cache: the memory streams while the registers multiply.

use std::marker::PhantomData;

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
    const { assert!(PANEL.is_multiple_of(2 * D::LANES) && ROWS <= D::ROWS) };
    for first in (0..PANEL).step_by(2 * D::LANES) {
        let part = first / (2 * D::LANES);
        // SAFETY: as the caller vouches; the two registers of columns from `first` lie within each unit's step and their sums within
        // each row of sums.
        unsafe {
            let mut walk = Walk {
                panel: tile.panel.add(first * UNIT),
                rows: tile.rows,
                ahead: tile.ahead.wrapping_add(part * (tile.units / D::DEPTH) * AHEAD * LINE),
            };
            let mut products = [[D::zero(); 2]; ROWS];
            walk.steps::<D, ROWS, AHEAD>(tile.units / D::DEPTH, &mut products);
            if !tile.units.is_multiple_of(D::DEPTH) {
                walk.last_unit::<D, ROWS>(&mut products);
            }
            for (row, totals) in D::totals(products).into_iter().enumerate() {
                let sums = sums.add(row * PANEL + first);
                D::store(sums, totals[0]);
                D::store(sums.add(D::LANES), totals[1]);
            }
        }
    }
}

/// The way through two registers of columns of a panel, and the rows.
struct Walk {
    panel: *const u8,
    rows: *const u8,
    ahead: *const u8,
}

impl Walk {
    /// Adds the products of so many steps, and fetches ahead.
    ///
    /// # Safety
    /// The CPU has the instructions of `D`, here and below; panel and rows go on for as many steps.
    #[inline(always)]
    unsafe fn steps<D: Dot, const ROWS: usize, const AHEAD: usize>(
        &mut self,
        steps: usize,
        sums: &mut [[D::Sum; 2]; ROWS],
    ) {
        for _ in 0..steps {
            for line in 0..AHEAD {
                prefetch(self.ahead.wrapping_add(line * LINE));
            }
            // SAFETY: as the caller vouches.
            unsafe {
                D::step(self.panel, self.rows, sums);
                self.panel = self.panel.add(D::DEPTH * PANEL_STEP);
                self.rows = self.rows.add(D::DEPTH * ROWS * UNIT);
            }
            self.ahead = self.ahead.wrapping_add(AHEAD * LINE);
        }
    }

    /// Adds the products of a last unit that makes no step of two: with zeros for the second.
    ///
    /// # Safety
    /// Panel and rows go on for one unit.
    #[inline(always)]
    unsafe fn last_unit<D: Dot, const ROWS: usize>(&self, sums: &mut [[D::Sum; 2]; ROWS]) {
        const { assert!(D::DEPTH <= 2) };
        let (mut panel, mut rows) = ([0u8; 2 * PANEL_STEP], [[[0u8; UNIT]; ROWS]; 2]);
        // SAFETY: as the caller vouches; both have room for two units.
        unsafe {
            panel.as_mut_ptr().copy_from_nonoverlapping(self.panel, 2 * D::LANES * UNIT);
            rows.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(self.rows, ROWS * UNIT);
            D::step(panel.as_ptr(), rows.as_ptr().cast(), sums);
        }
    }
}

/// Units of a block of 8-bit integers, after one unit of its scales.
const BLOCK_UNITS: usize = BLOCK / UNIT;

/// As [`tile`], for columns of 8-bit integers with a scale for every [`BLOCK`] of them: the sums are f32, and `units`
/// is a whole number of blocks.
///
/// # Safety
/// As [`tile`]; the panel holds one more unit per block, with the scales of its columns.
#[inline(always)]
pub unsafe fn tile_of_blocks<D, V, const ROWS: usize, const AHEAD: usize>(tile: &Tile, sums: *mut u32)
where
    D: Dot<Total = V::I>,
    V: Vector,
{
    const { assert!(PANEL.is_multiple_of(2 * V::LANES) && D::LANES == V::LANES && ROWS <= D::ROWS) };
    const { assert!(BLOCK_UNITS.is_multiple_of(D::DEPTH)) };
    let blocks = tile.units / BLOCK_UNITS;
    let mut ahead = tile.ahead;
    for first in (0..PANEL).step_by(2 * V::LANES) {
        // SAFETY: as the caller vouches; the two registers of columns from `first` lie within each unit's step.
        unsafe {
            let mut walk = Walk { panel: tile.panel.add(first * UNIT), rows: tile.rows, ahead };
            let mut totals = [[V::splat(0.0); 2]; ROWS];
            for _ in 0..blocks {
                let scales = [V::load(walk.panel.cast()), V::load(walk.panel.cast::<f32>().add(V::LANES))];
                walk.panel = walk.panel.add(PANEL_STEP);
                let offsets =
                    if D::SIGNED_ROWS { offsets::<V, D>(walk.panel) } else { [V::to_int(V::splat(0.0)); 2] };
                let mut block = [[D::zero(); 2]; ROWS];
                walk.steps::<D, ROWS, AHEAD>(BLOCK_UNITS / D::DEPTH, &mut block);
                for (totals, sums) in totals.iter_mut().zip(D::totals(block)) {
                    for half in 0..2 {
                        let sum =
                            if D::SIGNED_ROWS { V::add_int(sums[half], offsets[half]) } else { sums[half] };
                        totals[half] = V::mul_add(V::to_float(sum), scales[half], totals[half]);
                    }
                }
            }
            ahead = walk.ahead;
            for (row, totals) in totals.into_iter().enumerate() {
                let sums = sums.add(row * PANEL + first).cast::<f32>();
                V::store(sums, totals[0]);
                V::store(sums.add(V::LANES), totals[1]);
            }
        }
    }
}

/// What the products of a block lack in rows that are stored less [`ROW_OFFSET`]: Σ q · [`ROW_OFFSET`] of each column, where Σ q is the
/// product with a row of ones.
///
/// # Safety
/// As [`Walk::steps`].
#[inline(always)]
unsafe fn offsets<V: Vector, D: Dot<Total = V::I>>(panel: *const u8) -> [V::I; 2] {
    let ones = [1u8; 2 * UNIT];
    // SAFETY: as the caller vouches; a step has at most two units.
    unsafe {
        let mut sums = [[D::zero(); 2]; 1];
        for step in 0..BLOCK_UNITS / D::DEPTH {
            D::step(panel.add(step * D::DEPTH * PANEL_STEP), ones.as_ptr(), &mut sums);
        }
        D::totals(sums)[0].map(|sum| V::offset(sum))
    }
}

/// Asks for a cache line to be brought to the second-level cache. Any address will do: a wrong one is ignored.
#[inline(always)]
pub fn prefetch(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 CPU has the instruction, and it never faults.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(address.cast());
    }
    #[cfg(target_arch = "aarch64")]
    #[expect(clippy::pointers_in_nomem_asm_block, reason = "what is fetched is not read")]
    // SAFETY: every aarch64 CPU has the instruction, and it never faults.
    unsafe {
        std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(nomem, nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
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

/// [`Quantized`], of the sums that `D` has come to.
pub(in crate::kernels) struct QuantizedBy<'q, D>(&'q Quantized, PhantomData<D>);

impl<'q, D> QuantizedBy<'q, D> {
    pub fn new(scaling: &'q Quantized) -> Self {
        QuantizedBy(scaling, PhantomData)
    }
}

/// What the columns of one register have in common.
#[derive(Clone, Copy)]
pub(in crate::kernels) struct QuantizedColumns<V: Vector> {
    scales: V::F,
    totals: V::F,
    /// Σ q · [`ROW_OFFSET`].
    offsets: V::I,
}

impl<V: Vector, D: Dot> Scaling<V> for QuantizedBy<'_, D> {
    type Columns = QuantizedColumns<V>;

    #[inline(always)]
    unsafe fn columns(&self, column: usize) -> QuantizedColumns<V> {
        // SAFETY: as the caller vouches.
        unsafe {
            let totals = V::load_int(self.0.totals.add(column));
            QuantizedColumns {
                scales: V::load(self.0.scales.add(column)),
                totals: V::to_float(totals),
                offsets: V::offset(totals),
            }
        }
    }

    #[inline(always)]
    unsafe fn scaled(&self, sums: *const u32, row: usize, columns: Self::Columns, bias: V::F) -> V::F {
        // SAFETY: as the caller vouches.
        unsafe {
            let row = &*self.0.rows.add(row);
            let mut sum = V::load_int(sums.cast());
            if D::SIGNED_ROWS {
                sum = V::add_int(sum, columns.offsets);
            }
            let centred = V::mul_add(columns.totals, V::splat(-(row.zero as f32)), V::to_float(sum));
            V::mul_add(centred, V::mul(columns.scales, V::splat(row.scale)), bias)
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
