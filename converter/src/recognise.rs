//! What kind of LXMERT a checkpoint is: the class and the sizes, as its tensors tell them and as
//! `config.json` does.

use std::collections::BTreeMap;

use lxmert::model::{Config, Head, ObjectHead};

use crate::Error;
use crate::error::Problem;
use crate::hf_config::HfConfig;
use crate::names::{CROSS_LAYERS, LANGUAGE_LAYERS, VISION_LAYERS};
use crate::source::SourceTensor;

/// A checkpoint's kind.
pub(crate) struct Recognised {
    /// What stands before the model's own keys: `lxmert.`, or nothing.
    pub prefix: &'static str,
    /// The sizes that the tensors tell; `config.json`'s where they do not.
    pub measured: Config,
    /// The sizes that `config.json` states; the tensors' where it does not. Heads and layers are those of
    /// `measured`, so that both lead to the same list of tensors.
    pub stated: Config,
    /// Where the two disagree.
    pub problems: Vec<Problem>,
}

/// More layers than these are not counted, and so reported as unknown tensors.
const MAX_LAYERS: usize = 128;

/// Compares the tensors with `config.json`.
///
/// # Errors
/// [`Error::Config`] for an activation that the runtime lacks.
pub(crate) fn recognise(
    tensors: &BTreeMap<String, SourceTensor>,
    config: &HfConfig,
) -> Result<Recognised, Error> {
    let prefix = if tensors.keys().any(|name| name.starts_with("lxmert.")) { "lxmert." } else { "" };
    let mut survey = Survey { tensors, prefix, problems: Vec::new() };
    survey.compare_class(config);
    let (measured, stated) = survey.sizes(config)?;
    Ok(Recognised { prefix, measured, stated, problems: survey.problems })
}

struct Survey<'a> {
    tensors: &'a BTreeMap<String, SourceTensor>,
    prefix: &'static str,
    problems: Vec<Problem>,
}

/// A size by the tensors and by `config.json`.
struct Size {
    measured: usize,
    stated: usize,
}

impl Survey<'_> {
    fn has(&self, start: &str) -> bool {
        self.tensors.keys().any(|name| name.starts_with(start))
    }

    fn is_pretraining(&self) -> bool {
        self.has("cls.") || self.has("obj_predict_head.")
    }

    /// Whether the answer head reads two pooled outputs at once: its first matrix is always twice as high as one is
    /// wide, so it is square then.
    fn is_nlvr2(&self) -> bool {
        let first = self.tensors.get("answer_head.logit_fc.0.weight");
        first.is_some_and(|tensor| matches!(tensor.shape[..], [rows, columns] if rows == columns))
    }

    fn class(&self) -> &'static str {
        if self.is_pretraining() {
            "LxmertForPreTraining"
        } else if self.is_nlvr2() {
            class_name(&Head::Nlvr2)
        } else if self.has("answer_head.") {
            "LxmertForQuestionAnswering"
        } else {
            "LxmertModel"
        }
    }

    /// Heads that `config.json` promises and the tensors lack, or the other way round.
    fn compare_class(&mut self, config: &HfConfig) {
        let class = self.class();
        let known = ["LxmertModel", "LxmertForPreTraining", "LxmertForQuestionAnswering"];
        let named = config.architectures.as_deref().unwrap_or_default();
        let named = named.iter().find(|name| known.contains(&name.as_str()));
        if let Some(named) = named.filter(|named| *named != class) {
            let (config, tensors) =
                (format!("the class is {named}"), format!("the tensors are those of: {class}"));
            self.problems.push(Problem::Class { config, tensors });
        }
        if class != "LxmertForPreTraining" {
            return;
        }
        let flags = [
            ("task_qa", config.task_qa, "answer_head."),
            ("task_obj_predict", config.task_obj_predict, "obj_predict_head."),
        ];
        for (field, flag, start) in flags {
            let found = self.has(start);
            if flag.is_some_and(|flag| flag != found) {
                let (config, there) =
                    (format!("{field} is {}", !found), if found { "are" } else { "are no" });
                let tensors = format!("there {there} tensors {start}*");
                self.problems.push(Problem::Class { config, tensors });
            }
        }
    }

    fn sizes(&mut self, config: &HfConfig) -> Result<(Config, Config), Error> {
        let word = format!("{}embeddings.word_embeddings.weight", self.prefix);
        let vocab = self.axis("vocab_size", config.vocab_size, &word, 0, 30522);
        let hidden = self.axis("hidden_size", config.hidden_size, &word, 1, 768);
        let positions = format!("{}embeddings.position_embeddings.weight", self.prefix);
        let positions =
            self.axis("max_position_embeddings", config.max_position_embeddings, &positions, 0, 512);
        let types = format!("{}embeddings.token_type_embeddings.weight", self.prefix);
        let types = self.axis("type_vocab_size", config.type_vocab_size, &types, 0, 2);
        let features = format!("{}encoder.visn_fc.visn_fc.weight", self.prefix);
        let features = self.axis("visual_feat_dim", config.visual_feat_dim, &features, 1, 2048);
        let boxes = format!("{}encoder.visn_fc.box_fc.weight", self.prefix);
        let boxes = self.axis("visual_pos_dim", config.visual_pos_dim, &boxes, 1, 4);
        let inner = self.feed_forward_tensor();
        let inner = self.axis("intermediate_size", config.intermediate_size, &inner, 0, 3072);

        let l_layers = self.layers("l_layers", config.l_layers, LANGUAGE_LAYERS);
        let r_layers = self.layers("r_layers", config.r_layers, VISION_LAYERS);
        let x_layers = self.layers("x_layers", config.x_layers, CROSS_LAYERS);
        let (measured_head, stated_head) = self.heads(config);

        let measured = Config {
            vocab_size: vocab.measured,
            hidden_size: hidden.measured,
            num_attention_heads: config.heads(),
            intermediate_size: inner.measured,
            hidden_act: config.activation()?,
            max_position_embeddings: positions.measured,
            type_vocab_size: types.measured,
            l_layers,
            r_layers,
            x_layers,
            visual_feat_dim: features.measured,
            visual_pos_dim: boxes.measured,
            head: measured_head,
        };
        let stated = Config {
            vocab_size: vocab.stated,
            hidden_size: hidden.stated,
            intermediate_size: inner.stated,
            max_position_embeddings: positions.stated,
            type_vocab_size: types.stated,
            visual_feat_dim: features.stated,
            visual_pos_dim: boxes.stated,
            head: stated_head,
            ..measured.clone()
        };
        Ok((measured, stated))
    }

    /// The head by the tensors, and the same one in `config.json`'s sizes.
    fn heads(&mut self, config: &HfConfig) -> (Head, Head) {
        if !self.is_pretraining() && self.is_nlvr2() {
            return (Head::Nlvr2, Head::Nlvr2);
        }
        let labels = self.has("answer_head.").then(|| {
            self.axis("num_qa_labels", config.num_qa_labels, "answer_head.logit_fc.3.weight", 0, 9500)
        });
        if !self.is_pretraining() {
            return match labels {
                None => (Head::None, Head::None),
                Some(Size { measured, stated }) => {
                    (Head::QuestionAnswering { labels: measured }, Head::QuestionAnswering { labels: stated })
                }
            };
        }
        let mut rows = |part: &str, field, stated, default| {
            let start = format!("obj_predict_head.decoder_dict.{part}.");
            self.has(&start).then(|| self.axis(field, stated, &format!("{start}weight"), 0, default))
        };
        let objects = rows("obj", "num_object_labels", config.num_object_labels, 1600);
        let attributes = rows("attr", "num_attr_labels", config.num_attr_labels, 400);
        let features = self.has("obj_predict_head.decoder_dict.feat.");
        let has_objects = self.has("obj_predict_head.");
        let head = |pick: fn(&Size) -> usize| Head::PreTraining {
            labels: labels.as_ref().map(pick),
            objects: has_objects.then(|| ObjectHead {
                labels: objects.as_ref().map(pick),
                attributes: attributes.as_ref().map(pick),
                features,
            }),
        };
        (head(|size| size.measured), head(|size| size.stated))
    }

    /// A size that is one axis of a matrix.
    fn axis(
        &mut self,
        field: &'static str,
        stated: Option<usize>,
        name: &str,
        axis: usize,
        default: usize,
    ) -> Size {
        let shape = self.tensors.get(name).map(|tensor| &tensor.shape);
        let measured = shape.filter(|shape| shape.len() == 2).map(|shape| shape[axis]);
        if let (Some(config), Some(tensors)) = (stated, measured)
            && config != tensors
        {
            let evidence = format!("the sizes {:?} of {name:?}", shape.map_or(&[][..], Vec::as_slice));
            self.problems.push(Problem::Size { field, config, tensors, evidence });
        }
        let fallback = stated.or(measured).unwrap_or(default);
        Size { measured: measured.unwrap_or(fallback), stated: fallback }
    }

    /// A tensor whose rows are as many as the feed-forward blocks are wide inside; any stack has one.
    fn feed_forward_tensor(&self) -> String {
        let candidates = [
            (LANGUAGE_LAYERS, "intermediate"),
            (VISION_LAYERS, "intermediate"),
            (CROSS_LAYERS, "lang_inter"),
        ];
        let names = candidates.map(|(stack, inner)| format!("{}{stack}0.{inner}.dense.weight", self.prefix));
        let found = names.iter().find(|name| self.tensors.contains_key(*name));
        found.unwrap_or(&names[0]).clone()
    }

    /// How many layers the stack has: one more than the highest index.
    fn layers(&mut self, field: &'static str, stated: Option<usize>, stack: &str) -> usize {
        let start = format!("{}{stack}", self.prefix);
        let index = |name: &String| -> Option<usize> {
            let (index, _) = name.strip_prefix(&start)?.split_once('.')?;
            index.parse().ok().filter(|index| *index < MAX_LAYERS)
        };
        let tensors = self.tensors.keys().filter_map(index).max().map_or(0, |last| last + 1);
        if let Some(config) = stated.filter(|stated| *stated != tensors) {
            let evidence = format!("the tensors {start}*");
            self.problems.push(Problem::Size { field, config, tensors, evidence });
        }
        tensors
    }
}

/// Hugging Face's name of the class that has this head, or what there is instead.
pub(crate) fn class_name(head: &Head) -> &'static str {
    match head {
        Head::None => "LxmertModel",
        Head::PreTraining { .. } => "LxmertForPreTraining",
        Head::QuestionAnswering { .. } => "LxmertForQuestionAnswering",
        Head::Nlvr2 => "NLVR2 model of the original code",
    }
}
