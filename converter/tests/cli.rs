//! `lxmert-quantize` as a person or a script sees it.

mod common;

use std::process::Output;

use common::program::program;
use common::{Altered, Gguf, Tensor, easy_vqa, golden};
use lxmert::gguf::TensorType;
use tempfile::TempDir;

/// Runs the program in that directory.
fn quantize(directory: &TempDir, arguments: &[&str]) -> Output {
    let mut command = program(env!("CARGO_BIN_EXE_lxmert-quantize"));
    command.current_dir(directory.path()).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn path(path: &std::path::Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn names_the_output_after_directory_and_type() {
    let directory = TempDir::new().unwrap();
    let output = quantize(&directory, &["Q8_0", path(&golden("qa-small"))]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    let file = Gguf::read(&directory.path().join("qa-small-q8_0.gguf"));
    assert_eq!(file.tensor_type("pooler.weight"), TensorType::Q8_0);
    let report = text(&output.stdout);
    for line in ["class       LxmertForQuestionAnswering", "parameters  299537", "tokenizer   none"] {
        assert!(report.contains(line), "{report}");
    }
}

#[test]
fn knows_every_type_in_any_case() {
    let directory = TempDir::new().unwrap();
    let types = [
        ("f32", "f32"),
        ("F16", "f16"),
        ("bf16", "bf16"),
        ("Q8_0", "q8_0"),
        ("q6_K", "q6_K"),
        ("Q5_k_M", "q5_K_M"),
        ("q5_K_S", "q5_K"),
        ("q5_K", "q5_K"),
        ("q5_1", "q5_1"),
        ("q5_0", "q5_0"),
        ("q4_k_m", "q4_K_M"),
        ("q4_K_S", "q4_K"),
        ("q4_K", "q4_K"),
        ("IQ4_NL", "iq4_nl"),
        ("q4_1", "q4_1"),
        ("q4_0", "q4_0"),
        ("q3_k", "q3_K"),
        ("q2_K", "q2_K"),
    ];
    for (name, expected) in types {
        let output = quantize(&directory, &[name, path(&easy_vqa()), "out.gguf", "--json"]);
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["tensor_type"], expected);
        assert_eq!(report["file_bytes"], std::fs::metadata(directory.path().join("out.gguf")).unwrap().len());
    }
}

#[test]
fn exits_with_0_for_help_and_2_for_wrong_use() {
    let directory = TempDir::new().unwrap();
    let help = quantize(&directory, &["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("MODEL"));
    for wrong in [
        &[][..],
        &["q8_0"],
        &["q7_k", "model"],
        &["q8_0", "model", "--tensor-type", "ffn=q4_K_M"],
        &["q8_0", "model", "--tensor-type", "(=q8_0"],
        &["q8_0", "model", "--override-kv", "general.name=x"],
        &["q8_0", "model", "out", "more"],
        &["q8_0", "--synthetic", "base", "model", "out"],
        &["q8_0", "--synthetic", "huge"],
        &["q8_0", "model", "--seed", "3"],
        &["q8_0", "model", "--threads", "0"],
        &["q8_0", "model", "--min-cosine", "2"],
    ] {
        let output = quantize(&directory, wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty());
    }
}

#[test]
fn exits_with_1_and_one_line_for_a_failure() {
    let directory = TempDir::new().unwrap();
    for arguments in
        [&["f16", "nowhere"][..], &["f16", "."], &["f16", path(&golden("qa-small")), "no/out.gguf"]]
    {
        let output = quantize(&directory, arguments);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
        let message = text(&output.stderr);
        assert!(message.starts_with("error: ") && message.lines().count() == 1, "{message}");
    }
}

#[test]
fn lists_the_problems_of_the_tensors_but_not_without_end() {
    let mut altered = Altered::golden("qa-small");
    for number in 0..60 {
        altered.tensors.insert(format!("stray.{number}"), Tensor::f32(&[1], &[0.0]));
    }
    altered.write();
    let output = quantize(&altered.temporary, &["f16", "."]);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<_> = text(&output.stderr).lines().collect();
    assert_eq!(lines[0], "error: the checkpoint's tensors have 60 problems");
    assert_eq!(lines[1], r#"  unknown: "stray.0" [1]"#);
    assert_eq!((lines.len(), lines[51]), (52, "  … and 10 more"));
}

#[test]
fn makes_synthetic_models_from_a_seed() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("answers.json"), r#"{"no": 0, "yes": 1, "maybe": 2}"#).unwrap();
    let make = |seed: &str, out: &str| {
        let arguments = ["q4_K", "--synthetic", "tiny", "--seed", seed, "--labels", "answers.json", out];
        let output = quantize(&directory, &arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        Gguf::read(&directory.path().join(out))
    };
    let file = make("5", "a.gguf");
    assert_eq!(file.metadata().u32("lxmert.classifier.label_count").unwrap(), 3);
    assert_eq!(file.metadata().strings("lxmert.classifier.output_labels").unwrap(), ["no", "yes", "maybe"]);
    assert!(file.bytes == make("5", "b.gguf").bytes);
    assert!(file.bytes != make("6", "c.gguf").bytes);
}

#[test]
fn gives_single_tensors_the_types_that_are_asked_for() {
    let directory = TempDir::new().unwrap();
    let run = |arguments: &[&str]| {
        let output = quantize(&directory, &[arguments, &[path(&easy_vqa()), "out.gguf"]].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        Gguf::read(&directory.path().join("out.gguf"))
    };
    let wishes = ["--tensor-type", "^v\\.blk.*ffn=q4_0", "--tensor-type", "ffn_down=q5_0"];
    let ends = ["--token-embedding-type", "f16", "--leave-output-tensor"];
    let file = run(&[&["q8_0"], &wishes[..], &ends].concat());
    for (name, expected) in [
        ("v.blk.0.ffn_down.weight", TensorType::Q4_0),
        ("blk.0.ffn_down.weight", TensorType::Q5_0),
        ("blk.0.ffn_up.weight", TensorType::Q8_0),
        ("token_embd.weight", TensorType::F16),
        ("cls.answer.1.weight", TensorType::F32),
        ("cls.answer.0.weight", TensorType::Q8_0),
        // Vectors stay whole, though the pattern is in their names too.
        ("v.blk.0.ffn_down.bias", TensorType::F32),
    ] {
        assert_eq!(file.tensor_type(name), expected, "{name}");
    }
    let pure = run(&["q4_K_M", "--pure"]);
    let uniform = run(&["q4_K"]);
    assert!(pure.header.tensors() == uniform.header.tensors());
    let output = quantize(&directory, &["q8_0", path(&easy_vqa()), "--tensor-type", "ffn_gate=q4_0"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("ffn_gate"));
}

#[test]
fn overrides_keys_but_not_the_model() {
    let directory = TempDir::new().unwrap();
    let model = golden("qa-small");
    let run = |key| quantize(&directory, &["q8_0", path(&model), "out.gguf", "--override-kv", key]);
    assert!(run("general.name=str:Seeing").status.success());
    let file = Gguf::read(&directory.path().join("out.gguf"));
    assert_eq!(file.metadata().str("general.name").unwrap(), "Seeing");
    assert_eq!(run("lxmert.language.block_count=int:1").status.code(), Some(1));
    assert_eq!(run("lxmert.hidden_act=str:sine").status.code(), Some(1));
}

#[test]
fn tells_what_it_would_write() {
    let directory = TempDir::new().unwrap();
    let model = golden("qa-small");
    let run = |more: &[&str]| {
        let output = quantize(&directory, &[&["q4_0", path(&model), "out.gguf", "--json"], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
    };
    let planned = run(&["--dry-run"]);
    assert!(planned["output"].is_null() && planned["tensors"][0]["error"].is_null());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    let written = run(&[]);
    assert_eq!(written["output"], "out.gguf");
    assert_eq!(planned["file_bytes"], std::fs::metadata(directory.path().join("out.gguf")).unwrap().len());
    assert_eq!(planned["types"][0]["bytes"], written["types"][0]["bytes"]);
}

#[test]
fn writes_nothing_that_is_too_far_from_its_source() {
    let directory = TempDir::new().unwrap();
    let model = golden("qa-small");
    let run = |limit| quantize(&directory, &["q4_0", path(&model), "out.gguf", "--min-cosine", limit]);
    let output = run("0.9999");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""));
    assert!(text(&output.stderr).contains("\n  pooler.weight: 0.99"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    assert!(run("0.9").status.success());
}

#[test]
fn lists_every_tensor_on_request() {
    let directory = TempDir::new().unwrap();
    let output = quantize(&directory, &["f16", path(&golden("qa-small")), "--verbose"]);
    let line = text(&output.stdout).lines().find(|line| line.starts_with("x.blk.0.cross_attn_qkv.bias"));
    let line = line.unwrap();
    assert!(line.contains("lxmert.encoder.x_layers.0.visual_attention.att.key.bias + "), "{line}");
}
