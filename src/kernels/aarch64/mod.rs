//! Kernels for 64-bit ARM.
//!
//! All are for registers of 128 bits: 4 lanes, 32 registers. What differs is how 8-bit integers are multiplied: by way of 16 bits
//! on the cores of Armv8.0 (Cortex-A53, A57, A72), four at a time with the dot product (A76, A78), or as a product of
//! matrices of 2 × 8 and 8 × 2 (Neoverse V1, Cortex-A710 and later).

mod dotprod;
mod i8mm;
mod neon;

use std::arch::is_aarch64_feature_detected;

use super::{Functions, InstructionSet};

/// The functions of an instruction set that this CPU has. Those of I8MM include bf16 if the CPU does.
pub(super) fn functions(set: InstructionSet) -> Option<&'static Functions> {
    let dotprod = is_aarch64_feature_detected!("dotprod");
    let i8mm = dotprod && is_aarch64_feature_detected!("i8mm");
    match set {
        InstructionSet::Neon => Some(&neon::FUNCTIONS),
        InstructionSet::DotProd if dotprod => Some(&dotprod::FUNCTIONS),
        InstructionSet::I8mm if i8mm && is_aarch64_feature_detected!("bf16") => Some(&i8mm::FUNCTIONS_BF16),
        InstructionSet::I8mm if i8mm => Some(&i8mm::FUNCTIONS),
        _ => None,
    }
}
