//! The parts of a `tokenizer.json` that a BERT tokenizer has.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::size::Size;
use super::tokenizer::{Parts, Piece};
use super::{AddedToken, Error};
use crate::Limits;
use crate::limits::raise;

/// Sections whose content does not bear on the ids of a question are left out: `truncation` and `padding`
/// because a caller decides on the length, `decoder` because ids are never turned back into text.
#[derive(Deserialize)]
struct File<'j> {
    /// Nearly all of the file, so it stays text until it is known what to read from it.
    #[serde(borrow)]
    model: &'j RawValue,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Kind<'j> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'j, str>,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
    unk_token: String,
    #[serde(default = "hashes")]
    continuing_subword_prefix: String,
    #[serde(default = "hundred")]
    max_input_chars_per_word: usize,
}

fn hashes() -> String {
    "##".into()
}

fn hundred() -> usize {
    100
}

#[derive(Deserialize)]
pub(super) struct Normalizer {
    pub clean_text: bool,
    pub handle_chinese_chars: bool,
    #[serde(default)]
    pub strip_accents: Option<bool>,
    pub lowercase: bool,
}

#[derive(Deserialize)]
struct Template {
    single: Vec<Step>,
    special_tokens: HashMap<String, TemplateToken>,
}

#[derive(Deserialize)]
enum Step {
    SpecialToken { id: String },
    Sequence {},
}

#[derive(Deserialize)]
struct TemplateToken {
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct BertProcessing {
    sep: (String, u32),
    cls: (String, u32),
}

/// A vocabulary of which only the size is wanted.
#[derive(Default)]
struct Counted {
    pieces: usize,
    bytes: usize,
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(transparent)]
        struct Text<'j>(#[serde(borrow)] Cow<'j, str>);

        struct Pieces;

        impl<'de> Visitor<'de> for Pieces {
            type Value = Counted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from pieces to ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counted, A::Error> {
                let mut counted = Counted::default();
                while let Some((Text(piece), _)) = map.next_entry::<_, u32>()? {
                    counted.pieces += 1;
                    counted.bytes += piece.len();
                }
                Ok(counted)
            }
        }

        deserializer.deserialize_map(Pieces)
    }
}

/// How much a tokenizer of the file would hold, without building it; `None` if [`parse`] would refuse it.
pub(super) fn size(json: &str) -> Option<Size> {
    #[derive(Deserialize)]
    struct Model {
        vocab: Counted,
    }

    let file: File = serde_json::from_str(json).ok()?;
    let model: Model = serde_json::from_str(file.model.get()).ok()?;
    Some(Size {
        pieces: model.vocab.pieces,
        piece_bytes: model.vocab.bytes,
        added_tokens: file.added_tokens.len(),
        added_token_bytes: file.added_tokens.iter().map(|token| token.content.len()).sum(),
    })
}

/// Refuses a text that is too long to be parsed.
pub(super) fn check_len(what: &str, json: &str, limits: &Limits) -> Result<(), Error> {
    let (len, most) = (json.len(), limits.string_bytes);
    if len > most {
        let raise = raise!(string_bytes);
        return Err(Error::invalid(format!("{what} is {len} bytes long, more than {most} ({raise})")));
    }
    Ok(())
}

pub(super) fn parse(json: &str, limits: &Limits) -> Result<Parts, Error> {
    check_len("tokenizer.json", json, limits)?;
    let file: File =
        serde_json::from_str(json).map_err(|error| Error::invalid(format!("tokenizer.json: {error}")))?;

    // Files of old versions of the library name no type here.
    if let Ok(Kind { kind }) = serde_json::from_str(file.model.get())
        && kind != "WordPiece"
    {
        return Err(unsupported("model", &json!({ "type": kind }), "WordPiece"));
    }
    let model: Model =
        serde_json::from_str(file.model.get()).map_err(|error| Error::invalid(format!("model: {error}")))?;
    if model.continuing_subword_prefix != "##" {
        return Err(Error::invalid(format!(
            "model: continuing_subword_prefix is {:?}, not \"##\"",
            model.continuing_subword_prefix
        )));
    }
    let normalizer = match file.normalizer {
        None => None,
        Some(value) if kind(&value) == Some("BertNormalizer") => Some(section("normalizer", value)?),
        Some(value) => return Err(unsupported("normalizer", &value, "BertNormalizer")),
    };
    match &file.pre_tokenizer {
        Some(value) if kind(value) == Some("BertPreTokenizer") => {}
        other => {
            let value = other.as_ref().unwrap_or(&Value::Null);
            return Err(unsupported("pre_tokenizer", value, "BertPreTokenizer"));
        }
    }
    let (cls, sep) = ends(file.post_processor)?;
    Ok(Parts {
        vocab: model.vocab,
        unk_token: model.unk_token,
        max_word_chars: model.max_input_chars_per_word,
        normalizer,
        cls,
        sep,
        added_tokens: file.added_tokens,
    })
}

/// The tokens that are put before and after the question.
fn ends(post_processor: Option<Value>) -> Result<(Piece, Piece), Error> {
    let value = post_processor.unwrap_or(Value::Null);
    match kind(&value) {
        Some("BertProcessing") => {
            let section: BertProcessing = section("post_processor", value)?;
            let [cls, sep] = [section.cls, section.sep].map(|(text, id)| Piece { text, id });
            Ok((cls, sep))
        }
        Some("TemplateProcessing") => {
            let template: Template = section("post_processor", value)?;
            let [Step::SpecialToken { id: cls }, Step::Sequence {}, Step::SpecialToken { id: sep }] =
                template.single.as_slice()
            else {
                return Err(Error::invalid(
                    "post_processor: the template for one text is not token, text, token",
                ));
            };
            let id_of = |name: &String| match template.special_tokens.get(name) {
                Some(TemplateToken { ids }) if ids.len() == 1 => Ok(Piece { text: name.clone(), id: ids[0] }),
                _ => Err(Error::invalid(format!(
                    "post_processor: special_tokens does not give one id for {name:?}"
                ))),
            };
            Ok((id_of(cls)?, id_of(sep)?))
        }
        _ => Err(unsupported("post_processor", &value, "TemplateProcessing or BertProcessing")),
    }
}

fn kind(section: &Value) -> Option<&str> {
    section.get("type").and_then(Value::as_str)
}

fn section<T: serde::de::DeserializeOwned>(name: &str, value: Value) -> Result<T, Error> {
    serde_json::from_value(value).map_err(|error| Error::invalid(format!("{name}: {error}")))
}

fn unsupported(name: &str, value: &Value, expected: &str) -> Error {
    let found = match kind(value) {
        Some(kind) => format!("is of type {:?}", kind.chars().take(40).collect::<String>()),
        None if value.is_null() => "is missing".into(),
        None => "has no type".into(),
    };
    Error::invalid(format!("{name} {found}; only {expected} can be used"))
}
