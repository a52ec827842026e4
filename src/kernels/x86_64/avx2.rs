//! AVX2 with FMA: 8 lanes and 16 registers. Newer CPUs without AVX-512 multiply 8-bit integers by AVX-VNNI, the others by
//! way of 16 bits.

use std::arch::x86_64::*;

use crate::kernels::vector::{Broadcast, ROW_OFFSET, Vector, cpu_functions};

const _: () = assert!(ROW_OFFSET == 1 << 7);

#[derive(Clone, Copy)]
pub(super) struct Avx2;

/// All bits set in the first `count` lanes.
#[inline(always)]
unsafe fn first(count: usize) -> __m256i {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lanes)
    }
}

impl Vector for Avx2 {
    const LANES: usize = 8;
    type F = __m256;
    type I = __m256i;

    cpu_functions! {
        fn splat(value: f32) -> __m256 { _mm256_set1_ps(value) }
        fn load(from: *const f32) -> __m256 { _mm256_loadu_ps(from) }
        fn load_part(from: *const f32, count: usize) -> __m256 { _mm256_maskload_ps(from, first(count)) }
        fn store(to: *mut f32, x: __m256) { _mm256_storeu_ps(to, x) }
        fn store_part(to: *mut f32, x: __m256, count: usize) { _mm256_maskstore_ps(to, first(count), x) }
        fn add(a: __m256, b: __m256) -> __m256 { _mm256_add_ps(a, b) }
        fn sub(a: __m256, b: __m256) -> __m256 { _mm256_sub_ps(a, b) }
        fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
        fn div(a: __m256, b: __m256) -> __m256 { _mm256_div_ps(a, b) }
        fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
        fn min(a: __m256, b: __m256) -> __m256 { _mm256_min_ps(a, b) }
        fn max(a: __m256, b: __m256) -> __m256 { _mm256_max_ps(a, b) }
        fn round(x: __m256) -> __m256 {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }
        fn pow2(n: __m256) -> __m256 {
            // The exponent's bits, by hand.
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
        }
        fn to_int(x: __m256) -> __m256i { _mm256_cvtps_epi32(x) }
        fn to_float(x: __m256i) -> __m256 { _mm256_cvtepi32_ps(x) }
        fn transpose(rows: [__m256; 16]) -> [__m256; 16] {
            // Pairs of rows, then fours: one column's four numbers for two columns per register, 4 apart.
            let mut quads = rows;
            for four in [0, 4] {
                let [a, b, c, d] = [rows[four], rows[four + 1], rows[four + 2], rows[four + 3]];
                let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
                quads[four] = _mm256_shuffle_ps::<0x44>(ab_low, cd_low);
                quads[four + 1] = _mm256_shuffle_ps::<0xee>(ab_low, cd_low);
                quads[four + 2] = _mm256_shuffle_ps::<0x44>(ab_high, cd_high);
                quads[four + 3] = _mm256_shuffle_ps::<0xee>(ab_high, cd_high);
            }
            let mut columns = rows;
            for r in 0..4 {
                columns[r] = _mm256_permute2f128_ps::<0x20>(quads[r], quads[r + 4]);
                columns[r + 4] = _mm256_permute2f128_ps::<0x31>(quads[r], quads[r + 4]);
            }
            columns
        }
        fn load_int(from: *const i32) -> __m256i { _mm256_loadu_si256(from.cast()) }
        fn add_int(a: __m256i, b: __m256i) -> __m256i { _mm256_add_epi32(a, b) }
        fn offset(x: __m256i) -> __m256i { _mm256_slli_epi32::<7>(x) }
        fn store_bytes(to: *mut u8, x: __m256i) {
            let halves = _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(halves, halves))
        }
    }
}

/// Unsigned rows times signed columns by way of 16 bits. `vpmaddubsw` would be one instruction instead of two, but its
/// sums of two products saturate.
#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Broadcast for Int8 {
    const LANES: usize = 8;
    // 4 · 2 sums, 2 · 2 columns and 2 of a row, of 16 registers.
    const ROWS: usize = 4;
    type Sum = __m256i;
    // Elements 0 and 2, elements 1 and 3 of every unit, as 16-bit integers.
    type Row = [__m256i; 2];
    type Columns = [__m256i; 2];

    cpu_functions! {
        fn zero() -> __m256i { _mm256_setzero_si256() }
        fn row(from: *const u8) -> [__m256i; 2] {
            let unit = _mm256_set1_epi32(from.cast::<i32>().read_unaligned());
            [_mm256_and_si256(unit, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(unit)]
        }
        fn columns(from: *const u8) -> [__m256i; 2] {
            let units = _mm256_loadu_si256(from.cast());
            [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(units)), _mm256_srai_epi16::<8>(units)]
        }
        fn add(sum: __m256i, row: [__m256i; 2], columns: [__m256i; 2]) -> __m256i {
            let even = _mm256_madd_epi16(row[0], columns[0]);
            let odd = _mm256_madd_epi16(row[1], columns[1]);
            _mm256_add_epi32(sum, _mm256_add_epi32(even, odd))
        }
        fn store(to: *mut u32, sum: __m256i) { _mm256_storeu_si256(to.cast(), sum) }
    }
}

/// Unsigned rows times signed columns by AVX-VNNI's `vpdpbusd`.
#[derive(Clone, Copy)]
pub(super) struct VnniInt8;

impl Broadcast for VnniInt8 {
    const LANES: usize = 8;
    // 6 · 2 sums, 2 columns and 1 row of 16 registers.
    const ROWS: usize = 6;
    type Sum = __m256i;
    type Row = __m256i;
    type Columns = __m256i;

    cpu_functions! {
        fn zero() -> __m256i { _mm256_setzero_si256() }
        fn row(from: *const u8) -> __m256i { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
        fn columns(from: *const u8) -> __m256i { _mm256_loadu_si256(from.cast()) }
        fn add(sum: __m256i, row: __m256i, columns: __m256i) -> __m256i {
            _mm256_dpbusd_avx_epi32(sum, row, columns)
        }
        fn store(to: *mut u32, sum: __m256i) { _mm256_storeu_si256(to.cast(), sum) }
    }
}

/// f32 by fused multiply-add.
#[derive(Clone, Copy)]
pub(super) struct Float;

impl Broadcast for Float {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    type Sum = __m256;
    type Row = __m256;
    type Columns = __m256;

    cpu_functions! {
        fn zero() -> __m256 { _mm256_setzero_ps() }
        fn row(from: *const u8) -> __m256 { _mm256_set1_ps(from.cast::<f32>().read_unaligned()) }
        fn columns(from: *const u8) -> __m256 { _mm256_loadu_ps(from.cast()) }
        fn add(sum: __m256, row: __m256, columns: __m256) -> __m256 { _mm256_fmadd_ps(row, columns, sum) }
        fn store(to: *mut u32, sum: __m256) { _mm256_storeu_ps(to.cast(), sum) }
    }
}
