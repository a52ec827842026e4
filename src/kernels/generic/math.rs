//! Elementary functions of registers.

use crate::kernels::Activation;
use crate::kernels::vector::Vector;

/// e to the power of x, within 2 units in the last place. Below −87 it is e^−87, which nothing can tell from 0 beside 1.
///
/// x = n · ln 2 + r, and e^r by its series to the seventh power: |r| ≤ ln 2 / 2 leaves an error of 2e-9.
///
/// # Safety
/// The CPU has the instructions of `V`, here and below.
#[inline(always)]
pub unsafe fn exp<V: Vector>(x: V::F) -> V::F {
    // ln 2 in two parts: the first has few bits, so that its product with n is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let x = V::max(V::splat(-87.0), V::min(V::splat(88.0), x));
        let n = V::round(V::mul(x, V::splat(std::f32::consts::LOG2_E)));
        let r = V::mul_add(n, V::splat(-LN_2_HIGH), x);
        let r = V::mul_add(n, V::splat(-LN_2_LOW), r);
        let mut series = V::splat(1.0 / 5040.0);
        for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            series = V::mul_add(series, r, V::splat(coefficient));
        }
        V::mul(series, V::pow2(n))
    }
}

/// The hyperbolic tangent: 1 − 2 / (e^2x + 1), within 2e-7.
#[inline(always)]
unsafe fn tanh<V: Vector>(x: V::F) -> V::F {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let e = exp::<V>(V::add(x, x));
        V::sub(V::splat(1.0), V::div(V::splat(2.0), V::add(e, V::splat(1.0))))
    }
}

/// x · Φ(x), with Φ the normal distribution: the GELU by the error function.
///
/// The tail 1 − Φ(|x|) = erfc(|x| / √2) / 2 follows Abramowitz & Stegun, Handbook of Mathematical Functions, 7.1.26, whose
/// error is below 1.5e-7.
#[inline(always)]
unsafe fn gelu<V: Vector>(x: V::F) -> V::F {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let zero = V::splat(0.0);
        let magnitude = V::max(V::sub(zero, x), x);
        let z = V::mul(magnitude, V::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = V::div(V::splat(1.0), V::mul_add(z, V::splat(0.327_591_1), V::splat(1.0)));
        let mut series = V::splat(1.061_405_4);
        for coefficient in [-1.453_152, 1.421_413_7, -0.284_496_72, 0.254_829_6, 0.0] {
            series = V::mul_add(series, t, V::splat(coefficient));
        }
        let tail = V::mul(series, exp::<V>(V::mul(z, V::sub(zero, z))));
        // x Φ(x) = max(x, 0) − |x| (1 − Φ(|x|)) on either side of 0.
        V::sub(V::max(zero, x), V::mul(V::mul(magnitude, V::splat(0.5)), tail))
    }
}

/// Applies an activation.
#[inline(always)]
pub unsafe fn activate<V: Vector>(activation: Activation, x: V::F) -> V::F {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        match activation {
            Activation::None => x,
            Activation::Gelu => gelu::<V>(x),
            Activation::GeluNew => {
                // x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 x³)))
                let cube = V::mul(V::mul(x, x), x);
                let inner = V::mul_add(cube, V::splat(0.044_715), x);
                let scaled = V::mul(inner, V::splat((2.0 / std::f32::consts::PI).sqrt()));
                V::mul(V::mul(x, V::splat(0.5)), V::add(tanh::<V>(scaled), V::splat(1.0)))
            }
            Activation::Relu => V::max(V::splat(0.0), x),
            Activation::Silu => {
                let e = exp::<V>(V::sub(V::splat(0.0), x));
                V::div(x, V::add(V::splat(1.0), e))
            }
            Activation::Tanh => tanh::<V>(x),
        }
    }
}
