//! What follows the sums of a product: bias, activation, residual. And how exact the activations are.

use super::super::*;
use super::oracle::activated;
use super::{Random, every_set};

/// Finishes one row of sums that are f32 already, without bias or residual.
fn activate(kernels: Kernels, activation: Activation, x: &[f32]) -> Vec<f32> {
    let bias = [0.0; PANEL + 16];
    let mut results = Vec::new();
    for x in x.chunks(PANEL) {
        let mut sums = [0u32; PANEL + 16];
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = x.to_bits());
        let mut to = [0.0; PANEL];
        let finish = Finish {
            rows: 1,
            first: 0,
            end: x.len(),
            bias: bias.as_ptr(),
            activation,
            residual: std::ptr::null(),
            residual_stride: 0,
            to: to.as_mut_ptr(),
            stride: PANEL,
        };
        // SAFETY: the CPU has the instructions; sums and biases are padded by a register.
        unsafe { (kernels.functions.finish_exact)(sums.as_ptr(), &finish) };
        results.extend(&to[..x.len()]);
    }
    results
}

/// A dense sweep of the range in which an activation is not one of its limits, and every order of magnitude.
fn sweep() -> Vec<f32> {
    let dense = (-200_000..=200_000).map(|n| n as f32 / 10_000.0);
    let magnitudes = (0..=0x7f7f).map(|exponent: u32| f32::from_bits(exponent << 16));
    dense.chain(magnitudes.clone()).chain(magnitudes.map(|x| -x)).collect()
}

/// The largest error beside `unit`, which says what an error of 1 is.
fn largest_error(kernels: Kernels, activation: Activation, unit: impl Fn(f64) -> f64) -> (f64, f32) {
    // Between x · e^−88 and 0 lies what an exponential that ends at 88 cannot tell.
    let x: Vec<f32> = sweep().into_iter().filter(|x| x.abs() <= 1e30).collect();
    let found = activate(kernels, activation, &x);
    let error = |(x, found): (&f32, f32)| {
        let expected = activated(activation, f64::from(*x));
        ((f64::from(found) - expected).abs() / unit(expected), *x)
    };
    let errors = x.iter().zip(found).map(error);
    errors.fold((0.0, 0.0), |worst, error| if error.0 <= worst.0 { worst } else { error })
}

/// Measured on every set, as absolute errors beside 1 + |result|: GELU 1.1e-6, its approximation 3.1e-7, SiLU 1.0e-7, tanh
/// 1.2e-7.
#[test]
fn activations_are_exact_beside_1() {
    every_set(|kernels| {
        for (activation, bound) in [
            (Activation::None, 0.0),
            (Activation::Relu, 0.0),
            (Activation::Gelu, 1.5e-6),
            (Activation::GeluNew, 4e-7),
            (Activation::Silu, 2e-7),
            (Activation::Tanh, 2e-7),
        ] {
            let (error, at) = largest_error(kernels, activation, |expected| 1.0 + expected.abs());
            eprintln!("{}: {activation:?}: error {error:.2e} at {at}", kernels.set().name());
            assert!(error <= bound, "{:?}: {activation:?}: error {error:e} at {at:e}", kernels.set());
        }
    });
}

#[test]
fn the_ends_of_activations() {
    use Activation::*;
    every_set(|kernels| {
        for (activation, x, expected) in [
            (None, f32::NEG_INFINITY, f32::NEG_INFINITY),
            (Relu, f32::NEG_INFINITY, 0.0),
            (Relu, f32::INFINITY, f32::INFINITY),
            (Relu, -0.0, 0.0),
            (Tanh, f32::INFINITY, 1.0),
            (Tanh, f32::NEG_INFINITY, -1.0),
            (Tanh, f32::MAX, 1.0),
            (Tanh, f32::MIN, -1.0),
            (GeluNew, f32::INFINITY, f32::INFINITY),
            (GeluNew, 1e30, 1e30),
            (GeluNew, -1e30, 0.0),
            (Gelu, 1e30, 1e30),
            (Gelu, -1e30, 0.0),
            (Gelu, f32::MAX, f32::MAX),
            (Silu, f32::INFINITY, f32::INFINITY),
            (Silu, f32::MAX, f32::MAX),
        ] {
            let found = activate(kernels, activation, &[x])[0];
            let close = found == expected || (found - expected).abs() <= 1e-6 * expected.abs() + 1.5e-6;
            assert!(close, "{:?}: {activation:?} of {x:e} is {found:e}", kernels.set());
        }
        // An infinite sum is an accident, which must show.
        for x in [f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!activate(kernels, Gelu, &[x])[0].is_finite() || x < 0.0);
        }
        for activation in [None, Gelu, GeluNew, Relu, Silu, Tanh] {
            for zero in [0.0, -0.0, 1e-45, -1e-45] {
                assert!(activate(kernels, activation, &[zero])[0].abs() < 1e-7, "{activation:?}");
            }
            let results = activate(kernels, activation, &[f32::NAN, 1.0, 2.0]);
            assert!(
                results[0].is_nan() && results[1].is_finite() && results[2].is_finite(),
                "{activation:?}"
            );
        }
    });
}

/// The exponential, seen through the weights of two keys: their ratio is e to the power of their scores' difference.
///
/// Measured on every set: 1.2e-7 of the result, with the rounding of both weights.
#[test]
fn the_exponential_is_exact_to_two_units() {
    let mut worst = 0.0f64;
    every_set(|kernels| {
        for n in 0..50_000 {
            let x = -f64::from(n) / 50_000.0 * 80.0;
            let score = x as f32;
            let weights = super::attention::weights_of_scores(kernels, &[0.0, score]);
            let ratio = f64::from(weights[1]) / f64::from(weights[0]);
            let error = (ratio / f64::from(score).exp() - 1.0).abs();
            worst = worst.max(error);
            assert!(error < 3e-7, "{:?}: e^{score} = {ratio:e}", kernels.set());
        }
    });
    eprintln!("exponential: error {worst:.2e}");
}

/// Bias before the activation, residual after it, and no number outside of the columns to keep.
#[test]
fn finishes_some_columns_of_several_rows() {
    every_set(|kernels| {
        for (first, end) in [(0, PANEL), (0, 1), (31, 32), (5, 27), (15, 17), (16, 32), (1, 32), (7, 7)] {
            for (rows, with_residual) in
                [(1, false), (3, true), (MAX_TILE_ROWS, true), (MAX_TILE_ROWS, false)]
            {
                let mut random = Random((first * 100 + end) as u64);
                let sums = random.numbers(rows * PANEL + 16);
                let bias = random.numbers(PANEL + 16);
                let (stride, residual_stride) = (end - first + 3, end - first + 5);
                let residual = random.numbers(rows * residual_stride);
                let mut to = vec![7.0; rows * stride];
                let bits: Vec<u32> = sums.iter().map(|sum| sum.to_bits()).collect();
                let finish = Finish {
                    rows,
                    first,
                    end,
                    bias: bias.as_ptr(),
                    activation: Activation::Relu,
                    residual: if with_residual { residual.as_ptr() } else { std::ptr::null() },
                    residual_stride,
                    to: to.as_mut_ptr(),
                    stride,
                };
                // SAFETY: the CPU has the instructions; sums and biases are padded by a register, results and residuals have
                // the columns to keep.
                unsafe { (kernels.functions.finish_exact)(bits.as_ptr(), &finish) };
                for (row, to) in to.chunks(stride).enumerate() {
                    for (n, found) in to.iter().enumerate() {
                        let column = first + n;
                        let expected = if column < end {
                            let residual =
                                if with_residual { residual[row * residual_stride + n] } else { 0.0 };
                            (sums[row * PANEL + column] + bias[column]).max(0.0) + residual
                        } else {
                            7.0
                        };
                        assert_eq!(*found, expected, "{:?}: {first}..{end}, row {row}", kernels.set());
                    }
                }
            }
        }
    });
}
