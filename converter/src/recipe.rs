//! The recipes of mixed files: which matrices get a better type than the rest.
//!
//! RECIPES.md has the measurements behind the tables.

use lxmert::gguf::TensorType;

/// A matrix's place in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoder {
    Language,
    Vision,
    Cross,
    /// Embeddings, pooler and heads.
    Ends,
}

/// Gives a type to the matrices of that name, without the layer and `.weight`, in one of the encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    encoder: Encoder,
    /// The last part of the name, such as `ffn_down`; at the ends, the whole name.
    matrix: &'static str,
    tensor_type: TensorType,
}

const fn rule(encoder: Encoder, matrix: &'static str, tensor_type: TensorType) -> Rule {
    Rule { encoder, matrix, tensor_type }
}

/// Four bits; five where they are missed, and six for the small matrices that everything passes through.
pub(crate) const Q4_K_M: &[Rule] = &mixed(TensorType::Q5K, TensorType::Q6K);

/// The same, with five, six and eight bits.
pub(crate) const Q5_K_M: &[Rule] = &mixed(TensorType::Q6K, TensorType::Q8_0);

/// In the order of each group's share of the error over its share of the weights: more than four for those that get
/// `best`, more than one for those that get `better`.
const fn mixed(better: TensorType, best: TensorType) -> [Rule; 9] {
    [
        rule(Encoder::Ends, "pooler", best),
        rule(Encoder::Ends, "v.feat_embd", best),
        rule(Encoder::Ends, "cls.answer.0", best),
        rule(Encoder::Ends, "cls.answer.1", best),
        rule(Encoder::Cross, "cross_attn_output", best),
        rule(Encoder::Vision, "attn_output", better),
        rule(Encoder::Cross, "cross_attn_qkv", better),
        rule(Encoder::Vision, "attn_qkv", better),
        rule(Encoder::Vision, "ffn_up", better),
    ]
}

/// The type that the first fitting rule gives to a tensor.
pub(crate) fn recipe_type(recipe: &[Rule], tensor: &str) -> Option<TensorType> {
    let (encoder, matrix) = place(tensor.strip_suffix(".weight")?);
    recipe.iter().find(|rule| rule.encoder == encoder && rule.matrix == matrix).map(|rule| rule.tensor_type)
}

/// Where a matrix of that name, without `.weight`, is: `v.blk.3.ffn_up` is `ffn_up` of the vision encoder.
fn place(stem: &str) -> (Encoder, &str) {
    let stacks = [("blk.", Encoder::Language), ("v.blk.", Encoder::Vision), ("x.blk.", Encoder::Cross)];
    for (prefix, encoder) in stacks {
        if let Some(of_layer) = stem.strip_prefix(prefix) {
            return (encoder, of_layer.rsplit('.').next().unwrap_or(of_layer));
        }
    }
    (Encoder::Ends, stem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxmert::model::{Config, Role, tensors};

    #[test]
    fn finds_the_place_of_a_matrix() {
        assert_eq!(place("v.blk.3.ffn_up"), (Encoder::Vision, "ffn_up"));
        assert_eq!(place("x.blk.0.l.attn_qkv"), (Encoder::Cross, "attn_qkv"));
        assert_eq!(place("x.blk.0.cross_attn_qkv"), (Encoder::Cross, "cross_attn_qkv"));
        assert_eq!(place("v.feat_embd"), (Encoder::Ends, "v.feat_embd"));
    }

    /// A rule for a name that no model has would never be missed.
    #[test]
    fn every_rule_has_a_matrix() {
        let list = tensors(&Config::base());
        let matrices = list.iter().filter(|tensor| matches!(tensor.role, Role::Matrix | Role::WordEmbedding));
        let places: Vec<_> =
            matrices.map(|tensor| place(tensor.name.strip_suffix(".weight").unwrap())).collect();
        for rule in [Q4_K_M, Q5_K_M].concat() {
            assert!(places.contains(&(rule.encoder, rule.matrix)), "{rule:?}");
        }
    }
}
