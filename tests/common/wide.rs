//! A model with matrices so large that they are multiplied as they are, as all of a real model's are, and inputs for it.

use std::path::{Path, PathBuf};

use lxmert::gguf::TensorType;
use lxmert::model::{Config, Head, HiddenAct, ObjectHead};
use lxmert::{Inputs, Model, Output, Session, SessionOptions, Text};
use lxmert_converter::{Options, Synthetic, convert_synthetic};

/// Wide enough for blocks of 256 in every matrix, and for matrices that stay quantized.
pub fn config() -> Config {
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

pub fn synthetic(config: Config, tensor_type: TensorType, directory: &Path) -> PathBuf {
    let file = directory.join(format!("{tensor_type}.gguf"));
    let synthetic = Synthetic { name: "test".to_owned(), config, seed: 3 };
    convert_synthetic(&synthetic, tensor_type, &file, &Options::default()).unwrap();
    file
}

/// Numbers in [0, 1) that look random.
fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|n| ((n + seed) * 2_654_435_761 % (1 << 32)) as f32 / (1u64 << 32) as f32).collect()
}

/// A batch of questions and images with padding.
pub struct Batch {
    size: usize,
    ids: Vec<u32>,
    pub features: Vec<f32>,
    pub boxes: Vec<f32>,
    text_mask: Vec<f32>,
    visual_mask: Vec<f32>,
}

pub const TOKENS: usize = 9;
pub const REGIONS: usize = 7;

impl Batch {
    pub fn of(size: usize) -> Self {
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

    /// One of its elements.
    pub fn element(&self, n: usize) -> Self {
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

    /// Runs a session on one thread, unless `change` has it otherwise, and returns each output.
    pub fn run(
        &self,
        model: &Model,
        outputs: &[Output],
        change: impl FnOnce(&mut SessionOptions),
    ) -> Vec<Vec<f32>> {
        let session = self.session_after(model, outputs, change);
        outputs.iter().map(|output| session.output(*output).unwrap().data.to_vec()).collect()
    }

    /// The session itself, after its run.
    pub fn session_after(
        &self,
        model: &Model,
        outputs: &[Output],
        change: impl FnOnce(&mut SessionOptions),
    ) -> Session {
        let mut options = SessionOptions::new(model);
        options.max_tokens = TOKENS;
        options.max_regions = REGIONS;
        options.max_batch = self.size;
        options.outputs = outputs.to_vec();
        options.threads = 1;
        change(&mut options);
        let mut session = Session::new(model, options).unwrap();
        session.run(&self.inputs()).unwrap();
        session
    }

    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            batch: self.size,
            tokens: TOKENS,
            regions: REGIONS,
            text: Text::Ids(&self.ids),
            attention_mask: Some(&self.text_mask),
            token_type_ids: None,
            visual_feats: &self.features,
            visual_pos: &self.boxes,
            visual_attention_mask: Some(&self.visual_mask),
        }
    }
}

pub fn relative_l2(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let error: f32 = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    (error / expected.iter().map(|value| value.powi(2)).sum::<f32>()).sqrt()
}

/// Every output of a model.
pub fn all_outputs(config: &Config) -> Vec<Output> {
    [Output::finals(config), Output::hidden_states(config), Output::attentions(config)].concat()
}
