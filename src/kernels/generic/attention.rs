//! Scaled dot-product attention of one head (Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1).
//!
//! A head has a few dozen rows, so all of it stays in the first-level caches: keys are transposed once into scratch, then
//! both products are the same little loop, which takes several rows at a time so that each register of keys or values
//! that it loads is used by all of them.

use super::math::exp;
use super::product::prefetch;
use crate::kernels::vector::{MAX_LANES, PartialSums, Vector};
use crate::kernels::{Head, LINE, even_block};

/// The most rows that a small product computes at a time: so many that their sums hide each other's latency, and that
/// the 20 tokens and 36 regions of the usual question make whole blocks.
const ROWS: usize = 10;

/// Numbers of scratch that a head takes: transposed keys, the scores of all queries, and a factor for each.
pub fn scratch_len(queries: usize, keys: usize, size: usize) -> usize {
    keys.next_multiple_of(MAX_LANES) * (size + queries) + queries
}

/// Computes one head.
///
/// # Safety
/// The CPU has the instructions of `V`; the pointers of `head` are valid for its sizes, and `scratch` has room for
/// [`scratch_len`] numbers.
#[inline(always)]
pub unsafe fn attention<V: Vector>(head: &Head, scratch: *mut f32) {
    let padded = head.keys.next_multiple_of(V::LANES);
    prefetch_rows(head.k, head.k_stride, head.keys, head.size);
    prefetch_rows(head.q, head.q_stride, head.queries, head.size);
    prefetch_rows(head.v, head.v_stride, head.keys, head.size);
    // SAFETY: as the caller vouches: of keys and values every row is read over `size` numbers, the transposed keys are
    // `size` rows of `padded`, the scores `queries` rows of `padded`.
    unsafe {
        let transposed = scratch;
        let scores = scratch.add(head.size * padded);
        let factors = scores.add(head.queries * padded);
        transpose_keys::<V>(head, transposed, padded);
        for query in 0..head.queries {
            factors.add(query).write(head.scale);
        }
        product::<V>(
            Factor { rows: head.q, row_stride: head.q_stride, count: head.queries, len: head.size, factors },
            (transposed, padded),
            padded,
            (scores, padded),
        );
        // The weights of a row add up to 1 only after the second product, which has a number per query to scale.
        for query in 0..head.queries {
            let row = scores.add(query * padded);
            let total = exponentials::<V>(row, head.keys, head.mask);
            factors.add(query).write(1.0 / total);
            if !head.probabilities.is_null() {
                let to = head.probabilities.add(query * head.keys);
                (0..head.keys).for_each(|key| to.add(key).write(row.add(key).read() / total));
            }
        }
        product::<V>(
            Factor { rows: scores, row_stride: padded, count: head.queries, len: head.keys, factors },
            (head.v, head.v_stride),
            head.size,
            (head.to, head.stride),
        );
    }
}

/// Asks for rows of numbers, all at once: they lie far apart, where the CPU would not look for the next one by itself.
#[inline(always)]
fn prefetch_rows(rows: *const f32, stride: usize, count: usize, size: usize) {
    for row in 0..count {
        for line in (0..size * size_of::<f32>()).step_by(LINE) {
            prefetch(rows.wrapping_add(row * stride).cast::<u8>().wrapping_add(line));
        }
    }
}

/// Writes the keys as columns, `size` rows of `padded` numbers; those beyond the last key are 0.
#[inline(always)]
unsafe fn transpose_keys<V: Vector>(head: &Head, to: *mut f32, padded: usize) {
    let mut key = 0;
    while key < padded {
        let mut n = 0;
        while n < head.size {
            let count = V::LANES.min(head.size - n);
            // SAFETY: as the caller vouches: keys are rows of `size` numbers, the target has `padded` columns.
            unsafe {
                let mut block = [V::splat(0.0); MAX_LANES];
                for lane in 0..V::LANES.min(head.keys.saturating_sub(key)) {
                    block[lane] = V::load_first(head.k.add((key + lane) * head.k_stride + n), count);
                }
                let columns = V::transpose(block);
                for lane in 0..count {
                    V::store(to.add((n + lane) * padded + key), columns[lane]);
                }
            }
            n += V::LANES;
        }
        key += V::LANES;
    }
}

/// The left side of a small product: `count` rows of `len` numbers, and what the results of each row are multiplied with.
#[derive(Clone, Copy)]
struct Factor {
    rows: *const f32,
    row_stride: usize,
    count: usize,
    len: usize,
    factors: *const f32,
}

/// to = factor · a · b over `columns` columns. Matrices are pointers to rows, with the numbers from one row to the next.
#[inline(always)]
unsafe fn product<V: Vector>(a: Factor, b: (*const f32, usize), columns: usize, to: (*mut f32, usize)) {
    // Blocks of about the same size. The last one begins early enough to be whole: what it computes again comes out the same.
    let rows = even_block(a.count, ROWS);
    for block in 0..a.count.div_ceil(rows) {
        let first = (block * rows).min(a.count - rows);
        // SAFETY: as the caller vouches; `rows` rows from `first` are within the matrix.
        unsafe {
            match rows {
                1 => rows_product::<V, 1>(a, b, columns, to, first),
                2 => rows_product::<V, 2>(a, b, columns, to, first),
                3 => rows_product::<V, 3>(a, b, columns, to, first),
                4 => rows_product::<V, 4>(a, b, columns, to, first),
                5 => rows_product::<V, 5>(a, b, columns, to, first),
                6 => rows_product::<V, 6>(a, b, columns, to, first),
                7 => rows_product::<V, 7>(a, b, columns, to, first),
                8 => rows_product::<V, 8>(a, b, columns, to, first),
                9 => rows_product::<V, 9>(a, b, columns, to, first),
                _ => rows_product::<V, ROWS>(a, b, columns, to, first),
            }
        }
    }
}

#[inline(always)]
unsafe fn rows_product<V: Vector, const COUNT: usize>(
    a: Factor,
    b: (*const f32, usize),
    columns: usize,
    to: (*mut f32, usize),
    first: usize,
) {
    let mut column = 0;
    while column < columns {
        let count = V::LANES.min(columns - column);
        // SAFETY: as the caller vouches: `COUNT` rows from `first`, `count` columns from `column`.
        unsafe {
            let mut sums = [V::splat(0.0); COUNT];
            for n in 0..a.len {
                let right = V::load_first(b.0.add(n * b.1 + column), count);
                for row in 0..COUNT {
                    let left = V::splat(a.rows.add((first + row) * a.row_stride + n).read());
                    sums[row] = V::mul_add(left, right, sums[row]);
                }
            }
            for row in 0..COUNT {
                let scaled = V::mul(sums[row], V::splat(a.factors.add(first + row).read()));
                V::store_first(to.0.add((first + row) * to.1 + column), scaled, count);
            }
        }
        column += V::LANES;
    }
}

/// Turns scores into e^(score + mask − largest), and returns their sum: a soft max but for the division.
///
/// # Safety
/// `row` has room for whole registers; `mask` is null or `keys` numbers.
#[inline(always)]
unsafe fn exponentials<V: Vector>(row: *mut f32, keys: usize, mask: *const f32) -> f32 {
    let padded = keys.next_multiple_of(V::LANES);
    // SAFETY: as the caller vouches: every access is to a register within `padded`, or to `count` keys of the mask.
    unsafe {
        if !mask.is_null() {
            for at in (0..padded).step_by(V::LANES) {
                let masks = V::load_first(mask.add(at), V::LANES.min(keys - at));
                let score = V::add(V::load(row.add(at)), masks);
                // A mask of −∞ must leave a key above what lies beyond the last one.
                V::store(row.add(at), V::max(V::splat(f32::MIN), score));
            }
        }
        // What lies beyond the last key must weigh nothing, even where every key is masked.
        for key in keys..padded {
            row.add(key).write(f32::NEG_INFINITY);
        }
        let mut largest = V::splat(f32::MIN);
        for at in (0..padded).step_by(V::LANES) {
            largest = V::max(largest, V::load(row.add(at)));
        }
        let peak = V::splat(V::largest(largest));
        let mut total = PartialSums::<V>::zero();
        for round in (0..padded).step_by(MAX_LANES) {
            for register in 0..PartialSums::<V>::REGISTERS {
                let at = round + register * V::LANES;
                if at < padded {
                    let weight = exp::<V>(V::sub(V::load(row.add(at)), peak));
                    V::store(row.add(at), weight);
                    // What lies beyond the last key would be as much as there are lanes beyond it.
                    let counted = V::LANES.min(keys - at);
                    let weight = if counted < V::LANES { V::load_part(row.add(at), counted) } else { weight };
                    total.add(register, weight);
                }
            }
        }
        total.total()
    }
}
