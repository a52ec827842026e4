//! What an instruction set must offer for the algorithms of `generic`: a register of numbers, and a sum of products.
//!
//! The functions are `unsafe` because each may use instructions that not every CPU has: whoever calls one must know that this
//! CPU has those of the implementing type. They are always inlined, so that a function with the matching `target_feature`
//! that calls a generic algorithm is compiled as if it had been written for that instruction set.

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

    /// The sum of all lanes, in an order that depends on `LANES` alone.
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

#[inline(always)]
unsafe fn to_array<V: Vector>(x: V::F) -> [f32; MAX_LANES] {
    const { assert!(V::LANES <= MAX_LANES) };
    let mut lanes = [0.0; MAX_LANES];
    // SAFETY: the caller vouches for the CPU; the array has room for every lane.
    unsafe { V::store(lanes.as_mut_ptr(), x) };
    lanes
}

/// Sums of products of packed elements. A *unit* is four bytes of one row or one column: four 8-bit integers, two
/// bf16 or one f32, neighbours along the axis that is summed over.
///
/// # Safety
/// As [`Vector`].
pub(super) trait Dot: Copy + 'static {
    /// Columns in a register.
    const LANES: usize;
    /// The most rows of a tile whose sums, beside everything else, stay in registers.
    const ROWS: usize;
    /// Registers of columns in a tile.
    const VECTORS: usize;
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
