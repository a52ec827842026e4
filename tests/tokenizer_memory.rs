//! What a model holds beside its weights: the tokenizer and the answers. It is little, and known before it is taken.

#[path = "common/allocations.rs"]
mod allocations;

use allocations::{Counting, allocated};
use lxmert::Model;
use lxmert::gguf::{Metadata, TensorSpec, TensorType, Writer};
use lxmert::model::{ARCHITECTURE, Config, Head, tensors};
use lxmert::text::{AddedToken, BertOptions, Tokenizer};
use tempfile::NamedTempFile;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Pieces of the published checkpoints.
const BERT_PIECES: usize = 30_522;

/// Answers of the largest published head.
const ANSWERS: usize = 9500;

/// Different pieces of 4 to 13 letters, after the special ones.
fn pieces(count: usize) -> Vec<String> {
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words = (0..count - special.len()).map(|n| {
        let letters = [n, n / 26, n / 676, n / 17_576].map(|n| char::from(b'a' + (n % 26) as u8));
        let word: String = letters.into_iter().chain("ingforest".chars().take(n * 7 % 10)).collect();
        if n % 5 == 0 { format!("##{word}") } else { word }
    });
    special.into_iter().chain(words).collect()
}

fn answers(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("answer {n}")).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Json,
    Pieces,
}

/// A model that is as small as its vocabulary and answers let it be.
fn model(tokenizer: &Tokenizer, form: Form, labels: usize) -> NamedTempFile {
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

fn tokenizer(pieces: &[String]) -> Tokenizer {
    Tokenizer::from_vocab(pieces, &BertOptions::default()).unwrap()
}

#[test]
fn the_tokenizer_takes_what_was_announced() {
    // Sizes at which the library's tables are as full as they get, and just grown.
    for count in [134, 1000, 28_672, 28_673, BERT_PIECES] {
        let tokenizer = tokenizer(&pieces(count));
        for form in [Form::Json, Form::Pieces] {
            let file = model(&tokenizer, form, 0);
            let model = Model::open(file.path()).unwrap();
            let announced = model.tokenizer_bytes() + model.label_bytes();
            let (ids, memory) = allocated(|| model.tokenizer().unwrap().vocab_size());
            assert_eq!(ids, count);
            assert!(memory.rest <= announced, "{count} pieces: {announced} announced, {memory:?}");
            assert!(memory.rest * 10 >= announced * 6, "{count} pieces: {announced} announced, {memory:?}");
        }
    }
}

#[test]
fn added_tokens_take_no_more_than_was_announced() {
    let pieces = pieces(500);
    let letters: Vec<char> = ('a'..='z').chain('À'..='ö').chain('가'..='갛').chain('中'..='丿').collect();
    for (count, normalized) in [(1, false), (1, true), (300, false), (300, true), (3000, true)] {
        let added_tokens = (0..count)
            .map(|n| AddedToken {
                id: (pieces.len() + n) as u32,
                content: (0..3 + n % 5)
                    .map(|at| letters[(n * 31 + at * (n / 7 + 1)) % letters.len()])
                    .chain(format!("{n}").chars())
                    .collect(),
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized,
                special: true,
            })
            .collect();
        let options = BertOptions { added_tokens, strip_accents: Some(true), ..BertOptions::default() };
        let file = model(&Tokenizer::from_vocab(&pieces, &options).unwrap(), Form::Json, 0);
        let model = Model::open(file.path()).unwrap();
        let (ids, memory) = allocated(|| model.tokenizer().unwrap().vocab_size());
        let announced = model.tokenizer_bytes() + model.label_bytes();
        assert_eq!(ids, pieces.len() + count);
        assert!(memory.rest <= announced, "{count} {normalized}: {announced} announced, {memory:?}");
    }
}

#[test]
fn answers_take_what_was_announced() {
    let tokenizer = tokenizer(&pieces(20));
    let open = |labels| {
        let file = model(&tokenizer, Form::Pieces, labels);
        let (model, memory) = allocated(|| Model::open(file.path()).unwrap());
        (model.tokenizer_bytes() + model.label_bytes(), memory.rest)
    };
    let (few, many) = (open(1000), open(ANSWERS));
    // The same tensors, and the same answers up to there.
    assert_eq!(many.0 - few.0, many.1 - few.1);
    let texts: usize = answers(ANSWERS)[1000..].iter().map(String::len).sum();
    assert_eq!(many.0 - few.0, texts + (ANSWERS - 1000) * size_of::<String>());
}

#[test]
fn loading_takes_little_more_than_what_stays() {
    let tokenizer = tokenizer(&pieces(BERT_PIECES));
    for form in [Form::Json, Form::Pieces] {
        let file = model(&tokenizer, form, ANSWERS);
        let (model, opened) = allocated(|| Model::open(file.path()).unwrap());
        assert!(opened.rest < 1 << 19, "{opened:?}");
        assert!(opened.peak < 3 << 20, "{opened:?}");
        let (_, built) = allocated(|| model.tokenizer().unwrap().vocab_size());
        assert!(built.rest < 5 << 20, "{built:?}");
        assert!(built.peak < 6 << 20, "{built:?}");
        let (_, again) = allocated(|| model.tokenizer().unwrap().vocab_size());
        assert_eq!(again.times, 0);
    }
}

#[test]
fn threads_that_ask_at_once_get_the_same_tokenizer() {
    let file = model(&tokenizer(&pieces(BERT_PIECES)), Form::Json, 0);
    let model = Model::open(file.path()).unwrap();
    let addresses: Vec<usize> = std::thread::scope(|scope| {
        let address = || std::ptr::from_ref(model.tokenizer().unwrap()).addr();
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(address)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(addresses.iter().all(|address| *address == addresses[0]));
}
