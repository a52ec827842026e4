//! What the program prints and how it ends. How long anything takes is not tested.

#[path = "../../tests/common/program.rs"]
mod program;

use std::path::{Path, PathBuf};
use std::process::Output;

use lxmert::Lowering;
use program::program;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/easy-vqa/easy-vqa-q8_0.gguf")
}

fn bench(arguments: &[&str]) -> Output {
    program(env!("CARGO_BIN_EXE_lxmert-bench")).args(arguments).output().unwrap()
}

fn bench_model(arguments: &[&str]) -> Output {
    let model = model();
    bench(&[&["--model", model.to_str().unwrap()], arguments].concat())
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "no progress bar in a pipe");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn reports(output: &Output) -> Vec<Value> {
    stdout(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn report(output: &Output) -> Value {
    let [report] = reports(output).try_into().expect("one line");
    report
}

/// The one line that a failing program leaves, after `error: `.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text.strip_prefix("error: ").expect("an error line").trim_end().to_owned()
}

fn timings(report: &Value, name: &str) -> Vec<f64> {
    let list = report[format!("{name}_ms")].as_array().unwrap_or_else(|| panic!("{name}_ms in {report}"));
    list.iter().map(|value| value.as_f64().unwrap()).collect()
}

/// Checks that the summary belongs to the timings, of which there are `count`, an odd number.
fn check_timings(report: &Value, name: &str, count: usize) {
    let mut timings = timings(report, name);
    assert_eq!(timings.len(), count, "{name}");
    assert!(timings.iter().all(|time| *time > 0.0), "{name}: {timings:?}");
    timings.sort_unstable_by(f64::total_cmp);
    let summary =
        |key: &str| report[name][key].as_f64().unwrap_or_else(|| panic!("{name}.{key} in {report}"));
    assert_eq!(summary("p50_ms"), timings[count / 2]);
    assert_eq!((summary("min_ms"), summary("max_ms")), (timings[0], timings[count - 1]));
    let ascending = ["min_ms", "p50_ms", "p90_ms", "p99_ms", "max_ms"].map(summary);
    assert!(ascending.is_sorted(), "{name}: {ascending:?}");
    let mean = timings.iter().sum::<f64>() / count as f64;
    assert!((summary("mean_ms") / mean - 1.0).abs() < 1e-9, "{name}");
}

#[test]
fn json_holds_every_timing_and_what_it_depends_on() {
    let report = report(&bench_model(&["--json", "--threads", "1", "--runs", "7", "--cold-starts", "3"]));
    check_timings(&report, "latency", 7);
    check_timings(&report, "next_question", 7);
    check_timings(&report, "cold_start", 3);
    let pairs = report["pairs_per_second"].as_f64().unwrap();
    assert!((pairs * report["latency"]["mean_ms"].as_f64().unwrap() / 1e3 - 1.0).abs() < 1e-9);
    assert_eq!(report["build"], lxmert::BUILD);
    let expected =
        [("threads", 1), ("batch", 1), ("tokens", 20), ("regions", 64), ("runs", 7), ("warmup", 3)];
    for (key, value) in expected {
        assert_eq!(report[key], value, "{key}");
    }
    let file = &report["model"];
    assert_eq!(file["file"], model().to_str().unwrap());
    assert_eq!(file["file_bytes"], model().metadata().unwrap().len());
    assert_eq!((&file["l_layers"], &file["hidden_size"]), (&3.into(), &128.into()));
    assert!(report["inputs"].is_null() && file["synthetic"].is_null());
    // The process has at least the session's tensors in memory.
    #[cfg(target_os = "linux")]
    assert!(report["peak_memory_bytes"].as_u64().unwrap() > report["scratch_bytes"].as_u64().unwrap());
    #[cfg(not(target_os = "linux"))]
    assert!(report["peak_memory_bytes"].is_null());
}

#[test]
fn measures_every_batch_on_every_number_of_threads() {
    let output = bench_model(&[
        "--json",
        "--threads",
        "1,2",
        "--batch",
        "1,3",
        "--runs",
        "1",
        "--warmup",
        "0",
        "--cold-starts",
        "0",
    ]);
    let reports = reports(&output);
    let found: Vec<_> = reports.iter().map(|report| (&report["threads"], &report["batch"])).collect();
    let expected = [(1, 1), (1, 3), (2, 1), (2, 3)].map(|(threads, batch)| (threads.into(), batch.into()));
    let expected: Vec<(&Value, &Value)> = expected.iter().map(|(threads, batch)| (threads, batch)).collect();
    assert_eq!(found, expected);
    for report in &reports {
        check_timings(report, "latency", 1);
        assert_eq!(report["next_question_ms"].is_array(), report["batch"] == 1);
        assert!(timings(report, "cold_start").is_empty());
        assert!(report["cold_start"].is_null() && report["peak_memory_bytes"].is_null());
    }
}

#[test]
fn measures_every_lowering() {
    let quick = ["--threads", "1", "--runs", "1", "--warmup", "0", "--cold-starts", "1"];
    let output = bench_model(&[&["--json", "--lowering", "ggml,portable,fastest"], &quick[..]].concat());
    let reports = reports(&output);
    let fastest = Lowering::Fastest.resolve().unwrap().to_string();
    let found: Vec<_> = reports.iter().map(|report| report["lowering"].as_str().unwrap()).collect();
    assert_eq!(found, ["ggml", "portable", &fastest]);
    for report in &reports {
        check_timings(report, "latency", 1);
        check_timings(report, "cold_start", 1);
        assert!(report["profile"].is_null());
    }
}

/// ggml's CPU backend in a device's place: there may be no other.
#[test]
fn measures_a_device() {
    let quick = ["--threads", "1", "--runs", "1", "--warmup", "0", "--cold-starts", "1"];
    let reports = reports(&bench_model(&[&["--json", "--device", "emulated"], &quick[..]].concat()));
    let [report] = &reports[..] else { panic!("one report") };
    assert_eq!((&report["device"], &report["lowering"]), (&"emulated".into(), &"ggml".into()));
    assert!(report["device_bytes"].as_u64().unwrap() > 1 << 20);
    check_timings(report, "latency", 1);
    check_timings(report, "next_question", 1);
    check_timings(report, "cold_start", 1);
}

#[test]
fn a_profile_tells_what_each_operation_costs() {
    let output = bench_model(&[
        "--json",
        "--profile",
        "--lowering",
        "portable,ggml",
        "--threads",
        "1",
        "--runs",
        "3",
        "--cold-starts",
        "0",
    ]);
    let [portable, ggml] = reports(&output).try_into().expect("two lines");
    assert!(ggml["profile"].is_null());
    check_timings(&portable, "latency", 3);
    let profile = &portable["profile"];
    let run_ms = profile["run_ms"].as_f64().unwrap();
    let operations = profile["operations"].as_array().unwrap();
    let times = operations.iter().map(|operation| operation["ms"].as_f64().unwrap());
    let total: f64 = times.sum();
    assert!(0.0 < total && total <= run_ms, "one thread works {total} ms of {run_ms}");
    let model = lxmert::Model::open(model()).unwrap();
    let config = model.config();
    let mut found = operations
        .iter()
        .filter(|operation| operation["name"] == "blk.0.ffn_up.weight" && operation["kind"] == "product");
    // Of one run: 20 tokens.
    let multiplications = 20 * config.hidden_size * config.intermediate_size;
    assert_eq!(found.next().unwrap()["multiplications"], multiplications);
    assert!(found.next().is_none());
}

/// ggml's CPU backend in a device's place.
#[test]
fn a_profile_of_a_device_counts_its_operations() {
    let quick = ["--device", "emulated", "--profile", "--runs", "2", "--warmup", "0", "--cold-starts", "0"];
    let report = report(&bench_model(&[&["--json"], &quick[..]].concat()));
    let profile = &report["profile"];
    let operations = profile["operations"].as_array().unwrap();
    assert_eq!((&profile["device"], &profile["on_cpu"]), (&"emulated".into(), &0.into()));
    assert_eq!(profile["count"], operations.len());
    assert!(operations.iter().all(|operation| operation["device"] == "emulated"));
    let model = lxmert::Model::open(model()).unwrap();
    let config = model.config();
    // Of one run: 20 tokens.
    let multiplications = 20 * config.hidden_size * config.intermediate_size;
    let product =
        |operation: &&Value| operation["kind"] == "MUL_MAT" && operation["name"] == "blk.0.ffn_up.weight";
    let found: Vec<_> = operations.iter().filter(product).map(|found| &found["multiplications"]).collect();
    assert_eq!(found, [&Value::from(multiplications)]);

    let text = stdout(&bench_model(&quick));
    let head =
        format!("one operation at a time; {} operations in one, 0 of them on the CPU\n", operations.len());
    assert!(text.contains(&head) && text.contains("\nSOFT_MAX blk.*.attn_qkv"), "{text}");
}

#[test]
fn a_table_of_the_profile_follows_the_latencies() {
    let quick = ["--threads", "1", "--runs", "1", "--warmup", "0", "--cold-starts", "0"];
    let output = bench_model(&[&["--profile", "--lowering", "portable,ggml"], &quick[..]].concat());
    let text = stdout(&output);
    let (latencies, profiles) = text.split_once("\nprofile of portable, threads 1, batch 1: 1 runs").unwrap();
    assert!(latencies.contains("\nportable ") && latencies.contains("\nggml "), "{latencies}");
    let rows = ["\nproduct blk.*.attn_qkv  ", "\nattention x.blk.*.cross_attn_qkv  ", "\nall  "];
    assert!(rows.iter().all(|row| profiles.contains(row)), "{profiles}");
    let note =
        "\nprofile of ggml, threads 1, batch 1: ggml's operations on the CPU are not measured one by one\n";
    assert!(profiles.ends_with(note), "{profiles}");
}

#[test]
fn random_weights_need_no_file() {
    let output = bench(&[
        "--synthetic",
        "tiny",
        "--type",
        "Q4_K",
        "--json",
        "--threads",
        "1",
        "--runs",
        "1",
        "--cold-starts",
        "1",
    ]);
    let report = report(&output);
    assert_eq!((&report["model"]["synthetic"], &report["model"]["type"]), (&"tiny".into(), &"q4_K".into()));
    assert_eq!(report["regions"], 36);
    check_timings(&report, "cold_start", 1);
}

#[test]
fn answers_without_timing_only_if_told_how_many_of_both() {
    for numbers in ["5", "1,2,3", "1,x"] {
        let output = bench_model(&["--answer", numbers]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && output.stdout.is_empty(), "{numbers}");
        assert!(text.contains("how many first and how many next questions"), "{text}");
    }
    assert!(stdout(&bench_model(&["--threads", "1", "--answer", "1,1"])).starts_with("answered\n"));
}

#[test]
fn prints_a_table_for_people() {
    let text =
        stdout(&bench_model(&["--threads", "1", "--batch", "1,2", "--runs", "1", "--cold-starts", "1"]));
    let rows =
        ["first question", "next question", "batch ", "cold start", "peak memory", "easy-vqa-q8_0.gguf"];
    for row in rows {
        assert!(text.contains(row), "{row} in {text}");
    }
    assert_eq!(text.matches("cold start ").count(), 2, "{text}");
}

/// Inputs for the small model: as many pairs as there are masks, of 5 tokens and 4 regions, one token type throughout.
fn write_inputs(path: &Path, mask: &[[i64; 5]], token_type: i64) {
    let batch = mask.len();
    let integers = |values: Vec<i64>| values.into_iter().flat_map(i64::to_le_bytes).collect::<Vec<u8>>();
    let floats = |count: usize| [0.5f32.to_le_bytes()].concat().repeat(count);
    let tensors = [
        ("input_ids", Dtype::I64, vec![batch, 5], integers((0..5 * batch as i64).collect())),
        ("attention_mask", Dtype::I64, vec![batch, 5], integers(mask.concat())),
        ("token_type_ids", Dtype::I64, vec![batch, 5], integers(vec![token_type; 5 * batch])),
        ("visual_feats", Dtype::F32, vec![batch, 4, 192], floats(batch * 4 * 192)),
        ("visual_pos", Dtype::F32, vec![batch, 4, 4], floats(batch * 4 * 4)),
    ];
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn takes_inputs_from_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inputs.safetensors");
    let (padded, gap) = ([1, 1, 1, 0, 0], [1, 0, 1, 1, 1]);
    // Only what is one question about one image has a next question.
    let cases: [(&[_], i64, bool); 4] =
        [(&[padded], 0, true), (&[gap], 0, false), (&[padded], 1, false), (&[padded, gap], 0, false)];
    for (mask, token_type, has_next) in cases {
        write_inputs(&path, mask, token_type);
        let output = bench_model(&[
            "--inputs",
            path.to_str().unwrap(),
            "--json",
            "--threads",
            "1",
            "--runs",
            "3",
            "--cold-starts",
            "1",
        ]);
        let report = report(&output);
        check_timings(&report, "latency", 3);
        check_timings(&report, "cold_start", 1);
        assert_eq!(report["next_question_ms"].is_array(), has_next, "{mask:?} {token_type}");
        assert_eq!(report["inputs"], path.to_str().unwrap());
        let sizes = [("batch", mask.len()), ("tokens", 5), ("regions", 4)];
        assert!(sizes.iter().all(|(key, size)| report[key] == *size), "{report}");
    }
}

#[test]
fn names_what_is_wrong_in_one_line() {
    let cases: [(&[&str], &str); 9] = [
        (&["--lowering", "portable,sse9"], "lowering: expected on this CPU fastest, ggml, portable"),
        (&["--lowering", "portable", "--cpus", "0,100000"], "cpus: expected"),
        (&["--lowering", "ggml", "--cpus", "0"], "cpus: expected none with ggml's operations"),
        (&["--device", "cuda:999"], "this build has"),
        (&["--tokens", "65"], "65 tokens, but the limit is 64"),
        (&["--batch", "1000000"], "1000000 pairs in a batch"),
        (&["--batch", "1024", "--regions", "4096", "--tokens", "64"], "raise the limit session_bytes"),
        (&["--threads", "1000"], "threads: expected 1 to 256, found 1000"),
        (&["--inputs", "missing.safetensors"], "missing.safetensors: No such file"),
    ];
    for (arguments, expected) in cases {
        let text = complaint(&bench_model(arguments));
        assert!(text.contains(expected), "{arguments:?}: {text}");
    }
    let text = complaint(&bench(&["--model", "missing.gguf"]));
    assert!(text.contains("missing.gguf: No such file"), "{text}");

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("inputs.safetensors");
    write_inputs(&path, &[[1; 5]], 0);
    let wide = bench(&["--synthetic", "tiny", "--inputs", path.to_str().unwrap()]);
    let text = complaint(&wide);
    assert!(text.contains("inputs.safetensors: visual_feats: expected 256"), "{text}");
}

#[test]
fn refuses_wrong_arguments() {
    let cases: [&[&str]; 8] = [
        &[],
        &["--runs", "3"],
        &["--synthetic", "huge"],
        &["--synthetic", "tiny", "--type", "q9_0"],
        &["--synthetic", "tiny", "--model", "model.gguf"],
        &["--synthetic", "tiny", "--inputs", "inputs.safetensors", "--batch", "2"],
        &["--model", "model.gguf", "--type", "q8_0"],
        &["--synthetic", "tiny", "--runs", "0"],
    ];
    for arguments in cases {
        let output = bench(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}
