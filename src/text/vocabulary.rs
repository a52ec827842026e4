//! The tokenizer in a model file.

use super::size::Size;
use super::{BertOptions, Error, Tokenizer, json};
use crate::Limits;
use crate::gguf::{self, Array, Metadata, Value};

/// What a model's file says about its tokenizer, before the tokenizer is built: raw token ids need none.
#[derive(Debug)]
pub(crate) enum Vocabulary {
    /// The text of a `tokenizer.json`, which says everything.
    Json(String),
    /// The pieces alone, of a BERT tokenizer with its usual options.
    Pieces(Vec<String>, Box<BertOptions>),
}

const JSON: &str = "tokenizer.huggingface.json";
const MODEL: &str = "tokenizer.ggml.model";
const PIECES: &str = "tokenizer.ggml.tokens";

/// Special tokens by their keys. `seperator` is how the ecosystem spells it; some writers correct that.
const SPECIAL: [(&[&str], SetToken); 5] = [
    (&["tokenizer.ggml.unknown_token_id"], |options, text| options.unk_token = text),
    (&["tokenizer.ggml.seperator_token_id", "tokenizer.ggml.separator_token_id"], |options, text| {
        options.sep_token = text;
    }),
    (&["tokenizer.ggml.cls_token_id"], |options, text| options.cls_token = text),
    (&["tokenizer.ggml.padding_token_id"], |options, text| options.pad_token = text),
    (&["tokenizer.ggml.mask_token_id"], |options, text| options.mask_token = text),
];

type SetToken = fn(&mut BertOptions, String);

impl Vocabulary {
    /// Demands that every key of a tokenizer is of its type, whether it is needed or not.
    ///
    /// # Errors
    /// For a key of the wrong type.
    pub fn check(metadata: &Metadata) -> Result<(), gguf::Error> {
        metadata.opt_str(JSON)?;
        metadata.opt_strings(PIECES)?;
        metadata.opt_str(MODEL)?;
        Self::special_ids(metadata).map(|_| ())
    }

    /// The ids of the special tokens that the metadata names, with their keys.
    ///
    /// # Errors
    /// For a key of the wrong type.
    pub fn special_ids(
        metadata: &Metadata,
    ) -> Result<impl Iterator<Item = (&'static str, u32)>, gguf::Error> {
        let keys = SPECIAL.iter().flat_map(|(keys, _)| keys.iter());
        let ids = keys.map(|key| metadata.opt_u32(key).map(|id| id.map(|id| (*key, id))));
        Ok(ids.collect::<Result<Vec<_>, _>>()?.into_iter().flatten())
    }

    /// Takes what the metadata holds; `None` if it holds no tokenizer.
    ///
    /// # Errors
    /// For a key of the wrong type.
    pub fn from_metadata(mut metadata: Metadata) -> Result<Option<Self>, gguf::Error> {
        if metadata.opt_str(JSON)?.is_some()
            && let Some(Value::String(json)) = metadata.remove(JSON)
        {
            return Ok(Some(Vocabulary::Json(json)));
        }
        let Some(pieces) = metadata.opt_strings(PIECES)? else { return Ok(None) };
        if metadata.opt_str(MODEL)? != Some("bert") {
            return Ok(None);
        }
        let mut options = BertOptions::default();
        for (keys, set) in SPECIAL {
            for key in keys {
                let id = metadata.opt_u32(key)?;
                if let Some(piece) = id.and_then(|id| pieces.get(id as usize)) {
                    set(&mut options, piece.clone());
                }
            }
        }
        let Some(Value::Array(Array::String(pieces))) = metadata.remove(PIECES) else { return Ok(None) };
        Ok(Some(Vocabulary::Pieces(pieces, Box::new(options))))
    }

    /// The most bytes of memory that the tokenizer will hold; 0 if it cannot be built.
    pub fn memory_bytes(&self) -> usize {
        let size = match self {
            Vocabulary::Json(json) => json::size(json),
            Vocabulary::Pieces(pieces, options) => Some(Size {
                pieces: pieces.len(),
                piece_bytes: pieces.iter().map(String::len).sum(),
                added_tokens: options.special_tokens().len(),
                added_token_bytes: options.special_tokens().map(String::len).iter().sum(),
            }),
        };
        size.map_or(0, |size| size.memory_bytes())
    }

    /// Builds the tokenizer.
    ///
    /// # Errors
    /// [`Error::Invalid`] if it is no BERT tokenizer.
    pub fn into_tokenizer(self, limits: &Limits) -> Result<Tokenizer, Error> {
        match self {
            Vocabulary::Json(json) => Tokenizer::from_json_within(&json, limits),
            Vocabulary::Pieces(pieces, options) => Tokenizer::from_pieces(pieces, &options, limits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(separator_key: &str) -> Metadata {
        let pieces = ["<pad>", "<unk>", "<s>", "</s>", "what", "is", "##n", "?"].map(str::to_owned);
        let mut metadata = Metadata::new();
        metadata.insert("tokenizer.ggml.model", "bert").unwrap();
        metadata.insert("tokenizer.ggml.tokens", pieces.to_vec()).unwrap();
        for (key, id) in [("unknown", 1u32), ("cls", 2), (separator_key, 3), ("padding", 0)] {
            metadata.insert(format!("tokenizer.ggml.{key}_token_id"), id).unwrap();
        }
        metadata
    }

    #[test]
    fn pieces_and_special_ids_make_a_tokenizer_under_both_spellings() {
        for key in ["seperator", "separator"] {
            let vocabulary = Vocabulary::from_metadata(metadata(key)).unwrap().unwrap();
            let ids = vocabulary.into_tokenizer(&Limits::DEFAULT).unwrap().encode("What isn that?").unwrap();
            assert_eq!(ids, [2, 4, 5, 6, 1, 7, 3], "{key}");
        }
    }

    #[test]
    fn keys_of_another_type_are_found_before_they_are_needed() {
        assert!(Vocabulary::check(&metadata("separator")).is_ok());
        for key in [JSON, PIECES, MODEL, "tokenizer.ggml.cls_token_id", "tokenizer.ggml.seperator_token_id"] {
            let mut metadata = metadata("separator");
            metadata.set(key, 0.5f32).unwrap();
            assert!(Vocabulary::check(&metadata).is_err(), "{key}");
        }
    }

    #[test]
    fn a_file_without_tokenizer_is_no_error() {
        assert!(Vocabulary::from_metadata(Metadata::new()).unwrap().is_none());
    }
}
