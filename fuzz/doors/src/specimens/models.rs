//! GGUF files.

use lxmert::gguf::TensorType;
use lxmert::model::{Config, Head};

use super::List;
use crate::raw::{Key, Raw, array, kind, string};
use crate::tiny;

pub fn add(all: &mut List) {
    headers(all);
    sessions(all);
    requantizations(all);
}

/// Two tensors and three keys: all that the rules of the format need.
fn small() -> Raw {
    let mut raw = Raw::empty();
    raw.set_str("general.architecture", "lxmert");
    raw.set("a.flag", kind::BOOL, &[1]);
    raw.set("a.list", kind::ARRAY, &array(kind::U32, 2, &[0; 8]));
    raw.push("first", &[5]);
    raw.push("second", &[4, 2]);
    raw
}

/// One change, and words of the rule that it breaks.
type Change = (&'static str, &'static str, fn(&mut Raw));

const HEADERS: [Change; 53] = [
    ("magic", "not a GGUF file", |raw| raw.magic = *b"GGML"),
    ("version-2", "unsupported version", |raw| raw.version = 2),
    ("big-endian", "big-endian", |raw| raw.version = 3 << 24),
    ("tensor-count-huge", "impossible number of tensors", |raw| raw.tensor_count = Some(u64::MAX)),
    ("tensor-count-times-size-wraps", "impossible number of tensors", |raw| raw.tensor_count = Some(1 << 59)),
    ("tensor-count-one-more", "empty tensor name", |raw| raw.tensor_count = Some(3)),
    ("tensor-count-one-less", "trailing bytes", |raw| raw.tensor_count = Some(1)),
    ("key-count-huge", "impossible number of keys", |raw| raw.key_count = Some(u64::MAX)),
    ("key-count-times-size-wraps", "impossible number of keys", |raw| raw.key_count = Some(1 << 60)),
    ("key-count-one-more", "empty tensor name", |raw| raw.key_count = Some(4)),
    ("five-dimensions", "unsupported number of dimensions", |raw| raw.tensors[0].dims = vec![5, 1, 1, 1, 1]),
    ("dimension-count-huge", "unsupported number of dimensions", |raw| {
        raw.tensors[0].dim_count = Some(u32::MAX)
    }),
    ("no-dimensions", "unsupported number of dimensions", |raw| raw.tensors[0].dims.clear()),
    ("type-out-of-range", "unknown tensor type", |raw| raw.tensors[0].kind = 9999),
    ("type-removed-from-ggml", "unknown tensor type", |raw| raw.tensors[0].kind = 4),
    ("type-negative", "unknown tensor type", |raw| raw.tensors[0].kind = u32::MAX),
    ("zero-dimension", "zero dimension", |raw| raw.tensors[1].dims = vec![4, 0]),
    ("product-of-dimensions-wraps", "tensor too large", |raw| raw.tensors[0].dims = vec![1 << 32, 1 << 32]),
    ("product-of-dimensions-wraps-to-size", "tensor too large", |raw| {
        // 2^64 + 5 elements, if there were as many bits.
        raw.tensors[0].dims = vec![0x1_0000_0001, 0x1_0000_0000 - 1, 2];
    }),
    ("bytes-wrap", "tensor too large", |raw| raw.tensors[0].dims = vec![1 << 62]),
    ("dimension-negative", "tensor too large", |raw| raw.tensors[0].dims = vec![u64::MAX]),
    ("padded-sum-wraps", "too large", |raw| {
        // Each fits; both, padded, do not.
        raw.tensors[0].dims = vec![(i64::MAX as u64) / 4];
        raw.tensors[1].dims = vec![(i64::MAX as u64) / 4];
        raw.tensors[1].offset = Some((i64::MAX as u64 / 4 * 4).next_multiple_of(32));
        raw.push("third", &[4]);
        raw.tensors[2].offset = Some(0);
    }),
    ("row-of-half-a-block", "whole number of blocks", |raw| {
        (raw.tensors[0].dims, raw.tensors[0].kind) = (vec![16], TensorType::Q8_0.id());
    }),
    ("empty-key", "empty key", |raw| raw.keys[1].name.clear()),
    ("key-too-long", "key too long", |raw| raw.keys[1].name = vec![b'a'; 1025]),
    ("key-length-huge", "key too long", |raw| raw.keys[1].name_len = Some(u64::MAX)),
    ("key-not-utf8", "key not UTF-8", |raw| raw.keys[1].name = b"a.\xff".to_vec()),
    ("key-embedded-nul", "NUL in a key", |raw| raw.keys[1].name = b"a\0b".to_vec()),
    ("duplicate-key", "duplicate key", |raw| raw.keys[1].name = b"a.list".to_vec()),
    ("value-type-out-of-range", "unknown value type", |raw| raw.keys[1].kind = 13),
    ("bool-2", "malformed bool", |raw| raw.keys[1].value = vec![2]),
    ("bool-2-in-array", "malformed bool", |raw| {
        raw.set("a.list", kind::ARRAY, &array(kind::BOOL, 3, &[0, 1, 2]))
    }),
    ("string-length-huge", "string beyond the end", |raw| {
        raw.keys[0].value[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    }),
    ("string-not-utf8", "string not UTF-8", |raw| raw.keys[0].value = string(b"\xc3\x28")),
    ("string-embedded-nul", "NUL in a string", |raw| raw.keys[0].value = string(b"lxmert\0llama")),
    ("array-type-out-of-range", "type of array elements", |raw| {
        raw.set("a.list", kind::ARRAY, &array(77, 1, &[0; 8]));
    }),
    ("nested-arrays", "nested array", |raw| {
        raw.set(
            "a.list",
            kind::ARRAY,
            &array(kind::ARRAY, 1, &array(kind::ARRAY, 1, &array(kind::U8, 1, &[0]))),
        );
    }),
    ("nested-arrays-deep", "nested array", |raw| {
        let deep = (0..5000).fold(Vec::new(), |inner, _| [array(kind::ARRAY, 1, &[]), inner].concat());
        raw.set("a.list", kind::ARRAY, &deep);
    }),
    ("vec-from-header", "array beyond the end", |raw| {
        raw.set("a.list", kind::ARRAY, &array(kind::U8, 1 << 40, &[]));
    }),
    ("vec-of-strings-from-header", "array beyond the end", |raw| {
        raw.set("a.list", kind::ARRAY, &array(kind::STRING, 1 << 34, &[]));
    }),
    ("count-times-size-wraps", "array beyond the end", |raw| {
        raw.set("a.list", kind::ARRAY, &array(12, (1 << 61) + 1, &[0; 8]));
    }),
    ("alignment-3", "unusable alignment", |raw| raw.set_u32("general.alignment", 3)),
    ("alignment-0", "unusable alignment", |raw| raw.set_u32("general.alignment", 0)),
    ("alignment-huge", "unusable alignment", |raw| raw.set_u32("general.alignment", 1 << 31)),
    ("alignment-as-text", "unusable alignment", |raw| raw.set_str("general.alignment", "32")),
    ("tensor-name-empty", "empty tensor name", |raw| raw.tensors[0].name.clear()),
    ("tensor-name-too-long", "tensor name too long", |raw| raw.tensors[0].name = vec![b'n'; 64]),
    ("tensor-name-embedded-nul", "NUL in a tensor name", |raw| raw.tensors[0].name = b"a\0".to_vec()),
    ("tensor-name-not-utf8", "tensor name not UTF-8", |raw| raw.tensors[0].name = b"\xf0\x28".to_vec()),
    ("tensor-name-twice", "duplicate tensor name", |raw| raw.tensors[1].name = b"first".to_vec()),
    ("misaligned-data", "misaligned data", |raw| raw.tensors[1].offset = Some(20)),
    ("padding-not-zero", "padding not zero", |raw| raw.padding = 1),
    ("trailing-bytes", "trailing bytes", |raw| raw.tail = vec![0]),
];

/// Those about where data lies.
const PLACES: [Change; 5] = [
    ("overlap", "overlapping data", |raw| raw.tensors[1].offset = Some(0)),
    ("hole", "hole before the data", |raw| raw.tensors[1].offset = Some(64)),
    ("offset-huge", "hole before the data", |raw| raw.tensors[1].offset = Some(1 << 63)),
    ("data-cut-short", "data cut short", |raw| raw.tensors[1].dims = vec![1 << 40]),
    ("polyglot", "trailing bytes", |raw| raw.tail = b"PK\x03\x04#!/bin/sh\n".to_vec()),
];

fn headers(all: &mut List) {
    all.good("gguf", "valid-small", small().encode());
    all.good("gguf", "valid-empty", Raw { keys: Vec::new(), tensors: Vec::new(), ..small() }.encode());
    let mut aligned = small();
    aligned.alignment = 64;
    aligned.set_u32("general.alignment", 64);
    all.good("gguf", "valid-alignment-64", aligned.encode());
    for (name, rule, change) in HEADERS.into_iter().chain(PLACES) {
        let mut raw = small();
        change(&mut raw);
        all.bad("gguf", name, rule, raw.encode());
    }
    all.bad("gguf", "empty", "too short", []);
    all.bad("gguf", "magic-alone", "too short", *b"GGUF");
    let whole = small().encode();
    all.bad("gguf", "cut-in-the-header", "header cut short", &whole[..100]);
    all.bad("gguf", "cut-in-the-data", "data cut short", &whole[..whole.len() - 33]);

    let mut many = small();
    let key =
        |n: u32| Key { name: format!("{n:x}").into_bytes(), name_len: None, kind: kind::U8, value: vec![0] };
    many.keys = (0..40_000).map(|n| key(n % 39_999)).collect();
    all.bad("gguf", "40000-duplicate-keys", "too many keys", many.encode());
}

const MODELS: [Change; 54] = [
    ("architecture", "not \"lxmert\"", |raw| raw.set_str("general.architecture", "llama")),
    ("architecture-as-number", "wrong type", |raw| raw.set_u32("general.architecture", 1)),
    ("block-count-huge", "lxmert.language.block_count", |raw| {
        raw.set_u32("lxmert.language.block_count", u32::MAX)
    }),
    ("block-count-one-more", "no such tensor", |raw| raw.set_u32("lxmert.cross.block_count", 2)),
    ("block-count-none", "no such tensor in this configuration", |raw| {
        raw.set_u32("lxmert.vision.block_count", 0)
    }),
    ("heads-none", "head_count", |raw| raw.set_u32("lxmert.attention.head_count", 0)),
    ("heads-do-not-divide", "head_count", |raw| raw.set_u32("lxmert.attention.head_count", 3)),
    ("hidden-size-none", "embedding_length", |raw| raw.set_u32("lxmert.embedding_length", 0)),
    ("hidden-size-huge", "embedding_length", |raw| raw.set_u32("lxmert.embedding_length", 1 << 30)),
    ("hidden-size-negative", "found -8", |raw| raw.set("lxmert.embedding_length", 5, &(-8i32).to_le_bytes())),
    ("hyper-parameter-missing", "missing key", |raw| {
        raw.keys.retain(|key| key.name != b"lxmert.context_length")
    }),
    ("epsilon-zero", "layer_norm_epsilon", |raw| {
        raw.set("lxmert.attention.layer_norm_epsilon", kind::F32, &[0; 4])
    }),
    ("epsilon-nan", "layer_norm_epsilon", |raw| {
        raw.set("lxmert.attention.layer_norm_epsilon", kind::F32, &f32::NAN.to_le_bytes());
    }),
    ("activation", "hidden_act", |raw| raw.set_str("lxmert.hidden_act", "mish")),
    ("head", "lxmert.head", |raw| raw.set_str("lxmert.head", "captioning")),
    ("array-type-mismatch", "wrong type", |raw| {
        raw.set("tokenizer.ggml.tokens", kind::ARRAY, &array(kind::U32, 16, &[0; 64]));
    }),
    ("answers-of-another-type", "wrong type", |raw| {
        raw.set("lxmert.classifier.output_labels", kind::ARRAY, &array(kind::F32, 3, &[0; 12]));
    }),
    ("fewer-answers-than-rows", "output_labels", |raw| {
        raw.set_strs("lxmert.classifier.output_labels", &["yes"])
    }),
    ("vocabulary-smaller-than-ids", "tokenizer.ggml.tokens", |raw| {
        let more: Vec<String> = (0..17).map(|n| format!("piece{n}")).collect();
        raw.set_strs("tokenizer.ggml.tokens", &more.iter().map(String::as_str).collect::<Vec<_>>());
    }),
    ("json-vocabulary-smaller-than-ids", "ids below the word embedding", |raw| {
        let json = tiny::tokenizer_json().replace(r###""##t":15"###, r###""##t":15,"more":16"###);
        raw.set_str("tokenizer.huggingface.json", &json);
    }),
    ("pieces-twice", "piece", |raw| {
        raw.keys.retain(|key| !key.name.ends_with(b"_token_id"));
        raw.set_strs("tokenizer.ggml.tokens", &["[UNK]", "[CLS]", "[SEP]", "[CLS]"]);
    }),
    ("no-separator", "sep_token", |raw| {
        raw.keys.retain(|key| !key.name.ends_with(b"_token_id"));
        raw.set_strs("tokenizer.ggml.tokens", &["[UNK]", "[CLS]"]);
    }),
    ("grid-of-none", "rows", |raw| {
        raw.set("lxmert.vision.frontend.grid_size", kind::ARRAY, &array(kind::U32, 2, &[0; 8]));
    }),
    ("deviation-of-none", "std", |raw| {
        raw.set("lxmert.vision.frontend.image_std", kind::ARRAY, &array(kind::F32, 3, &[0; 12]));
    }),
    ("patches-of-another-size", "front end does not fit", |raw| {
        raw.set(
            "lxmert.vision.frontend.patch_size",
            kind::ARRAY,
            &array(kind::U32, 2, &[3, 0, 0, 0, 3, 0, 0, 0]),
        );
    }),
    ("tensor-missing", "no such tensor", |raw| drop(raw.tensors.remove(3))),
    ("tensor-unknown", "no such tensor in this configuration", |raw| raw.push("extra", &[4])),
    ("tensor-of-another-shape", "shape", |raw| raw.tensor("token_embd.weight").dims = vec![16, 8]),
    ("weights-as-integers", "a type of numbers", |raw| {
        raw.tensor("token_embd.weight").kind = TensorType::I32.id();
    }),
    ("norm-in-half-precision", "type f32", |raw| {
        let tensor = raw.tensor("token_embd_norm.weight");
        tensor.kind = TensorType::F16.id();
        tensor.fit();
    }),
    ("architecture-for-the-terminal", r"lx\u{1b}[2J\nmert", |raw| {
        raw.set_str("general.architecture", "lx\u{1b}[2J\nmert");
    }),
    ("architecture-long", "...", |raw| raw.set_str("general.architecture", &"a".repeat(10_000))),
    ("activation-long", "...", |raw| raw.set_str("lxmert.hidden_act", &"\u{1b}".repeat(3_000))),
    ("head-long", "...", |raw| raw.set_str("lxmert.head", &"a".repeat(10_000))),
    ("front-end-long", "...", |raw| raw.set_str("lxmert.vision.frontend", &"a".repeat(10_000))),
    ("key-long", "...", |raw| {
        let key = Key { name: vec![b'\n'; 1024], name_len: None, kind: kind::BOOL, value: vec![2] };
        raw.keys.push(key);
    }),
    ("special-id-beyond-the-pieces", "cls_token_id is 16", |raw| {
        raw.set_u32("tokenizer.ggml.cls_token_id", 16)
    }),
    ("special-id-huge", "mask_token_id is 4294967295", |raw| {
        raw.set_u32("tokenizer.ggml.mask_token_id", u32::MAX);
    }),
    ("pieces-none", "not in the vocabulary", |raw| {
        raw.keys.retain(|key| !key.name.ends_with(b"_token_id"));
        raw.set_strs("tokenizer.ggml.tokens", &[]);
    }),
    ("one-piece-for-all", "piece 1", |raw| raw.set_strs("tokenizer.ggml.tokens", &["a"; 16])),
    ("answers-none", "output_labels", |raw| raw.set_strs("lxmert.classifier.output_labels", &[])),
    ("answer-count-none", "label_count", |raw| raw.set_u32("lxmert.classifier.label_count", 0)),
    ("answer-count-huge", "label_count", |raw| raw.set_u32("lxmert.classifier.label_count", u32::MAX)),
    ("vocabulary-size-largest", "token_embd.weight", |raw| raw.set_u32("lxmert.vocab_size", 1 << 24)),
    ("positions-largest", "position_embd.weight", |raw| raw.set_u32("lxmert.context_length", 1 << 14)),
    ("blocks-largest", "no such tensor", |raw| {
        for key in ["language", "vision", "cross"] {
            raw.set_u32(&format!("lxmert.{key}.block_count"), 128);
        }
    }),
    ("heads-largest", "head_count", |raw| raw.set_u32("lxmert.attention.head_count", 1024)),
    ("grid-as-numbers-with-fraction", "wrong type", |raw| {
        raw.set("lxmert.vision.frontend.grid_size", kind::ARRAY, &array(kind::F32, 2, &[0; 8]));
    }),
    ("grid-of-three", "expected 2 values", |raw| {
        raw.set("lxmert.vision.frontend.grid_size", kind::ARRAY, &array(kind::U32, 3, &[1; 12]));
    }),
    ("mean-not-a-number", "mean is NaN", |raw| {
        let mean = f32::NAN.to_le_bytes().repeat(3);
        raw.set("lxmert.vision.frontend.image_mean", kind::ARRAY, &array(kind::F32, 3, &mean));
    }),
    ("layout-for-the-terminal", r"packed as a\nb\u{1b}c", |raw| {
        raw.set_str("lxmert.pack.layout", "a\nb\u{1b}c")
    }),
    ("layout-long", "...", |raw| raw.set_str("lxmert.pack.layout", &"a".repeat(10_000))),
    ("tokenizer-json-of-nothing", "not a usable BERT tokenizer", |raw| {
        raw.set_str("tokenizer.huggingface.json", "{}");
    }),
    ("tokenizer-json-nested-deep", "not a usable BERT tokenizer", |raw| {
        raw.set_str("tokenizer.huggingface.json", &"[".repeat(10_000));
    }),
];

/// Changes of a packed file.
const PACKED: [Change; 14] = [
    ("packed-another-layout", "does not read", |raw| raw.set_str("lxmert.pack.layout", "lxmert-0")),
    ("packed-layout-as-number", "wrong type", |raw| raw.set_u32("lxmert.pack.layout", 1)),
    ("packed-no-layout", "shape", |raw| raw.keys.retain(|key| key.name != b"lxmert.pack.layout")),
    ("packed-no-names", "missing key", |raw| raw.keys.retain(|key| key.name != b"lxmert.pack.tensors")),
    ("packed-names-of-numbers", "wrong type", |raw| {
        raw.set("lxmert.pack.tensors", kind::ARRAY, &array(kind::U32, 1, &[0; 4]));
    }),
    ("packed-one-name-less", "lxmert.pack.elements", |raw| {
        raw.set_strs("lxmert.pack.tensors", &[PACKED_NAME])
    }),
    ("packed-nothing", "shape", |raw| {
        for key in ["tensors", "elements", "types"] {
            raw.set_strs(&format!("lxmert.pack.{key}"), &[]);
        }
    }),
    ("packed-name-twice", "twice", |raw| one_packed(raw, &[PACKED_NAME; 2], "int8", "q8_0")),
    ("packed-name-unknown", "names of matrices", |raw| one_packed(raw, &["a\u{1b}b"], "i8", "q8_0")),
    ("packed-vector", "names of matrices", |raw| one_packed(raw, &["token_embd_norm.weight"], "i8", "q8_0")),
    ("packed-element-unknown", "elements for", |raw| one_packed(raw, &[PACKED_NAME], "i7", "q8_0")),
    ("packed-type-of-integers", "types of numbers", |raw| one_packed(raw, &[PACKED_NAME], "f32", "i32")),
    ("packed-data-of-another-type", "packed bytes", |raw| {
        raw.tensor(PACKED_NAME).kind = TensorType::F32.id();
        raw.tensor(PACKED_NAME).dims[0] /= 4;
    }),
    ("packed-aligned-to-32", "general.alignment is 32", |raw| {
        raw.alignment = 32;
        raw.set_u32("general.alignment", 32);
    }),
];

/// A matrix of the packed file.
const PACKED_NAME: &str = "blk.0.ffn_up.weight";

/// Says of a packed file that just these are packed.
fn one_packed(raw: &mut Raw, names: &[&str], element: &str, tensor_type: &str) {
    raw.set_strs("lxmert.pack.tensors", names);
    raw.set_strs("lxmert.pack.elements", &vec![element; names.len()]);
    raw.set_strs("lxmert.pack.types", &vec![tensor_type; names.len()]);
}

fn sessions(all: &mut List) {
    all.good("session", "valid", tiny::model().encode());
    let wide = Config { hidden_size: 32, intermediate_size: 32, x_layers: 0, ..tiny::config() };
    for tensor_type in
        [TensorType::F16, TensorType::BF16, TensorType::Q8_0, TensorType::Q4_0, TensorType::IQ4NL]
    {
        all.good("session", &format!("valid-{tensor_type}"), tiny::of(&wide, tensor_type).encode());
    }
    let mut plain = tiny::model();
    plain.keys.retain(|key| !key.name.starts_with(b"tokenizer.ggml.tokens"));
    all.good("session", "valid-without-tokenizer", plain.encode());
    let one = Config { max_position_embeddings: 1, head: Head::None, l_layers: 0, ..tiny::config() };
    let mut one = tiny::of(&one, TensorType::F32);
    one.keys.retain(|key| key.name != b"lxmert.classifier.output_labels");
    all.good("session", "valid-one-position-no-head", one.encode());
    let twice = Config { head: Head::Nlvr2, r_layers: 0, ..tiny::config() };
    let mut twice = tiny::of(&twice, TensorType::F32);
    twice.set_strs("lxmert.classifier.output_labels", &["False", "True"]);
    all.good("session", "valid-nlvr2", twice.encode());
    for (name, words, change) in MODELS {
        let mut raw = tiny::model();
        change(&mut raw);
        all.bad("session", name, words, raw.encode());
    }
    let mut wild = tiny::model();
    fill(&mut wild, f32::NAN);
    all.bad("session", "weights-not-a-number", "not finite", wild.encode());
    fill(&mut wild, f32::MAX);
    all.bad("session", "weights-too-large", "not finite", wild.encode());
    extremes(all);
    packed(all);
}

/// The least of everything, and texts that a terminal would obey.
fn extremes(all: &mut List) {
    let least = Config {
        vocab_size: 1,
        hidden_size: 1,
        num_attention_heads: 1,
        intermediate_size: 1,
        max_position_embeddings: 1,
        type_vocab_size: 1,
        l_layers: 0,
        r_layers: 0,
        x_layers: 0,
        head: Head::QuestionAnswering { labels: 1 },
        ..tiny::config()
    };
    let plain = |config: &Config| {
        let mut raw = tiny::of(config, TensorType::F32);
        raw.keys.retain(|key| !key.name.starts_with(b"tokenizer.ggml") || key.name.ends_with(b"_count"));
        raw.keys.retain(|key| key.name != b"lxmert.classifier.output_labels");
        raw
    };
    all.good("session", "valid-least", plain(&least).encode());
    for (name, act) in [("relu", "relu"), ("silu", "silu"), ("gelu_new", "gelu_new")] {
        let mut raw = plain(&Config { l_layers: 1, r_layers: 1, x_layers: 1, ..least.clone() });
        raw.set_str("lxmert.hidden_act", act);
        all.good("session", &format!("valid-least-{name}"), raw.encode());
    }
    let odd = Config { hidden_size: 7, num_attention_heads: 7, intermediate_size: 3, ..tiny::config() };
    all.good("session", "valid-heads-of-one", tiny::of(&odd, TensorType::F16).encode());
    let mut answers = tiny::model();
    answers.set_strs("lxmert.classifier.output_labels", &["", "a\nb\u{1b}[2J", &"long ".repeat(1000)]);
    all.good("session", "valid-answers-for-the-terminal", answers.encode());
    let mut named = tiny::model();
    named.set_str("general.name", &"\u{1b}]0;name\u{7}".repeat(300));
    all.good("session", "valid-name-for-the-terminal", named.encode());
    let mut twice = tiny::model();
    twice.set_u32("general.alignment", 16384);
    twice.alignment = 16384;
    twice.tensors.truncate(1);
    all.bad("session", "alignment-large", "no such tensor", twice.encode());

    // One number that is none, wherever it may lie: it must reach an answer as an error and never as an answer.
    for (place, tensor) in ["token_embd_norm.bias", "blk.0.attn_qkv.weight"].into_iter().enumerate() {
        for (name, value) in [("not-a-number", f32::NAN), ("infinite", f32::NEG_INFINITY)] {
            let mut raw = tiny::model();
            let data = &mut raw.tensor(tensor).data;
            data[..4].copy_from_slice(&value.to_le_bytes());
            all.bad("session", &format!("one-weight-{name}-{place}"), "not finite", raw.encode());
        }
    }
    let wide = Config { hidden_size: 32, intermediate_size: 32, r_layers: 0, x_layers: 0, ..tiny::config() };
    for (tensor_type, block) in [(TensorType::Q8_0, 34), (TensorType::Q4_0, 18), (TensorType::Q5_1, 24)] {
        for (name, scale) in [("not-a-number", 0x7e01u16), ("infinite", 0xfc00)] {
            let mut raw = tiny::of(&wide, tensor_type);
            let data = &mut raw.tensor("blk.0.attn_qkv.weight").data;
            data.chunks_mut(block).for_each(|block| block[..2].copy_from_slice(&scale.to_le_bytes()));
            all.bad("session", &format!("scales-{name}-{tensor_type}"), "not finite", raw.encode());
        }
    }
}

fn packed(all: &mut List) {
    let packed = tiny::packed();
    all.good("session", "valid-packed", packed.encode());
    all.bad("requantize", "packed", "packed to be run", packed.encode());
    for (name, words, change) in PACKED {
        let mut raw = packed.clone();
        change(&mut raw);
        all.bad("session", name, words, raw.encode());
    }
    let mut raw = packed.clone();
    raw.tensor(PACKED_NAME).data.fill(0xff);
    all.bad("session", "packed-data-of-ones", "not finite", raw.encode());
}

/// Makes every word's embedding of that number.
fn fill(raw: &mut Raw, value: f32) {
    let data = &mut raw.tensor("token_embd.weight").data;
    *data = value.to_le_bytes().repeat(data.len() / 4);
}

fn requantizations(all: &mut List) {
    all.good("requantize", "valid", tiny::model().encode());
    let wide = Config { hidden_size: 32, intermediate_size: 32, x_layers: 0, l_layers: 0, ..tiny::config() };
    all.good("requantize", "valid-q8_0", tiny::of(&wide, TensorType::Q8_0).encode());
    let mut cut = tiny::model().encode();
    cut.truncate(cut.len() - 32);
    all.bad("requantize", "data-cut-short", "data cut short", cut);
    let mut raw = tiny::model();
    raw.tensor("token_embd.weight").dims = vec![1 << 32, 1 << 32];
    all.bad("requantize", "product-of-dimensions-wraps", "tensor too large", raw.encode());
    let mut raw = tiny::model();
    fill(&mut raw, f32::NAN);
    all.bad("requantize", "weights-not-a-number", "not finite", raw.encode());
    let mut raw = tiny::of(&wide, TensorType::Q8_0);
    // Scales of 16 bits, infinite.
    let data = &mut raw.tensor("token_embd.weight").data;
    data.chunks_mut(34).for_each(|block| block[..2].copy_from_slice(&[0, 0x7c]));
    all.bad("requantize", "scales-infinite", "not finite", raw.encode());
    let mut raw = tiny::model();
    raw.set_str("tokenizer.huggingface.json", "{}");
    all.bad("requantize", "tokenizer-of-nothing", "not a usable BERT tokenizer", raw.encode());
    // Loading finds these; a conversion that did not would write a file that does not load.
    let mut raw = tiny::model();
    raw.set_str("tokenizer.ggml.cls_token_id", "2");
    all.bad("requantize", "id-as-text", "wrong type", raw.encode());
    let mut raw = tiny::model();
    raw.set_u32("general.name", 1);
    all.bad("requantize", "name-as-number", "wrong type", raw.encode());
    let mut raw = tiny::model();
    raw.set_u32("general.file_type", 4_000_000_000);
    all.good("requantize", "file-type-unknown", raw.encode());
}
