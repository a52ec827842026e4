//! Kernels for x86-64.

pub(super) mod amx;
mod avx2;
mod avx512;

use super::{Functions, InstructionSet};

/// The functions of an instruction set that this CPU has. AVX-512's include bf16 if the CPU does.
pub(super) fn functions(set: InstructionSet) -> Option<&'static Functions> {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni");
    let avx512_bf16 = avx512 && is_x86_feature_detected!("avx512bf16");
    match set {
        InstructionSet::Amx if avx512_bf16 && amx::is_available() => Some(&amx::FUNCTIONS),
        InstructionSet::Avx2 if avx2 => Some(&plain::FUNCTIONS),
        InstructionSet::AvxVnni if avx2 && is_x86_feature_detected!("avxvnni") => Some(&vnni::FUNCTIONS),
        InstructionSet::Avx512Vnni if avx512_bf16 => Some(&avx512_bf16::FUNCTIONS),
        InstructionSet::Avx512Vnni if avx512 => Some(&avx512_vnni::FUNCTIONS),
        _ => None,
    }
}

/// AVX2 with 8-bit products by way of 16 bits.
mod plain {
    use super::avx2::{Avx2, Float, Int8};
    use crate::kernels::generic::product::{BlockScaling, Quantized};
    use crate::kernels::generic::{attention, product, rows};
    use crate::kernels::{Finish, Functions, Head, RowScale, functions, tiles_of};

    functions! {
        FUNCTIONS, features: "avx2,fma", vector: Avx2, int8: Int8 [1 2 3 4], blocks: Int8 [1 2],
        float: Float [1 2 3 4 5 6], bf16: None
    }
}

/// AVX2 with AVX-VNNI.
mod vnni {
    use super::avx2::{Avx2, Float, VnniInt8};
    use crate::kernels::generic::product::{BlockScaling, Quantized};
    use crate::kernels::generic::{attention, product, rows};
    use crate::kernels::{Finish, Functions, Head, RowScale, functions, tiles_of};

    functions! {
        FUNCTIONS, features: "avx2,fma,avxvnni", vector: Avx2, int8: VnniInt8 [1 2 3 4 5 6], blocks: VnniInt8 [1 2],
        float: Float [1 2 3 4 5 6], bf16: None
    }
}

/// AVX-512 with VNNI.
mod avx512_vnni {
    use super::avx512::{Avx512, Float, Int8};
    use crate::kernels::generic::product::{BlockScaling, Quantized};
    use crate::kernels::generic::{attention, product, rows};
    use crate::kernels::{Finish, Functions, Head, RowScale, functions, tiles_of};

    functions! {
        FUNCTIONS, features: "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni", vector: Avx512,
        int8: Int8 [1 2 3 4 5 6 7 8 9 10 11 12 13 14], blocks: Int8 [1 2 3 4 5 6 7],
        float: Float [1 2 3 4 5 6 7 8 9 10 11 12 13 14], bf16: None
    }
}

/// AVX-512 with VNNI and BF16.
mod avx512_bf16 {
    use super::avx512::Bf16;
    use super::avx512_vnni;
    use crate::kernels::{Functions, tiles_of};

    pub(super) const FUNCTIONS: Functions = Functions {
        bf16: Some(tiles_of!(
            tile_bf16 ["avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"] tile<Bf16>
            [1 2 3 4 5 6 7 8 9 10 11 12 13 14]
        )),
        ..avx512_vnni::FUNCTIONS
    };
}
