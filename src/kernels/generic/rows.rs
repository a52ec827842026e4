//! Operations on one row at a time: layer norm, and the forms in which a matrix product reads rows.

use crate::kernels::vector::{MAX_LANES, PartialSums, ROW_OFFSET, Vector};
use crate::kernels::{RowScale, UNIT};

/// Adds up rows: x = scale · (a + b).
///
/// # Safety
/// The CPU has the instructions of `V`, here and below; `to` and the sources are `len` numbers.
#[inline(always)]
pub unsafe fn mean<V: Vector>(a: *const f32, b: *const f32, scale: f32, len: usize, to: *mut f32) {
    let mut at = 0;
    while at < len {
        let count = V::LANES.min(len - at);
        // SAFETY: `count` numbers from `at` are within each.
        unsafe {
            let sum = V::add(V::load_first(a.add(at), count), V::load_first(b.add(at), count));
            V::store_first(to.add(at), V::mul(sum, V::splat(scale)), count);
        }
        at += V::LANES;
    }
}

/// Layer norm with scale and shift (Ba et al. 2016, "Layer Normalization"): the variance is that of the whole row, not of a sample.
///
/// # Safety
/// `x`, `scale`, `shift` and `to` are `len` numbers; `to` may be `x`.
#[inline(always)]
pub unsafe fn layer_norm<V: Vector>(
    x: *const f32,
    scale: *const f32,
    shift: *const f32,
    epsilon: f32,
    len: usize,
    to: *mut f32,
) {
    // SAFETY: every access is to `count` numbers from `at`, which are within the row.
    unsafe {
        // Where whole rounds end: beyond the row a deviation would not be 0.
        let whole = len - len % MAX_LANES;
        let mut sums = PartialSums::<V>::zero();
        for round in (0..whole).step_by(MAX_LANES) {
            for register in 0..PartialSums::<V>::REGISTERS {
                sums.add(register, V::load(x.add(round + register * V::LANES)));
            }
        }
        for register in 0..PartialSums::<V>::REGISTERS {
            let at = whole + register * V::LANES;
            if at < len {
                sums.add(register, V::load_first(x.add(at), V::LANES.min(len - at)));
            }
        }
        let mean = sums.total() / len as f32;
        let mut squares = PartialSums::<V>::zero();
        for round in (0..whole).step_by(MAX_LANES) {
            for register in 0..PartialSums::<V>::REGISTERS {
                let deviation = V::sub(V::load(x.add(round + register * V::LANES)), V::splat(mean));
                squares.mul_add(register, deviation, deviation);
            }
        }
        let mut rest = 0.0;
        for n in whole..len {
            let deviation = x.add(n).read() - mean;
            rest += deviation * deviation;
        }
        let variance = (squares.total() + rest) / len as f32;
        let factor = 1.0 / (variance + epsilon).sqrt();
        let mut at = 0;
        while at < len {
            let count = V::LANES.min(len - at);
            let deviation = V::sub(V::load_first(x.add(at), count), V::splat(mean));
            let normed = V::mul(deviation, V::splat(factor));
            let scaled =
                V::mul_add(normed, V::load_first(scale.add(at), count), V::load_first(shift.add(at), count));
            V::store_first(to.add(at), scaled, count);
            at += V::LANES;
        }
    }
}

/// Rounds a row to unsigned bytes, x ≈ scale · (byte − zero), and spreads it in units. The range always
/// holds 0, and is that of the row: what a GELU leaves has few negative numbers and would waste half of a symmetric one. If
/// `SIGNED`, bytes are stored less [`ROW_OFFSET`].
///
/// # Safety
/// `x` is `len` numbers; `to` has room for a unit at every multiple of `stride` bytes up to ⌈len / 4⌉ − 1.
#[inline(always)]
pub unsafe fn quantize<V: Vector, const SIGNED: bool>(
    x: *const f32,
    len: usize,
    to: *mut u8,
    stride: usize,
) -> RowScale {
    // SAFETY: every access is to `count` numbers from `at`, or to a unit that the caller vouches for.
    unsafe {
        let (mut low, mut high, mut nothing) = (V::splat(0.0), V::splat(0.0), V::splat(0.0));
        let mut at = 0;
        while at < len {
            let value = V::load_first(x.add(at), V::LANES.min(len - at));
            low = V::min(low, value);
            high = V::max(high, value);
            // Comparisons lose a NaN. This stays 0 only without one, and without an infinity.
            nothing = V::mul_add(value, V::splat(0.0), nothing);
            at += V::LANES;
        }
        let (low, high) = (V::smallest(low), V::largest(high));
        let scale = (high - low) / 255.0 + V::sum(nothing);
        // The inverse of a denormal number may be infinite; so small a row is as good as zeros.
        let inverse = if scale >= f32::MIN_POSITIVE { 1.0 / scale } else { 0.0 };
        let zero = (-low * inverse).round_ties_even();
        let (inverses, zeros) = (V::splat(inverse), V::splat(zero));
        let mut unit = to;
        at = 0;
        while at + V::LANES <= len {
            let units = round::<V, SIGNED>(V::load(x.add(at)), inverses, zeros);
            for bytes in &units[..V::LANES / UNIT] {
                unit.cast::<u32>().write_unaligned(*bytes);
                unit = unit.wrapping_add(stride);
            }
            at += V::LANES;
        }
        if at < len {
            let units = round::<V, SIGNED>(V::load_part(x.add(at), len - at), inverses, zeros);
            for bytes in &units[..(len - at).div_ceil(UNIT)] {
                unit.cast::<u32>().write_unaligned(*bytes);
                unit = unit.wrapping_add(stride);
            }
        }
        RowScale { scale, zero: zero as i32 }
    }
}

/// Bytes for `LANES` numbers, in units.
#[inline(always)]
unsafe fn round<V: Vector, const SIGNED: bool>(
    x: V::F,
    inverse: V::F,
    zero: V::F,
) -> [u32; MAX_LANES / UNIT] {
    let mut units = [0u32; MAX_LANES / UNIT];
    // SAFETY: the caller vouches for the CPU; the array has room for a byte per lane.
    unsafe { V::store_bytes(units.as_mut_ptr().cast(), V::to_int(V::mul_add(x, inverse, zero))) };
    // A byte less 128 is the same but for its highest bit.
    const { assert!(ROW_OFFSET == 0x80) };
    if SIGNED { units.map(|unit| unit ^ 0x8080_8080) } else { units }
}

/// Rounds a row to bf16, ties to even, and spreads it in units.
///
/// # Safety
/// `x` is `len` numbers; `to` has room for a unit at every multiple of `stride` bytes up to ⌈len / 2⌉ − 1.
#[inline(always)]
pub unsafe fn narrow(x: *const f32, len: usize, to: *mut u8, stride: usize) {
    // Many at a time, for the compiler to use vector instructions.
    const BLOCK: usize = 32;
    let mut at = 0;
    while at < len {
        let count = BLOCK.min(len - at);
        let mut bits = [0u16; BLOCK];
        // SAFETY: `count` numbers from `at` are within the row, and so are the units that they take.
        unsafe {
            for (n, bits) in bits.iter_mut().enumerate() {
                *bits = if n < count { bf16_bits(x.add(at + n).read()) } else { 0 };
            }
            for unit in 0..count.div_ceil(2) {
                let both = u32::from(bits[2 * unit]) | u32::from(bits[2 * unit + 1]) << 16;
                to.add((at / 2 + unit) * stride).cast::<u32>().write_unaligned(both);
            }
        }
        at += BLOCK;
    }
}

/// The nearest bf16's bits, ties to even; a number that is none stays none.
#[inline(always)]
pub fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// Spreads a row in units of one number.
///
/// # Safety
/// `x` is `len` numbers; `to` has room for a unit at every multiple of `stride` bytes up to `len` − 1.
#[inline(always)]
pub unsafe fn spread(x: *const f32, len: usize, to: *mut u8, stride: usize) {
    for n in 0..len {
        // SAFETY: as the caller vouches.
        unsafe { to.add(n * stride).cast::<f32>().write_unaligned(x.add(n).read()) };
    }
}
