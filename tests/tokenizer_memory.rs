//! What a model holds beside its weights: the tokenizer and the answers. It is little, and known before it is taken.

#[path = "common/allocations.rs"]
mod allocations;
#[path = "common/vocabulary.rs"]
mod vocabulary;

use allocations::{Counting, allocated};
use lxmert::Model;
use lxmert::text::{AddedToken, BertOptions, Tokenizer};
use vocabulary::{ANSWERS, BERT_PIECES, Form, answers, model, pieces};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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
