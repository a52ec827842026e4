//! Scaled dot-product attention of one head (Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1).
//!
//! A head has a few dozen rows, so all of it stays in the first-level caches: keys are transposed once into scratch, then
//! both products are the same little loop, which takes several rows at a time so that each register of keys or values
//! that it loads is used by all of them.

use super::math::exp;
use crate::kernels::Head;
use crate::kernels::vector::Vector;

/// Rows that a small product computes at a time.
const ROWS: usize = 8;

/// Numbers of scratch that a head takes: transposed keys, and the scores of all queries.
pub fn scratch_len(queries: usize, keys: usize, size: usize) -> usize {
    keys.next_multiple_of(crate::kernels::vector::MAX_LANES) * (size + queries)
}

/// Computes one head.
///
/// # Safety
/// The CPU has the instructions of `V`; the pointers of `head` are valid for its sizes, and `scratch` has room for
/// [`scratch_len`] numbers.
#[inline(always)]
pub unsafe fn attention<V: Vector>(head: &Head, scratch: *mut f32) {
    let padded = head.keys.next_multiple_of(V::LANES);
    // SAFETY: as the caller vouches: of keys and values every row is read over `size` numbers, the transposed keys are
    // `size` rows of `padded`, the scores `queries` rows of `padded`.
    unsafe {
        let transposed = scratch;
        let scores = scratch.add(head.size * padded);
        for key in 0..head.keys {
            let row = head.k.add(key * head.k_stride);
            for n in 0..head.size {
                transposed.add(n * padded + key).write(row.add(n).read());
            }
        }
        for n in 0..head.size {
            for key in head.keys..padded {
                transposed.add(n * padded + key).write(0.0);
            }
        }
        product::<V>(
            Factor { rows: head.q, row_stride: head.q_stride, count: head.queries, len: head.size },
            (transposed, padded),
            padded,
            (scores, padded),
        );
        for query in 0..head.queries {
            let row = scores.add(query * padded);
            soft_max::<V>(row, head.keys, head.scale, head.mask);
            if !head.probabilities.is_null() {
                std::ptr::copy_nonoverlapping(row, head.probabilities.add(query * head.keys), head.keys);
            }
        }
        product::<V>(
            Factor { rows: scores, row_stride: padded, count: head.queries, len: head.keys },
            (head.v, head.v_stride),
            head.size,
            (head.to, head.stride),
        );
    }
}

/// The left side of a small product: `count` rows of `len` numbers.
#[derive(Clone, Copy)]
struct Factor {
    rows: *const f32,
    row_stride: usize,
    count: usize,
    len: usize,
}

/// to = a · b over `columns` columns. Matrices are pointers to rows, with the numbers from one row to the next.
#[inline(always)]
unsafe fn product<V: Vector>(a: Factor, b: (*const f32, usize), columns: usize, to: (*mut f32, usize)) {
    let mut row = 0;
    while row < a.count {
        // SAFETY: as the caller vouches; both kinds of step stay within the rows.
        unsafe {
            if a.count >= ROWS {
                // The last step begins early enough to be whole: what it computes again comes out the same.
                let first = row.min(a.count - ROWS);
                rows_product::<V, ROWS>(a, b, columns, to, first);
                row = first + ROWS;
            } else {
                rows_product::<V, 1>(a, b, columns, to, row);
                row += 1;
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
                V::store_first(to.0.add((first + row) * to.1 + column), sums[row], count);
            }
        }
        column += V::LANES;
    }
}

/// Turns scores into weights that add up to 1: exp(scale · score + mask), divided by its sum.
#[inline(always)]
unsafe fn soft_max<V: Vector>(row: *mut f32, keys: usize, scale: f32, mask: *const f32) {
    // SAFETY: as the caller vouches: every access is to `count` keys from `at`.
    unsafe {
        let mut largest = V::splat(f32::MIN);
        let mut at = 0;
        while at < keys {
            let count = V::LANES.min(keys - at);
            let mut score = V::mul(V::load_first(row.add(at), count), V::splat(scale));
            if !mask.is_null() {
                score = V::add(score, V::load_first(mask.add(at), count));
            }
            V::store_first(row.add(at), score, count);
            if count == V::LANES {
                largest = V::max(largest, score);
            }
            at += V::LANES;
        }
        let mut peak = V::largest(largest);
        for n in keys / V::LANES * V::LANES..keys {
            peak = peak.max(row.add(n).read());
        }
        let mut total = V::splat(0.0);
        let mut rest = 0.0;
        at = 0;
        while at < keys {
            let count = V::LANES.min(keys - at);
            let weight = exp::<V>(V::sub(V::load_first(row.add(at), count), V::splat(peak)));
            V::store_first(row.add(at), weight, count);
            if count == V::LANES {
                total = V::add(total, weight);
            }
            at += V::LANES;
        }
        for n in keys / V::LANES * V::LANES..keys {
            rest += row.add(n).read();
        }
        let inverse = V::splat(1.0 / (V::sum(total) + rest));
        at = 0;
        while at < keys {
            let count = V::LANES.min(keys - at);
            V::store_first(row.add(at), V::mul(V::load_first(row.add(at), count), inverse), count);
            at += V::LANES;
        }
    }
}
