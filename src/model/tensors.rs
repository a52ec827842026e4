//! Every tensor of an LXMERT in a GGUF file: its name, its shape, and what it is for.
//!
//! The list follows from the [`Config`] alone. The converter writes exactly these tensors and the loader
//! demands exactly these, so neither a missing nor an unknown tensor gets by.

use super::Config;

/// What a tensor is for, which decides whether it may be quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The matrix of a linear layer: quantized.
    Matrix,
    /// The word embedding, read row by row and, by the masked-language head, as a matrix: quantized.
    WordEmbedding,
    /// A small embedding table (positions, token types): f32.
    Table,
    /// A bias, or the scale or shift of a layer norm: f32.
    Vector,
}

/// A tensor that a configuration demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The name in the GGUF file.
    pub name: String,
    /// The shape in ggml's order, fastest axis first: `[inputs, outputs]` for a matrix.
    pub dims: Vec<u64>,
    /// What it is for.
    pub role: Role,
}

/// The two parts of a cross layer that are not shared: language (`l`) and vision (`v`).
pub const CROSS_SIDES: [&str; 2] = ["l", "v"];

/// Every tensor of a model with this configuration, in the order in which files list them.
pub fn tensors(config: &Config) -> Vec<Tensor> {
    let mut list = List { tensors: Vec::new() };
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);

    list.push("token_embd.weight".into(), &[hidden, config.vocab_size], Role::WordEmbedding);
    list.push("position_embd.weight".into(), &[hidden, config.max_position_embeddings], Role::Table);
    list.push("token_types.weight".into(), &[hidden, config.type_vocab_size], Role::Table);
    list.norm("token_embd_norm", hidden);
    for n in 0..config.l_layers {
        list.block(&format!("blk.{n}"), hidden, inner);
    }

    list.linear("v.feat_embd", config.visual_feat_dim, hidden);
    list.norm("v.feat_embd_norm", hidden);
    list.linear("v.pos_embd", config.visual_pos_dim, hidden);
    list.norm("v.pos_embd_norm", hidden);
    for n in 0..config.r_layers {
        list.block(&format!("v.blk.{n}"), hidden, inner);
    }

    for n in 0..config.x_layers {
        list.attention(&format!("x.blk.{n}.cross_"), hidden);
        for side in CROSS_SIDES {
            list.block(&format!("x.blk.{n}.{side}"), hidden, inner);
        }
    }

    list.linear("pooler", hidden, hidden);
    if let Some(labels) = config.head.labels() {
        list.linear("cls.answer.0", config.head.images() * hidden, 2 * hidden);
        list.norm("cls.answer.norm", 2 * hidden);
        list.linear("cls.answer.1", 2 * hidden, labels);
    }
    if matches!(config.head, super::Head::PreTraining { .. }) {
        list.linear("cls.mlm.transform", hidden, hidden);
        list.norm("cls.mlm.norm", hidden);
        // The product itself is with the word embedding, to which the checkpoint ties it.
        list.push("cls.mlm.output.bias".into(), &[config.vocab_size], Role::Vector);
        list.linear("cls.match", hidden, 2);
    }
    if let Some(objects) = config.head.objects() {
        list.linear("cls.object.transform", hidden, hidden);
        list.norm("cls.object.norm", hidden);
        let features = objects.features.then_some(config.visual_feat_dim);
        let parts = [("label", objects.labels), ("attribute", objects.attributes), ("feature", features)];
        for (part, rows) in parts {
            if let Some(rows) = rows {
                list.linear(&format!("cls.object.{part}"), hidden, rows);
            }
        }
    }
    list.tensors
}

struct List {
    tensors: Vec<Tensor>,
}

impl List {
    fn push(&mut self, name: String, dims: &[usize], role: Role) {
        let dims = dims.iter().map(|dim| *dim as u64).collect();
        self.tensors.push(Tensor { name, dims, role });
    }

    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.push(format!("{name}.weight"), &[inputs, outputs], Role::Matrix);
        self.push(format!("{name}.bias"), &[outputs], Role::Vector);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.push(format!("{name}.weight"), &[width], Role::Vector);
        self.push(format!("{name}.bias"), &[width], Role::Vector);
    }

    fn attention(&mut self, prefix: &str, hidden: usize) {
        self.linear(&format!("{prefix}attn_qkv"), hidden, 3 * hidden);
        self.linear(&format!("{prefix}attn_output"), hidden, hidden);
        self.norm(&format!("{prefix}attn_output_norm"), hidden);
    }

    fn block(&mut self, prefix: &str, hidden: usize, inner: usize) {
        self.attention(&format!("{prefix}."), hidden);
        self.linear(&format!("{prefix}.ffn_up"), hidden, inner);
        self.linear(&format!("{prefix}.ffn_down"), inner, hidden);
        self.norm(&format!("{prefix}.layer_output_norm"), hidden);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ObjectHead};

    fn parameters(head: Head) -> u64 {
        let config = Config { head, ..Config::base() };
        tensors(&config).iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum()
    }

    #[test]
    fn counts_the_parameters_of_the_published_checkpoints() {
        let objects = ObjectHead { labels: Some(1600), attributes: Some(400), features: true };
        let pretraining = Head::PreTraining { labels: Some(9500), objects: Some(objects) };
        assert_eq!(parameters(Head::None), 207_936_768);
        assert_eq!(parameters(pretraining), 228_051_752);
        assert_eq!(parameters(Head::QuestionAnswering { labels: 3129 }), 213_930_297);
        assert_eq!(parameters(Head::QuestionAnswering { labels: 1842 }), 211_952_178);
    }

    #[test]
    fn names_are_unique_and_short_enough_for_the_format() {
        let objects = ObjectHead { labels: Some(5), attributes: Some(4), features: true };
        let head = Head::PreTraining { labels: Some(3), objects: Some(objects) };
        let list = tensors(&Config { head, l_layers: 128, r_layers: 128, x_layers: 128, ..Config::base() });
        let names: std::collections::HashSet<_> = list.iter().map(|tensor| &tensor.name).collect();
        assert_eq!(names.len(), list.len());
        assert!(names.iter().all(|name| name.len() <= 63));
    }
}
