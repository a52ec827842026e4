//! Tokenizers, and texts for them.

use super::List;
use crate::{parts, tiny};

pub fn add(all: &mut List) {
    tokenizers(all);
    questions(all);
}

fn tokenizers(all: &mut List) {
    let good = tiny::tokenizer_json();
    let with = |json: &str, text: &[u8]| parts::join(&[json.as_bytes(), text]);
    all.good("tokenizer", "valid", with(&good, b"What is it? a ants"));
    all.good(
        "tokenizer",
        "valid-accents",
        with(&good, "Wh\u{e0}t \u{4e2d}\u{6587} is\u{301} \u{fffd}\u{0}it".as_bytes()),
    );
    all.good("tokenizer", "valid-long-word", with(&good, &[b'n'; 60_000]));
    all.bad("tokenizer", "empty", "not a usable", with("", b"what"));
    all.bad("tokenizer", "empty-text", "empty", with(&good, b" \t"));
    all.bad("tokenizer", "text-not-utf8", "utf-8", with(&good, b"\xff"));
    all.bad("tokenizer", "text-too-long", "shorten it", with(&good, &[b' '; 66_000]));
    all.bad("tokenizer", "nested-deep", "not a usable", with(&"{\"model\":".repeat(5_000), b"what"));
    // What other programs write or ignore, too.
    for (name, from, to) in [
        ("ids-with-a-hole", r###""##t":15"###, r###""##t":17"###),
        ("piece-twice", r###""##t":15"###, r###""##s":15"###),
        ("truncation", r#""truncation":null"#, r#""truncation":{"max_length":0,"stride":1}"#),
    ] {
        assert!(good.contains(from), "{from}");
        all.good("tokenizer", &format!("valid-{name}"), with(&good.replace(from, to), b"what is it?"));
    }
    for (name, words, from, to) in [
        ("id-huge", "too high", r###""##t":15"###, r###""##t":4294967295"###),
        ("id-beyond-32-bits", "expected u32", r###""##t":15"###, r###""##t":4294967296"###),
        ("id-negative", "expected u32", r###""##t":15"###, r###""##t":-1"###),
        ("id-twice", "both have id 14", r###""##t":15"###, r###""##t":14"###),
        ("other-model", "only WordPiece", "WordPiece", "BPE"),
        ("other-normalizer", "only BertNormalizer", "BertNormalizer", "NFKC"),
        ("other-pre-tokenizer", "only BertPreTokenizer", "BertPreTokenizer", "Whitespace"),
        (
            "unknown-piece-missing",
            "not in the vocabulary",
            r#""unk_token":"[UNK]""#,
            r#""unk_token":"<unk>""#,
        ),
        ("special-id-elsewhere", "has id 99", r#""ids":[2]"#, r#""ids":[99]"#),
        (
            "word-length-huge",
            "not between 1 and 256",
            r#""max_input_chars_per_word":100"#,
            r#""max_input_chars_per_word":18446744073709551615"#,
        ),
        (
            "word-length-negative",
            "expected usize",
            r#""max_input_chars_per_word":100"#,
            r#""max_input_chars_per_word":-1"#,
        ),
        ("no-vocabulary", "missing field `vocab`", r#""vocab""#, r#""vocabulary""#),
        (
            "prefix-of-none",
            "not \"##\"",
            r###""continuing_subword_prefix":"##""###,
            r#""continuing_subword_prefix":"""#,
        ),
        ("vocabulary-as-list", "invalid type", r#""vocab":{"#, r#""vocab":[],"other":{"#),
        (
            "normalizer-with-a-pattern",
            "only BertNormalizer",
            r#""type":"BertNormalizer""#,
            r#""type":"Replace","pattern":{"Regex":"(a+)+$"},"content":"""#,
        ),
        (
            "normalizers-in-a-row",
            "only BertNormalizer",
            r#""type":"BertNormalizer""#,
            r#""type":"Sequence","normalizers":[{"type":"Sequence","normalizers":[]}]"#,
        ),
        (
            "pre-tokenizer-with-a-pattern",
            "only BertPreTokenizer",
            r#""type":"BertPreTokenizer""#,
            r#""type":"Split","pattern":{"Regex":"(?:(?:a*)*)*b"},"behavior":"Isolated","invert":false"#,
        ),
        (
            "step-with-a-line-break",
            "unknown variant `a\\nb",
            r#"{"Sequence":{"id":"A","type_id":0}}"#,
            r#"{"a\nb\u001b[2J":1}"#,
        ),
        ("template-of-none", "is not token, text, token", r#""single":["#, r#""single":[],"other":["#),
        (
            "template-token-unknown",
            "does not give one id",
            r#""special_tokens":{"#,
            r#""special_tokens":{},"other":{"#,
        ),
        ("ids-of-a-token-none", "does not give one id", r#""ids":[2]"#, r#""ids":[]"#),
        ("added-tokens-as-object", "invalid type", r#""added_tokens":["#, r#""added_tokens":{},"other":["#),
    ] {
        assert!(good.contains(from), "{from}");
        all.bad("tokenizer", name, words, with(&good.replace(from, to), b"what is it?"));
    }
    added_tokens(all);
    let long = "n".repeat(3_000);
    for (name, words, from, to) in [
        ("unknown-piece-long", "...", r#""unk_token":"[UNK]""#, format!(r#""unk_token":"{long}""#)),
        ("piece-long-twice", "...", r###""##t":15"###, format!(r#""{long}":14"#)),
        (
            "type-long",
            "only WordPiece",
            r#""type":"WordPiece","unk_token""#,
            format!(r#""type":"{long}","unk_token""#),
        ),
        ("field-long", "invalid type", r#""clean_text":true"#, format!(r#""clean_text":"{long}""#)),
    ] {
        assert!(good.contains(from), "{from}");
        all.bad("tokenizer", name, words, with(&good.replacen(from, &to, 1), b"what is it?"));
    }
    let pieces: Vec<String> = (15..1000).map(|id| format!(r#""{}{id}":{id}"#, "n".repeat(id % 7))).collect();
    let many = good.replace(r###""##t":15"###, &pieces.join(","));
    all.good("tokenizer", "valid-many-pieces", with(&many, "n".repeat(99).as_bytes()));
    all.good(
        "tokenizer",
        "valid-piece-of-nothing",
        with(&good.replace(r###""##t":15"###, r#""":15"#), b"what is it?"),
    );
}

/// What is found in a text before it is divided into words.
fn added_tokens(all: &mut List) {
    let good = tiny::tokenizer_json();
    let with = |tokens: &str, text: &[u8]| {
        let json = good.replacen(r#""added_tokens":["#, &format!(r#""added_tokens":[{tokens},"#), 1);
        assert!(json != good);
        parts::join(&[json.as_bytes(), text])
    };
    let token = |id: u64, content: &str, more: &str| format!(r#"{{"id":{id},"content":"{content}"{more}}}"#);
    for (name, words, tokens) in [
        ("added-token-of-nothing", "must have a visible character", token(16, "", "")),
        ("added-token-of-blanks", "must have a visible character", token(16, " ", "")),
        (
            "added-token-of-controls",
            "must have a visible character",
            token(16, "\\u0001", r#","normalized":true"#),
        ),
        ("added-token-beyond-a-gap", "must have no gap", token(17, "new", "")),
        ("added-token-id-huge", "too high", token(u64::from(u32::MAX), "new", "")),
        ("added-token-id-beyond-32-bits", "expected u32", token(1 << 40, "new", "")),
        ("added-token-with-another-id", "id", token(3, "what", "")),
        (
            "added-tokens-that-clean-to-one",
            "cleans to the same text",
            [token(16, "\u{c4}b", r#","normalized":true"#), token(17, "ab", r#","normalized":true"#)]
                .join(","),
        ),
    ] {
        all.bad("tokenizer", name, words, with(&tokens, b"what is it?"));
    }
    let overlapping: Vec<String> = (0..300)
        .map(|n| token(16 + n as u64, &"a".repeat(n + 2), r#","lstrip":true,"rstrip":true"#))
        .collect();
    all.good("tokenizer", "valid-added-tokens-that-overlap", with(&overlapping.join(","), &[b'a'; 10_000]));
    let pattern = token(16, "(a+)+$", r#","normalized":true,"single_word":true"#);
    all.good(
        "tokenizer",
        "valid-added-token-like-a-pattern",
        with(&pattern, b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!"),
    );
}

fn questions(all: &mut List) {
    all.good("question", "valid", *b"What is it?");
    all.good("question", "valid-unknown-words", "\u{1f600} na\u{ef}ve \u{202e}abc".as_bytes());
    all.bad("question", "empty", "empty", []);
    all.bad("question", "blank", "empty", *b" \n\t ");
    all.bad("question", "not-utf8", "utf-8", *b"what \xe2\x82");
    all.bad("question", "too-many-words", "tokens", "what is ".repeat(100).into_bytes());
    all.bad("question", "too-long", "shorten it", vec![b'a'; 66_000]);
    all.good("question", "nul", *b"what\0is");
    all.bad("question", "only-controls", "empty", *b"\x01\x02\x7f");
    all.bad("question", "words-of-one-letter", "tokens", "\u{4e2d}".repeat(5_000).into_bytes());
    all.bad(
        "question",
        "only-invisible",
        "empty",
        "\u{200b}\u{feff}\u{200d}\u{ad}".repeat(1000).into_bytes(),
    );
    all.good("question", "special-tokens", *b"[CLS] [SEP] [MASK]");
    all.good("question", "letters-that-grow", "\u{fdfa}\u{1e9e}\u{149}\u{130}".repeat(20).into_bytes());
    all.good("question", "marks-on-one-letter", format!("a{}", "\u{301}".repeat(5000)).into_bytes());
}
