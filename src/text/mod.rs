//! The tokenizer: a question becomes token ids.
