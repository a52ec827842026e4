//! Which keys of a Hugging Face checkpoint each GGUF tensor is made of.

/// A GGUF tensor's name and its key in a Hugging Face checkpoint, each without `.weight` or `.bias`.
type Names = (&'static str, &'static str);

/// The model's own tensors, under the optional prefix `lxmert.`.
const MODEL: [Names; 9] = [
    ("token_embd", "embeddings.word_embeddings"),
    ("position_embd", "embeddings.position_embeddings"),
    ("token_types", "embeddings.token_type_embeddings"),
    ("token_embd_norm", "embeddings.LayerNorm"),
    ("v.feat_embd", "encoder.visn_fc.visn_fc"),
    ("v.feat_embd_norm", "encoder.visn_fc.visn_layer_norm"),
    ("v.pos_embd", "encoder.visn_fc.box_fc"),
    ("v.pos_embd_norm", "encoder.visn_fc.box_layer_norm"),
    ("pooler", "pooler.dense"),
];

/// The heads, which stand beside the model and so never carry its prefix.
const HEADS: [Names; 12] = [
    ("cls.answer.0", "answer_head.logit_fc.0"),
    ("cls.answer.norm", "answer_head.logit_fc.2"),
    ("cls.answer.1", "answer_head.logit_fc.3"),
    ("cls.mlm.transform", "cls.predictions.transform.dense"),
    ("cls.mlm.norm", "cls.predictions.transform.LayerNorm"),
    ("cls.mlm.output", "cls.predictions"),
    ("cls.match", "cls.seq_relationship"),
    ("cls.object.transform", "obj_predict_head.transform.dense"),
    ("cls.object.norm", "obj_predict_head.transform.LayerNorm"),
    ("cls.object.label", "obj_predict_head.decoder_dict.obj"),
    ("cls.object.attribute", "obj_predict_head.decoder_dict.attr"),
    ("cls.object.feature", "obj_predict_head.decoder_dict.feat"),
];

/// The three stacks of layers: the GGUF prefix, the Hugging Face prefix, the tensors of one layer.
const STACKS: [(&str, &str, &[Names]); 3] = [
    ("blk.", LANGUAGE_LAYERS, &BLOCK),
    ("v.blk.", VISION_LAYERS, &BLOCK),
    ("x.blk.", CROSS_LAYERS, &CROSS_BLOCK),
];

/// Where Hugging Face keeps the language layers.
pub(crate) const LANGUAGE_LAYERS: &str = "encoder.layer.";
/// Where Hugging Face keeps the object-relationship layers.
pub(crate) const VISION_LAYERS: &str = "encoder.r_layers.";
/// Where Hugging Face keeps the cross-modality layers.
pub(crate) const CROSS_LAYERS: &str = "encoder.x_layers.";

/// One language or object-relationship layer. `*` stands for query, key and value, stacked in this order.
const BLOCK: [Names; 6] = [
    ("attn_qkv", "attention.self.*"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
];

/// One cross layer; the cross attention's inner name is `att`, not `self`.
const CROSS_BLOCK: [Names; 15] = [
    ("cross_attn_qkv", "visual_attention.att.*"),
    ("cross_attn_output", "visual_attention.output.dense"),
    ("cross_attn_output_norm", "visual_attention.output.LayerNorm"),
    ("l.attn_qkv", "lang_self_att.self.*"),
    ("l.attn_output", "lang_self_att.output.dense"),
    ("l.attn_output_norm", "lang_self_att.output.LayerNorm"),
    ("l.ffn_up", "lang_inter.dense"),
    ("l.ffn_down", "lang_output.dense"),
    ("l.layer_output_norm", "lang_output.LayerNorm"),
    ("v.attn_qkv", "visn_self_att.self.*"),
    ("v.attn_output", "visn_self_att.output.dense"),
    ("v.attn_output_norm", "visn_self_att.output.LayerNorm"),
    ("v.ffn_up", "visn_inter.dense"),
    ("v.ffn_down", "visn_output.dense"),
    ("v.layer_output_norm", "visn_output.LayerNorm"),
];

/// The keys whose rows, one after the other, make up the GGUF tensor `name`.
///
/// `prefix` is `lxmert.` for the two classes with a head, empty for the bare model.
///
/// # Panics
/// If `name` is none of [`lxmert::model::tensors`]: the tables above cover them all, and a test says so.
pub(crate) fn source_keys(name: &str, prefix: &str) -> Vec<String> {
    let (stem, kind) = name.rsplit_once('.').expect("every name ends in .weight or .bias");
    let stem = source_stem(stem, prefix).unwrap_or_else(|| panic!("no source is known for {name}"));
    match stem.strip_suffix('*') {
        Some(stem) => ["query", "key", "value"].map(|part| format!("{stem}{part}.{kind}")).into(),
        None => vec![format!("{stem}.{kind}")],
    }
}

fn source_stem(stem: &str, prefix: &str) -> Option<String> {
    let find =
        |table: &[Names], stem| table.iter().find(|(ours, _)| *ours == stem).map(|(_, theirs)| *theirs);
    for (ours, theirs, layer) in STACKS {
        if let Some((index, rest)) = stem.strip_prefix(ours).and_then(|rest| rest.split_once('.')) {
            return Some(format!("{prefix}{theirs}{index}.{}", find(layer, rest)?));
        }
    }
    let of_model = || find(&MODEL, stem).map(|theirs| format!("{prefix}{theirs}"));
    find(&HEADS, stem).map(str::to_owned).or_else(of_model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lxmert::model::{Config, Head, ObjectHead, tensors};
    use std::collections::BTreeSet;

    fn keys(head: Head, prefix: &str) -> BTreeSet<String> {
        let list = tensors(&Config { head, ..Config::base() });
        let keys: Vec<_> = list.iter().flat_map(|tensor| source_keys(&tensor.name, prefix)).collect();
        let unique: BTreeSet<_> = keys.iter().cloned().collect();
        assert_eq!(unique.len(), keys.len(), "a key is used twice");
        unique
    }

    /// The counts of the state dicts that transformers makes for the default configuration; the
    /// pre-training class has one key more, the decoder that is tied to the word embedding.
    #[test]
    fn covers_as_many_keys_as_the_published_state_dicts_hold() {
        let objects = ObjectHead { labels: Some(1600), attributes: Some(400), features: true };
        let pretraining = Head::PreTraining { labels: Some(9500), objects: Some(objects) };
        assert_eq!(keys(Head::None, "").len(), 449);
        assert_eq!(keys(pretraining, "lxmert.").len(), 473 - 1);
        assert_eq!(keys(Head::QuestionAnswering { labels: 3129 }, "lxmert.").len(), 455);
    }

    #[test]
    fn prefixes_the_model_but_not_its_heads() {
        assert_eq!(source_keys("pooler.bias", "lxmert."), ["lxmert.pooler.dense.bias"]);
        assert_eq!(source_keys("cls.answer.norm.weight", "lxmert."), ["answer_head.logit_fc.2.weight"]);
        assert_eq!(source_keys("cls.mlm.output.bias", "lxmert."), ["cls.predictions.bias"]);
    }

    #[test]
    fn stacks_query_key_and_value() {
        let keys = ["query", "key", "value"]
            .map(|part| format!("encoder.x_layers.4.visual_attention.att.{part}.weight"));
        assert_eq!(source_keys("x.blk.4.cross_attn_qkv.weight", ""), keys);
    }
}
