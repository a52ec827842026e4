//! The hyper-parameters of an LXMERT, and how they stand in a GGUF file.

use crate::Error;
use crate::gguf::Metadata;
use crate::vision::{MAX_BOX_LEN, MAX_FEATURE_LEN};

/// The value of `general.architecture` in every file of this project.
pub const ARCHITECTURE: &str = "lxmert";

/// The epsilon of every layer norm. The PyTorch model hard-codes it and ignores `layer_norm_eps`.
pub const LAYER_NORM_EPSILON: f32 = 1e-12;

/// The activation between the two products of a feed-forward block, and in the transforms of the
/// masked-language and object heads. The answer head always uses [`HiddenAct::Gelu`], the pooler tanh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenAct {
    /// x/2 · (1 + erf(x/√2)).
    Gelu,
    /// max(0, x).
    Relu,
    /// x · sigmoid(x), also called swish.
    Silu,
    /// The tanh approximation of GELU: x/2 · (1 + tanh(√(2/π) · (x + 0.044715 x³))).
    GeluNew,
}

impl HiddenAct {
    /// Every activation, with its name in GGUF files and in Hugging Face's `config.json`.
    pub const NAMES: [(HiddenAct, &'static str); 4] = [
        (HiddenAct::Gelu, "gelu"),
        (HiddenAct::Relu, "relu"),
        (HiddenAct::Silu, "silu"),
        (HiddenAct::GeluNew, "gelu_new"),
    ];

    /// The name in GGUF files.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// The activation of that name, accepting transformers' synonyms.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = match name {
            "swish" => "silu",
            "gelu_pytorch_tanh" => "gelu_new",
            name => name,
        };
        Self::NAMES.iter().find(|(_, known)| *known == name).map(|(act, _)| *act)
    }
}

/// What stands on top of the encoders: Hugging Face's three classes, and one that only the original code has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// `LxmertModel`: hidden states and the pooled output only.
    None,
    /// `LxmertForPreTraining`: masked words, image-text match and, as trained, answers and objects.
    PreTraining {
        /// Rows of the answer head; `None` for a checkpoint trained without `task_qa`.
        labels: Option<usize>,
        /// The object head; `None` for a checkpoint trained without `task_obj_predict`.
        objects: Option<ObjectHead>,
    },
    /// `LxmertForQuestionAnswering`: the answer head.
    QuestionAnswering {
        /// Rows of the answer head.
        labels: usize,
    },
    /// Whether a statement is true of two images (NLVR2), a head of the original code that transformers lacks: the answer
    /// head with two rows, over the pooled outputs of both images side by side.
    Nlvr2,
}

/// Which products read the object head's transform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectHead {
    /// Rows of the object-class product (`visual_obj_loss`).
    pub labels: Option<usize>,
    /// Rows of the attribute product (`visual_attr_loss`).
    pub attributes: Option<usize>,
    /// Whether the features are predicted too (`visual_feat_loss`).
    pub features: bool,
}

impl Head {
    const NONE: &'static str = "none";
    const PRETRAINING: &'static str = "pretraining";
    const QUESTION_ANSWERING: &'static str = "question_answering";
    const NLVR2: &'static str = "nlvr2";

    /// The answers of [`Head::Nlvr2`] in the order of its rows.
    pub const NLVR2_LABELS: [&'static str; 2] = ["False", "True"];

    /// The name in GGUF files.
    pub fn name(&self) -> &'static str {
        match self {
            Head::None => Self::NONE,
            Head::PreTraining { .. } => Self::PRETRAINING,
            Head::QuestionAnswering { .. } => Self::QUESTION_ANSWERING,
            Head::Nlvr2 => Self::NLVR2,
        }
    }

    /// How many answers the head tells apart; `None` where there is no answer head.
    pub fn labels(&self) -> Option<usize> {
        match self {
            Head::None => None,
            Head::PreTraining { labels, .. } => *labels,
            Head::QuestionAnswering { labels } => Some(*labels),
            Head::Nlvr2 => Some(Self::NLVR2_LABELS.len()),
        }
    }

    /// How many pooled outputs, each of another image, make one row of the answer head's input.
    pub fn images(&self) -> usize {
        if *self == Head::Nlvr2 { 2 } else { 1 }
    }

    /// The object head, where there is one.
    pub fn objects(&self) -> Option<&ObjectHead> {
        match self {
            Head::PreTraining { objects, .. } => objects.as_ref(),
            _ => None,
        }
    }
}

/// The hyper-parameters. Field names are those of Hugging Face's `LxmertConfig`.
///
/// Every tensor's shape follows from them: see [`tensors`](super::tensors).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of every hidden state.
    pub hidden_size: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_attention_heads: usize,
    /// Width between the two products of a feed-forward block.
    pub intermediate_size: usize,
    /// Activation of the feed-forward blocks.
    pub hidden_act: HiddenAct,
    /// Rows of the position embedding: the longest question in tokens.
    pub max_position_embeddings: usize,
    /// Rows of the token-type embedding.
    pub type_vocab_size: usize,
    /// Layers of the language encoder.
    pub l_layers: usize,
    /// Layers of the object-relationship encoder.
    pub r_layers: usize,
    /// Layers of the cross-modality encoder.
    pub x_layers: usize,
    /// Features of one region.
    pub visual_feat_dim: usize,
    /// Coordinates of one region's box.
    pub visual_pos_dim: usize,
    /// What stands on top.
    pub head: Head,
}

/// One hyper-parameter: its key in a GGUF file and the range that the runtime accepts.
///
/// The ranges bound every size that is computed from them far below overflow.
struct Field {
    key: &'static str,
    range: std::ops::RangeInclusive<usize>,
    get: fn(&Config) -> usize,
}

const FIELDS: [Field; 12] = [
    Field { key: VOCAB_SIZE, range: 1..=1 << 24, get: |c| c.vocab_size },
    Field { key: HIDDEN_SIZE, range: 1..=1 << 14, get: |c| c.hidden_size },
    Field { key: HEADS, range: 1..=1 << 10, get: |c| c.num_attention_heads },
    Field { key: INTERMEDIATE_SIZE, range: 1..=1 << 16, get: |c| c.intermediate_size },
    Field { key: POSITIONS, range: 1..=1 << 14, get: |c| c.max_position_embeddings },
    Field { key: TOKEN_TYPES, range: 1..=1 << 10, get: |c| c.type_vocab_size },
    Field { key: L_LAYERS, range: 0..=128, get: |c| c.l_layers },
    Field { key: R_LAYERS, range: 0..=128, get: |c| c.r_layers },
    Field { key: X_LAYERS, range: 0..=128, get: |c| c.x_layers },
    Field { key: FEATURE_LENGTH, range: 1..=MAX_FEATURE_LEN, get: |c| c.visual_feat_dim },
    Field { key: POSITION_LENGTH, range: 1..=MAX_BOX_LEN, get: |c| c.visual_pos_dim },
    Field { key: LABEL_COUNT, range: 0..=1 << 20, get: |c| c.head.labels().unwrap_or(0) },
];

const VOCAB_SIZE: &str = "lxmert.vocab_size";
const HIDDEN_SIZE: &str = "lxmert.embedding_length";
const HEADS: &str = "lxmert.attention.head_count";
const INTERMEDIATE_SIZE: &str = "lxmert.feed_forward_length";
const POSITIONS: &str = "lxmert.context_length";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type_count";
const L_LAYERS: &str = "lxmert.language.block_count";
const R_LAYERS: &str = "lxmert.vision.block_count";
const X_LAYERS: &str = "lxmert.cross.block_count";
const FEATURE_LENGTH: &str = "lxmert.vision.feature_length";
const POSITION_LENGTH: &str = "lxmert.vision.position_length";
const LABEL_COUNT: &str = "lxmert.classifier.label_count";
const OBJECT_HEAD: &str = "lxmert.object_head";
const OBJECT_LABEL_COUNT: &str = "lxmert.object_head.label_count";
const OBJECT_ATTRIBUTE_COUNT: &str = "lxmert.object_head.attribute_count";
const OBJECT_FEATURES: &str = "lxmert.object_head.features";
const EPSILON: &str = "lxmert.attention.layer_norm_epsilon";
const HIDDEN_ACT: &str = "lxmert.hidden_act";
const HEAD: &str = "lxmert.head";

impl Config {
    /// The sizes of the published checkpoints, with the VQA head's 3129 answers.
    pub fn base() -> Self {
        Config {
            vocab_size: 30522,
            hidden_size: 768,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: HiddenAct::Gelu,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            l_layers: 9,
            r_layers: 5,
            x_layers: 5,
            visual_feat_dim: 2048,
            visual_pos_dim: 4,
            head: Head::QuestionAnswering { labels: 3129 },
        }
    }

    /// Width of one attention head.
    pub fn head_size(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    /// Reads the hyper-parameters from a file's metadata and checks each against its range.
    ///
    /// # Errors
    /// [`Error::Architecture`] for a file of another model, [`Error::Hyperparameter`] for a value out of
    /// range, [`Error::Gguf`] for a key that is missing or of another type.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        let architecture = metadata.str("general.architecture")?;
        if architecture != ARCHITECTURE {
            return Err(Error::Architecture { found: architecture.to_owned() });
        }
        let size = |key| metadata.u32(key).map(|value| value as usize);
        // Graphs have the number built in, so a file may leave the key out but not say otherwise.
        if let Some(epsilon) = metadata.opt_f32(EPSILON)?.filter(|epsilon| *epsilon != LAYER_NORM_EPSILON) {
            return Err(Error::Hyperparameter {
                key: EPSILON.to_owned(),
                expected: format!("{LAYER_NORM_EPSILON:e}"),
                found: format!("{epsilon:e}"),
            });
        }
        let act = metadata.str(HIDDEN_ACT)?;
        let config = Config {
            vocab_size: size(VOCAB_SIZE)?,
            hidden_size: size(HIDDEN_SIZE)?,
            num_attention_heads: size(HEADS)?,
            intermediate_size: size(INTERMEDIATE_SIZE)?,
            hidden_act: HiddenAct::from_name(act).ok_or_else(|| Error::Hyperparameter {
                key: HIDDEN_ACT.to_owned(),
                expected: "one of gelu, relu, silu, gelu_new".to_owned(),
                found: format!("{act:?}"),
            })?,
            max_position_embeddings: size(POSITIONS)?,
            type_vocab_size: size(TOKEN_TYPES)?,
            l_layers: size(L_LAYERS)?,
            r_layers: size(R_LAYERS)?,
            x_layers: size(X_LAYERS)?,
            visual_feat_dim: size(FEATURE_LENGTH)?,
            visual_pos_dim: size(POSITION_LENGTH)?,
            head: head_from_metadata(metadata)?,
        };
        config.check()?;
        Ok(config)
    }

    /// Writes the hyper-parameters as the keys that [`Config::from_metadata`] reads.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the metadata holds one of the keys already.
    pub fn write_metadata(&self, metadata: &mut Metadata) -> Result<(), Error> {
        for field in &FIELDS {
            let value = (field.get)(self);
            if field.key != LABEL_COUNT || self.head.labels().is_some() {
                metadata.insert(field.key, value as u32)?;
            }
        }
        metadata.insert(EPSILON, LAYER_NORM_EPSILON)?;
        metadata.insert(HIDDEN_ACT, self.hidden_act.name())?;
        metadata.insert(HEAD, self.head.name())?;
        if matches!(self.head, Head::PreTraining { .. }) {
            metadata.insert(OBJECT_HEAD, self.head.objects().is_some())?;
        }
        if let Some(objects) = self.head.objects() {
            metadata.insert(OBJECT_LABEL_COUNT, objects.labels.unwrap_or(0) as u32)?;
            metadata.insert(OBJECT_ATTRIBUTE_COUNT, objects.attributes.unwrap_or(0) as u32)?;
            metadata.insert(OBJECT_FEATURES, objects.features)?;
        }
        Ok(())
    }

    /// Checks every hyper-parameter against its range.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] for the first that is out of range.
    pub fn check(&self) -> Result<(), Error> {
        for field in &FIELDS {
            let value = (field.get)(self);
            let needs_one = field.key == LABEL_COUNT && self.head.labels().is_some();
            if !field.range.contains(&value) || (needs_one && value == 0) {
                let low = usize::from(needs_one).max(*field.range.start());
                let high = field.range.end();
                return Err(out_of_range(field.key, format!("{low} to {high}"), value));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a divisor of the embedding length {}", self.hidden_size);
            return Err(out_of_range(HEADS, expected, self.num_attention_heads));
        }
        if let Some(objects) = self.head.objects() {
            let counts = [(OBJECT_LABEL_COUNT, objects.labels), (OBJECT_ATTRIBUTE_COUNT, objects.attributes)];
            for (key, count) in counts {
                if count.is_some_and(|count| !(1..=1 << 20).contains(&count)) {
                    return Err(out_of_range(key, "1 to 1048576".to_owned(), count.unwrap_or(0)));
                }
            }
        }
        Ok(())
    }
}

fn out_of_range(key: &str, expected: String, found: usize) -> Error {
    Error::Hyperparameter { key: key.to_owned(), expected, found: found.to_string() }
}

fn head_from_metadata(metadata: &Metadata) -> Result<Head, Error> {
    let label_count = metadata.opt_u32(LABEL_COUNT)?.unwrap_or(0) as usize;
    let count = |key| -> Result<Option<usize>, Error> {
        Ok(Some(metadata.u32(key)? as usize).filter(|count| *count > 0))
    };
    match metadata.str(HEAD)? {
        Head::NONE => Ok(Head::None),
        Head::QUESTION_ANSWERING => Ok(Head::QuestionAnswering { labels: label_count }),
        Head::NLVR2 => Ok(Head::Nlvr2),
        Head::PRETRAINING => Ok(Head::PreTraining {
            labels: Some(label_count).filter(|count| *count > 0),
            objects: if metadata.bool(OBJECT_HEAD)? {
                Some(ObjectHead {
                    labels: count(OBJECT_LABEL_COUNT)?,
                    attributes: count(OBJECT_ATTRIBUTE_COUNT)?,
                    features: metadata.bool(OBJECT_FEATURES)?,
                })
            } else {
                None
            },
        }),
        head => Err(Error::Hyperparameter {
            key: HEAD.to_owned(),
            expected: "none, pretraining, question_answering or nlvr2".to_owned(),
            found: format!("{head:?}"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads() -> Vec<Head> {
        let objects = ObjectHead { labels: Some(1600), attributes: None, features: true };
        vec![
            Head::None,
            Head::QuestionAnswering { labels: 7 },
            Head::Nlvr2,
            Head::PreTraining { labels: None, objects: None },
            Head::PreTraining { labels: Some(3), objects: Some(objects) },
        ]
    }

    fn metadata_of(config: &Config) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", ARCHITECTURE).unwrap();
        config.write_metadata(&mut metadata).unwrap();
        metadata
    }

    #[test]
    fn comes_back_from_metadata_with_every_head() {
        for head in heads() {
            let config = Config { head, hidden_act: HiddenAct::GeluNew, ..Config::base() };
            assert_eq!(Config::from_metadata(&metadata_of(&config)).unwrap(), config);
        }
    }

    #[test]
    fn refuses_another_architecture() {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", "llama").unwrap();
        let error = Config::from_metadata(&metadata).unwrap_err();
        assert!(matches!(error, Error::Architecture { found } if found == "llama"));
    }

    #[test]
    fn refuses_another_epsilon() {
        for epsilon in [0.0, -1e-12, 1e-5, f32::INFINITY, f32::NAN] {
            let mut metadata = metadata_of(&Config::base());
            metadata.set(EPSILON, epsilon).unwrap();
            let error = Config::from_metadata(&metadata).unwrap_err();
            assert!(matches!(error, Error::Hyperparameter { key, .. } if key == EPSILON), "{epsilon}");
        }
        let mut metadata = metadata_of(&Config::base());
        metadata.remove(EPSILON).unwrap();
        assert_eq!(Config::from_metadata(&metadata).unwrap(), Config::base());
    }

    #[test]
    fn refuses_values_out_of_range() {
        let broken: [fn(&mut Config); 7] = [
            |c| c.vocab_size = 0,
            |c| c.hidden_size = 1 << 15,
            |c| c.num_attention_heads = 5,
            |c| c.l_layers = 129,
            |c| c.visual_pos_dim = 0,
            |c| c.max_position_embeddings = 1 << 20,
            |c| c.head = Head::QuestionAnswering { labels: 0 },
        ];
        for change in broken {
            let mut config = Config::base();
            change(&mut config);
            assert!(matches!(config.check(), Err(Error::Hyperparameter { .. })), "{config:?}");
            let error = Config::from_metadata(&metadata_of(&config)).unwrap_err();
            assert!(matches!(error, Error::Hyperparameter { .. }), "{config:?}");
        }
    }

    #[test]
    fn knows_the_activations_by_all_their_names() {
        assert_eq!(HiddenAct::from_name("swish"), Some(HiddenAct::Silu));
        assert_eq!(HiddenAct::from_name("gelu_pytorch_tanh"), Some(HiddenAct::GeluNew));
        assert_eq!(HiddenAct::from_name("mish"), None);
        for (act, name) in HiddenAct::NAMES {
            assert_eq!((HiddenAct::from_name(name), act.name()), (Some(act), name));
        }
    }
}
