//! The tokenizer against what Hugging Face's `BertTokenizer` made of the same texts, and against files
//! that it must refuse. `tests/tokenizer/record.py` recorded the cases and names the library's version.

use std::path::PathBuf;

use lxmert::Limits;
use lxmert::text::{AddedToken, BertOptions, Error, SpecialIds, Tokenizer};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Record {
    texts: Vec<String>,
    variants: Vec<Variant>,
}

#[derive(Deserialize)]
struct Variant {
    name: String,
    vocab: String,
    json: String,
    options: BertOptions,
    size: usize,
    special_ids: [u32; 5],
    ids: Vec<Vec<u32>>,
}

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizer").join(name);
    std::fs::read_to_string(path).unwrap()
}

fn record() -> Record {
    serde_json::from_str(&fixture("cases.json")).unwrap()
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(String::from).collect()
}

impl Variant {
    fn by_json(&self) -> Tokenizer {
        Tokenizer::from_json(&fixture(&self.json)).unwrap()
    }

    fn by_vocab(&self) -> Tokenizer {
        Tokenizer::from_vocab(&lines(&fixture(&self.vocab)), &self.options).unwrap()
    }
}

fn assert_agrees(tokenizer: &Tokenizer, variant: &Variant, texts: &[String]) {
    assert_eq!(texts.len(), variant.ids.len());
    for (text, ids) in texts.iter().zip(&variant.ids) {
        let found = tokenizer.encode(text);
        if ids.len() == 2 {
            assert_eq!(found, Err(Error::EmptyQuestion), "{} {text:?}", variant.name);
        } else {
            assert_eq!(found.as_ref(), Ok(ids), "{} {text:?}", variant.name);
        }
    }
}

#[test]
fn ids_from_tokenizer_json_equal_hugging_face() {
    let record = record();
    for variant in &record.variants {
        assert_agrees(&variant.by_json(), variant, &record.texts);
    }
}

#[test]
fn ids_from_a_vocabulary_equal_hugging_face() {
    let record = record();
    for variant in &record.variants {
        assert_agrees(&variant.by_vocab(), variant, &record.texts);
    }
}

#[test]
fn ids_survive_writing_and_reading_tokenizer_json() {
    let record = record();
    for variant in &record.variants {
        let text = variant.by_vocab().to_json().unwrap();
        assert_eq!(text, variant.by_json().to_json().unwrap());
        assert_agrees(&Tokenizer::from_json(&text).unwrap(), variant, &record.texts);
    }
}

#[test]
fn pieces_and_special_ids_equal_hugging_face() {
    for variant in record().variants {
        let [unk, sep, cls, pad, mask] = variant.special_ids.map(Some);
        let special = SpecialIds { unk, sep, cls, pad, mask };
        for tokenizer in [variant.by_json(), variant.by_vocab()] {
            assert_eq!(tokenizer.vocab_size(), variant.size);
            assert_eq!(tokenizer.pieces(), lines(&fixture(&variant.vocab)));
            assert_eq!(tokenizer.special_ids(), special);
        }
    }
}

fn easy_vqa() -> Tokenizer {
    Tokenizer::from_json(&fixture("easy_vqa.tokenizer.json")).unwrap()
}

#[test]
fn truncation_keeps_the_last_separator_and_counts_what_is_dropped() {
    let tokenizer = easy_vqa();
    let question = "what is the color of the circle?";
    let whole = [2, 29, 17, 26, 10, 20, 26, 9, 51, 3];
    for limit in [10, 11, 20] {
        let encoded = tokenizer.encode_truncated(question, limit).unwrap();
        assert_eq!((encoded.ids.as_slice(), encoded.dropped), (&whole[..], 0));
    }
    let encoded = tokenizer.encode_truncated(question, 9).unwrap();
    assert_eq!(encoded.ids, [2, 29, 17, 26, 10, 20, 26, 9, 3]);
    assert_eq!(encoded.dropped, 1);
    let encoded = tokenizer.encode_truncated(question, 3).unwrap();
    assert_eq!(encoded.ids, [2, 29, 3]);
    assert_eq!(encoded.dropped, 7);
}

#[test]
fn refuses_a_limit_without_room_for_a_word() {
    for limit in [0, 1, 2] {
        assert_eq!(easy_vqa().encode_truncated("red", limit), Err(Error::LimitTooSmall { limit }));
    }
}

#[test]
fn refuses_a_question_longer_than_the_limit() {
    let tokenizer = easy_vqa();
    let limit = Limits::DEFAULT.question_bytes;
    let longest = "red ".repeat(limit / 4);
    assert_eq!(tokenizer.encode(&longest).unwrap().len(), limit / 4 + 2);
    assert_eq!(tokenizer.encode(&(longest + "r")), Err(Error::TooLong { bytes: limit + 1, limit }));
}

#[test]
fn truncation_and_padding_of_the_file_are_switched_off() {
    let mut file: Value = serde_json::from_str(&fixture("easy_vqa.tokenizer.json")).unwrap();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 20}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"});
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    let ids = tokenizer.encode("what shape is present?").unwrap();
    assert_eq!(ids, [2, 29, 24, 17, 21, 51, 3]);
}

#[test]
fn a_file_with_bert_processing_gives_the_same_ids() {
    let mut file: Value = serde_json::from_str(&fixture("easy_vqa.tokenizer.json")).unwrap();
    file["post_processor"] = json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]});
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    assert_eq!(tokenizer.encode("red").unwrap(), easy_vqa().encode("red").unwrap());
}

/// As Hugging Face adds one: special tokens are looked for as typed, others in the cleaned text.
fn added_token(id: u32, content: &str, special: bool) -> AddedToken {
    AddedToken {
        id,
        content: content.into(),
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: !special,
        special,
    }
}

/// Ids recorded from `BertTokenizer` after `add_tokens(["traffic light"])` and
/// `add_tokens([AddedToken("<obj>", special=True, normalized=False)])`.
#[test]
fn added_tokens_are_found_before_words_are_split() {
    let options = BertOptions {
        added_tokens: vec![added_token(135, "<obj>", true), added_token(134, "traffic light", false)],
        ..BertOptions::default()
    };
    let pieces = lines(&fixture("easy_vqa.vocab.txt"));
    let tokenizer = Tokenizer::from_vocab(&pieces, &options).unwrap();
    assert_eq!(tokenizer.vocab_size(), 136);
    assert_eq!(tokenizer.pieces()[134..], ["traffic light", "<obj>"]);
    let question = "Is the TRAFFIC LIGHT<obj> red?";
    let ids = [2, 17, 26, 134, 135, 23, 51, 3];
    assert_eq!(tokenizer.encode(question).unwrap(), ids);
    let read_back = Tokenizer::from_json(&tokenizer.to_json().unwrap()).unwrap();
    assert_eq!(read_back.encode(question).unwrap(), ids);
    assert_eq!(read_back.vocab_size(), 136);
}

#[test]
fn options_are_read_from_tokenizer_config_json() {
    let options = BertOptions::from_json(
        r#"{"tokenizer_class": "BertTokenizer", "do_lower_case": false, "strip_accents": true,
            "unk_token": {"content": "<unk>", "lstrip": false}, "sep_token": "</s>", "model_max_length": 512,
            "added_tokens_decoder": {"7": {"content": "<x>", "special": true}}}"#,
    )
    .unwrap();
    let expected = BertOptions {
        do_lower_case: false,
        strip_accents: Some(true),
        unk_token: "<unk>".into(),
        sep_token: "</s>".into(),
        added_tokens: vec![added_token(7, "<x>", true)],
        ..BertOptions::default()
    };
    assert_eq!(options, expected);
    assert!(matches!(BertOptions::from_json(r#"{"do_lower_case": "yes"}"#), Err(Error::Invalid { .. })));
}

#[test]
fn an_id_without_a_piece_keeps_its_place() {
    let mut file: Value = serde_json::from_str(&fixture("easy_vqa.tokenizer.json")).unwrap();
    file["model"]["vocab"].as_object_mut().unwrap().remove("red");
    let tokenizer = Tokenizer::from_json(&file.to_string()).unwrap();
    let pieces = tokenizer.pieces();
    let gap = easy_vqa().pieces().iter().position(|p| p == "red").unwrap();
    assert_eq!(pieces[gap], format!("[PAD{gap}]"));
    assert_eq!(pieces.len(), 134);
    let again = Tokenizer::from_vocab(&pieces, &BertOptions::default()).unwrap();
    assert_eq!(again.encode("red blue").unwrap(), tokenizer.encode("red blue").unwrap());
}

/// The reason for which the easy-VQA file is refused once it has been changed.
fn reason_after(change: impl FnOnce(&mut Value)) -> String {
    let mut file: Value = serde_json::from_str(&fixture("easy_vqa.tokenizer.json")).unwrap();
    change(&mut file);
    match Tokenizer::from_json(&file.to_string()) {
        Err(Error::Invalid { reason }) => {
            assert!(!reason.contains('\n') && reason.len() < 400, "{reason}");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn refuses_what_is_not_berts_pipeline() {
    let reason = reason_after(|file| file["model"]["type"] = json!("BPE"));
    assert_eq!(reason, r#"model is of type "BPE"; only WordPiece can be used"#);
    let reason = reason_after(|file| {
        file["pre_tokenizer"] =
            json!({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed", "invert": false});
    });
    assert_eq!(reason, r#"pre_tokenizer is of type "Split"; only BertPreTokenizer can be used"#);
    let reason = reason_after(|file| file["pre_tokenizer"] = Value::Null);
    assert!(reason.starts_with("pre_tokenizer is missing"), "{reason}");
    let reason = reason_after(|file| {
        file["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "("}, "content": ""});
    });
    assert!(reason.starts_with("normalizer is of type \"Replace\""), "{reason}");
    let reason = reason_after(|file| file["post_processor"] = Value::Null);
    assert!(reason.starts_with("post_processor is missing"), "{reason}");
    let reason = reason_after(|file| file["model"]["continuing_subword_prefix"] = json!(""));
    assert!(reason.contains("continuing_subword_prefix"), "{reason}");
}

#[test]
fn refuses_a_template_that_leaves_the_vocabulary() {
    let reason = reason_after(|file| {
        file["post_processor"]["special_tokens"]["[CLS]"]["ids"] = json!([4_000_000_000u32]);
    });
    assert!(reason.contains("4000000000"), "{reason}");
    let reason = reason_after(|file| {
        file["post_processor"]["special_tokens"]["[CLS]"]["ids"] = json!([2, 2]);
    });
    assert!(reason.contains("does not give one id"), "{reason}");
    let reason = reason_after(|file| file["post_processor"]["single"] = json!([]));
    assert!(reason.contains("not token, text, token"), "{reason}");
}

#[test]
fn refuses_ids_that_collide_or_are_out_of_range() {
    let reason = reason_after(|file| file["model"]["vocab"]["red"] = json!(5));
    assert!(reason.contains("both have id 5"), "{reason}");
    let reason = reason_after(|file| file["model"]["vocab"]["red"] = json!(u32::MAX));
    assert!(reason.contains("id 4294967295 is too high"), "{reason}");
    let reason = reason_after(|file| file["model"]["vocab"]["red"] = json!(-1));
    assert!(reason.starts_with("model: "), "{reason}");
    let reason = reason_after(|file| file["model"]["unk_token"] = json!("[NONE]"));
    assert!(reason.contains("[NONE]"), "{reason}");
    let reason = reason_after(|file| {
        file["model"]["vocab"] = json!({});
        file["added_tokens"] = json!([]);
    });
    assert_eq!(reason, "the vocabulary is empty");
    let reason = reason_after(|file| file["added_tokens"][0]["id"] = json!(1));
    assert!(reason.contains("both have id 1"), "{reason}");
    let reason = reason_after(|file| {
        let tokens = file["added_tokens"].as_array_mut().unwrap();
        tokens.push(json!({"id": 900, "content": "<far>"}));
    });
    assert!(reason.contains("must have no gap"), "{reason}");
    for blank in ["", " ", " x"] {
        let reason = reason_after(|file| {
            let tokens = file["added_tokens"].as_array_mut().unwrap();
            tokens.push(json!({"id": 134, "content": blank}));
        });
        assert!(reason.contains("white space"), "{reason}");
    }
}

#[test]
fn refuses_added_tokens_that_clean_to_nothing_or_to_the_same() {
    let with = |contents: &[&str]| {
        let mut file: Value = serde_json::from_str(&fixture("easy_vqa.tokenizer.json")).unwrap();
        for (id, content) in (134..).zip(contents) {
            let token =
                json!({"id": id, "content": content, "normalized": true, "lstrip": true, "rstrip": true});
            file["added_tokens"].as_array_mut().unwrap().push(token);
        }
        Tokenizer::from_json(&file.to_string())
    };
    assert!(with(&["\u{200b}"]).is_err());
    assert!(with(&["Ab", "aB"]).is_err());
    let tokenizer = with(&["中", "国", "é\u{301}", "x  y"]).unwrap();
    for text in ["中国 中 国国", " 国  中中 ", "e é\u{301} É", "x  yx  y x y", "中x  y国\u{301}"]
    {
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.iter().all(|&id| id < 138));
    }
}

#[test]
fn refuses_words_of_unlimited_length() {
    for limit in [0, 1_000_000_000] {
        let reason = reason_after(|file| file["model"]["max_input_chars_per_word"] = json!(limit));
        assert!(reason.starts_with("max_input_chars_per_word"), "{reason}");
    }
}

#[test]
fn refuses_json_that_is_deep_broken_or_huge() {
    let deep = "[".repeat(100_000);
    let in_model = format!(r#"{{"model": {deep}"#);
    let huge = " ".repeat((16 << 20) + 1);
    for text in ["", "{}", "null", "[1]", "{\"model\": 1}", &deep, &in_model, &huge] {
        let error = Tokenizer::from_json(text).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(!error.to_string().contains('\n'));
    }
}

#[test]
fn refuses_a_vocabulary_without_its_special_tokens_or_with_a_repeated_piece() {
    let pieces = |texts: &[&str]| texts.iter().map(|t| t.to_string()).collect::<Vec<_>>();
    let build = |texts: &[&str]| Tokenizer::from_vocab(&pieces(texts), &BertOptions::default());
    assert!(build(&["[UNK]", "[CLS]", "[SEP]", "a"]).is_ok());
    for (texts, expected) in [
        (&["[CLS]", "[SEP]", "a"][..], "unk_token"),
        (&["[UNK]", "[SEP]", "a"], "cls_token"),
        (&["[UNK]", "[CLS]", "a"], "sep_token"),
        (&["[UNK]", "[CLS]", "[SEP]", "a", "a"], "piece 4 is \"a\", and so is piece 3"),
        (&[], "cls_token"),
    ] {
        let error = build(texts).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn one_tokenizer_serves_several_threads() {
    fn shareable<T: Send + Sync>() {}
    shareable::<Tokenizer>();
}

proptest! {
    #[test]
    fn any_text_gives_ids_within_the_vocabulary(text in any::<String>(), more in "[\\PC\u{300}-\u{36f}\\[\\]SEPMASK 中-国]{0,60}") {
        let tokenizer = Tokenizer::from_json(&fixture("mixed.tokenizer.json")).unwrap();
        for text in [&text, &more] {
            if let Ok(ids) = tokenizer.encode(text) {
                prop_assert!(ids.len() >= 3);
                prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            }
        }
    }

    #[test]
    fn a_damaged_file_is_refused_or_harmless(at in 0usize..4849, byte in 0u8..128, len in 0usize..4849) {
        let mut bytes = fixture("easy_vqa.tokenizer.json").into_bytes();
        bytes[at] = byte;
        let damaged = String::from_utf8(bytes).unwrap();
        for text in [&damaged[..], &damaged[..len]] {
            if let Ok(tokenizer) = Tokenizer::from_json(text) {
                let _ = tokenizer.encode("what [SEP] shape is présent?");
                tokenizer.to_json().unwrap();
            }
        }
    }
}
