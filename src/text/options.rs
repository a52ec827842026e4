//! What a tokenizer is told beside its vocabulary.

use serde::{Deserialize, Deserializer};

use super::Error;
use crate::Limits;

/// What a BERT tokenizer needs beside its vocabulary, with the names and defaults of Hugging Face's
/// `tokenizer_config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BertOptions {
    /// Lower-case the text first.
    pub do_lower_case: bool,
    /// Remove accents; `None` does so exactly when lower-casing.
    pub strip_accents: Option<bool>,
    /// Make every Chinese character a word of its own.
    pub tokenize_chinese_chars: bool,
    /// Text of the piece for words that the vocabulary cannot spell. It must be in the vocabulary.
    #[serde(deserialize_with = "token_text")]
    pub unk_token: String,
    /// Text of the piece that ends a question. It must be in the vocabulary.
    #[serde(deserialize_with = "token_text")]
    pub sep_token: String,
    /// Text of the piece that opens a question. It must be in the vocabulary.
    #[serde(deserialize_with = "token_text")]
    pub cls_token: String,
    /// Text of the piece that fills up a batch; the vocabulary may lack it.
    #[serde(deserialize_with = "token_text")]
    pub pad_token: String,
    /// Text of the piece that hides a word; the vocabulary may lack it.
    #[serde(deserialize_with = "token_text")]
    pub mask_token: String,
    /// Further pieces that are found in the text before it is split into words.
    #[serde(rename = "added_tokens_decoder", deserialize_with = "added_tokens")]
    pub added_tokens: Vec<AddedToken>,
}

impl Default for BertOptions {
    fn default() -> Self {
        Self {
            do_lower_case: true,
            strip_accents: None,
            tokenize_chinese_chars: true,
            unk_token: "[UNK]".into(),
            sep_token: "[SEP]".into(),
            cls_token: "[CLS]".into(),
            pad_token: "[PAD]".into(),
            mask_token: "[MASK]".into(),
            added_tokens: Vec::new(),
        }
    }
}

impl BertOptions {
    /// Reads the options from the text of a `tokenizer_config.json`; fields of other tokenizers are ignored.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the text is longer than [`Limits::string_bytes`], is not JSON, or an option has the wrong type.
    pub fn from_json(json: &str) -> Result<Self, Error> {
        Self::from_json_within(json, &Limits::DEFAULT)
    }

    /// As [`from_json`](Self::from_json), within other limits than the default ones.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json).
    pub fn from_json_within(json: &str, limits: &Limits) -> Result<Self, Error> {
        super::json::check_len("tokenizer_config.json", json, &limits.in_range())?;
        serde_json::from_str(json).map_err(|error| Error::invalid(format!("options: {error}")))
    }

    /// The texts of the five special tokens.
    pub(super) fn special_tokens(&self) -> [&String; 5] {
        [&self.pad_token, &self.unk_token, &self.cls_token, &self.sep_token, &self.mask_token]
    }
}

/// A piece that is found in the text as it stands, before the text is split into words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AddedToken {
    /// Its id. In `tokenizer_config.json` it is the key that leads here.
    #[serde(default)]
    pub id: u32,
    /// Its text.
    pub content: String,
    /// Found only where no letter, digit or underscore adjoins it.
    #[serde(default)]
    pub single_word: bool,
    /// Swallows the white space to its left.
    #[serde(default)]
    pub lstrip: bool,
    /// Swallows the white space to its right.
    #[serde(default)]
    pub rstrip: bool,
    /// Looked for in the cleaned text (lower-cased, say) and not in the text as typed.
    #[serde(default)]
    pub normalized: bool,
    /// Is a control token such as `[MASK]`.
    #[serde(default)]
    pub special: bool,
}

impl AddedToken {
    pub(super) fn special(id: u32, content: &str) -> Self {
        Self {
            id,
            content: content.into(),
            single_word: false,
            lstrip: false,
            rstrip: false,
            normalized: false,
            special: true,
        }
    }
}

/// Hugging Face writes a special token as its text, or as an object with the text in `content`.
fn token_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Object { content: String },
    }
    Ok(match Form::deserialize(deserializer)? {
        Form::Text(text) | Form::Object { content: text } => text,
    })
}

fn added_tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<AddedToken>, D::Error> {
    let by_id = std::collections::BTreeMap::<u32, AddedToken>::deserialize(deserializer)?;
    Ok(by_id.into_iter().map(|(id, token)| AddedToken { id, ..token }).collect())
}
