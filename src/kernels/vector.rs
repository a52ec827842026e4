//! What an instruction set must offer for the algorithms of `generic`: a register of numbers, and a sum of products.
//!
//! The functions are `unsafe` because each may use instructions that not every CPU has: whoever calls one must know that this
//! CPU has those of the implementing type. They are always inlined, so that a function with the matching `target_feature`
//! that calls a generic algorithm is compiled as if it had been written for that instruction set.
//!
//! Each function is rounded as IEEE 754 says and no order of additions depends on the number of lanes, so that every instruction
//! set comes to the same bits. There are two exceptions: products of bf16 are rounded as the CPU's maker likes, and NEON without the
//! dot product takes no −128 in matrices of [`Element::Int8`](super::Element::Int8), which packing never leaves there.

use super::UNIT;

/// Registers of `LANES` numbers.
///
/// # Safety
/// Calling any function needs a CPU with the instruction set that the implementation is for. `load*` and `store*` read
/// or write as many consecutive numbers as they name, at any alignment.
pub(super) trait Vector: Copy + 'static {
    /// Numbers in a register.
    const LANES: usize;
    /// A register of f32.
    type F: Copy;
    /// A register of i32.
    type I: Copy;

    unsafe fn splat(value: f32) -> Self::F;
    unsafe fn load(from: *const f32) -> Self::F;
    /// The first `count` < `LANES` numbers; the others are 0.
    unsafe fn load_part(from: *const f32, count: usize) -> Self::F;
    unsafe fn store(to: *mut f32, x: Self::F);
    unsafe fn store_part(to: *mut f32, x: Self::F, count: usize);
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// a · b + c, rounded once.
    unsafe fn mul_add(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` where either is not a number.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` where either is not a number.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The nearest integer, even ones at a tie.
    unsafe fn round(x: Self::F) -> Self::F;
    /// 2 to the power of an integer in −126..=127.
    unsafe fn pow2(n: Self::F) -> Self::F;
    /// The nearest integer, even ones at a tie.
    unsafe fn to_int(x: Self::F) -> Self::I;
    unsafe fn to_float(x: Self::I) -> Self::F;
    /// Turns the rows of a square block, the first `LANES` of the array, into its columns.
    unsafe fn transpose(rows: [Self::F; MAX_LANES]) -> [Self::F; MAX_LANES];
    unsafe fn load_int(from: *const i32) -> Self::I;
    unsafe fn add_int(a: Self::I, b: Self::I) -> Self::I;
    /// x · [`ROW_OFFSET`].
    unsafe fn offset(x: Self::I) -> Self::I;
    /// Stores `LANES` integers as bytes: those below 0 as 0, those above 255 as 255.
    unsafe fn store_bytes(to: *mut u8, x: Self::I);

    /// The first `count` ≤ `LANES` numbers; the others are 0.
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self::F {
        // SAFETY: as the caller vouches. Partial loads and stores are far slower than whole ones on some CPUs.
        unsafe { if count == Self::LANES { Self::load(from) } else { Self::load_part(from, count) } }
    }

    /// Stores the first `count` ≤ `LANES` numbers.
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, x: Self::F, count: usize) {
        // SAFETY: as above.
        unsafe { if count == Self::LANES { Self::store(to, x) } else { Self::store_part(to, x, count) } }
    }

    /// The sum of all lanes: of the halves, of their halves, and so on.
    #[inline(always)]
    unsafe fn sum(x: Self::F) -> f32 {
        // SAFETY: the caller vouches for the CPU; the array has room for every lane.
        let mut lanes = unsafe { to_array::<Self>(x) };
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
        }
        lanes[0]
    }

    /// The largest lane.
    #[inline(always)]
    unsafe fn largest(x: Self::F) -> f32 {
        // SAFETY: as in `sum`.
        let lanes = unsafe { to_array::<Self>(x) };
        lanes[..Self::LANES].iter().copied().fold(f32::NEG_INFINITY, f32::max)
    }

    /// The smallest lane.
    #[inline(always)]
    unsafe fn smallest(x: Self::F) -> f32 {
        // SAFETY: as in `sum`.
        let lanes = unsafe { to_array::<Self>(x) };
        lanes[..Self::LANES].iter().copied().fold(f32::INFINITY, f32::min)
    }
}

/// The most lanes of any register. What is read a register at a time is padded by as many numbers.
pub(super) const MAX_LANES: usize = 16;

/// The fewest lanes of any register.
const MIN_LANES: usize = 4;

/// [`MAX_LANES`] sums in as many registers as these take: number n of a row is added to sum n mod 16 on every instruction set. Rows
/// are gone through in *rounds* of as many numbers, and the registers of a round by a loop of their own: where the compiler does not
/// know which register is added to, all are in memory.
#[derive(Clone, Copy)]
pub(super) struct PartialSums<V: Vector>([V::F; MAX_LANES / MIN_LANES]);

impl<V: Vector> PartialSums<V> {
    /// Registers of a round.
    pub const REGISTERS: usize = MAX_LANES / V::LANES;

    /// # Safety
    /// As [`Vector`], here and below.
    #[inline(always)]
    pub unsafe fn zero() -> Self {
        const { assert!(V::LANES >= MIN_LANES && MAX_LANES.is_multiple_of(V::LANES)) };
        // SAFETY: as the caller vouches.
        PartialSums([unsafe { V::splat(0.0) }; MAX_LANES / MIN_LANES])
    }

    /// Adds a register of numbers, which is that many registers from the start of a round.
    #[inline(always)]
    pub unsafe fn add(&mut self, register: usize, x: V::F) {
        let sum = &mut self.0[register];
        // SAFETY: as above.
        *sum = unsafe { V::add(*sum, x) };
    }

    /// Adds the products of two registers of numbers.
    #[inline(always)]
    pub unsafe fn mul_add(&mut self, register: usize, a: V::F, b: V::F) {
        let sum = &mut self.0[register];
        // SAFETY: as above.
        *sum = unsafe { V::mul_add(a, b, *sum) };
    }

    /// The sum of the halves, of their halves, and so on.
    #[inline(always)]
    pub unsafe fn total(self) -> f32 {
        let mut sums = self.0;
        let mut registers = Self::REGISTERS;
        // SAFETY: as above.
        unsafe {
            while registers > 1 {
                registers /= 2;
                for n in 0..registers {
                    sums[n] = V::add(sums[n], sums[n + registers]);
                }
            }
            V::sum(sums[0])
        }
    }
}

#[inline(always)]
unsafe fn to_array<V: Vector>(x: V::F) -> [f32; MAX_LANES] {
    const { assert!(V::LANES <= MAX_LANES) };
    let mut lanes = [0.0; MAX_LANES];
    // SAFETY: the caller vouches for the CPU; the array has room for every lane.
    unsafe { V::store(lanes.as_mut_ptr(), x) };
    lanes
}

/// Sums of products of packed elements. A *unit* is four bytes of one row or one column: four 8-bit integers, two
/// bf16 or one f32, neighbours along the axis that is summed over. A *step* takes [`Dot::DEPTH`] units of some rows and of
/// two registers of columns.
///
/// # Safety
/// As [`Vector`]. A step reads the units of `2 * LANES` columns at `panel`, those of the next unit a
/// [`PANEL_STEP`](super::PANEL_STEP) further on, and units of `ROWS` rows, which lie side by side.
pub(super) trait Dot: Copy + 'static {
    /// Columns in a register of totals.
    const LANES: usize;
    /// The most rows of a tile whose sums, beside everything else, stay in registers.
    const ROWS: usize;
    /// Units of a step.
    const DEPTH: usize;
    /// Whether 8-bit integers of rows are signed. Rows are then stored less [`ROW_OFFSET`], and `finish` adds
    /// [`ROW_OFFSET`] · Σ q to each sum, or with blocks the tile itself.
    const SIGNED_ROWS: bool;
    /// What the products of a row with a register of columns are added up in.
    type Sum: Copy;
    /// The totals of `LANES` columns.
    type Total: Copy;

    unsafe fn zero() -> Self::Sum;
    /// Adds the products of a step.
    unsafe fn step<const ROWS: usize>(panel: *const u8, rows: *const u8, sums: &mut [[Self::Sum; 2]; ROWS]);
    /// What the sums have come to.
    unsafe fn totals<const ROWS: usize>(sums: [[Self::Sum; 2]; ROWS]) -> [[Self::Total; 2]; ROWS];
    /// Stores the totals of `LANES` columns.
    unsafe fn store(to: *mut u32, total: Self::Total);
}

/// What is taken from the 8-bit integers of rows where an instruction set has no product of unsigned with signed ones.
pub(super) const ROW_OFFSET: i32 = 128;

/// A [`Dot`] by instructions that multiply one row's unit, in all lanes, with the units of a register of columns.
///
/// # Safety
/// As [`Vector`].
pub(super) trait Broadcast: Copy + 'static {
    /// As [`Dot::LANES`].
    const LANES: usize;
    /// As [`Dot::ROWS`].
    const ROWS: usize;
    /// A register of sums.
    type Sum: Copy;
    /// A register of one row's unit, for all columns.
    type Row: Copy;
    /// A register of the units of `LANES` columns.
    type Columns: Copy;

    unsafe fn zero() -> Self::Sum;
    /// One unit of a row.
    unsafe fn row(from: *const u8) -> Self::Row;
    /// The units of `LANES` columns.
    unsafe fn columns(from: *const u8) -> Self::Columns;
    /// sum + row · columns, for every column.
    unsafe fn add(sum: Self::Sum, row: Self::Row, columns: Self::Columns) -> Self::Sum;
    /// Stores the sums of `LANES` columns.
    unsafe fn store(to: *mut u32, sum: Self::Sum);
}

impl<B: Broadcast> Dot for B {
    const LANES: usize = B::LANES;
    const ROWS: usize = B::ROWS;
    const DEPTH: usize = 1;
    const SIGNED_ROWS: bool = false;
    type Sum = B::Sum;
    type Total = B::Sum;

    #[inline(always)]
    unsafe fn zero() -> B::Sum {
        // SAFETY: as the caller vouches, here and below.
        unsafe { B::zero() }
    }

    #[inline(always)]
    unsafe fn step<const ROWS: usize>(panel: *const u8, rows: *const u8, sums: &mut [[B::Sum; 2]; ROWS]) {
        // SAFETY: as above.
        unsafe {
            let columns = [B::columns(panel), B::columns(panel.add(B::LANES * UNIT))];
            for (row, sums) in sums.iter_mut().enumerate() {
                let unit = B::row(rows.add(row * UNIT));
                sums[0] = B::add(sums[0], unit, columns[0]);
                sums[1] = B::add(sums[1], unit, columns[1]);
            }
        }
    }

    #[inline(always)]
    unsafe fn totals<const ROWS: usize>(sums: [[B::Sum; 2]; ROWS]) -> [[B::Sum; 2]; ROWS] {
        sums
    }

    #[inline(always)]
    unsafe fn store(to: *mut u32, total: B::Sum) {
        // SAFETY: as above.
        unsafe { B::store(to, total) }
    }
}

/// Defines functions whose bodies are unsafe for one and the same reason.
macro_rules! cpu_functions {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        $(
            #[inline(always)]
            #[allow(unused_unsafe)] // where plain Rust stands for an instruction
            unsafe fn $name($($argument: $type),*) $(-> $result)? {
                // SAFETY: the caller vouches for the CPU and, where there is a pointer, for what it points to.
                unsafe { $body }
            }
        )*
    };
}
pub(super) use cpu_functions;
