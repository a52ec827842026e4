//! The tokenizer of a checkpoint's directory.

use std::path::{Path, PathBuf};

use lxmert::Limits;
use lxmert::gguf::Metadata;
use lxmert::text::{BertOptions, Tokenizer};

use crate::Error;
use crate::files::{existing, read_bounded};

/// A tokenizer and the files that it was made from.
pub(crate) struct FoundTokenizer {
    /// The files, the one that names it in messages first.
    pub files: Vec<PathBuf>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}

impl FoundTokenizer {
    /// Reads the tokenizer that a person has named: a directory as [`find`](Self::find) takes it, or one of its files.
    pub fn given(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let nothing = || Error::Tokenizer {
            path: path.to_owned(),
            reason: "no tokenizer.json or vocab.txt".to_owned(),
        };
        if path.is_dir() {
            return Self::find(path, limits)?.ok_or_else(nothing);
        }
        let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
        if is_json {
            Self::read_json(path.to_owned(), limits)
        } else {
            Self::read_vocabulary(path.to_owned(), None, limits)
        }
    }

    /// The tokenizer in a GGUF file, if it has one.
    pub fn in_gguf(path: &Path, metadata: &Metadata, limits: &Limits) -> Result<Option<Self>, Error> {
        let Some(json) = metadata.opt_str("tokenizer.huggingface.json")? else { return Ok(None) };
        let tokenizer = Tokenizer::from_json_within(json, limits).map_err(refusal(path))?;
        Ok(Some(FoundTokenizer { files: vec![path.to_owned()], tokenizer }))
    }

    /// Reads `tokenizer.json` or, without one, `vocab.txt` with the options in `tokenizer_config.json`.
    pub fn find(directory: &Path, limits: &Limits) -> Result<Option<Self>, Error> {
        if let Some(path) = existing(directory, "tokenizer.json") {
            return Self::read_json(path, limits).map(Some);
        }
        let Some(vocabulary) = existing(directory, "vocab.txt") else { return Ok(None) };
        Self::read_vocabulary(vocabulary, existing(directory, "tokenizer_config.json"), limits).map(Some)
    }

    fn read_json(path: PathBuf, limits: &Limits) -> Result<Self, Error> {
        let tokenizer =
            Tokenizer::from_json_within(&read_text(&path, limits)?, limits).map_err(refusal(&path))?;
        Ok(FoundTokenizer { files: vec![path], tokenizer })
    }

    fn read_vocabulary(
        vocabulary: PathBuf,
        options_path: Option<PathBuf>,
        limits: &Limits,
    ) -> Result<Self, Error> {
        let mut files = vec![vocabulary.clone()];
        let mut options = BertOptions::default();
        if let Some(path) = options_path {
            options =
                BertOptions::from_json_within(&read_text(&path, limits)?, limits).map_err(refusal(&path))?;
            files.push(path);
        }
        let text = read_text(&vocabulary, limits)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let pieces: Vec<_> =
            text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
        let tokenizer =
            Tokenizer::from_vocab_within(&pieces, &options, limits).map_err(refusal(&vocabulary))?;
        Ok(FoundTokenizer { files, tokenizer })
    }

    /// Demands that every id has its row in the word embedding.
    pub fn check_size(&self, vocab_size: usize) -> Result<(), Error> {
        let ids = self.tokenizer.vocab_size();
        if ids <= vocab_size {
            return Ok(());
        }
        let reason = format!("its ids go up to {}, the model's vocab_size is {vocab_size}", ids - 1);
        Err(Error::Tokenizer { path: self.files[0].clone(), reason })
    }

    /// Writes the pieces, the special ids and the whole tokenizer.
    pub fn write_metadata(&self, metadata: &mut Metadata) -> Result<(), Error> {
        metadata.insert("tokenizer.ggml.model", "bert")?;
        metadata.insert("tokenizer.ggml.tokens", self.tokenizer.pieces())?;
        let special = self.tokenizer.special_ids();
        let ids = [
            ("unknown", special.unk),
            // The key is misspelt in every GGUF file.
            ("seperator", special.sep),
            ("cls", special.cls),
            ("padding", special.pad),
            ("mask", special.mask),
        ];
        for (name, id) in ids {
            if let Some(id) = id {
                metadata.insert(format!("tokenizer.ggml.{name}_token_id"), id)?;
            }
        }
        let json = self.tokenizer.to_json().map_err(refusal(&self.files[0]))?;
        // By default: who loads the file may not know that this one was converted with other limits.
        let most = Limits::DEFAULT.string_bytes;
        if json.len() > most {
            let reason = format!("it is {} bytes as tokenizer.json, the runtime takes {most}", json.len());
            return Err(Error::Tokenizer { path: self.files[0].clone(), reason });
        }
        metadata.insert("tokenizer.huggingface.json", json)?;
        Ok(())
    }
}

fn read_text(path: &Path, limits: &Limits) -> Result<String, Error> {
    String::from_utf8(read_bounded(path, limits)?)
        .map_err(|_| Error::Tokenizer { path: path.to_owned(), reason: "it is not UTF-8".to_owned() })
}

fn refusal(path: &Path) -> impl FnOnce(lxmert::text::Error) -> Error {
    move |error| Error::Tokenizer { path: path.to_owned(), reason: error.to_string() }
}
