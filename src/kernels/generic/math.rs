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

/// The limit beyond which Φ is 0 or 1 to seven digits.
const PHI_LIMIT: f32 = 5.0;

/// (Φ(x) − ½) / x on ±[`PHI_LIMIT`] as a polynomial in t = 2 x² / 25 − 1, the highest power first.
///
/// Fitted by Chebyshev polynomials at 4000 nodes; about the middle of its range the coefficients are small, so that f32 is enough
/// to evaluate it. With it, a GELU is within 1.1e-6 for numbers up to 5.
const PHI: [f32; 13] = [
    5.838_554e-4,
    -1.600_970_5e-3,
    1.791_278_7e-3,
    -2.716_318e-3,
    6.340_374_7e-3,
    -1.113_666_4e-2,
    1.643_496_2e-2,
    -2.327_942e-2,
    3.143_532_6e-2,
    -4.044_092_5e-2,
    5.152_103_7e-2,
    -7.029_635e-2,
    0.141_363_78,
];

/// x · Φ(x), with Φ the normal distribution: the GELU by the error function, without a division or an exponential.
///
/// A polynomial is a chain of operations of which each waits for the one before: several side by side fill the time.
#[inline(always)]
unsafe fn gelu<V: Vector, const N: usize>(mut x: [V::F; N]) -> [V::F; N] {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        let mut t = x;
        for (x, t) in x.iter_mut().zip(&mut t) {
            // Below the limit Φ is not quite 0, and must not grow with x.
            *x = V::max(V::splat(-PHI_LIMIT), *x);
            let within = V::min(V::splat(PHI_LIMIT), *x);
            let square = V::mul(within, within);
            *t = V::mul_add(square, V::splat(2.0 / (PHI_LIMIT * PHI_LIMIT)), V::splat(-1.0));
        }
        let mut series = [V::splat(PHI[0]); N];
        for coefficient in &PHI[1..] {
            for (series, t) in series.iter_mut().zip(&t) {
                *series = V::mul_add(*series, *t, V::splat(*coefficient));
            }
        }
        for (x, series) in x.iter_mut().zip(&series) {
            let within = V::min(V::splat(PHI_LIMIT), *x);
            *x = V::mul(*x, V::mul_add(within, *series, V::splat(0.5)));
        }
        x
    }
}

/// Applies an activation to several registers.
#[inline(always)]
pub unsafe fn activate_all<V: Vector, const N: usize>(activation: Activation, mut x: [V::F; N]) -> [V::F; N] {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        if activation == Activation::Gelu {
            return gelu::<V, N>(x);
        }
        for x in &mut x {
            *x = activate::<V>(activation, *x);
        }
        x
    }
}

/// Applies an activation.
#[inline(always)]
pub unsafe fn activate<V: Vector>(activation: Activation, x: V::F) -> V::F {
    // SAFETY: the caller vouches for the CPU.
    unsafe {
        match activation {
            Activation::None => x,
            Activation::Gelu => gelu::<V, 1>([x])[0],
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
