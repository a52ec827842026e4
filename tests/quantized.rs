//! Products with quantized matrices that are too large to be unpacked, as all of a real model's are: the same weights in f32
//! give the same answers, up to the rounding of activations to the type's partner.

use std::path::Path;

use lxmert::gguf::{Header, TensorSpec, TensorType, Writer};
use lxmert::model::{Config, Head, HiddenAct, ObjectHead};
use lxmert::{Inputs, Model, Output, Session, SessionOptions, Text};
use lxmert_converter::{Options, Synthetic, convert_synthetic};
use tempfile::TempDir;

/// Wide enough for blocks of 256 in every matrix, and for matrices that stay quantized.
fn config() -> Config {
    let objects = ObjectHead { labels: Some(300), attributes: None, features: true };
    Config {
        vocab_size: 300,
        hidden_size: 512,
        num_attention_heads: 8,
        intermediate_size: 1024,
        hidden_act: HiddenAct::GeluNew,
        max_position_embeddings: 40,
        type_vocab_size: 2,
        l_layers: 1,
        r_layers: 1,
        x_layers: 2,
        visual_feat_dim: 256,
        visual_pos_dim: 4,
        head: Head::PreTraining { labels: Some(200), objects: Some(objects) },
    }
}

fn synthetic(config: Config, tensor_type: TensorType, directory: &Path) -> std::path::PathBuf {
    let file = directory.join(format!("{tensor_type}.gguf"));
    let synthetic = Synthetic { name: "test".to_owned(), config, seed: 3 };
    convert_synthetic(&synthetic, tensor_type, &file, &Options::default()).unwrap();
    file
}

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

/// Numbers in [0, 1) that look random.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|n| ((n + seed) * 2_654_435_761 % (1 << 32)) as f32 / (1u64 << 32) as f32).collect()
}

/// A batch of questions and images with padding.
struct Batch {
    size: usize,
    ids: Vec<u32>,
    features: Vec<f32>,
    boxes: Vec<f32>,
    text_mask: Vec<f32>,
    visual_mask: Vec<f32>,
}

const TOKENS: usize = 9;
const REGIONS: usize = 7;

impl Batch {
    fn of(size: usize) -> Self {
        let keep = |len: usize| {
            (0..size * len).map(move |n| f32::from(u8::from(n % len + n / len < len))).collect::<Vec<_>>()
        };
        Batch {
            size,
            ids: (0..size * TOKENS).map(|n| (n * 37 % 300) as u32).collect(),
            features: numbers(size * REGIONS * 256, 1).iter().map(|value| 4.0 * value - 2.0).collect(),
            boxes: numbers(size * REGIONS * 4, 9),
            text_mask: keep(TOKENS),
            visual_mask: keep(REGIONS),
        }
    }

    /// One element of the batch.
    fn element(&self, n: usize) -> Self {
        let part = |values: &[f32]| values.chunks_exact(values.len() / self.size).nth(n).unwrap().to_vec();
        Batch {
            size: 1,
            ids: self.ids[n * TOKENS..][..TOKENS].to_vec(),
            features: part(&self.features),
            boxes: part(&self.boxes),
            text_mask: part(&self.text_mask),
            visual_mask: part(&self.visual_mask),
        }
    }

    /// Runs a session that was made for `room` times as much, and returns each output.
    fn run(&self, model: &Model, outputs: &[Output], room: usize) -> Vec<Vec<f32>> {
        let mut options = SessionOptions::new(model);
        options.max_tokens = (TOKENS * room).min(model.config().max_position_embeddings);
        options.max_regions = REGIONS * room;
        options.max_batch = self.size * room;
        options.outputs = outputs.to_vec();
        options.threads = 1;
        let mut session = Session::new(model, options).unwrap();
        let inputs = Inputs {
            batch: self.size,
            tokens: TOKENS,
            regions: REGIONS,
            text: Text::Ids(&self.ids),
            attention_mask: Some(&self.text_mask),
            token_type_ids: None,
            visual_feats: &self.features,
            visual_pos: &self.boxes,
            visual_attention_mask: Some(&self.visual_mask),
        };
        session.run(&inputs).unwrap();
        outputs.iter().map(|output| session.output(*output).unwrap().data.to_vec()).collect()
    }
}

fn relative_l2(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let error: f32 = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    (error / expected.iter().map(|value| value.powi(2)).sum::<f32>()).sqrt()
}

/// Every type, with the error that the rounding of activations may make: to f16, bf16, or eight bits.
const TYPES: [(TensorType, f32); 10] = [
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
            let (found, expected) = (batch.run(&quantized, &outputs, 1), batch.run(&exact, &outputs, 1));
            for ((output, found), expected) in outputs.iter().zip(&found).zip(&expected) {
                let error = relative_l2(found, expected);
                assert!(error <= bound, "{tensor_type} {output} batch {size}: {error}");
            }
        }
    }
}

#[test]
fn pruning_batching_and_larger_limits_change_nothing() {
    let directory = TempDir::new().unwrap();
    let answers = Output::QuestionAnsweringScore;
    let all = [Output::finals(&config()), Output::hidden_states(&config()), Output::attentions(&config())];
    let all: Vec<Output> = all.into_iter().flatten().collect();
    // For the K types ggml has another kernel for many rows, which rounds activations differently.
    for (tensor_type, bound) in [(TensorType::F32, 1e-4), (TensorType::Q8_0, 1e-4), (TensorType::Q4K, 0.03)] {
        let model = Model::open(synthetic(config(), tensor_type, directory.path())).unwrap();
        let batch = Batch::of(3);
        let alone = batch.run(&model, &[answers], 1).remove(0);
        let among_all = batch.run(&model, &all, 1);
        let position = all.iter().position(|output| *output == answers).unwrap();
        let error = relative_l2(&alone, &among_all[position]);
        assert!(error <= bound, "{tensor_type}: among all outputs {error}");
        assert!(alone == batch.run(&model, &[answers], 4).remove(0), "{tensor_type}: larger limits");
        for n in 0..3 {
            let single = batch.element(n).run(&model, &[answers], 2).remove(0);
            let error = relative_l2(&alone[n * 200..][..200], &single);
            assert!(error <= bound, "{tensor_type}: element {n} alone {error}");
        }
    }
}

#[test]
fn any_number_of_layers_runs() {
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
        let outputs =
            [Output::finals(&config), Output::hidden_states(&config), Output::attentions(&config)].concat();
        let model = Model::open(synthetic(config, TensorType::Q8_0, directory.path())).unwrap();
        let found = Batch::of(2).run(&model, &outputs, 2);
        assert!(found.iter().flatten().all(|value| value.is_finite()));
    }
}
