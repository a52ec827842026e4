//! What a model can be asked for, under Hugging Face's names.

use std::fmt;
use std::str::FromStr;

use super::{Config, Head};
use crate::Error;

/// One tensor of the model's output. B is the batch, L the tokens, O the regions, H the hidden size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Output {
    /// The language stream after the last layer, `[B, L, H]`.
    LanguageOutput,
    /// The vision stream after the last layer, `[B, O, H]`.
    VisionOutput,
    /// tanh of a product with the language stream's first token, `[B, H]`.
    PooledOutput,
    /// Scores of every word at every position, `[B, L, vocab_size]`.
    PredictionLogits,
    /// Scores of "does not match" and "matches", `[B, 2]`.
    CrossRelationshipScore,
    /// Scores of the answers, `[B, labels]`, or `[B / 2, 2]` of [`Head::Nlvr2`]. Raw logits.
    QuestionAnsweringScore,
    /// Scores of the object classes of every region, `[B, O, labels]`. Hugging Face only uses it in its loss.
    VisualObjScore,
    /// Scores of the attributes of every region, `[B, O, attributes]`. Hugging Face only uses it in its loss.
    VisualAttrScore,
    /// Predicted features of every region, `[B, O, visual_feat_dim]`. Hugging Face only uses it in its loss.
    VisualFeatScore,
    /// The language stream after a layer, `[B, L, H]`: first the language encoder's layers, then the cross layers.
    /// The embedding is not among them.
    LanguageHiddenStates(usize),
    /// The vision stream after a layer, `[B, O, H]`: first the object-relationship encoder's, then the cross layers.
    VisionHiddenStates(usize),
    /// Attention of a language layer, `[B, heads, L, L]`: rows are queries.
    LanguageAttentions(usize),
    /// Attention of an object-relationship layer, `[B, heads, O, O]`.
    VisionAttentions(usize),
    /// Attention of a cross layer from the language to the vision stream, `[B, heads, L, O]`.
    CrossEncoderAttentions(usize),
}

use Output::*;

const FINAL: [(Output, &str); 9] = [
    (LanguageOutput, "language_output"),
    (VisionOutput, "vision_output"),
    (PooledOutput, "pooled_output"),
    (PredictionLogits, "prediction_logits"),
    (CrossRelationshipScore, "cross_relationship_score"),
    (QuestionAnsweringScore, "question_answering_score"),
    (VisualObjScore, "visual_obj_score"),
    (VisualAttrScore, "visual_attr_score"),
    (VisualFeatScore, "visual_feat_score"),
];

/// Makes an entry of a list from its index, under the list's name.
type List = (fn(usize) -> Output, &'static str);

const LISTS: [List; 5] = [
    (LanguageHiddenStates, "language_hidden_states"),
    (VisionHiddenStates, "vision_hidden_states"),
    (LanguageAttentions, "language_attentions"),
    (VisionAttentions, "vision_attentions"),
    (CrossEncoderAttentions, "cross_encoder_attentions"),
];

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((_, name)) = FINAL.iter().find(|(output, _)| output == self) {
            return f.write_str(name);
        }
        let n = match self {
            LanguageHiddenStates(n) | VisionHiddenStates(n) => n,
            LanguageAttentions(n) | VisionAttentions(n) | CrossEncoderAttentions(n) => n,
            _ => unreachable!("every other output is in the table"),
        };
        let list = LISTS.iter().find(|(make, _)| make(*n) == *self);
        write!(f, "{}.{n}", list.map_or("", |(_, name)| name))
    }
}

impl FromStr for Output {
    type Err = Error;

    /// Reads a name such as `pooled_output` or `language_hidden_states.3`.
    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some((output, _)) = FINAL.iter().find(|(_, name)| *name == text) {
            return Ok(*output);
        }
        let listed = text.split_once('.').and_then(|(list, n)| {
            let (make, _) = LISTS.iter().find(|(_, name)| *name == list)?;
            Some(make(n.parse().ok()?))
        });
        listed.ok_or_else(|| {
            let finals = FINAL.iter().map(|(_, name)| *name);
            let known: Vec<&str> = finals.chain(LISTS.iter().map(|(_, name)| *name)).collect();
            Error::Input {
                name: "output".to_owned(),
                expected: format!("one of {} (lists with .0, .1, …)", known.join(", ")),
                found: format!("{text:?}"),
            }
        })
    }
}

impl Output {
    /// Every output of one list, such as `language_attentions`; `None` if there is no such list.
    pub fn list(name: &str, config: &Config) -> Option<Vec<Output>> {
        let (make, _) = LISTS.iter().find(|(_, known)| *known == name)?;
        Some((0..make(0).list_len(config)).map(make).collect())
    }

    /// The final outputs that a model with this configuration has.
    pub fn finals(config: &Config) -> Vec<Output> {
        FINAL.iter().map(|(output, _)| *output).filter(|output| output.exists_in(config)).collect()
    }

    /// All hidden states, in the order of depth.
    pub fn hidden_states(config: &Config) -> Vec<Output> {
        ["language_hidden_states", "vision_hidden_states"]
            .iter()
            .flat_map(|list| Self::list(list, config).unwrap_or_default())
            .collect()
    }

    /// All attentions, in the order of depth.
    pub fn attentions(config: &Config) -> Vec<Output> {
        ["language_attentions", "vision_attentions", "cross_encoder_attentions"]
            .iter()
            .flat_map(|list| Self::list(list, config).unwrap_or_default())
            .collect()
    }

    /// Whether a model with this configuration has this output.
    pub fn exists_in(self, config: &Config) -> bool {
        let objects = config.head.objects();
        match self {
            LanguageOutput | VisionOutput | PooledOutput => true,
            PredictionLogits | CrossRelationshipScore => matches!(config.head, Head::PreTraining { .. }),
            QuestionAnsweringScore => config.head.labels().is_some(),
            VisualObjScore => objects.is_some_and(|objects| objects.labels.is_some()),
            VisualAttrScore => objects.is_some_and(|objects| objects.attributes.is_some()),
            VisualFeatScore => objects.is_some_and(|objects| objects.features),
            LanguageHiddenStates(n)
            | VisionHiddenStates(n)
            | LanguageAttentions(n)
            | VisionAttentions(n)
            | CrossEncoderAttentions(n) => n < self.list_len(config),
        }
    }

    fn list_len(self, config: &Config) -> usize {
        match self {
            LanguageHiddenStates(_) => config.l_layers + config.x_layers,
            VisionHiddenStates(_) => config.r_layers + config.x_layers,
            LanguageAttentions(_) => config.l_layers,
            VisionAttentions(_) => config.r_layers,
            CrossEncoderAttentions(_) => config.x_layers,
            _ => 0,
        }
    }

    /// Whether it has a row or a column for every token.
    pub(crate) fn has_tokens(self) -> bool {
        matches!(
            self,
            LanguageOutput
                | PredictionLogits
                | LanguageHiddenStates(_)
                | LanguageAttentions(_)
                | CrossEncoderAttentions(_)
        )
    }

    /// Whether it has a row or a column for every region.
    pub(crate) fn has_regions(self) -> bool {
        matches!(
            self,
            VisionOutput
                | VisualObjScore
                | VisualAttrScore
                | VisualFeatScore
                | VisionHiddenStates(_)
                | VisionAttentions(_)
                | CrossEncoderAttentions(_)
        )
    }

    /// The output's shape, slowest axis first as in PyTorch.
    pub fn shape(self, config: &Config, batch: usize, tokens: usize, regions: usize) -> Dims {
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        let objects = config.head.objects();
        match self {
            LanguageOutput | LanguageHiddenStates(_) => Dims::new(&[batch, tokens, hidden]),
            VisionOutput | VisionHiddenStates(_) => Dims::new(&[batch, regions, hidden]),
            PooledOutput => Dims::new(&[batch, hidden]),
            PredictionLogits => Dims::new(&[batch, tokens, config.vocab_size]),
            CrossRelationshipScore => Dims::new(&[batch, 2]),
            QuestionAnsweringScore => {
                Dims::new(&[batch / config.head.images(), config.head.labels().unwrap_or(0)])
            }
            VisualObjScore => {
                Dims::new(&[batch, regions, objects.and_then(|objects| objects.labels).unwrap_or(0)])
            }
            VisualAttrScore => {
                Dims::new(&[batch, regions, objects.and_then(|objects| objects.attributes).unwrap_or(0)])
            }
            VisualFeatScore => Dims::new(&[batch, regions, config.visual_feat_dim]),
            LanguageAttentions(_) => Dims::new(&[batch, heads, tokens, tokens]),
            VisionAttentions(_) => Dims::new(&[batch, heads, regions, regions]),
            CrossEncoderAttentions(_) => Dims::new(&[batch, heads, tokens, regions]),
        }
    }
}

/// The sizes of a tensor's axes, at most four, slowest first.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    sizes: [usize; 4],
    rank: usize,
}

impl Dims {
    fn new(sizes: &[usize]) -> Self {
        let mut dims = Dims { sizes: [1; 4], rank: sizes.len() };
        dims.sizes[..sizes.len()].copy_from_slice(sizes);
        dims
    }
}

impl std::ops::Deref for Dims {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.sizes[..self.rank]
    }
}

impl std::fmt::Debug for Dims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        let config = Config::base();
        let all = [Output::finals(&config), Output::hidden_states(&config), Output::attentions(&config)];
        for output in all.into_iter().flatten() {
            assert_eq!(output.to_string().parse::<Output>().unwrap(), output);
        }
        assert_eq!("vision_attentions.4".parse::<Output>().unwrap(), VisionAttentions(4));
        for wrong in ["", "logits", "vision_attentions", "vision_attentions.x", "pooled_output.0"] {
            assert!(wrong.parse::<Output>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_base_model_has_the_lists_of_the_reference() {
        let config = Config::base();
        assert_eq!(Output::hidden_states(&config).len(), 14 + 10);
        assert_eq!(Output::attentions(&config).len(), 9 + 5 + 5);
        assert!(LanguageHiddenStates(13).exists_in(&config) && !LanguageHiddenStates(14).exists_in(&config));
        assert!(!PredictionLogits.exists_in(&config) && QuestionAnsweringScore.exists_in(&config));
    }
}
