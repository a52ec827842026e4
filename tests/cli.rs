//! What the programs say and how they end: answers on standard output, and for every wrong input one line on standard
//! error that names it.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::program::program;
use common::{RawTensors, convert, missing_set};
use lxmert::Lowering;
use lxmert::gguf::{Metadata, TensorType, Writer};
use serde_json::Value;
use tempfile::TempDir;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn picture() -> PathBuf {
    root("models/easy-vqa/example_0.png")
}

fn vqa() -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_lxmert-vqa"));
    command.args(["--threads", "1"]).stdin(Stdio::null());
    command
}

fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The one line that a failing program leaves, after `error: `.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.strip_prefix("error: ").expect("an error line").trim_end().to_owned()
}

fn best_answers(json_lines: &str) -> Vec<String> {
    let best = |line: &str| -> String {
        let value: Value = serde_json::from_str(line).unwrap();
        value["answers"][0]["answer"].as_str().unwrap().to_owned()
    };
    json_lines.lines().map(best).collect()
}

#[test]
fn the_bare_command_shows_something_true() {
    let text = stdout(&vqa().output().unwrap());
    let answer_of = |question: &str| {
        let (_, after) = text.split_once(question).unwrap_or_else(|| panic!("{question} in {text}"));
        after.split_whitespace().next().unwrap().to_owned()
    };
    // The picture is a teal circle.
    assert_eq!(answer_of("what shape is in the image?"), "circle");
    assert_eq!(answer_of("what color is the shape?"), "teal");
    assert_eq!(answer_of("is there a red shape in the image?"), "no");
    assert_eq!(answer_of("does the image not contain a triangle?"), "yes");
}

#[test]
fn answers_questions_about_a_picture_as_json() {
    let output = vqa()
        .args(["--json", "--top-k", "2", "-q", "what color is the shape?", "-q", "is there a circle?"])
        .arg("--image")
        .arg(root("models/easy-vqa/example_2.png"))
        .output()
        .unwrap();
    let text = stdout(&output);
    assert_eq!(best_answers(&text), ["black", "no"]);
    let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(first["question"], "what color is the shape?");
    assert_eq!((first["tokens"].as_u64(), first["dropped_tokens"].as_u64()), (Some(8), Some(0)));
    let answers = first["answers"].as_array().unwrap();
    assert_eq!(answers.len(), 2);
    let logit = answers[0]["logit"].as_f64().unwrap();
    let sigmoid = answers[0]["sigmoid"].as_f64().unwrap();
    assert!((sigmoid - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-6);
    assert!(answers[0]["softmax"].as_f64().unwrap() > 0.9);
}

#[test]
fn reads_questions_from_standard_input() {
    let mut command = vqa();
    command.arg("--json").arg("--image").arg(picture());
    let output = with_input(&mut command, "what shape is present?\n\nis there a circle?\n");
    assert_eq!(best_answers(&stdout(&output)), ["circle", "yes"]);
}

#[test]
fn a_dash_reads_questions_about_the_bundled_picture() {
    let output = with_input(vqa().args(["--json", "-q", "-"]), "what color is the shape?\n");
    assert_eq!(best_answers(&stdout(&output)), ["teal"]);
}

#[test]
fn run_never_writes_over_what_it_reads() {
    let directory = TempDir::new().unwrap();
    let model = directory.path().join("model.gguf");
    convert(&root("tests/golden/qa-small"), TensorType::Q8_0, &model);
    let before = std::fs::read(&model).unwrap();
    let inputs = root("tests/golden/qa-small/inputs.safetensors");
    let text = complaint(&common::try_lxmert_run(&model, &inputs, &model, &[]));
    assert!(text.contains("holds the model"), "{text}");
    assert!(std::fs::read(&model).unwrap() == before);
}

#[test]
fn a_bad_line_does_not_stop_the_others() {
    let mut command = vqa();
    command.arg("--json").arg("--image").arg(picture());
    let long = "circle ".repeat(600);
    let output = with_input(&mut command, &format!("{long}\nwhat shape is present?\n"));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(best_answers(&String::from_utf8(output.stdout).unwrap()), ["circle"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("602 tokens") && text.contains("1 of 2 questions"), "{text}");
}

#[test]
fn reads_regions_from_a_file() {
    let directory = TempDir::new().unwrap();
    let features = directory.path().join("regions.safetensors");
    let recorded = common::read_tensors(&root("tests/easy-vqa/examples_outputs.safetensors"));
    let mut tensors = RawTensors::default();
    for (name, key) in [("features", "2.visual_feats"), ("boxes", "2.visual_pos")] {
        let (shape, values) = &recorded[key];
        tensors.insert_f32(name, &shape[1..], values);
    }
    tensors.write(&features);
    let output =
        vqa().args(["--json", "-q", "what color is the shape?", "--features"]).arg(features).output();
    assert_eq!(best_answers(&stdout(&output.unwrap())), ["black"]);
}

#[test]
fn cuts_a_long_question_only_when_told() {
    let long = format!("what shape is present? {}", "circle ".repeat(600));
    let ask =
        |arguments: &[&str]| vqa().args(["-q", &long, "--image"]).arg(picture()).args(arguments).output();
    let refused = complaint(&ask(&[]).unwrap());
    assert!(refused.contains("607 tokens") && refused.contains("reads 64"), "{refused}");
    let cut = ask(&["--truncate", "--json"]).unwrap();
    let value: Value = serde_json::from_str(&stdout(&cut)).unwrap();
    assert_eq!((value["tokens"].as_u64(), value["dropped_tokens"].as_u64()), (Some(607), Some(543)));
    assert!(String::from_utf8_lossy(&cut.stderr).contains("the last 543 were dropped"));
}

#[test]
fn names_what_is_wrong_with_the_model_file() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let bytes = std::fs::read(root("models/easy-vqa/easy-vqa-q8_0.gguf")).unwrap();
    std::fs::write(path("truncated.gguf"), &bytes[..bytes.len() / 2]).unwrap();
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "llama").unwrap();
    std::fs::write(path("llama.gguf"), Writer::to_vec(&metadata, &[], &[]).unwrap()).unwrap();
    std::fs::write(path("picture.gguf"), std::fs::read(picture()).unwrap()).unwrap();
    std::fs::write(path("empty.gguf"), "").unwrap();

    let expected = [
        ("missing.gguf", "No such file"),
        ("truncated.gguf", "bytes"),
        ("llama.gguf", "architecture is \"llama\""),
        ("picture.gguf", "not a valid GGUF file"),
        ("empty.gguf", "not a valid GGUF file"),
        ("", "it is a directory"),
    ];
    for (name, reason) in expected {
        let mut command = vqa();
        command.args(["-q", "what?", "--image"]).arg(picture()).arg("--model").arg(path(name));
        let text = complaint(&command.output().unwrap());
        assert!(text.contains(name) && text.contains(reason), "{text}");
    }
}

#[test]
fn names_what_is_wrong_with_picture_features_or_question() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = |name: &str, width: usize, corner: f32| {
        let mut tensors = RawTensors::default();
        tensors.insert_f32("features", &[3, width], &vec![0.5; 3 * width]);
        tensors.insert_f32("boxes", &[3, 4], &[corner; 12]);
        tensors.write(&path(name));
    };
    write("narrow.safetensors", 100, 0.5);
    write("pixels.safetensors", 192, 320.0);
    write("good.safetensors", 192, 0.5);
    std::fs::write(path("broken.png"), "no picture").unwrap();

    let cases: [(&[&str], &str, &str); 7] = [
        (&["--features", "narrow.safetensors", "-q", "what?"], "192 values for every region", "100"),
        (&["--features", "pixels.safetensors", "-q", "what?"], "pixels", "row 0"),
        (&["--features", "absent.npz", "-q", "what?"], "absent.npz", "No such file"),
        (&["--image", "broken.png", "-q", "what?"], "broken.png", "not a usable image"),
        (&["--features", "good.safetensors", "-q", "  "], "question", "empty"),
        (&["--features", "good.safetensors"], "no question", "standard input"),
        (&["--features", "good.safetensors", "-q", "what?", "--threads", "0"], "threads", "1 to 256"),
    ];
    for (arguments, part, other) in cases {
        let mut command = program(env!("CARGO_BIN_EXE_lxmert-vqa"));
        let output = command.args(arguments).current_dir(directory.path()).stdin(Stdio::null()).output();
        let text = complaint(&output.unwrap());
        assert!(text.contains(part) && text.contains(other), "{arguments:?}: {text}");
    }
}

#[test]
fn says_what_a_model_lacks() {
    let directory = TempDir::new().unwrap();
    let ask = |case: &str| {
        let model = directory.path().join(format!("{case}.gguf"));
        convert(&root("tests/golden").join(case), TensorType::F32, &model);
        complaint(
            &vqa()
                .args(["-q", "what?", "--image"])
                .arg(picture())
                .arg("--model")
                .arg(model)
                .output()
                .unwrap(),
        )
    };
    assert!(ask("model-relu").contains("no answer head"));
    let text = ask("qa-small");
    assert!(text.contains("no tokenizer") && text.contains("tokenizer.json or vocab.txt"), "{text}");
}

#[test]
fn wrong_use_ends_with_2() {
    for arguments in [&["--nonsense"][..], &["--image", "a.png", "--features", "b.npz"], &["--top-k", "0"]] {
        let output = vqa().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
    let output = program(env!("CARGO_BIN_EXE_lxmert-run")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    for path in [env!("CARGO_BIN_EXE_lxmert-run"), env!("CARGO_BIN_EXE_lxmert-vqa")] {
        assert_eq!(program(path).arg("--help").output().unwrap().status.code(), Some(0));
    }
}

/// `lxmert-run` on qa-small with changed inputs or arguments, which must fail and leave no file.
fn refused(change: impl Fn(&mut RawTensors), arguments: &[&str]) -> String {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    convert(&root("tests/golden/qa-small"), TensorType::Q8_0, &path("model.gguf"));
    let mut tensors = RawTensors::read(&root("tests/golden/qa-small/inputs.safetensors"));
    change(&mut tensors);
    tensors.write(&path("in.safetensors"));
    let output = common::try_lxmert_run(
        &path("model.gguf"),
        &path("in.safetensors"),
        &path("out.safetensors"),
        arguments,
    );
    assert!(!path("out.safetensors").exists());
    complaint(&output)
}

#[test]
fn run_tells_its_plan_without_a_file_to_write() {
    let directory = TempDir::new().unwrap();
    let (model, case) = (directory.path().join("model.gguf"), root("tests/golden/qa-small"));
    convert(&case, TensorType::Q8_0, &model);
    let mut run = program(env!("CARGO_BIN_EXE_lxmert-run"));
    run.arg("--model").arg(&model).arg("--inputs").arg(case.join("inputs.safetensors"));
    let missing = run.output().unwrap();
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("--outputs"));
    assert!(stdout(&run.arg("--plan").output().unwrap()).contains("in all"));
}

#[test]
fn run_names_the_tensor_at_fault() {
    let ids = |count: usize, id: i64| {
        move |tensors: &mut RawTensors| tensors.insert_i64("input_ids", &[1, count], &vec![id; count])
    };
    let expect = |text: String, parts: &[&str]| {
        assert!(parts.iter().all(|part| text.contains(part)), "{parts:?} in {text}");
    };
    expect(refused(ids(600, 5), &[]), &["600 tokens", "32", "shorten"]);
    expect(refused(ids(9, 120), &[]), &["input_ids", "0 to 119", "120"]);
    expect(refused(ids(9, -1), &[]), &["input_ids", "-1"]);
    expect(refused(|t| t.remove("visual_feats"), &[]), &["visual_feats"]);
    expect(refused(|t| t.remove("input_ids"), &[]), &["input_ids", "inputs_embeds"]);
    expect(
        refused(|t| t.insert_f32("visual_feats", &[1, 7, 50], &[0.0; 350]), &[]),
        &["visual_feats", "96", "350"],
    );
    expect(refused(|t| t.insert_f32("visual_pos", &[1, 7, 4], &[300.0; 28]), &[]), &["pixels", "row 0"]);
    expect(refused(|t| t.insert_f32("visual_pos", &[1, 6, 4], &[0.0; 24]), &[]), &["visual_pos", "[1, 7"]);
    expect(refused(|t| t.insert_f32("attention_mask", &[1, 9], &[2.0; 9]), &[]), &["attention_mask", "2"]);
    expect(refused(|t| t.insert_i64("token_type_ids", &[1, 9], &[7; 9]), &[]), &["token_type_ids", "0 to 1"]);
    expect(refused(|t| t.insert_f32("inputs_embeds", &[1, 9, 64], &[f32::NAN; 576]), &[]), &["exactly one"]);
    expect(refused(|t| t.insert_f32("extra", &[1], &[0.0]), &[]), &["extra", "input_ids"]);
    expect(refused(|_| (), &["--output", "logits"]), &["logits", "question_answering_score"]);
    expect(refused(|_| (), &["--output", "prediction_logits"]), &["prediction_logits"]);
    expect(refused(|_| (), &["--output", "language_attentions.2"]), &["language_attentions.2"]);
    expect(refused(|_| (), &["--threads", "100000"]), &["threads", "256"]);
}

#[test]
fn programs_tell_of_kernels_and_cpus_that_do_not_exist() {
    let vqa = |arguments: &[&str]| complaint(&vqa().args(arguments).output().unwrap());
    let run = |arguments: &[&str]| refused(|_| (), arguments);
    for program in [&vqa as &dyn Fn(&[&str]) -> String, &run] {
        let text = program(&["--lowering", "sse9"]);
        let parts = ["lowering", "fastest, ggml, portable", "found \"sse9\""];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        if let Some(set) = missing_set() {
            let text = program(&["--lowering", set.name()]);
            let parts = ["lowering", "that this CPU has", "portable", set.name()];
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
        let text = program(&["--lowering", "portable", "--cpus", "0,100000"]);
        assert!(text.contains("cpus: expected") && text.contains("100000"), "{text}");
        let text = program(&["--lowering", "ggml", "--cpus", "0"]);
        assert!(text.contains("cpus: expected") && text.contains("ggml"), "{text}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn worker_threads_can_be_bound() {
    // The first CPU that this process may use, which need not be 0.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    let cpu = list.trim().split(['-', ',']).next().unwrap();
    let arguments = ["--json", "-q", "what color is the shape?", "--lowering", "portable", "--threads", "2"];
    let output = vqa().args(arguments).args(["--cpus", cpu]).output().unwrap();
    assert_eq!(best_answers(&stdout(&output)), ["teal"]);
}

#[test]
fn run_refuses_a_file_that_is_no_safetensors() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    convert(&root("tests/golden/qa-small"), TensorType::Q8_0, &path("model.gguf"));
    for (name, content) in [("text", &b"hello"[..]), ("huge", &[0xff; 64]), ("empty", b"")] {
        std::fs::write(path(name), content).unwrap();
        let output = common::try_lxmert_run(&path("model.gguf"), &path(name), &path("out.safetensors"), &[]);
        let text = complaint(&output);
        assert!(text.contains(name) && text.contains("safetensors"), "{text}");
    }
    let output = common::try_lxmert_run(
        &path("model.gguf"),
        &root("tests/golden/qa-small/inputs.safetensors"),
        &path("no/such/directory/out.safetensors"),
        &[],
    );
    assert!(complaint(&output).contains("out.safetensors"));
}

#[test]
fn wherever_the_weights_are_the_answers_are_the_same() {
    let asked = |options: &[&str]| {
        stdout(&vqa().args(["--json", "--question", "is there a circle?"]).args(options).output().unwrap())
    };
    let expected = asked(&[]);
    // ggml's operations use the weights where the file is, and the project's kernels have them in memory.
    let elsewhere =
        if Lowering::Fastest.resolve().unwrap() == Lowering::Ggml { "mapped" } else { "resident" };
    let choices: &[&[&str]] = &[
        &["--residency", elsewhere],
        &["--prefault"],
        &["--memory-budget", "1GiB"],
        &["--memory-budget", "100 MB", "--prefault"],
    ];
    for options in choices {
        assert_eq!(asked(options), expected, "{options:?}");
    }
}

#[test]
fn a_plan_is_told_and_adds_up() {
    let text = stdout(&vqa().arg("--plan").output().unwrap());
    let value = |name: &str| {
        let line =
            text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.trim().to_owned()
    };
    let size = |name: &str| value(name).strip_suffix(" MiB").unwrap().parse::<f64>().unwrap();
    let parts = [
        "weights, mapped",
        "weights, private",
        "session",
        "tokenizer, at most",
        "answers",
        "threads and lists",
        "this program",
    ];
    let sum: f64 = parts.iter().map(|part| size(part)).sum();
    assert!((sum - size("in all")).abs() < 0.5, "{text}");
    assert!(!value("weights are").is_empty() && !value("computed by").is_empty());
    assert!(!text.contains('?'), "a plan answers no question: {text}");
}

#[test]
fn wrong_memory_options_are_refused_in_one_line() {
    for (options, expected) in [
        (["--memory-budget", "plenty"], "memory-budget: expected a size such as 96MiB, found \"plenty\""),
        (
            ["--memory-budget", "1MiB"],
            "no way to run fits a memory budget of 1MiB: the smallest that would do is",
        ),
        (
            ["--memory-budget", "32"],
            "no way to run fits a memory budget of 32 bytes: the smallest that would do is",
        ),
        (
            ["--residency", "somewhere"],
            "residency: expected auto, resident, mapped, streamed, device, found \"somewhere\"",
        ),
    ] {
        let complaint = complaint(&vqa().args(options).output().unwrap());
        assert!(complaint.contains(expected), "{complaint}");
    }
}

#[test]
fn the_built_in_model_verifies_and_damage_is_named() {
    let answers = stdout(&vqa().args(["--verify", "--question", "what shape is it?"]).output().unwrap());
    assert!(answers.contains("circle"), "{answers}");

    let directory = TempDir::new().unwrap();
    let path = directory.path().join("damaged.gguf");
    let mut bytes = std::fs::read(root("models/easy-vqa/easy-vqa-q8_0.gguf")).unwrap();
    let header = lxmert::gguf::Header::parse(&bytes).unwrap();
    let (name, place) = (header.tensors()[40].name().to_owned(), header.tensors()[40].range().start);
    bytes[place] ^= 0x80;
    std::fs::write(&path, &bytes).unwrap();
    let ask = |verify: &[&str]| {
        let mut command = vqa();
        command.arg("--model").arg(&path).args(verify).arg("--image").arg(picture());
        command.args(["--question", "what shape is it?"]).output().unwrap()
    };
    let text = complaint(&ask(&["--verify"]));
    assert!(
        text.starts_with(&path.display().to_string()) && text.contains(&format!("tensor {name:?}")),
        "{text}"
    );
    stdout(&ask(&[]));
}

#[test]
fn limits_are_set_by_name() {
    let text = complaint(
        &vqa().args(["--limit", "question_bytes=5", "--question", "what is it?"]).output().unwrap(),
    );
    assert!(text.contains("raise the limit question_bytes: --limit question_bytes=N"), "{text}");
    let text = complaint(&vqa().args(["--limit", "question_byte=5"]).output().unwrap());
    assert!(text.contains("expected one of header_bytes, "), "{text}");
}
