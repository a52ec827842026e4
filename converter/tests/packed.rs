//! Packing in a conversion, and the commands on a packed file.

mod common;

use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Output;

use common::program::program;
use common::{easy_vqa, root};
use lxmert::InstructionSet;
use lxmert::gguf::{File, TensorType};
use lxmert_converter::{Error, KeyOverride, Options, Synthetic, convert_directory, convert_synthetic};
use serde_json::Value;
use tempfile::TempDir;

const SET: InstructionSet = InstructionSet::Avx512Vnni;

fn packing() -> Options {
    Options { pack: Some(SET), ..Options::default() }
}

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = program(env!("CARGO_BIN_EXE_lxmert-quantize"));
    command.current_dir(directory).args(arguments).output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8(output.to_vec()).unwrap()
}

/// The small trained model, plain and packed, through the program.
fn both() -> TempDir {
    let directory = TempDir::new().unwrap();
    let model = easy_vqa();
    let model = model.to_str().unwrap();
    for arguments in [&["q8_0", model, "plain.gguf"][..], &["q8_0", model, "packed.gguf", "--pack", "AVX2"]] {
        let output = run(directory.path(), arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    directory
}

#[test]
fn the_report_and_inspect_tell_what_is_packed() {
    let directory = TempDir::new().unwrap();
    let arguments = ["q8_0", "--synthetic", "tiny", "--pack", "portable"];
    let output = run(directory.path(), &[&arguments[..], &["--json"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["packing"], "panel32x4.1");
    // Not under the name that the file without packing gets.
    assert!(directory.path().join("synthetic-tiny-q8_0-packed.gguf").exists());
    let of = |name: &str| {
        let tensors = report["tensors"].as_array().unwrap();
        tensors.iter().find(|tensor| tensor["name"] == name).unwrap().clone()
    };
    assert_eq!(of("token_embd.weight")["packed"], Value::Null);
    let pooler = of("pooler.weight");
    assert_eq!((&pooler["packed"], &pooler["tensor_type"]), (&"f32".into(), &"q8_0".into()));
    let output = run(directory.path(), &arguments);
    assert!(text(&output.stdout).contains("packed      as panel32x4.1: "), "{}", text(&output.stdout));

    let file = File::open(directory.path().join("synthetic-tiny-q8_0-packed.gguf")).unwrap();
    assert_eq!(file.header().alignment(), 64);
    let output = run(directory.path(), &["inspect", "synthetic-tiny-q8_0-packed.gguf", "--json"]);
    let inspected: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(inspected["weights"], report["parameters"]);
    let tensors = inspected["tensors"].as_array().unwrap();
    let found = tensors.iter().find(|tensor| tensor["name"] == "pooler.weight").unwrap();
    assert_eq!((&found["tensor_type"], &found["bytes"]), (&"i8".into(), &pooler["bytes"]));
    assert_eq!(
        found["packed"],
        serde_json::json!({ "element": "f32", "dims": pooler["dims"], "tensor_type": "q8_0" })
    );
    let output = run(directory.path(), &["inspect", "synthetic-tiny-q8_0-packed.gguf"]);
    let listing = text(&output.stdout);
    assert!(
        listing.contains("packed as f32\n") && listing.contains(" tensors as panel32x4.1\n"),
        "{listing}"
    );
}

#[test]
fn eval_runs_a_packed_file_and_others_say_why_they_cannot() {
    let directory = both();
    let question = |text: &str| {
        let image = root().join("models/easy-vqa/example_1.png");
        serde_json::json!({ "question": text, "image": image, "answer": "teal" }).to_string()
    };
    std::fs::write(directory.path().join("data.jsonl"), question("what color is the shape?")).unwrap();
    let arguments = ["eval", "packed.gguf", "data.jsonl", "--reference", "plain.gguf", "--json"];
    let output = run(directory.path(), &arguments);
    let measured: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&measured["accuracy"], &measured["agreement"]), (&1.0.into(), &1.0.into()));

    let output = run(directory.path(), &["imatrix", "packed.gguf", "data.jsonl", "-o", "imatrix.gguf"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("convert the checkpoint again without --pack"), "{output:?}");
    assert!(!directory.path().join("imatrix.gguf").exists());

    let output = run(directory.path(), &["diff", "plain.gguf", "packed.gguf"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("packed.gguf: its matrices are packed") && error.lines().count() == 1, "{error}");
    let output = run(directory.path(), &["diff", "packed.gguf", "packed.gguf"]);
    assert_eq!(output.status.code(), Some(0));

    for more in [&[][..], &["--allow-requantize"]] {
        let output = run(directory.path(), &[&["q4_0", "packed.gguf", "again.gguf"], more].concat());
        assert_eq!(output.status.code(), Some(1));
        let expected = "packed.gguf: its matrices are packed to be run, not to be converted: convert the original \
                        checkpoint\n";
        assert!(text(&output.stderr).ends_with(expected), "{}", text(&output.stderr));
    }
}

#[test]
fn a_gguf_file_can_be_packed() {
    let directory = both();
    let (plain, out) = (directory.path().join("plain.gguf"), directory.path().join("again.gguf"));
    convert_directory(&plain, TensorType::Q8_0, &out, &Options { allow_requantize: true, ..packing() })
        .unwrap();
    lxmert::Model::open(&out).unwrap();
    assert_eq!(File::open(out).unwrap().header().alignment(), 64);
}

#[test]
fn keys_that_follow_from_packing_cannot_be_overridden() {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("out.gguf");
    for key in ["general.alignment=int:32", "lxmert.pack.layout=str:other"] {
        let keys = vec![key.parse::<KeyOverride>().unwrap()];
        let error = convert_directory(&easy_vqa(), TensorType::Q8_0, &out, &Options { keys, ..packing() });
        assert!(matches!(error, Err(Error::PackedKey { .. })) && !out.exists());
    }
}

#[test]
fn gives_the_same_bytes_for_any_number_of_threads() {
    let directory = TempDir::new().unwrap();
    let convert = |threads| {
        let out = directory.path().join("out.gguf");
        let options = Options { threads: NonZeroUsize::new(threads), ..packing() };
        convert_synthetic(&Synthetic::named("tiny", 3).unwrap(), TensorType::BF16, &out, &options).unwrap();
        std::fs::read(out).unwrap()
    };
    let once = convert(1);
    assert!(once == convert(2) && once == convert(7));
}

#[test]
fn refuses_an_instruction_set_that_does_not_exist() {
    let directory = TempDir::new().unwrap();
    let output = run(directory.path(), &["q8_0", "--synthetic", "tiny", "--pack", "sse2"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("avx512vnni"), "{}", text(&output.stderr));
}
