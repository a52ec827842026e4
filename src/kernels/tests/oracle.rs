//! What kernels are compared with: plain loops over f64.

use std::sync::Arc;

use super::super::packed::Layout;
use super::super::*;
use crate::gguf::{Header, Metadata, TensorSpec, TensorType, Writer};
use crate::weights::{Storage, Weights};

/// Tensors of a file: name, type, dimensions in ggml's order, and data.
pub type Tensors<'t> = [(&'t str, TensorType, &'t [usize], &'t [u8])];

pub fn weights(tensors: &Tensors<'_>) -> Arc<Weights> {
    let spec = |(name, tensor_type, dims, _): &(&str, TensorType, &[usize], &[u8])| TensorSpec {
        name: (*name).to_owned(),
        tensor_type: *tensor_type,
        dims: dims.iter().map(|dim| *dim as u64).collect(),
    };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let data: Vec<&[u8]> = tensors.iter().map(|(_, _, _, data)| *data).collect();
    let file = Writer::to_vec(&Metadata::new(), &specs, &data).unwrap();
    let header = Header::parse(&file).unwrap();
    Arc::new(Weights::new(Storage::copy_of(&file).unwrap(), header.tensors()))
}

pub fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The numbers that a packed matrix stands for, row by row.
pub fn unpacked(matrix: &PackedMatrix) -> Vec<Vec<f64>> {
    let Layout { element, inputs, outputs } = matrix.layout;
    let bytes = matrix.bytes();
    let float = |at: usize| f32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let number = |output: usize, input: usize| {
        let column = output / PANEL * matrix.layout.panel_bytes() + output % PANEL * UNIT;
        let step = |step: usize| column + step * PANEL_STEP;
        match element {
            Element::Int8 => {
                let scale = float(matrix.layout.scales() + output * 4);
                f64::from(scale) * f64::from(bytes[step(input / 4) + input % 4] as i8)
            }
            Element::Int8Blocks => {
                let (block, within) = (input / 32, input % 32);
                let scale = float(step(block * 9));
                f64::from(scale) * f64::from(bytes[step(block * 9 + 1 + within / 4) + within % 4] as i8)
            }
            Element::Bf16 => {
                let at = step(input / 2) + input % 2 * 2;
                f64::from(f32::from_bits(u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]])) << 16))
            }
            Element::F32 => f64::from(float(step(input))),
        }
    };
    (0..outputs).map(|output| (0..inputs).map(|input| number(output, input)).collect()).collect()
}

/// What the highest bit of a row's bytes is flipped by: 0 where products read them unsigned, 0x80 where signed.
pub fn sign_flip(kernels: Kernels) -> u8 {
    stored(kernels, &[0.0, 1.0]).0[0]
}

/// A row as bytes, x ≈ scale · (byte − zero), one byte for each number and up to three more.
pub fn quantized(kernels: Kernels, row: &[f32]) -> (Vec<u8>, RowScale) {
    let (bytes, scale) = stored(kernels, row);
    (bytes.iter().map(|byte| byte ^ sign_flip(kernels)).collect(), scale)
}

/// The bytes of a row as products read them.
pub fn stored(kernels: Kernels, row: &[f32]) -> (Vec<u8>, RowScale) {
    let mut bytes = vec![0; row.len().next_multiple_of(UNIT)];
    // SAFETY: the CPU has the instructions; there are ⌈len / 4⌉ units side by side.
    let scale = unsafe { (kernels.functions.quantize)(row.as_ptr(), row.len(), bytes.as_mut_ptr(), UNIT) };
    (bytes, scale)
}

/// The numbers that a product with such a matrix sees of a row.
pub fn as_read(kernels: Kernels, element: Element, row: &[f32]) -> Vec<f64> {
    match element {
        Element::Int8 | Element::Int8Blocks => {
            let (bytes, RowScale { scale, zero }) = quantized(kernels, row);
            let level = |byte: &u8| f64::from(scale) * f64::from(i32::from(*byte) - zero);
            bytes.iter().take(row.len()).map(level).collect()
        }
        Element::Bf16 => row.iter().map(|value| half::bf16::from_f32(*value).to_f64()).collect(),
        Element::F32 => row.iter().map(|value| f64::from(*value)).collect(),
    }
}

pub fn activated(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::None => x,
        Activation::Gelu => x * normal_distribution(x),
        Activation::GeluNew => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::Relu => x.max(0.0),
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Tanh => x.tanh(),
    }
}

/// Φ(x) = erfc(−x / √2) / 2.
fn normal_distribution(x: f64) -> f64 {
    let upper = complementary_error(x.abs() * std::f64::consts::FRAC_1_SQRT_2) / 2.0;
    if x > 0.0 { 1.0 - upper } else { upper }
}

/// erfc(z) for z ≥ 0: the series of erf for small z (Abramowitz & Stegun 7.1.6), the continued fraction for large (7.1.14).
fn complementary_error(z: f64) -> f64 {
    let root_of_pi = std::f64::consts::PI.sqrt();
    if z > 27.0 {
        return 0.0; // smaller than any f64
    }
    if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..100 {
            term *= 2.0 * z * z / f64::from(2 * n + 1);
            sum += term;
        }
        return 1.0 - 2.0 / root_of_pi * (-z * z).exp() * sum;
    }
    let fraction = (1..200).rev().fold(z, |below, n| z + f64::from(n) / 2.0 / below);
    (-z * z).exp() / (root_of_pi * fraction)
}

#[test]
fn the_oracle_of_gelu_knows_the_normal_distribution() {
    // From tables of the normal distribution.
    for (x, expected) in [
        (0.0, 0.5),
        (1.0, 0.841_344_746_068_542_9),
        (-3.0, 0.001_349_898_031_630_095),
        (-6.0, 9.865_876_450_376_98e-10),
    ] {
        assert!((normal_distribution(x) / expected - 1.0).abs() < 1e-12, "Φ({x})");
    }
    // Both formulas agree where they meet.
    assert!((complementary_error(2.5 - 1e-12) / complementary_error(2.5 + 1e-12) - 1.0).abs() < 1e-9);
}
