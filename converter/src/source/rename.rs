//! What other programs call LXMERT's tensors.

/// A part of a name that gives way to another.
enum Rule {
    /// At the start; of several that fit, the first counts.
    Start(&'static str, &'static str),
    /// At the end.
    End(&'static str, &'static str),
    /// A whole component wherever it stands, left out.
    Component(&'static str),
}

use Rule::*;

/// All renames, in the order in which they are tried.
const RULES: [Rule; 9] = [
    // DataParallel wraps a model, or a part of it, for several GPUs.
    Component("module"),
    // The original code's models for VQA, GQA and NLVR2.
    Start("lxrt_encoder.model.bert.", "lxmert."),
    Start("lxrt_encoder.model.", ""),
    Start("logit_fc.", "answer_head.logit_fc."),
    // mmf.
    Start("model.bert.", "lxmert."),
    Start("model.", ""),
    // The original code's pre-training; its heads have the names that transformers gives them.
    Start("bert.", "lxmert."),
    // The layer norms of Google's BERT.
    End(".gamma", ".weight"),
    End(".beta", ".bias"),
];

/// Hugging Face's name of a tensor that a checkpoint calls `name`; a name that no rule fits is left as it is.
pub(super) fn hugging_face_name(name: &str) -> String {
    let mut name = name.to_owned();
    let mut started = false;
    for rule in &RULES {
        match rule {
            Component(component) => {
                let kept: Vec<_> = name.split('.').filter(|part| part != component).collect();
                name = kept.join(".");
            }
            Start(from, to) => {
                if let Some(rest) = name.strip_prefix(from).filter(|_| !started) {
                    name = format!("{to}{rest}");
                    started = true;
                }
            }
            End(from, to) => {
                if let Some(stem) = name.strip_suffix(from) {
                    name = format!("{stem}{to}");
                }
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as the original repository's code gives them, and as transformers does.
    #[test]
    fn knows_the_names_of_other_programs() {
        for (other, ours) in [
            ("bert.embeddings.word_embeddings.weight", "lxmert.embeddings.word_embeddings.weight"),
            ("module.bert.pooler.dense.bias", "lxmert.pooler.dense.bias"),
            ("module.cls.predictions.bias", "cls.predictions.bias"),
            (
                "lxrt_encoder.model.bert.encoder.layer.0.output.dense.bias",
                "lxmert.encoder.layer.0.output.dense.bias",
            ),
            ("lxrt_encoder.model.module.bert.pooler.dense.weight", "lxmert.pooler.dense.weight"),
            ("logit_fc.3.weight", "answer_head.logit_fc.3.weight"),
            ("model.bert.pooler.dense.weight", "lxmert.pooler.dense.weight"),
            ("model.answer_head.logit_fc.0.bias", "answer_head.logit_fc.0.bias"),
            ("bert.embeddings.LayerNorm.gamma", "lxmert.embeddings.LayerNorm.weight"),
            ("bert.embeddings.LayerNorm.beta", "lxmert.embeddings.LayerNorm.bias"),
        ] {
            assert_eq!(hugging_face_name(other), ours);
            assert_eq!(hugging_face_name(ours), ours);
        }
    }

    #[test]
    fn leaves_other_names_alone() {
        for name in ["encoder.layer.0.output.dense.bias", "modules.x", "gamma", ""] {
            assert_eq!(hugging_face_name(name), name);
        }
    }
}
