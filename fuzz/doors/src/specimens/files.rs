//! Everything that is no model: small files of checkpoints, texts, features and pictures.

use std::io::{Cursor, Write};

use zip::write::{SimpleFileOptions, ZipWriter};

use super::{List, fixture};
use crate::{parts, tiny};

pub fn add(all: &mut List) {
    safetensors(all);
    directories(all);
    tokenizers(all);
    questions(all);
    features(all);
    pictures(all);
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
    ] {
        all.bad("directory", name, words, directory(&[(6, index)]));
    }
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
    ] {
        assert!(good.contains(from), "{from}");
        all.bad("tokenizer", name, words, with(&good.replace(from, to), b"what is it?"));
    }
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
    all.good("question", "marks-on-one-letter", format!("a{}", "\u{301}".repeat(5000)).into_bytes());
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
    ] {
        all.bad("features", &format!("{name}.tsv"), words, change(place, text));
    }
    all.bad("features", "no-tabs.tsv", "no tab", kind(3, &[b'a'; 20_000]));
    all.bad("features", "not-utf8.tsv", "not UTF-8", kind(3, b"first\t\xff\t"));
    all.bad(
        "features",
        "tabs-only.tsv",
        "fields, not 10",
        kind(3, &[&b"first"[..], &[b'\t'; 20_000], b"x"].concat()),
    );
}

/// A chunk of a PNG file with its checksum.
fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [&name[..], data].concat();
    [&(data.len() as u32).to_be_bytes(), &body[..], &crc32(&body).to_be_bytes()].concat()
}

/// The checksum of PNG's and zip's, a bit at a time.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// A PNG file: sides, depth, colours, and chunks after them.
fn png(width: u32, height: u32, depth: u8, colours: u8, chunks: &[Vec<u8>]) -> Vec<u8> {
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[depth, colours, 0, 0, 0]].concat();
    let chunks =
        [vec![chunk(b"IHDR", &header)], chunks.to_vec(), vec![chunk(b"IEND", &[])]].concat().concat();
    [&b"\x89PNG\r\n\x1a\n"[..], &chunks].concat()
}

fn pictures(all: &mut List) {
    for name in [
        "rgb.png",
        "rgb16.png",
        "rgba.png",
        "grey.png",
        "grey16.png",
        "grey_alpha.png",
        "one_bit.png",
        "palette.png",
        "grey.jpg",
        "example_0.png",
    ] {
        all.good("picture", &format!("valid-{name}"), fixture(&format!("tests/features/{name}")));
    }
    // Zeros, stored: a row of 4 pixels with its filter.
    let rows = |filter: u8| {
        let row = [&[filter][..], &[0; 12]].concat();
        let data = row.repeat(4);
        let len = data.len() as u16;
        let adler = data.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        let adler = (adler.1 << 16 | adler.0).to_be_bytes();
        [&[0x78, 1, 1][..], &len.to_le_bytes(), &(!len).to_le_bytes(), &data, &adler].concat()
    };
    let data = |filter| vec![chunk(b"IDAT", &rows(filter))];
    all.good("picture", "valid-stored.png", png(4, 4, 8, 2, &data(0)));
    all.bad("picture", "filter-unknown.png", "not a usable image", png(4, 4, 8, 2, &data(9)));
    all.bad("picture", "sides-huge.png", "not a usable image", png(u32::MAX, u32::MAX, 16, 6, &data(0)));
    all.bad("picture", "sides-wrap.png", "not a usable image", png(1 << 31, 1 << 31, 8, 2, &data(0)));
    all.bad("picture", "sides-largest-cut-short.png", "not a usable image", png(16384, 8192, 8, 2, &data(0)));
    all.bad("picture", "side-of-none.png", "not a usable image", png(0, 4, 8, 2, &data(0)));
    all.bad("picture", "depth-3.png", "not a usable image", png(4, 4, 3, 2, &data(0)));
    all.bad("picture", "colours-7.png", "not a usable image", png(4, 4, 8, 7, &data(0)));
    all.bad("picture", "palette-missing.png", "not a usable image", png(4, 4, 8, 3, &data(0)));
    all.bad("picture", "no-data.png", "not a usable image", png(4, 4, 8, 2, &[]));
    let mut broken = png(4, 4, 8, 2, &data(0));
    broken[20] ^= 1;
    all.bad("picture", "checksum.png", "not a usable image", broken);
    let mut long = png(4, 4, 8, 2, &data(0));
    long[33..37].copy_from_slice(&u32::MAX.to_be_bytes());
    all.bad("picture", "chunk-length-huge.png", "not a usable image", long);
    let jpeg = fixture("tests/features/grey.jpg");
    all.bad("picture", "cut-short.jpg", "cut short", &jpeg[..jpeg.len() / 2]);
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
    let with = |place: usize, bytes: &[u8]| {
        let mut jpeg = jpeg.clone();
        jpeg[frame + place..][..bytes.len()].copy_from_slice(bytes);
        jpeg
    };
    all.bad("picture", "sides-huge.jpg", "not a usable image", with(5, &[0xff; 4]));
    all.bad("picture", "side-of-none.jpg", "not a usable image", with(5, &[0; 4]));
    all.bad("picture", "components-none.jpg", "not a usable image", with(9, &[0]));
    all.bad("picture", "table-far-away.jpg", "not a usable image", with(12, &[9]));
    all.bad("picture", "sampling-none.jpg", "not a usable image", with(11, &[0]));
    all.bad("picture", "other-format", "neither PNG nor JPEG", *b"GIF89a\x01\0\x01\0\0\0\0;");
    all.bad("picture", "empty", "neither PNG nor JPEG", []);
}
