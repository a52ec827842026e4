//! Plain Rust: four lanes in an array, which every compiler turns into what its target has.

use crate::kernels::vector::{Broadcast, ROW_OFFSET, Vector, cpu_functions};

const LANES: usize = 4;

#[derive(Clone, Copy)]
pub(super) struct Portable;

#[inline(always)]
fn map<T: Copy, U>(a: [T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    a.map(f)
}

#[inline(always)]
fn zip<T: Copy>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> T) -> [T; LANES] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

impl Vector for Portable {
    const LANES: usize = LANES;
    type F = [f32; LANES];
    type I = [i32; LANES];

    cpu_functions! {
        fn splat(value: f32) -> [f32; LANES] { [value; LANES] }
        fn load(from: *const f32) -> [f32; LANES] { from.cast::<[f32; LANES]>().read_unaligned() }
        fn load_part(from: *const f32, count: usize) -> [f32; LANES] {
            std::array::from_fn(|lane| if lane < count { from.add(lane).read_unaligned() } else { 0.0 })
        }
        fn store(to: *mut f32, x: [f32; LANES]) { to.cast::<[f32; LANES]>().write_unaligned(x) }
        fn store_part(to: *mut f32, x: [f32; LANES], count: usize) {
            for (lane, value) in x.into_iter().enumerate().take(count) {
                to.add(lane).write_unaligned(value);
            }
        }
        fn add(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] { zip(a, b, |a, b| a + b) }
        fn sub(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] { zip(a, b, |a, b| a - b) }
        fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] { zip(a, b, |a, b| a * b) }
        fn div(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] { zip(a, b, |a, b| a / b) }
        // A call of the C library for each lane, unless the target has a fused product: slow, and exact.
        fn mul_add(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
            std::array::from_fn(|lane| a[lane].mul_add(b[lane], c[lane]))
        }
        fn min(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] { zip(a, b, |a, b| if a < b { a } else { b }) }
        fn max(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] { zip(a, b, |a, b| if a > b { a } else { b }) }
        fn round(x: [f32; LANES]) -> [f32; LANES] { map(x, f32::round_ties_even) }
        fn pow2(n: [f32; LANES]) -> [f32; LANES] { map(n, |n| f32::from_bits(((n as i32 + 127) as u32) << 23)) }
        fn to_int(x: [f32; LANES]) -> [i32; LANES] { map(x, |x| x.round_ties_even() as i32) }
        fn to_float(x: [i32; LANES]) -> [f32; LANES] { map(x, |x| x as f32) }
        fn transpose(rows: [[f32; LANES]; 16]) -> [[f32; LANES]; 16] {
            let mut columns = rows;
            for column in 0..LANES {
                columns[column] = std::array::from_fn(|row| rows[row][column]);
            }
            columns
        }
        fn load_int(from: *const i32) -> [i32; LANES] { from.cast::<[i32; LANES]>().read_unaligned() }
        fn add_int(a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] { zip(a, b, i32::wrapping_add) }
        fn offset(x: [i32; LANES]) -> [i32; LANES] { map(x, |x| x.wrapping_mul(ROW_OFFSET)) }
        fn store_bytes(to: *mut u8, x: [i32; LANES]) {
            to.cast::<[u8; LANES]>().write_unaligned(map(x, |x| x.clamp(0, 255) as u8))
        }
    }
}

/// Unsigned rows times signed columns, one by one.
#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Broadcast for Int8 {
    const LANES: usize = LANES;
    const ROWS: usize = 4;
    type Sum = [i32; LANES];
    type Row = [i32; 4];
    type Columns = [[i8; 4]; LANES];

    cpu_functions! {
        fn zero() -> [i32; LANES] { [0; LANES] }
        fn row(from: *const u8) -> [i32; 4] { from.cast::<[u8; 4]>().read().map(i32::from) }
        fn columns(from: *const u8) -> [[i8; 4]; LANES] { from.cast::<[[i8; 4]; LANES]>().read() }
        fn add(sum: [i32; LANES], row: [i32; 4], columns: [[i8; 4]; LANES]) -> [i32; LANES] {
            std::array::from_fn(|lane| {
                let products = row.iter().zip(columns[lane]).map(|(row, column)| row * i32::from(column));
                sum[lane] + products.sum::<i32>()
            })
        }
        fn store(to: *mut u32, sum: [i32; LANES]) { to.cast::<[i32; LANES]>().write_unaligned(sum) }
    }
}

/// f32, one by one.
#[derive(Clone, Copy)]
pub(super) struct Float;

impl Broadcast for Float {
    const LANES: usize = LANES;
    const ROWS: usize = 4;
    type Sum = [f32; LANES];
    type Row = f32;
    type Columns = [f32; LANES];

    cpu_functions! {
        fn zero() -> [f32; LANES] { [0.0; LANES] }
        fn row(from: *const u8) -> f32 { from.cast::<f32>().read_unaligned() }
        fn columns(from: *const u8) -> [f32; LANES] { from.cast::<[f32; LANES]>().read_unaligned() }
        fn add(sum: [f32; LANES], row: f32, columns: [f32; LANES]) -> [f32; LANES] {
            zip(sum, columns, |sum, column| row.mul_add(column, sum))
        }
        fn store(to: *mut u32, sum: [f32; LANES]) { to.cast::<[f32; LANES]>().write_unaligned(sum) }
    }
}
