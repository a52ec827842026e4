//! Hugging Face's `config.json`.

use std::path::{Path, PathBuf};

use lxmert::Limits;
use lxmert::model::{Config, HiddenAct};
use serde::Deserialize;

use crate::Error;
use crate::files::read_json;
use crate::labels::Table;

/// The fields of `LxmertConfig` that matter at inference; `None` where the file does not say.
///
/// `layer_norm_eps` is not among them: the PyTorch model ignores it.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct HfConfig {
    #[serde(skip)]
    pub path: PathBuf,
    pub architectures: Option<Vec<String>>,
    pub model_type: Option<String>,
    #[serde(rename = "_name_or_path")]
    pub name_or_path: Option<String>,
    pub vocab_size: Option<usize>,
    pub hidden_size: Option<usize>,
    pub num_attention_heads: Option<usize>,
    pub intermediate_size: Option<usize>,
    pub hidden_act: Option<String>,
    pub max_position_embeddings: Option<usize>,
    pub type_vocab_size: Option<usize>,
    pub l_layers: Option<usize>,
    pub r_layers: Option<usize>,
    pub x_layers: Option<usize>,
    pub visual_feat_dim: Option<usize>,
    pub visual_pos_dim: Option<usize>,
    pub num_qa_labels: Option<usize>,
    pub num_object_labels: Option<usize>,
    pub num_attr_labels: Option<usize>,
    pub task_qa: Option<bool>,
    pub task_obj_predict: Option<bool>,
    pub id2label: Option<Table>,
}

/// `LxmertConfig`'s default, which only matters where neither `config.json` nor a tensor tells.
const DEFAULT_HEADS: usize = 12;

impl HfConfig {
    /// Reads the file and refuses what the runtime cannot compute.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let config = HfConfig { path: path.to_owned(), ..read_json(path, limits)? };
        match config.model_type.as_deref() {
            None | Some("lxmert") => Ok(config),
            Some(other) => Err(config.refusal("model_type", other, "only lxmert is converted")),
        }
    }

    /// The configuration of a GGUF file's model, as far as its tensors do not tell it.
    pub fn of(config: &Config) -> Self {
        HfConfig {
            num_attention_heads: Some(config.num_attention_heads),
            hidden_act: Some(config.hidden_act.name().to_owned()),
            ..HfConfig::default()
        }
    }

    /// What it says about the encoders, without class, tasks and answers.
    pub fn without_task(self) -> Self {
        HfConfig {
            architectures: None,
            num_qa_labels: None,
            num_object_labels: None,
            num_attr_labels: None,
            task_qa: None,
            task_obj_predict: None,
            id2label: None,
            ..self
        }
    }

    /// The attention heads, which no tensor's shape tells.
    pub fn heads(&self) -> usize {
        self.num_attention_heads.unwrap_or(DEFAULT_HEADS)
    }

    /// The activation.
    pub fn activation(&self) -> Result<HiddenAct, Error> {
        let name = self.hidden_act.as_deref().unwrap_or("gelu");
        HiddenAct::from_name(name).ok_or_else(|| {
            let known = HiddenAct::NAMES.map(|(_, name)| name).join(", ");
            self.refusal("hidden_act", name, &format!("the runtime has {known}"))
        })
    }

    /// The model's name: the last part of the path that it was loaded from when it was saved. The directory's
    /// own name does not count, so that a checkpoint that was moved gives the same bytes.
    pub fn model_name(&self) -> Option<&str> {
        let path = self.name_or_path.as_deref()?.trim_end_matches(['/', '\\']);
        path.rsplit(['/', '\\']).next().filter(|name| !name.is_empty() && *name != "." && *name != "..")
    }

    fn refusal(&self, field: &'static str, found: &str, remedy: &str) -> Error {
        let (path, found, remedy) = (self.path.clone(), format!("{found:?}"), remedy.to_owned());
        Error::Config { path, field, found, remedy }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> HfConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn fills_in_the_defaults_of_transformers() {
        let config = parse("{}");
        assert_eq!((config.heads(), config.activation().unwrap()), (12, HiddenAct::Gelu));
    }

    #[test]
    fn names_the_activation_that_the_runtime_lacks() {
        let error = parse(r#"{"hidden_act": "mish"}"#).activation().unwrap_err();
        assert_eq!(
            error.to_string(),
            r#": hidden_act is "mish": the runtime has gelu, relu, silu, gelu_new"#
        );
    }

    #[test]
    fn takes_the_name_from_the_last_part_of_the_path() {
        for (path, name) in [
            ("unc-nlp/lxmert-vqa-uncased", Some("lxmert-vqa-uncased")),
            ("/home/a/model/", Some("model")),
            ("./", None),
            ("", None),
        ] {
            let config = HfConfig { name_or_path: Some(path.to_owned()), ..HfConfig::default() };
            assert_eq!(config.model_name(), name, "{path:?}");
        }
    }
}
