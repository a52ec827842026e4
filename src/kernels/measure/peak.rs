//! How fast a CPU multiplies if it does nothing else.

use std::time::Instant;

use super::Element;
use crate::kernels::{InstructionSet, Kernels};

/// How often one measurement multiplies each accumulator: half a millisecond to a few in all.
const TIMES: u64 = 100_000;

/// Multiplications per second, in 10⁹, of the instructions that a product of this element is made of, with all operands in
/// registers: one short measurement. `None` where there are no such instructions.
pub fn peak(set: InstructionSet, element: Element) -> Option<f64> {
    let kernels = Kernels::new(set)?;
    if element == Element::Bf16 && !kernels.has_bf16() {
        return None;
    }
    let multiply = multiply(set, element)?;
    let started = Instant::now();
    // SAFETY: the kernels exist, with bf16 where that is asked for, so the CPU has their instructions.
    let multiplications = unsafe { multiply(TIMES) };
    Some(multiplications as f64 / started.elapsed().as_secs_f64() / 1e9)
}

/// Multiplies each accumulator so many times, and returns how many multiplications that were.
type MultiplyFn = unsafe fn(u64) -> u64;

/// By the instructions that a product of this element is made of.
fn multiply(set: InstructionSet, element: Element) -> Option<MultiplyFn> {
    use InstructionSet::*;
    let multiply: MultiplyFn = match (set, element) {
        #[cfg(target_arch = "x86_64")]
        (Amx, Element::Int8) => crate::kernels::x86_64::amx::tdpbusd,
        #[cfg(target_arch = "x86_64")]
        (Amx, Element::Bf16) => crate::kernels::x86_64::amx::tdpbf16ps,
        #[cfg(target_arch = "x86_64")]
        (Avx512Vnni, Element::Int8) | (Avx512Vnni | Amx, Element::Int8Blocks) => x86_64::vpdpbusd_512,
        #[cfg(target_arch = "x86_64")]
        (Avx512Vnni, Element::Bf16) => x86_64::vdpbf16ps_512,
        #[cfg(target_arch = "x86_64")]
        (Avx512Vnni | Amx, Element::F32) => x86_64::vfmadd_512,
        #[cfg(target_arch = "x86_64")]
        (AvxVnni, Element::Int8 | Element::Int8Blocks) => x86_64::vpdpbusd_256,
        #[cfg(target_arch = "x86_64")]
        (Avx2, Element::Int8 | Element::Int8Blocks) => x86_64::vpmaddwd_256,
        #[cfg(target_arch = "x86_64")]
        (Avx2 | AvxVnni, Element::F32) => x86_64::vfmadd_256,
        #[cfg(target_arch = "aarch64")]
        (Neon, Element::Int8 | Element::Int8Blocks) => aarch64::smlal_sadalp,
        #[cfg(target_arch = "aarch64")]
        (DotProd, Element::Int8 | Element::Int8Blocks) => aarch64::sdot,
        #[cfg(target_arch = "aarch64")]
        (I8mm, Element::Int8 | Element::Int8Blocks) => aarch64::usmmla,
        #[cfg(target_arch = "aarch64")]
        (I8mm, Element::Bf16) => aarch64::bfmmla,
        #[cfg(target_arch = "aarch64")]
        (Neon | DotProd | I8mm, Element::F32) => aarch64::fmla,
        _ => return None,
    };
    Some(multiply)
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;
    use std::arch::x86_64::*;
    use std::hint::black_box;

    /// Defines a function that adds to independent accumulators in turn, more of them than instructions in flight, and returns
    /// how many multiplications that were.
    macro_rules! measured {
        ($name:ident, $features:literal, $register:ident, $integer:ty, $accumulators:literal, $each:literal,
            $zero:expr, $set:expr, |$sum:ident, $factor:ident| $add:expr) => {
            #[target_feature(enable = $features)]
            pub unsafe fn $name(times: u64) -> u64 {
                let mut factor: $integer = $set;
                let mut sums = [$zero; $accumulators];
                for _ in 0..times {
                    for sum in &mut sums {
                        // SAFETY: no instruction at all. It hides that the factor stays the same, so that no product can be
                        // computed once for all.
                        unsafe {
                            asm!("/* {0} */", inout($register) factor, options(nomem, nostack, preserves_flags));
                        }
                        let ($sum, $factor) = (*sum, factor);
                        *sum = $add;
                    }
                }
                black_box(sums);
                times * $accumulators * $each
            }
        };
    }

    measured! {
        vpdpbusd_512, "avx512f,avx512vnni", zmm_reg, __m512i, 14, 64, _mm512_setzero_si512(), _mm512_set1_epi8(1),
        |sum, factor| _mm512_dpbusd_epi32(sum, factor, factor)
    }
    measured! {
        vdpbf16ps_512, "avx512f,avx512bf16", zmm_reg, __m512i, 14, 32, _mm512_setzero_ps(), _mm512_set1_epi16(0x3f80),
        // SAFETY: both are 512 bits of any value.
        |sum, factor| unsafe {
            let factor = std::mem::transmute::<__m512i, __m512bh>(factor);
            _mm512_dpbf16_ps(sum, factor, factor)
        }
    }
    measured! {
        vfmadd_512, "avx512f", zmm_reg, __m512, 14, 16, _mm512_setzero_ps(), _mm512_set1_ps(1.0),
        |sum, factor| _mm512_fmadd_ps(factor, factor, sum)
    }
    measured! {
        vpdpbusd_256, "avx2,avxvnni", ymm_reg, __m256i, 12, 32, _mm256_setzero_si256(), _mm256_set1_epi8(1),
        |sum, factor| _mm256_dpbusd_avx_epi32(sum, factor, factor)
    }
    // Four bytes by way of 16 bits are two instructions of eight products, each with an addition.
    measured! {
        vpmaddwd_256, "avx2", ymm_reg, __m256i, 12, 16, _mm256_setzero_si256(), _mm256_set1_epi16(1),
        |sum, factor| _mm256_add_epi32(sum, _mm256_madd_epi16(factor, factor))
    }
    measured! {
        vfmadd_256, "avx2,fma", ymm_reg, __m256, 12, 8, _mm256_setzero_ps(), _mm256_set1_ps(1.0),
        |sum, factor| _mm256_fmadd_ps(factor, factor, sum)
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;
    use std::arch::asm;
    use std::hint::black_box;

    /// Defines a function that adds to 24 independent accumulators in turn, and returns how many multiplications that were.
    macro_rules! measured {
        ($name:ident, $features:literal, $each:literal, $instructions:literal) => {
            #[target_feature(enable = $features)]
            pub unsafe fn $name(times: u64) -> u64 {
                const ACCUMULATORS: u64 = 24;
                let factor = vdupq_n_s8(0);
                let mut sums = [vdupq_n_s32(0); ACCUMULATORS as usize];
                for _ in 0..times {
                    for sum in &mut sums {
                        // SAFETY: the CPU has the instructions; they touch no memory.
                        unsafe {
                            asm!(
                                $instructions, sum = inout(vreg) *sum, a = in(vreg) factor,
                                product = out(vreg) _, options(pure, nomem, nostack, preserves_flags),
                            );
                        }
                    }
                }
                black_box(sums);
                times * ACCUMULATORS * $each
            }
        };
    }

    measured! { fmla, "neon", 4, "fmla {sum:v}.4s, {a:v}.4s, {a:v}.4s /* {product} */" }
    measured! { sdot, "neon,dotprod", 16, "sdot {sum:v}.4s, {a:v}.16b, {a:v}.16b /* {product} */" }
    measured! { usmmla, "neon,i8mm", 32, "usmmla {sum:v}.4s, {a:v}.16b, {a:v}.16b /* {product} */" }
    measured! { bfmmla, "neon,bf16", 16, "bfmmla {sum:v}.4s, {a:v}.8h, {a:v}.8h /* {product} */" }
    // Two products of each pair of 8-bit integers come together in 16 bits before they are widened.
    measured! {
        smlal_sadalp, "neon", 16,
        "smull {product:v}.8h, {a:v}.8b, {a:v}.8b\nsmlal {product:v}.8h, {a:v}.8b, {a:v}.8b\nsadalp {sum:v}.4s, {product:v}.8h"
    }
}
