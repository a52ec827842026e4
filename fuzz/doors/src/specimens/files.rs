//! Weights and small files of checkpoints, and features.

use std::io::{Cursor, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::{List, fixture};
use crate::{parts, tiny};

pub fn add(all: &mut List) {
    safetensors(all);
    directories(all);
    features(all);
}

/// A safetensors file of that header and so many bytes of zeros.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat()
}

/// A header of one tensor.
fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
}

fn safetensors(all: &mut List) {
    let whole = tiny::safetensors();
    all.good("safetensors", "valid", whole.clone());
    all.bad("safetensors", "empty", "fewer than the 8", []);
    all.bad(
        "safetensors",
        "header-length-huge",
        "its header claims",
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
    );
    all.bad(
        "safetensors",
        "header-length-beyond-the-end",
        "its header claims",
        [&3u64.to_le_bytes()[..], b"{}"].concat(),
    );
    all.bad("safetensors", "cut-short", "cut short", &whole[..whole.len() - 1]);
    all.bad("safetensors", "trailing-bytes", "too long", [&whole[..], b"\0"].concat());
    all.bad("safetensors", "not-json", "header is broken", with_header("{]", 0));
    all.bad("safetensors", "not-utf8", "header is broken", [&3u64.to_le_bytes()[..], b"{\xff}"].concat());
    all.bad("safetensors", "nested-deep", "header is broken", with_header(&"{\"a\":".repeat(4_000), 0));
    all.bad("safetensors", "no-tensors", "missing", with_header("{}", 0));
    for (name, words, header, data) in [
        ("shape-wraps", "overflow computing", one("F32", "[4294967296,4294967296]", "[0,0]"), 0),
        ("shape-and-size-disagree", "invalid shape", one("F32", "[2,2]", "[0,8]"), 8),
        ("shape-negative", "header is broken", one("F32", "[-1]", "[0,4]"), 4),
        ("zero-dimension", "unknown: \"a\" [0, 4]", one("F32", "[0,4]", "[0,0]"), 0),
        ("offsets-backwards", "invalid offset", one("F32", "[1]", "[4,0]"), 4),
        (
            "offsets-huge",
            "invalid offset",
            one("F32", "[1]", "[18446744073709551612,18446744073709551615]"),
            4,
        ),
        ("hole", "invalid offset", one("F32", "[1]", "[4,8]"), 8),
        ("dtype-unknown", "header is broken", one("F31", "[1]", "[0,4]"), 4),
        ("many-dimensions", "unknown: \"a\"", one("F32", &format!("[{}1]", "1,".repeat(10_000)), "[0,4]"), 4),
        (
            "name-embedded-nul",
            "unknown: \"a\\0b\"",
            one("F32", "[1]", "[0,4]").replace("\"a\"", r#""a\u0000b""#),
            4,
        ),
        (
            "name-of-several-lines",
            "unknown: \"a\\nb\"",
            one("F32", "[1]", "[0,4]").replace("\"a\"", r#""a\nb""#),
            4,
        ),
    ] {
        all.bad("safetensors", name, words, with_header(&header, data));
    }
    let escapes = "a\\n\\u001b[2J";
    for (name, words, header) in [
        (
            "name-for-the-terminal",
            r"a\n\u{1b}[2J",
            one("F32", "[4]", "[4,8]").replace("\"a\"", &format!("\"{escapes}\"")),
        ),
        ("dtype-for-the-terminal", r"a\n\u{1b}[2J", one(escapes, "[1]", "[0,4]")),
        ("dtype-long", "...", one(&"F".repeat(5_000), "[1]", "[0,4]")),
        (
            "name-long",
            "...",
            one("F32", "[4]", "[4,8]").replace("\"a\"", &format!("\"{}\"", "a".repeat(5_000))),
        ),
        ("shape-of-fractions", "header is broken", one("F32", "[1.5]", "[0,4]")),
        ("shape-of-1e999", "header is broken", one("F32", "[1e999]", "[0,4]")),
        ("offsets-of-three", "header is broken", one("F32", "[1]", "[0,4,8]")),
        ("metadata-of-numbers", "header is broken", r#"{"__metadata__":{"a":1}}"#.to_owned()),
        ("metadata-alone", "missing", r#"{"__metadata__":{"a":"b"}}"#.to_owned()),
        ("header-as-list", "header is broken", "[]".to_owned()),
        ("header-of-blanks", "header is broken", " ".repeat(5_000)),
        ("tensor-as-null", "header is broken", r#"{"a":null}"#.to_owned()),
    ] {
        let data = [(8, "[4,8]"), (4, "[0,4]")].iter().find(|(_, place)| header.contains(place));
        all.bad("safetensors", name, words, with_header(&header, data.map_or(0, |(data, _)| *data)));
    }
    let many: Vec<String> = (0..200)
        .map(|n| format!(r#""t{n}":{{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0]}}"#))
        .collect();
    all.bad(
        "safetensors",
        "many-of-none",
        "tensors have",
        with_header(&format!("{{{}}}", many.join(",")), 0),
    );
    let twice = |name: &str| format!(r#""{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#);
    let header = format!("{{{},{}}}", twice("a"), twice("a"));
    all.bad("safetensors", "name-twice", "twice", with_header(&header, 4));
    let header = format!("{{{},{}}}", twice("a"), twice("b"));
    all.bad("safetensors", "overlap", "invalid offset", with_header(&header, 4));
    let mut wild = whole.clone();
    let at = whole.len() - 4;
    wild[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    all.bad("safetensors", "not-a-number", "not finite", wild);
}

/// The parts of a directory, changed in some places.
fn directory(changes: &[(usize, &str)]) -> Vec<u8> {
    let mut files = [const { String::new() }; 7];
    files[0] = tiny::CONFIG_JSON.to_owned();
    files[1] = tiny::tokenizer_json();
    files[4] = r#"["yes","no","red"]"#.to_owned();
    for (place, text) in changes {
        files[*place] = (*text).to_owned();
    }
    parts::join(&files.each_ref().map(|file| file.as_bytes()))
}

fn directories(all: &mut List) {
    let vocab = tiny::PIECES.join("\n");
    all.good("directory", "valid", directory(&[]));
    all.good(
        "directory",
        "valid-vocab",
        directory(&[(1, ""), (2, &vocab), (3, r#"{"do_lower_case":true}"#)]),
    );
    let config =
        |fields: &str| directory(&[(0, &tiny::CONFIG_JSON.replacen('{', &format!("{{{fields},"), 1))]);
    all.bad("directory", "no-config", "no config.json", directory(&[(0, "")]));
    all.bad("directory", "config-not-json", "not the JSON", directory(&[(0, "{")]));
    all.bad("directory", "config-nested-deep", "not the JSON", directory(&[(0, &"[".repeat(10_000))]));
    all.bad("directory", "config-twice", "not the JSON", config(r#""model_type":"lxmert""#));
    all.bad("directory", "config-negative", "not the JSON", config(r#""hidden_size":-8"#));
    all.bad("directory", "config-number-huge", "not the JSON", config(r#""vocab_size":1e999"#));
    all.bad("directory", "config-text-for-number", "not the JSON", config(r#""l_layers":"1""#));
    all.bad(
        "directory",
        "config-layers-huge",
        "l_layers is 18446744073709551615",
        config(r#""l_layers":18446744073709551615"#),
    );
    all.bad("directory", "config-hidden-size", "hidden_size is 16", config(r#""hidden_size":16"#));
    all.bad("directory", "config-other-model", "only lxmert", directory(&[(0, r#"{"model_type":"bert"}"#)]));
    for (name, words, fields) in [
        ("config-type-for-the-terminal", r"a\n\u{1b}b", r#""hidden_size":"a\n\u001bb""#),
        ("config-layers-half", "not the JSON", r#""l_layers":0.5"#),
        ("config-vocabulary-of-none", "vocab_size is 0", r#""vocab_size":0"#),
        (
            "config-answers-huge",
            "num_qa_labels is 18446744073709551615",
            r#""num_qa_labels":18446744073709551615"#,
        ),
        (
            "config-positions-huge",
            "max_position_embeddings",
            r#""max_position_embeddings":18446744073709551615"#,
        ),
        ("config-features-huge", "visual_feat_dim", r#""visual_feat_dim":18446744073709551615"#),
        ("config-name-embedded-nul", "NUL", r#""_name_or_path":"a\u0000b""#),
        ("config-tasks-of-text", "not the JSON", r#""task_qa":"yes""#),
    ] {
        all.bad("directory", name, words, config(fields));
    }
    let long = "a".repeat(5_000);
    all.bad(
        "directory",
        "config-model-long",
        "...",
        directory(&[(0, &format!(r#"{{"model_type":"{long}"}}"#))]),
    );
    all.bad(
        "directory",
        "config-activation-long",
        "...",
        directory(&[(0, &format!(r#"{{"num_attention_heads":2,"hidden_act":"{long}"}}"#))]),
    );
    all.good("directory", "valid-class-for-the-terminal", config(r#""architectures":["a\n\u001b[2J"]"#));
    all.good("directory", "valid-name-for-the-terminal", config(r#""_name_or_path":"a/\u001b]0;b\u0007""#));
    let heads = |heads: &str| directory(&[(0, &tiny::CONFIG_JSON.replace(":2,", &format!(":{heads},")))]);
    all.bad("directory", "config-heads-none", "head_count is 0", heads("0"));
    all.bad("directory", "config-heads-do-not-divide", "expected a divisor", heads("3"));
    all.bad("directory", "config-heads-huge", "expected 1 to 1024", heads("18446744073709551615"));
    all.bad(
        "directory",
        "config-activation",
        "hidden_act",
        directory(&[(0, r#"{"num_attention_heads":2,"hidden_act":"mish"}"#)]),
    );
    let labelled = |table: &str| {
        let config = tiny::CONFIG_JSON.replacen('{', &format!("{{\"id2label\":{table},"), 1);
        directory(&[(0, &config), (4, "")])
    };
    all.bad(
        "directory",
        "labels-ids-huge",
        "id 2 is missing",
        labelled(r#"{"0":"a","1":"b","18446744073709551615":"c"}"#),
    );
    all.bad("directory", "labels-ids-negative", "entry \"-1\"", labelled(r#"{"-1":"a","1":"b","2":"c"}"#));
    all.bad("directory", "labels-id-twice", "id 0 occurs twice", labelled(r#"{"0":"a","0":"b","1":"c"}"#));
    all.bad(
        "directory",
        "answers-too-many",
        "4 answers for a head of 3",
        directory(&[(4, r#"["a","b","c","d"]"#)]),
    );
    all.bad(
        "directory",
        "answers-embedded-nul",
        "NUL in a string",
        directory(&[(4, r#"["a\u0000","b","c"]"#)]),
    );
    all.bad("directory", "answers-of-numbers", "neither a string", directory(&[(4, "[1,2,3]")]));
    all.bad(
        "directory",
        "vocab-too-large",
        "ids go up to 18",
        directory(&[(1, ""), (2, &format!("{vocab}\nmore\nthan\nrows"))]),
    );
    all.bad("directory", "vocab-twice", "piece 3", directory(&[(1, ""), (2, "[UNK]\n[CLS]\n[SEP]\n[CLS]")]));
    all.bad(
        "directory",
        "tokenizer-config-not-json",
        "options:",
        directory(&[(1, ""), (2, &vocab), (3, "{]")]),
    );
    all.bad(
        "directory",
        "preprocessing-of-none",
        "rows is 0",
        directory(&[(5, r#"{"grid":[0,0],"patch_size":[0,0],"mean":[0,0,0],"std":[0,0,0]}"#)]),
    );
    all.bad("directory", "preprocessing-not-json", "not the JSON", directory(&[(5, "[")]));
    for (name, words, grid, patch, mean, std) in [
        ("grid-huge", "rows is 4294967295", "[4294967295,4294967295]", "[1,1]", "[0,0,0]", "[1,1,1]"),
        ("grid-negative", "not the JSON", "[-1,2]", "[2,2]", "[0,0,0]", "[1,1,1]"),
        ("grid-of-three", "not the JSON", "[2,2,2]", "[2,2]", "[0,0,0]", "[1,1,1]"),
        ("mean-infinite", "not the JSON", "[2,2]", "[2,2]", "[1e999,0,0]", "[1,1,1]"),
        ("mean-beyond-32-bits", "mean is inf", "[2,2]", "[2,2]", "[1e300,0,0]", "[1,1,1]"),
        ("deviation-negative", "std is -1", "[2,2]", "[2,2]", "[0,0,0]", "[-1,1,1]"),
        ("patches-of-another-size", "patches have 27 features", "[2,2]", "[3,3]", "[0,0,0]", "[1,1,1]"),
    ] {
        let json = format!(r#"{{"grid":{grid},"patch_size":{patch},"mean":{mean},"std":{std}}}"#);
        all.bad("directory", &format!("preprocessing-{name}"), words, directory(&[(5, &json)]));
    }
    let order = r#"{"grid":[2,2],"patch_size":[2,2],"mean":[0,0,0],"std":[1,1,1],"channels":"B\u001bR"}"#;
    all.bad("directory", "preprocessing-for-the-terminal", r"B\u{1b}R", directory(&[(5, order)]));
    all.bad("directory", "vocab-of-nothing", "not a usable", directory(&[(1, ""), (2, "\n")]));
    all.bad("directory", "vocab-piece-long", "...", directory(&[(1, ""), (2, &format!("{long}\n{long}"))]));
    all.bad(
        "directory",
        "tokenizer-config-token-as-list",
        "options:",
        directory(&[(1, ""), (2, &vocab), (3, r#"{"unk_token":["a"]}"#)]),
    );
    all.bad(
        "directory",
        "tokenizer-config-token-elsewhere",
        "not in the vocabulary",
        directory(&[(1, ""), (2, &vocab), (3, r#"{"cls_token":"\u001b[2J"}"#)]),
    );
    all.bad(
        "directory",
        "tokenizer-config-added-id-huge",
        "too high",
        directory(&[(1, ""), (2, &vocab), (3, r#"{"added_tokens_decoder":{"4294967295":{"content":"a"}}}"#)]),
    );
    all.bad("directory", "answers-for-the-terminal", r"\n\u{1b}", labelled(r#"{"a\n\u001b":1.5}"#));
    for (name, words, index) in [
        ("index-leads-out", "not the plain name", r#"{"weight_map":{"a":"../../etc/passwd"}}"#),
        ("index-absolute", "not the plain name", r#"{"weight_map":{"a":"/etc/passwd"}}"#),
        ("index-of-absent", "not there", r#"{"weight_map":{"a":"absent.safetensors"}}"#),
        ("index-disagrees", "not in its shard", r#"{"weight_map":{"a":"shard.safetensors"}}"#),
        (
            "index-of-itself",
            "not a valid safetensors",
            r#"{"weight_map":{"a":"model.safetensors.index.json"}}"#,
        ),
        ("index-empty", "missing", r#"{"weight_map":{}}"#),
        ("index-of-the-directory", "not the plain name", r#"{"weight_map":{"a":"."}}"#),
        ("index-of-the-one-above", "not the plain name", r#"{"weight_map":{"a":".."}}"#),
        ("index-of-nothing", "not the plain name", r#"{"weight_map":{"a":""}}"#),
        ("index-with-a-backslash", "not the plain name", r#"{"weight_map":{"a":"..\\\\a"}}"#),
        ("index-embedded-nul", "not the plain name", r#"{"weight_map":{"a":"shard\u0000.safetensors"}}"#),
        ("index-for-the-terminal", r"\n\u{1b}[2J", r#"{"weight_map":{"a":"\n\u001b[2J"}}"#),
        ("index-of-numbers", "not the JSON", r#"{"weight_map":{"a":1}}"#),
        ("index-without-map", "not the JSON", r#"{"metadata":{"total_size":-1}}"#),
    ] {
        all.bad("directory", name, words, directory(&[(6, index)]));
    }
}

/// A file of features of that kind.
fn kind(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}

/// An array of NumPy's with any header.
fn npy(header: &str, data: usize) -> Vec<u8> {
    [b"\x93NUMPY\x01\0", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), &vec![0; data]].concat()
}

/// A header of NumPy's.
fn npy_header(descr: &str, shape: &str) -> String {
    format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
}

fn npz(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, SimpleFileOptions::default()).expect("a member");
        zip.write_all(bytes).expect("memory");
    }
    zip.finish().expect("memory").into_inner()
}

/// Archives of arrays that are odd as archives.
fn archives(all: &mut List, good: &[u8], boxes: &[u8]) {
    let whole = npz(&[("features.npy", good), ("boxes.npy", boxes)]);
    let list = whole.windows(4).position(|found| found == b"PK\x01\x02").expect("a list of members");
    let end = whole.windows(4).position(|found| found == b"PK\x05\x06").expect("an end");
    for (name, words, at, bytes) in [
        ("encrypted", "Password required", list + 8, &[1u8, 0][..]),
        ("method-unknown", "method not supported", list + 10, &[99, 0]),
        ("checksum", "Invalid checksum", list + 16, &[1, 2, 3, 4]),
        ("name-length-huge", "invalid Zip", list + 28, &[0xff, 0xff]),
        ("far-away", "invalid Zip", list + 42, &[0xf0, 0xff, 0xff, 0x7f]),
        ("claimed-65535-times", "invalid Zip", end + 8, &[0xff; 4]),
        ("list-far-away", "invalid Zip", end + 16, &[0xff, 0xff, 0xff, 0x7f]),
    ] {
        let mut changed = whole.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        all.bad("features", &format!("member-{name}.npz"), words, kind(1, &changed));
    }
    all.bad(
        "features",
        "members-many.npz",
        "raise the limit archive_members",
        kind(1, &b"PK\x01\x02".repeat((1 << 14) + 1)),
    );
    all.bad("features", "archive-in-an-archive.npz", "NumPy", kind(1, &npz(&[("features.npy", &whole)])));
}

fn features(all: &mut List) {
    for (number, names) in [
        (0, &["f32.safetensors", "f16.safetensors", "batch.safetensors"][..]),
        (1, &["names.npz", "deflated.npz", "pixels.npz", "fortran.npz", "big_endian.npz"]),
        (3, &["plain.tsv", "repr.tsv"]),
    ] {
        for name in names {
            all.good(
                "features",
                &format!("valid-{name}"),
                kind(number, &fixture(&format!("tests/features/{name}"))),
            );
        }
    }
    let (good, boxes) = (fixture("tests/features/features.npy"), fixture("tests/features/boxes.npy"));
    all.good("features", "valid.npy", kind(2, &parts::join(&[&good, &boxes])));
    all.bad("features", "empty", "no bytes", []);
    for (name, words, header, data) in [
        ("shape-huge", "at most 16777216 values", npy_header("<f4", "(1152921504606846976, 16)"), 16),
        ("shape-wraps", "at most 16777216 values", npy_header("<f4", "(4294967296, 4294967296)"), 0),
        ("shape-negative", "no list of sizes", npy_header("<f4", "(-1, 5)"), 20),
        ("shape-of-none", "0 regions", npy_header("<f4", "(0, 5)"), 0),
        ("shape-of-five-axes", "expected [regions, values]", npy_header("<f4", "(1, 1, 1, 3, 5)"), 60),
        ("shape-unending", "at most 16384", npy_header("<f4", &"(".repeat(30_000)), 0),
        ("type-object", "|O", npy_header("|O", "(3, 5)"), 60),
        ("type-text", "<U4000000000", npy_header("<U4000000000", "(3, 5)"), 60),
        ("type-of-no-size", "<f0", npy_header("<f0", "(3, 5)"), 60),
        ("cut-short", "cut short", npy_header("<f4", "(3, 5)"), 59),
        ("trailing-bytes", "more data than its shape", npy_header("<f4", "(3, 5)"), 61),
        ("not-a-dictionary", "only plain numbers", "__import__('os').system('id')".to_owned(), 0),
    ] {
        all.bad(
            "features",
            &format!("{name}.npy"),
            words,
            kind(2, &parts::join(&[&npy(&header, data), &boxes])),
        );
    }
    all.bad(
        "features",
        "header-length-huge.npy",
        "at most 16384",
        kind(2, &parts::join(&[b"\x93NUMPY\x02\0\xff\xff\xff\xff{", &boxes])),
    );
    all.bad(
        "features",
        "header-not-utf8.npy",
        "only plain numbers",
        kind(2, &parts::join(&[&npy("", 0), b"\x93NUMPY\x01\0\x02\0\xff\xff"])),
    );
    let whole = fixture("tests/features/names.npz");
    all.bad("features", "cut-short.npz", "invalid Zip", kind(1, &whole[..whole.len() - 30]));
    all.bad("features", "no-archive.npz", "invalid Zip", kind(1, b"PK\x05\x06"));
    all.bad("features", "no-boxes.npz", "no array boxes", kind(1, &npz(&[("features.npy", &good)])));
    all.bad(
        "features",
        "leads-out.npz",
        "none of the arrays",
        kind(1, &npz(&[("../features.npy", &good), ("/boxes.npy", &boxes)])),
    );
    all.bad(
        "features",
        "wrong-length.npz",
        "cut short",
        kind(
            1,
            &npz(&[("features.npy", &npy(&npy_header("<f4", "(4096, 4096)"), 8)), ("boxes.npy", &boxes)]),
        ),
    );
    for (name, words, header, data) in [
        ("type-of-8-bit-floats", "V1", npy_header("|V1", "(3, 5)"), 15),
        ("type-complex", "<c8", npy_header("<c8", "(3, 5)"), 120),
        ("type-for-the-terminal", r"\u{1b}", npy_header("\u{1b}[2J", "(3, 5)"), 60),
        ("type-long", "...", npy_header(&"f".repeat(15_000), "(3, 5)"), 60),
        (
            "shape-digits-many",
            "no list of sizes",
            npy_header("<f4", &format!("({}, 5)", "9".repeat(10_000))),
            60,
        ),
        ("shape-of-expressions", "only plain numbers", npy_header("<f4", "(3*1, 5)"), 60),
        ("header-of-nothing", "only plain numbers", String::new(), 0),
        ("header-of-zeros", "only plain numbers", "\0".repeat(100), 0),
    ] {
        let bytes = parts::join(&[&npy(&header, data), &boxes]);
        all.bad("features", &format!("{name}.npy"), words, kind(2, &bytes));
    }
    archives(all, &good, &boxes);
    let bomb = [npy(&npy_header("<f4", "(3, 5)"), 0), vec![0; 80 << 20]].concat();
    all.bad(
        "features",
        "bomb.npz",
        "more data than its shape",
        kind(1, &npz(&[("features.npy", &bomb), ("boxes.npy", &boxes)])),
    );
    for (name, words, header, data) in [
        (
            "shape-wraps",
            "overflow computing",
            one("F32", "[4294967296,4294967296]", "[0,0]").replace("\"a\"", "\"features\""),
            0,
        ),
        ("no-boxes", "no boxes", one("F32", "[1,4]", "[0,16]").replace("\"a\"", "\"features\""), 16),
        ("hole", "invalid offset", one("F32", "[1,4]", "[16,32]").replace("\"a\"", "\"features\""), 32),
    ] {
        all.bad("features", &format!("{name}.safetensors"), words, kind(0, &with_header(&header, data)));
    }
    let tsv = String::from_utf8(fixture("tests/features/plain.tsv")).expect("text");
    let first: Vec<&str> = tsv.lines().next().expect("a line").split('\t').collect();
    let change = |place: usize, text: &str| {
        let mut fields =
            vec!["first", "512", "256", "", "", "", "", "1", "AACAQQAAgEIAAABDAACAQw==", "AADIQg=="];
        fields[place] = text;
        kind(3, fields.join("\t").as_bytes())
    };
    assert_eq!(first.len(), 10);
    all.good("features", "valid-one.tsv", change(0, "first"));
    for (name, words, place, text) in [
        ("no-such-image", "no image", 0, "second"),
        ("height-of-none", "image height of 0", 1, "0"),
        ("width-infinite", "width of inf", 2, "inf"),
        ("width-not-a-number", "width of NaN", 2, "nan"),
        ("width-negative", "width of -256", 2, "-256"),
        ("count-huge", "not 1 to 4096", 7, "18446744073709551616"),
        ("count-of-none", "not 1 to 4096", 7, "0"),
        ("count-of-more", "not 4096 rows", 7, "4096"),
        ("boxes-not-base64", "not base64", 8, "????"),
        ("boxes-cut-short", "not base64", 8, "AACAQQ"),
        ("features-not-a-number", "must be finite", 9, "AADAfw=="),
        ("height-for-the-terminal", r"\u{1b}", 1, "\u{1b}[2J"),
        ("height-smallest", "is inf", 1, "1e-45"),
        ("features-with-line-breaks", "not base64", 9, "AADI\rQg=="),
        ("features-none", "has 9 fields", 9, ""),
    ] {
        all.bad("features", &format!("{name}.tsv"), words, change(place, text));
    }
    let ids: String = (0..10).map(|n| format!("{}\u{1b}[2J{n}\tx\n", "i".repeat(5000))).collect();
    all.bad("features", "ids-for-the-terminal.tsv", r"\u{7}", kind(3, ids.replace('i', "\u{7}").as_bytes()));
    all.bad("features", "no-tabs.tsv", "no tab", kind(3, &[b'a'; 20_000]));
    all.bad("features", "not-utf8.tsv", "not UTF-8", kind(3, b"first\t\xff\t"));
    all.bad(
        "features",
        "tabs-only.tsv",
        "fields, not 10",
        kind(3, &[&b"first"[..], &[b'\t'; 20_000], b"x"].concat()),
    );
}
