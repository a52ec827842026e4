//! AVX-512 with VNNI: 16 lanes, 32 registers, and four 8-bit products per lane and instruction. AVX512-BF16 has two bf16
//! products per lane.

use std::arch::x86_64::*;

use crate::kernels::vector::{Broadcast, ROW_OFFSET, Vector, cpu_functions};

const _: () = assert!(ROW_OFFSET == 1 << 7);

/// The first `count` lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}

#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Vector for Avx512 {
    const LANES: usize = 16;
    type F = __m512;
    type I = __m512i;

    cpu_functions! {
        fn splat(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn load(from: *const f32) -> __m512 { _mm512_loadu_ps(from) }
        fn load_part(from: *const f32, count: usize) -> __m512 { _mm512_maskz_loadu_ps(first(count), from) }
        fn store(to: *mut f32, x: __m512) { _mm512_storeu_ps(to, x) }
        fn store_part(to: *mut f32, x: __m512, count: usize) { _mm512_mask_storeu_ps(to, first(count), x) }
        fn add(a: __m512, b: __m512) -> __m512 { _mm512_add_ps(a, b) }
        fn sub(a: __m512, b: __m512) -> __m512 { _mm512_sub_ps(a, b) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn div(a: __m512, b: __m512) -> __m512 { _mm512_div_ps(a, b) }
        fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn min(a: __m512, b: __m512) -> __m512 { _mm512_min_ps(a, b) }
        fn max(a: __m512, b: __m512) -> __m512 { _mm512_max_ps(a, b) }
        fn round(x: __m512) -> __m512 {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x)
        }
        fn pow2(n: __m512) -> __m512 { _mm512_scalef_ps(_mm512_set1_ps(1.0), n) }
        fn to_int(x: __m512) -> __m512i { _mm512_cvtps_epi32(x) }
        fn to_float(x: __m512i) -> __m512 { _mm512_cvtepi32_ps(x) }
        fn transpose(rows: [__m512; 16]) -> [__m512; 16] {
            // Pairs of rows, then of pairs: four numbers of one column end up side by side, for four columns per register.
            let mut quads = rows;
            for four in (0..16).step_by(4) {
                let [a, b, c, d] = [rows[four], rows[four + 1], rows[four + 2], rows[four + 3]];
                let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
                let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
                quads[four] = _mm512_shuffle_ps::<0x44>(ab_low, cd_low);
                quads[four + 1] = _mm512_shuffle_ps::<0xee>(ab_low, cd_low);
                quads[four + 2] = _mm512_shuffle_ps::<0x44>(ab_high, cd_high);
                quads[four + 3] = _mm512_shuffle_ps::<0xee>(ab_high, cd_high);
            }
            // Register r of each four holds columns r, r + 4, r + 8 and r + 12: gather the quarters of each column.
            let mut columns = rows;
            for r in 0..4 {
                let even_low = _mm512_shuffle_f32x4::<0x88>(quads[r], quads[r + 4]);
                let odd_low = _mm512_shuffle_f32x4::<0xdd>(quads[r], quads[r + 4]);
                let even_high = _mm512_shuffle_f32x4::<0x88>(quads[r + 8], quads[r + 12]);
                let odd_high = _mm512_shuffle_f32x4::<0xdd>(quads[r + 8], quads[r + 12]);
                columns[r] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
                columns[r + 8] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
                columns[r + 4] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
                columns[r + 12] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
            }
            columns
        }
        fn load_int(from: *const i32) -> __m512i { _mm512_loadu_si512(from.cast()) }
        fn add_int(a: __m512i, b: __m512i) -> __m512i { _mm512_add_epi32(a, b) }
        fn offset(x: __m512i) -> __m512i { _mm512_slli_epi32::<7>(x) }
        fn store_bytes(to: *mut u8, x: __m512i) {
            let above_0 = _mm512_max_epi32(x, _mm512_setzero_si512());
            _mm_storeu_si128(to.cast(), _mm512_cvtusepi32_epi8(above_0))
        }
        fn sum(x: __m512) -> f32 { _mm512_reduce_add_ps(x) }
        fn largest(x: __m512) -> f32 { _mm512_reduce_max_ps(x) }
        fn smallest(x: __m512) -> f32 { _mm512_reduce_min_ps(x) }
    }
}

/// Unsigned rows times signed columns by `vpdpbusd`.
#[derive(Clone, Copy)]
pub(super) struct Int8;

impl Broadcast for Int8 {
    const LANES: usize = 16;
    // 14 · 2 sums, 2 columns and 1 row of 32 registers.
    const ROWS: usize = 14;
    type Sum = __m512i;
    type Row = __m512i;
    type Columns = __m512i;

    cpu_functions! {
        fn zero() -> __m512i { _mm512_setzero_si512() }
        fn row(from: *const u8) -> __m512i { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
        fn columns(from: *const u8) -> __m512i { _mm512_loadu_si512(from.cast()) }
        fn add(sum: __m512i, row: __m512i, columns: __m512i) -> __m512i { _mm512_dpbusd_epi32(sum, row, columns) }
        fn store(to: *mut u32, sum: __m512i) { _mm512_storeu_si512(to.cast(), sum) }
    }
}

/// f32 by fused multiply-add.
#[derive(Clone, Copy)]
pub(super) struct Float;

impl Broadcast for Float {
    const LANES: usize = 16;
    const ROWS: usize = 14;
    type Sum = __m512;
    type Row = __m512;
    type Columns = __m512;

    cpu_functions! {
        fn zero() -> __m512 { _mm512_setzero_ps() }
        fn row(from: *const u8) -> __m512 { _mm512_set1_ps(from.cast::<f32>().read_unaligned()) }
        fn columns(from: *const u8) -> __m512 { _mm512_loadu_ps(from.cast()) }
        fn add(sum: __m512, row: __m512, columns: __m512) -> __m512 { _mm512_fmadd_ps(row, columns, sum) }
        fn store(to: *mut u32, sum: __m512) { _mm512_storeu_ps(to.cast(), sum) }
    }
}

/// bf16 by `vdpbf16ps`.
#[derive(Clone, Copy)]
pub(super) struct Bf16;

impl Broadcast for Bf16 {
    const LANES: usize = 16;
    const ROWS: usize = 14;
    type Sum = __m512;
    type Row = __m512bh;
    type Columns = __m512bh;

    cpu_functions! {
        fn zero() -> __m512 { _mm512_setzero_ps() }
        fn row(from: *const u8) -> __m512bh {
            std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(from.cast::<i32>().read_unaligned()))
        }
        fn columns(from: *const u8) -> __m512bh {
            std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(from.cast()))
        }
        fn add(sum: __m512, row: __m512bh, columns: __m512bh) -> __m512 { _mm512_dpbf16_ps(sum, row, columns) }
        fn store(to: *mut u32, sum: __m512) { _mm512_storeu_ps(to.cast(), sum) }
    }
}
