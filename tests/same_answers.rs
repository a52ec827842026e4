//! The same file and inputs give the same bytes on every CPU: whatever the instruction set, and on x86 as on ARM.
//!
//! What is compared are the bits of all outputs, by a hash that was taken once. It says nothing about what is right, which the golden
//! cases do, and changes with every change of the order in which numbers are rounded: `LXMERT_UPDATE=1` prints the new ones.

mod common;

use common::wide::{Batch, all_outputs, config, synthetic};
use lxmert::gguf::TensorType;
use lxmert::model::{Config, HiddenAct};
use lxmert::{InstructionSet, Lowering, Model};
use tempfile::TempDir;

/// FNV-1a (Fowler, Noll, Vo), 64 bits.
fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    bytes
        .into_iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Types, and the hashes of the converted file and of all outputs. Types of 16 bits are absent: what multiplies bf16 does not round
/// alike everywhere.
const HASHES: [(TensorType, HiddenAct, u64, u64); 6] = [
    (TensorType::F32, HiddenAct::GeluNew, 0x7dee_3d38_90f2_5106, 0x33fa_969f_48bc_2329),
    (TensorType::Q8_0, HiddenAct::Gelu, 0xe57b_e55b_3fcc_14ed, 0xd03b_fd08_24b2_1589),
    (TensorType::Q8_0, HiddenAct::Silu, 0x8e41_0754_c110_995d, 0x790f_3dad_78aa_642a),
    (TensorType::Q4_0, HiddenAct::GeluNew, 0xf124_8962_af73_841e, 0xf025_25c5_af67_d86f),
    (TensorType::Q4K, HiddenAct::GeluNew, 0xc091_c8f0_cdce_3c89, 0x41f2_8748_9617_c012),
    (TensorType::Q6K, HiddenAct::Relu, 0xa661_3c8a_312d_d4c6, 0xc4b8_8e28_6da5_fd42),
];

#[test]
fn every_instruction_set_comes_to_the_recorded_bits() {
    let directory = TempDir::new().unwrap();
    let sets: Vec<InstructionSet> =
        InstructionSet::ALL.into_iter().filter(|set| set.is_available()).collect();
    for (tensor_type, hidden_act, of_file, of_outputs) in HASHES {
        let config = Config { hidden_act, ..config() };
        let file = synthetic(config.clone(), tensor_type, directory.path());
        let found_file = hash(std::fs::read(&file).unwrap());
        let model = Model::open(&file).unwrap();
        let found = sets.iter().map(|set| {
            let outputs = Batch::of(3).run(&model, &all_outputs(&config), |options| {
                options.lowering = Lowering::Kernels(*set);
            });
            hash(outputs.concat().iter().flat_map(|value| value.to_le_bytes()))
        });
        let found: Vec<u64> = found.collect();
        if std::env::var_os("LXMERT_UPDATE").is_some() {
            let name = format!("{tensor_type:?}, HiddenAct::{hidden_act:?}");
            println!("(TensorType::{name}, {found_file:#018x}, {:#018x}),", found[0]);
            assert!(found.iter().all(|hash| *hash == found[0]), "{name}: {found:x?} by {sets:?}");
            continue;
        }
        assert_eq!(found_file, of_file, "the file of {tensor_type} is another: {found_file:#018x}");
        for (set, found) in sets.iter().zip(found) {
            let name = set.name();
            assert_eq!(found, of_outputs, "{tensor_type}, {hidden_act:?} by {name}: {found:#018x}");
        }
    }
}
