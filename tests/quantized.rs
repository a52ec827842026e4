//! Products with quantized matrices that are too large to be unpacked, as all of a real model's are: the same weights in f32
//! give the same answers, up to the rounding of activations to the type's partner.

mod common;

use std::path::Path;

use common::lowerings;
use common::wide::{Batch, REGIONS, TOKENS, all_outputs, config, relative_l2, synthetic};
use lxmert::gguf::{Header, TensorSpec, TensorType, Writer};
use lxmert::model::Config;
use lxmert::{Lowering, Model, Output};
use tempfile::TempDir;

/// The same file with every tensor in f32.
fn unpacked(file: &Path) -> Model {
    let bytes = std::fs::read(file).unwrap();
    let header = Header::parse(&bytes).unwrap();
    let specs: Vec<TensorSpec> = header
        .tensors()
        .iter()
        .map(|tensor| TensorSpec {
            name: tensor.name().to_owned(),
            tensor_type: TensorType::F32,
            dims: tensor.dims().to_vec(),
        })
        .collect();
    let data: Vec<Vec<u8>> = header
        .tensors()
        .iter()
        .map(|tensor| {
            let mut values = vec![0.0; tensor.elements() as usize];
            lxmert::ggml::dequantize(tensor.tensor_type(), &bytes[tensor.range()], &mut values);
            values.iter().flat_map(|value| value.to_le_bytes()).collect()
        })
        .collect();
    let slices: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    Model::from_bytes(&Writer::to_vec(header.metadata(), &specs, &slices).unwrap()).unwrap()
}

/// Every type, with the error that the rounding of activations may make: to f16, bf16, or eight bits.
const TYPES: [(TensorType, f32); 10] = [
    // ggml rounds to f16, 0.0004. A CPU that multiplies bf16 rounds weights and activations to that, 0.0045.
    (TensorType::F16, 0.005),
    (TensorType::BF16, 0.02),
    (TensorType::Q8_0, 0.03),
    (TensorType::Q5_1, 0.03),
    (TensorType::Q5_0, 0.03),
    (TensorType::Q4_1, 0.03),
    (TensorType::Q4_0, 0.03),
    (TensorType::Q6K, 0.03),
    (TensorType::Q5K, 0.03),
    (TensorType::Q4K, 0.03),
];

#[test]
fn quantized_products_equal_those_of_the_same_weights_in_f32() {
    let directory = TempDir::new().unwrap();
    let outputs = Output::finals(&config());
    assert_eq!(outputs.len(), 8);
    for (tensor_type, bound) in TYPES {
        let file = synthetic(config(), tensor_type, directory.path());
        let (quantized, exact) = (Model::open(&file).unwrap(), unpacked(&file));
        for size in [1, 3] {
            let batch = Batch::of(size);
            let expected = batch.run(&exact, &outputs, |options| options.lowering = Lowering::Ggml);
            for lowering in lowerings() {
                let found = batch.run(&quantized, &outputs, |options| options.lowering = lowering);
                for ((output, found), expected) in outputs.iter().zip(&found).zip(&expected) {
                    let error = relative_l2(found, expected);
                    assert!(error <= bound, "{lowering} {tensor_type} {output} batch {size}: {error}");
                }
            }
        }
    }
}

#[test]
fn pruning_batching_and_larger_limits_change_nothing() {
    let directory = TempDir::new().unwrap();
    let answers = Output::QuestionAnsweringScore;
    let all = all_outputs(&config());
    let position = all.iter().position(|output| *output == answers).unwrap();
    for tensor_type in [TensorType::F32, TensorType::Q8_0, TensorType::Q4K] {
        let model = Model::open(synthetic(config(), tensor_type, directory.path())).unwrap();
        for lowering in lowerings() {
            // For the K types ggml has another kernel for many rows, which rounds activations differently.
            let two_kernels = lowering == Lowering::Ggml && tensor_type == TensorType::Q4K;
            let bound = if two_kernels { 0.03 } else { 1e-4 };
            let run = |batch: &Batch, outputs: &[Output], room: usize| {
                batch.run(&model, outputs, |options| {
                    options.lowering = lowering;
                    options.max_tokens = (TOKENS * room).min(model.config().max_position_embeddings);
                    options.max_regions = REGIONS * room;
                    options.max_batch *= room;
                })
            };
            let batch = Batch::of(3);
            let alone = run(&batch, &[answers], 1).remove(0);
            let error = relative_l2(&alone, &run(&batch, &all, 1)[position]);
            assert!(error <= bound, "{lowering} {tensor_type}: among all outputs {error}");
            let roomy = run(&batch, &[answers], 4).remove(0);
            assert!(alone == roomy, "{lowering} {tensor_type}: larger limits");
            for n in 0..3 {
                let single = run(&batch.element(n), &[answers], 2).remove(0);
                let error = relative_l2(&alone[n * 200..][..200], &single);
                assert!(error <= bound, "{lowering} {tensor_type}: element {n} alone {error}");
            }
        }
    }
}

#[test]
fn any_number_of_layers_runs_alike() {
    let directory = TempDir::new().unwrap();
    for (l_layers, r_layers, x_layers) in [(0, 0, 0), (0, 2, 1), (2, 0, 0), (30, 20, 25)] {
        let config = Config {
            hidden_size: 32,
            num_attention_heads: 2,
            intermediate_size: 32,
            visual_feat_dim: 256,
            l_layers,
            r_layers,
            x_layers,
            ..config()
        };
        let outputs = all_outputs(&config);
        let model = Model::open(synthetic(config, TensorType::Q8_0, directory.path())).unwrap();
        let run = |lowering| Batch::of(2).run(&model, &outputs, |options| options.lowering = lowering);
        let expected = run(Lowering::Ggml);
        for lowering in lowerings() {
            for ((output, found), expected) in outputs.iter().zip(run(lowering)).zip(&expected) {
                let error = relative_l2(&found, expected);
                assert!(
                    error <= 0.02,
                    "{lowering}, {l_layers} {r_layers} {x_layers} layers, {output}: {error}"
                );
            }
        }
    }
}
