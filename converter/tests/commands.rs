//! The commands beside the conversion: inspect, diff, eval and imatrix.

mod common;

use std::path::Path;
use std::process::Output;

use common::program::program;
use common::{Altered, Gguf, easy_vqa, golden, root};
use lxmert::gguf::{Metadata, TensorSpec, TensorType, Writer};
use lxmert_converter::{FileType, Options, convert_directory};
use serde_json::Value;
use tempfile::TempDir;

/// Runs the program in that directory.
fn run(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = program(env!("CARGO_BIN_EXE_lxmert-quantize"));
    command.current_dir(directory.path()).args(arguments).output().unwrap()
}

/// What it prints with `--json`.
fn json(directory: &TempDir, arguments: &[&str]) -> Value {
    let output = run(directory, &[arguments, &["--json"]].concat());
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn converted(directory: &TempDir, model: &Path, file_type: impl Into<FileType>, name: &str) -> Gguf {
    let out = directory.path().join(name);
    convert_directory(model, file_type, &out, &Options::default()).unwrap();
    Gguf::read(&out)
}

/// The first questions of the test split, as the program reads them.
fn questions(directory: &TempDir, count: usize) {
    let data = root().join("tests/easy-vqa");
    let text = std::fs::read_to_string(data.join("test_questions.json")).unwrap();
    let all: Vec<(String, String, usize)> = serde_json::from_str(&text).unwrap();
    let lines = all.iter().take(count).map(|(question, answer, picture)| {
        let image = data.join(format!("test_images/{picture}.png"));
        serde_json::json!({ "question": question, "answer": answer, "image": image }).to_string()
    });
    std::fs::write(directory.path().join("data.jsonl"), lines.collect::<Vec<_>>().join("\n")).unwrap();
}

#[test]
fn inspect_lists_keys_and_tensors_where_they_lie() {
    let directory = TempDir::new().unwrap();
    let file = converted(&directory, &easy_vqa(), TensorType::Q8_0, "a.gguf");
    let found = json(&directory, &["inspect", "a.gguf"]);
    assert_eq!(found["file_bytes"], file.bytes.len());
    let tensors = found["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), file.header.tensors().len());
    let info = file.header.tensor("pooler.weight").unwrap();
    let pooler = tensors.iter().find(|tensor| tensor["name"] == "pooler.weight").unwrap();
    assert_eq!(pooler["offset"], info.offset());
    assert_eq!((&pooler["tensor_type"], &pooler["bytes"]), (&"q8_0".into(), &(128 * 128 / 32 * 34).into()));
    let keys = found["metadata"].as_array().unwrap();
    let labels = keys.iter().find(|entry| entry["key"] == "lxmert.classifier.output_labels").unwrap();
    assert_eq!((&labels["len"], labels["value"].as_array().unwrap().len()), (&13.into(), 6));

    let text = run(&directory, &["inspect", "a.gguf"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("… 7 more]") && text.lines().all(|line| line.chars().count() < 200), "{text}");
}

#[test]
fn diff_tells_equal_different_and_trouble_as_diff_does() {
    let directory = TempDir::new().unwrap();
    converted(&directory, &golden("qa-small"), TensorType::F32, "a.gguf");
    let code = |b: &str| run(&directory, &["diff", "a.gguf", b]).status.code();
    std::fs::copy(directory.path().join("a.gguf"), directory.path().join("same.gguf")).unwrap();
    assert_eq!(code("same.gguf"), Some(0));

    let mut altered = Altered::golden("qa-small");
    altered.tensor("lxmert.pooler.dense.bias").set(3, 100.0);
    altered.write();
    let before = common::read_tensors(&golden("qa-small").join("model.safetensors"));
    let before = before["lxmert.pooler.dense.bias"].values()[3];
    converted(&directory, altered.directory(), TensorType::F32, "b.gguf");
    assert_eq!(code("b.gguf"), Some(1));
    let found = json(&directory, &["diff", "a.gguf", "b.gguf"]);
    let tensors = found["tensors"].as_array().unwrap();
    let differing: Vec<_> = tensors.iter().filter(|tensor| tensor["equal"] == false).collect();
    assert_eq!((differing.len(), &differing[0]["name"]), (1, &"pooler.bias".into()));
    assert_eq!(differing[0]["error"]["max_error"].as_f64().unwrap() as f32, 100.0 - before);
    // Only the weights' hash tells them apart.
    let keys = found["metadata"].as_array().unwrap();
    assert_eq!((keys.len(), &keys[0]["key"]), (1, &"lxmert.source.sha256".into()));

    std::fs::write(directory.path().join("broken.gguf"), "GGUF").unwrap();
    assert_eq!(code("broken.gguf"), Some(2));
    assert_eq!(code("nowhere.gguf"), Some(2));
}

/// As many as PyTorch's recorded logits have right.
#[test]
fn eval_counts_right_answers() {
    let directory = TempDir::new().unwrap();
    questions(&directory, 25);
    converted(&directory, &easy_vqa(), TensorType::F32, "f32.gguf");
    converted(&directory, &easy_vqa(), TensorType::Q8_0, "q8_0.gguf");
    let logits = common::read_tensors(&root().join("tests/easy-vqa/test_logits.safetensors"));
    let answers: Vec<String> =
        serde_json::from_slice(&std::fs::read(easy_vqa().join("answers.json")).unwrap()).unwrap();
    let text = std::fs::read_to_string(directory.path().join("data.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let values = logits["logits"].values();
    let right = lines.zip(values.chunks(13)).filter(|(line, scores)| {
        let best = (0..13).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        line["answer"] == answers[best]
    });
    let right = right.count();

    let found =
        json(&directory, &["eval", "q8_0.gguf", "data.jsonl", "--reference", "f32.gguf", "--threads", "1"]);
    assert_eq!((&found["questions"], &found["answered"]), (&25.into(), &25.into()));
    assert_eq!(found["accuracy"].as_f64().unwrap(), right as f64 / 25.0);
    assert_eq!(found["agreement"], 1.0);
    let divergence = found["kl_divergence"].as_f64().unwrap();
    assert!(divergence > 0.0 && divergence < 1e-3, "{divergence}");
    let itself =
        json(&directory, &["eval", "f32.gguf", "data.jsonl", "--reference", "f32.gguf", "--limit", "5"]);
    assert_eq!((&itself["questions"], &itself["kl_divergence"]), (&5.into(), &0.0.into()));
}

#[test]
fn eval_names_the_line_that_it_cannot_ask() {
    let directory = TempDir::new().unwrap();
    converted(&directory, &easy_vqa(), TensorType::Q8_0, "m.gguf");
    let good = serde_json::json!({ "question": "a?", "image": easy_vqa().join("example_0.png") });
    for bad in [r#"{"question": "a?", "image": "nowhere.png"}"#, r#"{"question": 3}"#] {
        std::fs::write(directory.path().join("data.jsonl"), format!("{good}\n{bad}\n")).unwrap();
        let output = run(&directory, &["eval", "m.gguf", "data.jsonl"]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(message.contains("data.jsonl: line 2: ") && message.lines().count() == 1, "{message}");
    }
}

#[test]
fn imatrix_measures_the_columns_that_are_read() {
    let directory = TempDir::new().unwrap();
    questions(&directory, 30);
    converted(&directory, &easy_vqa(), TensorType::F32, "f32.gguf");
    let output = run(&directory, &["imatrix", "f32.gguf", "data.jsonl", "-o", "im.gguf"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = Gguf::read(&directory.path().join("im.gguf"));
    assert_eq!(file.metadata().str("general.type").unwrap(), "imatrix");
    assert_eq!(file.metadata().strings("imatrix.datasets").unwrap(), ["data.jsonl"]);
    assert_eq!(file.metadata().u32("imatrix.chunk_count").unwrap(), 30);

    // The image's features enter the first matrix as they are, one row for each of 64 patches of each picture.
    let name = "v.feat_embd.weight";
    let (sums, counts) = (file.values(&format!("{name}.in_sum2")), file.values(&format!("{name}.counts")));
    let text = std::fs::read_to_string(directory.path().join("data.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut pictures: Vec<_> = lines.map(|line| line["image"].as_str().unwrap().to_owned()).collect();
    pictures.dedup();
    let model = lxmert::Model::open(directory.path().join("f32.gguf")).unwrap();
    let lxmert::vision::FrontEnd::PatchGrid(grid) = model.front_end() else { panic!("a patch grid") };
    let mut expected = vec![0.0f64; 192];
    for picture in &pictures {
        let image = lxmert::vision::load_image(picture.as_ref()).unwrap();
        for row in grid.regions(&image).unwrap().features().chunks_exact(192) {
            expected.iter_mut().zip(row).for_each(|(sum, value)| *sum += f64::from(*value).powi(2));
        }
    }
    assert_eq!(counts, [(64 * pictures.len()) as f32]);
    for (found, expected) in sums.iter().zip(expected) {
        assert!((f64::from(*found) / expected - 1.0).abs() < 1e-5, "{found} {expected}");
    }
    // Both streams of a cross layer read its one matrix.
    let cross = file.values("x.blk.0.cross_attn_qkv.weight.counts")[0];
    assert!(cross > file.values("x.blk.0.l.attn_qkv.weight.counts")[0]);
}

#[test]
fn an_importance_matrix_lowers_the_error_of_products_and_leaves_its_trace() {
    let directory = TempDir::new().unwrap();
    questions(&directory, 20);
    converted(&directory, &easy_vqa(), TensorType::F32, "f32.gguf");
    let model = easy_vqa();
    let model = model.to_str().unwrap();
    assert!(run(&directory, &["imatrix", "f32.gguf", "data.jsonl", "-o", "im.gguf"]).status.success());
    assert!(run(&directory, &["q4_0", model, "plain.gguf"]).status.success());
    assert!(run(&directory, &["q4_0", model, "aided.gguf", "--imatrix", "im.gguf"]).status.success());
    let read = |name: &str| Gguf::read(&directory.path().join(name));
    let (exact, importance) = (read("f32.gguf"), read("im.gguf"));
    for name in ["v.feat_embd.weight", "blk.1.ffn_down.weight", "x.blk.0.cross_attn_qkv.weight"] {
        let (values, sums) = (exact.values(name), importance.values(&format!("{name}.in_sum2")));
        // The error of the products is the sum of the columns' errors, weighed with the columns' factors.
        let error = |file: &str| {
            let mut found = vec![0.0; values.len()];
            lxmert::ggml::dequantize(TensorType::Q4_0, read(file).data(name), &mut found);
            let rows = values.chunks(sums.len()).zip(found.chunks(sums.len()));
            let pairs = rows.flat_map(|(values, found)| values.iter().zip(found).zip(&sums));
            pairs.map(|((value, found), sum)| f64::from((value - found).powi(2) * sum)).sum::<f64>()
        };
        let (plain, aided) = (error("plain.gguf"), error("aided.gguf"));
        assert!(aided < 0.95 * plain, "{name}: {aided} {plain}");
    }
    let file = Gguf::read(&directory.path().join("aided.gguf"));
    assert_eq!(file.metadata().str("quantize.imatrix.file").unwrap(), "im.gguf");
    assert_eq!(file.metadata().str("quantize.imatrix.dataset").unwrap(), "data.jsonl");
    assert_eq!(file.metadata().u32("quantize.imatrix.chunks_count").unwrap(), 20);

    // Another model's columns are refused, and so is what is no importance matrix.
    let other = golden("qa-small");
    for file in ["im.gguf", "f32.gguf"] {
        let output = run(&directory, &["q4_0", other.to_str().unwrap(), "other.gguf", "--imatrix", file]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).starts_with(&format!("error: {file}: ")));
    }
}

#[test]
fn commands_have_help_and_refuse_wrong_use() {
    let directory = TempDir::new().unwrap();
    for command in ["inspect", "diff", "eval", "imatrix"] {
        assert_eq!(run(&directory, &[command, "--help"]).status.code(), Some(0));
        assert_eq!(run(&directory, &[command]).status.code(), Some(2));
    }
    // After a type, a word that is also a command is a directory.
    let output = run(&directory, &["q8_0", "diff"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: diff: "));
}

#[test]
fn verify_tells_whole_files_from_damaged_ones() {
    let directory = TempDir::new().unwrap();
    let file = converted(&directory, &easy_vqa(), TensorType::Q8_0, "a.gguf");
    let mut bytes = file.bytes.clone();
    let place = file.header.tensor("pooler.weight").unwrap().range().start + 7;
    bytes[place] ^= 1;
    std::fs::write(directory.path().join("damaged.gguf"), &bytes).unwrap();

    let output = run(&directory, &["verify", "a.gguf"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(text.starts_with("a.gguf: header and ") && text.lines().count() == 1, "{text}");

    for arguments in
        [&["verify", "a.gguf", "damaged.gguf"][..], &["f16", "damaged.gguf", "b.gguf", "--allow-requantize"]]
    {
        let output = run(&directory, arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("damaged.gguf") && text.contains("tensor \"pooler.weight\""), "{text}");
    }
    assert!(!directory.path().join("b.gguf").exists());

    // It follows from what is written.
    let key = "lxmert.checksum.xxh3.header";
    let output = run(
        &directory,
        &["f16", "a.gguf", "b.gguf", "--allow-requantize", "--override-kv", &format!("{key}=int:1")],
    );
    assert!(String::from_utf8(output.stderr).unwrap().contains(key));
}

#[test]
fn diff_tells_of_tensors_but_not_of_their_checksums() {
    let directory = TempDir::new().unwrap();
    converted(&directory, &easy_vqa(), TensorType::Q8_0, "a.gguf");
    converted(&directory, &easy_vqa(), TensorType::F16, "b.gguf");
    let output = run(&directory, &["diff", "a.gguf", "b.gguf"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("general.file_type") && !text.contains("checksum"), "{text}");
}

#[test]
fn limits_are_raised_by_name() {
    let directory = TempDir::new().unwrap();
    let model = easy_vqa();
    let arguments = ["f32", model.to_str().unwrap(), "a.gguf", "--limit"];
    let complaint = |limit: &str| {
        let output = run(&directory, &[&arguments[..], &[limit]].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = complaint("description_bytes=1000");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("raise the limit description_bytes: --limit description_bytes=N"), "{text}");
    let (code, text) = complaint("descriptions=1000");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("expected one of header_bytes, "), "{text}");
    assert_eq!(complaint("description_bytes=1000000").0, Some(0));
}

#[test]
fn every_command_takes_the_limits_that_its_errors_name() {
    let directory = TempDir::new().unwrap();
    converted(&directory, &easy_vqa(), TensorType::Q8_0, "a.gguf");
    std::fs::write(directory.path().join("data.jsonl"), "{\"question\": \"what?\", \"image\": \"a.png\"}\n")
        .unwrap();
    let commands = [
        &["inspect", "a.gguf"][..],
        &["verify", "a.gguf"],
        &["diff", "a.gguf", "a.gguf"],
        &["eval", "a.gguf", "data.jsonl"],
        &["imatrix", "a.gguf", "data.jsonl", "--output", "b.gguf"],
    ];
    for command in commands {
        let complaint = |limit: &str| {
            let output = run(&directory, &[command, &["--limit", limit]].concat());
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.lines().count() <= 1, "{text}");
            text
        };
        let text = complaint("tensors=3");
        assert!(text.contains("raise the limit tensors: --limit tensors=N"), "{command:?}: {text}");
        let text = complaint("tensor=3");
        assert!(text.contains("expected one of header_bytes, "), "{command:?}: {text}");
        let text = complaint("x");
        assert!(text.contains("NAME=N"), "{command:?}: {text}");
        assert!(!complaint("tensors=300").contains("limit"), "{command:?}");
    }
}

#[test]
fn members_of_an_archive_are_counted_before_they_are_listed() {
    let directory = TempDir::new().unwrap();
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bin/pytorch_model.bin");
    let bytes = std::fs::read(&checkpoint).unwrap();
    // The last two bytes are the length of a comment, of which there is none; it gets the longest that there may be.
    let (rest, none) = bytes.split_at(bytes.len() - 2);
    assert_eq!(none, [0, 0]);
    let commented = [rest, &u16::MAX.to_le_bytes(), &vec![b'c'; u16::MAX.into()]].concat();
    let members = zip_members(&bytes);
    // More members than the meter lets a list of one have.
    let many = many_members(60_000);
    for (name, bytes, limit, is_taken) in [
        ("plain", &bytes, members, true),
        ("plain", &bytes, members - 1, false),
        ("commented", &commented, members, true),
        ("commented", &commented, members - 1, false),
        ("many", &many, 1, false),
    ] {
        let path = directory.path().join(format!("{name}.bin"));
        std::fs::write(&path, bytes).unwrap();
        let (config, limit) = (checkpoint.with_file_name("config.json"), format!("archive_members={limit}"));
        let arguments = ["--config", config.to_str().unwrap(), "--limit", &limit];
        let output = run(&directory, &[&["f32", path.to_str().unwrap(), "a.gguf"], &arguments[..]].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.success(), is_taken, "{name}, {limit}: {text}");
        assert_eq!(text.contains("raise the limit archive_members"), !is_taken, "{name}, {limit}: {text}");
    }
}

/// How many members an archive says that it has: the second number of four in its end, which has 22 bytes.
fn zip_members(archive: &[u8]) -> usize {
    let at = archive.len() - 22 + 10;
    u16::from_le_bytes([archive[at], archive[at + 1]]).into()
}

/// An archive of that many empty members, each with a long name.
fn many_members(count: u16) -> Vec<u8> {
    let (mut members, mut list) = (Vec::new(), Vec::new());
    for n in 0..count {
        let name = format!("{n:0>100}");
        let place = members.len() as u32;
        // Version, flags, method, time and date; checksum and both sizes; lengths of name and extra field.
        let about = [&[10, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &[0; 12], &[100, 0, 0, 0]].concat();
        members.extend([b"PK\x03\x04", &about[..], name.as_bytes()].concat());
        // The same, and comment, disk, attributes and place.
        list.extend(
            [b"PK\x01\x02\x0a\x00", &about[..], &[0; 10], &place.to_le_bytes(), name.as_bytes()].concat(),
        );
    }
    let (len, start) = (list.len() as u32, members.len() as u32);
    let counts = [count.to_le_bytes(), count.to_le_bytes()].concat();
    let end =
        [b"PK\x05\x06\0\0\0\0", &counts[..], &len.to_le_bytes(), &start.to_le_bytes(), &[0, 0]].concat();
    [members, list, end].concat()
}

#[test]
fn listings_show_what_a_terminal_would_obey_escaped() {
    let directory = TempDir::new().unwrap();
    let hostile = "a\u{1b}[2J\u{202e}";
    for (name, value) in [("a.gguf", 1u32), ("b.gguf", 2)] {
        let mut metadata = Metadata::new();
        metadata.set(hostile, value).unwrap();
        let tensor = TensorSpec { name: hostile.to_owned(), tensor_type: TensorType::F32, dims: vec![1] };
        let data = (value as f32).to_le_bytes();
        let file = Writer::to_vec(&metadata, &[tensor], &[&data[..]]).unwrap();
        std::fs::write(directory.path().join(name), file).unwrap();
    }
    for arguments in [&["inspect", "a.gguf"][..], &["diff", "a.gguf", "b.gguf"]] {
        let output = run(&directory, arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches(r"a\u{1b}[2J\u{202e}").count(), 2, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
    }
}
