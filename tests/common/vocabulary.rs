//! Models whose vocabulary and answers are as many as in the published ones, and little else.
#![allow(dead_code)]

use lxmert::gguf::{Metadata, TensorSpec, TensorType, Writer};
use lxmert::model::{ARCHITECTURE, Config, Head, tensors};
use lxmert::text::Tokenizer;
use tempfile::NamedTempFile;

/// Pieces of the published checkpoints.
pub const BERT_PIECES: usize = 30_522;

/// Answers of the largest published head.
pub const ANSWERS: usize = 9500;

/// Different pieces of 4 to 13 letters, after the special ones.
pub fn pieces(count: usize) -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words = (0..count - special.len()).map(|n| {
        let letters = [n, n / 26, n / 676, n / 17_576].map(|n| char::from(b'a' + (n % 26) as u8));
        let word: String = letters.into_iter().chain("ingforest".chars().take(n * 7 % 10)).collect();
        if n % 5 == 0 { format!("##{word}") } else { word }
    });
    special.into_iter().chain(words).collect()
}

pub fn answers(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("answer {n}")).collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Json,
    Pieces,
}

/// A model that is as small as its vocabulary and answers let it be.
pub fn model(tokenizer: &Tokenizer, form: Form, labels: usize) -> NamedTempFile {
    let config = Config {
        vocab_size: tokenizer.vocab_size(),
        hidden_size: 1,
        num_attention_heads: 1,
        intermediate_size: 1,
        max_position_embeddings: 8,
        l_layers: 1,
        r_layers: 1,
        x_layers: 1,
        visual_feat_dim: 1,
        head: if labels == 0 { Head::None } else { Head::QuestionAnswering { labels } },
        ..Config::base()
    };
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", ARCHITECTURE).unwrap();
    config.write_metadata(&mut metadata).unwrap();
    metadata.insert("tokenizer.ggml.model", "bert").unwrap();
    metadata.insert("tokenizer.ggml.tokens", tokenizer.pieces()).unwrap();
    if form == Form::Json {
        metadata.insert("tokenizer.huggingface.json", tokenizer.to_json().unwrap()).unwrap();
    }
    if labels > 0 {
        metadata.insert("lxmert.classifier.output_labels", answers(labels)).unwrap();
    }
    let list: Vec<TensorSpec> = tensors(&config)
        .into_iter()
        .map(|tensor| TensorSpec { name: tensor.name, tensor_type: TensorType::F32, dims: tensor.dims })
        .collect();
    let bytes = |tensor: &TensorSpec| vec![0; 4 * tensor.dims.iter().product::<u64>() as usize];
    let data: Vec<Vec<u8>> = list.iter().map(bytes).collect();
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), Writer::to_vec(&metadata, &list, &data).unwrap()).unwrap();
    file
}
