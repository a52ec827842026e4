//! The tokenizer: a question becomes token ids.
//!
//! LXMERT reads text as BERT does, in WordPiece tokens. The work is done by the `tokenizers` crate, the
//! same code that stands behind Hugging Face's `BertTokenizer`, so the ids agree on any text. That crate
//! runs every pipeline that a `tokenizer.json` can describe, among them regular expressions from the
//! file and templates with any ids. A file from a stranger is therefore not handed to it: [`Tokenizer`]
//! reads the parts that a BERT tokenizer has, checks them, and builds the pipeline itself.

mod error;
mod json;
mod options;
mod size;
mod tokenizer;
mod vocabulary;

pub use error::Error;
pub use options::{AddedToken, BertOptions};
pub use tokenizer::{Encoded, SpecialIds, Tokenizer};
pub(crate) use vocabulary::Vocabulary;
