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
        InstructionSet::Neon => Some(&plain::FUNCTIONS),
        InstructionSet::DotProd if dotprod => Some(&dot_product::FUNCTIONS),
        InstructionSet::I8mm if i8mm && is_aarch64_feature_detected!("bf16") => {
            Some(&matrices_bf16::FUNCTIONS)
        }
        InstructionSet::I8mm if i8mm => Some(&matrices::FUNCTIONS),
        _ => None,
    }
}

/// Armv8.0.
mod plain {
    use super::neon::{Float, Int8, Int8Exact, Neon};
    use crate::kernels::generic::product::{BlockScaling, Quantized};
    use crate::kernels::generic::{attention, product, rows};
    use crate::kernels::{Finish, Functions, Head, RowScale, functions, tiles};

    functions! {
        FUNCTIONS, features: "neon", vector: Neon, int8: Int8 [1 2 3 4], blocks: Int8Exact [1 2],
        float: Float [1 2 3 4 5 6 7 8 9 10 11 12], bf16: None
    }
}

/// With `sdot`.
mod dot_product {
    use super::dotprod::Int8;
    use super::neon::{Float, Neon};
    use crate::kernels::generic::product::{BlockScaling, Quantized};
    use crate::kernels::generic::{attention, product, rows};
    use crate::kernels::{Finish, Functions, Head, RowScale, functions, tiles};

    functions! {
        FUNCTIONS, features: "neon,dotprod", vector: Neon, int8: Int8 [1 2 3 4 5 6 7 8 9 10 11 12],
        blocks: Int8 [1 2], float: Float [1 2 3 4 5 6 7 8 9 10 11 12], bf16: None
    }
}

/// With `usmmla`.
mod matrices {
    use super::i8mm::Int8;
    use super::neon::{Float, Neon};
    use crate::kernels::generic::product::{BlockScaling, Quantized};
    use crate::kernels::generic::{attention, product, rows};
    use crate::kernels::{Finish, Functions, Head, RowScale, functions, tiles};

    functions! {
        FUNCTIONS, features: "neon,dotprod,i8mm", vector: Neon, int8: Int8 [1 2 3 4 5 6 7 8 9 10],
        blocks: Int8 [1 2], float: Float [1 2 3 4 5 6 7 8 9 10 11 12], bf16: None
    }
}

/// With `usmmla` and `bfmmla`.
mod matrices_bf16 {
    use super::i8mm::Bf16;
    use super::matrices;
    use crate::kernels::{Functions, tiles};

    pub(super) const FUNCTIONS: Functions = Functions {
        bf16: Some(tiles!(tile_bf16 ["neon,dotprod,i8mm,bf16"] tile<Bf16> [1 2 3 4 5 6 7 8 9 10])),
        ..matrices::FUNCTIONS
    };
}
