//! The tokenizer of a checkpoint's directory.

use std::path::{Path, PathBuf};

use lxmert::gguf::Metadata;
use lxmert::text::{BertOptions, Tokenizer};

use crate::Error;
use crate::files::{existing, read_bounded};

/// The largest tokenizer file that is read; that of BERT has less than one MB.
const MAX_BYTES: u64 = 64 << 20;

/// A tokenizer and the files that it was made from.
pub(crate) struct FoundTokenizer {
    /// The files, the one that names it in messages first.
    pub files: Vec<PathBuf>,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
}

impl FoundTokenizer {
    /// Reads `tokenizer.json` or, without one, `vocab.txt` with the options in `tokenizer_config.json`.
    pub fn find(directory: &Path) -> Result<Option<Self>, Error> {
        if let Some(path) = existing(directory, "tokenizer.json") {
            let tokenizer = Tokenizer::from_json(&read_text(&path)?).map_err(refusal(&path))?;
            return Ok(Some(FoundTokenizer { files: vec![path], tokenizer }));
        }
        let Some(vocabulary) = existing(directory, "vocab.txt") else { return Ok(None) };
        let mut files = vec![vocabulary.clone()];
        let mut options = BertOptions::default();
        if let Some(path) = existing(directory, "tokenizer_config.json") {
            options = BertOptions::from_json(&read_text(&path)?).map_err(refusal(&path))?;
            files.push(path);
        }
        let text = read_text(&vocabulary)?;
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let pieces: Vec<_> =
            text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
        let tokenizer = Tokenizer::from_vocab(&pieces, &options).map_err(refusal(&vocabulary))?;
        Ok(Some(FoundTokenizer { files, tokenizer }))
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
        metadata.insert("tokenizer.huggingface.json", json)?;
        Ok(())
    }
}

fn read_text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read_bounded(path, MAX_BYTES)?)
        .map_err(|_| Error::Tokenizer { path: path.to_owned(), reason: "it is not UTF-8".to_owned() })
}

fn refusal(path: &Path) -> impl FnOnce(lxmert::text::Error) -> Error {
    move |error| Error::Tokenizer { path: path.to_owned(), reason: error.to_string() }
}
