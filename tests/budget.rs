//! The base model answers within its memory budgets, as the kernel counts the whole process.
#![cfg(target_os = "linux")]

#[path = "common/program.rs"]
mod program;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use lxmert::gguf::{File, TensorSpec, TensorType, Writer};
use lxmert::{Lowering, Model};
use lxmert_converter::{Options, Synthetic, convert_synthetic};
use program::program;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use tempfile::TempDir;

/// Pieces and answers of the published VQA checkpoint.
const PIECES: usize = 30_522;
const ANSWERS: usize = 3129;

/// The published architecture with random weights, a vocabulary and answers as large as the published ones.
fn base(tensor_type: TensorType, directory: &Path) -> PathBuf {
    let labels = directory.join("labels.json");
    let answers: Vec<String> = (0..ANSWERS).map(|n| format!("answer {n}")).collect();
    std::fs::write(&labels, serde_json::to_string(&answers).unwrap()).unwrap();
    let plain = directory.join("plain.gguf");
    let options = Options { labels: Some(labels), ..Options::default() };
    convert_synthetic(&Synthetic::named("base", 1).unwrap(), tensor_type, &plain, &options).unwrap();

    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let words =
        (special.len()..PIECES).map(|n| if n % 5 == 0 { format!("##w{n}") } else { format!("word{n}") });
    let pieces: Vec<String> = special.into_iter().chain(words).collect();
    let source = File::open(&plain).unwrap();
    let mut metadata = source.header().metadata().clone();
    metadata.insert("tokenizer.ggml.model", "bert").unwrap();
    metadata.insert("tokenizer.ggml.tokens", pieces).unwrap();
    let tensors = source.header().tensors();
    let spec = |tensor: &lxmert::gguf::TensorInfo| TensorSpec {
        name: tensor.name().to_owned(),
        tensor_type: tensor.tensor_type(),
        dims: tensor.dims().to_vec(),
    };
    let specs: Vec<TensorSpec> = tensors.iter().map(spec).collect();
    let file = directory.join(format!("{tensor_type}.gguf"));
    let mut writer = Writer::create(&file, &metadata, &specs).unwrap();
    tensors.iter().for_each(|tensor| writer.write(source.data(tensor)).unwrap());
    writer.finish().unwrap();
    drop(source);
    std::fs::remove_file(plain).unwrap();
    file
}

/// 36 regions in a feature file.
fn features(directory: &Path) -> PathBuf {
    let bytes = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|n| ((n * 7919 % 1000) as f32 / 1000.0).to_le_bytes()).collect()
    };
    let (features, boxes) = (bytes(36 * 2048), bytes(36 * 4));
    let tensor = |shape: [usize; 2], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
    let file = directory.join("features.safetensors");
    let tensors = [("features", tensor([36, 2048], &features)), ("boxes", tensor([36, 4], &boxes))];
    safetensors::serialize_to_file(tensors, None, &file).unwrap();
    file
}

/// A program that waits for questions.
struct Asked {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Asked {
    fn start(model: &Path, features: &Path, options: &[&str]) -> Self {
        let mut child = program(env!("CARGO_BIN_EXE_lxmert-vqa"))
            .args(["--json", "--threads", "2", "--model"])
            .arg(model)
            .arg("--features")
            .arg(features)
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Asked { child, answers }
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert!(answer.starts_with('{'), "{answer:?}");
        answer
    }

    /// The most that the process has had in memory so far, in KiB: what proc_pid_status(5) calls VmHWM.
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn question(n: usize) -> String {
    (0..3 + n % 14).map(|word| format!("word{} ", 6 + 5 * ((n * 613 + word * 97) % 6000))).collect()
}

#[test]
fn the_base_model_answers_within_its_budgets() {
    if Lowering::Fastest.resolve().unwrap() == Lowering::Ggml {
        println!(
            "skipped: ggml's operations do not stream weights, and this CPU has no kernels of the project's own"
        );
        return;
    }
    let directory = TempDir::new().unwrap();
    let features = features(directory.path());
    for (tensor_type, budget) in [(TensorType::Q8_0, 96), (TensorType::Q4_0, 64)] {
        let file = base(tensor_type, directory.path());
        let mut free = Asked::start(&file, &features, &["--residency", "resident"]);
        let expected: Vec<String> = (0..24).map(|n| free.ask(&question(n))).collect();
        assert!(free.peak() > 128 << 10, "what is resident is in memory: {} KiB", free.peak());
        drop(free);

        let allowed = format!("{budget}MiB");
        let mut asked = Asked::start(&file, &features, &["--memory-budget", &allowed]);
        for (n, expected) in expected.iter().enumerate() {
            assert_eq!(&asked.ask(&question(n)), expected);
        }
        let peak = asked.peak();
        println!("{tensor_type}: {peak} KiB of {} at most", budget << 10);
        assert!(peak <= budget << 10, "{tensor_type}: {peak} KiB");
        drop(asked);

        // What is too little is refused with a budget that would do, and that one does.
        let refused = program(env!("CARGO_BIN_EXE_lxmert-vqa"))
            .args(["--memory-budget", "9MiB", "--threads", "2", "--question", "word6", "--model"])
            .arg(&file)
            .arg("--features")
            .arg(&features)
            .output()
            .unwrap();
        let text = String::from_utf8(refused.stderr).unwrap();
        assert_eq!((refused.status.code(), text.lines().count()), (Some(1), 1), "{text}");
        let smallest = text.trim().rsplit(' ').next().unwrap();
        assert!(text.contains("memory budget of 9MiB") && smallest.ends_with("MiB"), "{text}");
        let mut asked = Asked::start(&file, &features, &["--memory-budget", smallest]);
        for (n, expected) in expected.iter().enumerate() {
            assert_eq!(&asked.ask(&question(n)), expected);
        }
        let peak = asked.peak();
        println!("{tensor_type}: {peak} KiB of the smallest budget, {smallest}");
        assert!(peak >> 10 < smallest.trim_end_matches("MiB").parse().unwrap(), "{smallest}: {peak} KiB");
        drop(asked);
        std::fs::remove_file(file).unwrap();
    }
}

/// What a process holds beside weights and scratch.
#[test]
fn all_but_weights_and_scratch_is_little() {
    let directory = TempDir::new().unwrap();
    let file = base(TensorType::Q4_0, directory.path());
    let features = features(directory.path());
    let model = Model::open(&file).unwrap();
    let plan = model.plan(&lxmert::SessionOptions::new(&model)).unwrap();
    assert!(plan.tokenizer + plan.labels + plan.other < 8 << 20, "{plan:?}");
    if Lowering::Fastest.resolve().unwrap() == Lowering::Ggml {
        return;
    }
    let mut asked = Asked::start(&file, &features, &["--residency", "streamed"]);
    (0..8).for_each(|n| drop(asked.ask(&question(n))));
    let mut options = lxmert::SessionOptions::new(&model);
    (options.residency, options.threads, options.max_regions) = (lxmert::Residency::Streamed, 2, 36);
    let session = model.plan(&options).unwrap().session;
    let beside = (asked.peak() << 10) - session;
    println!("{} KiB beside weights and scratch", beside >> 10);
    assert!(beside < 24 << 20, "{} KiB", beside >> 10);
}
