//! The trained easy-VQA model against PyTorch: its examples, its whole test split, and the file in the program.

mod common;

use std::path::{Path, PathBuf};

use common::{Tensors, convert, lowerings, lxmert_run, read_tensors};
use lxmert::gguf::TensorType;
use lxmert::vision::{FrontEnd, Regions, load_image};
use lxmert::{Device, Model, Output, Session, SessionOptions, devices};
use serde::Deserialize;
use tempfile::TempDir;

fn model_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/easy-vqa")
}

fn test_data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/easy-vqa")
}

fn load(tensor_type: TensorType) -> Model {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("model.gguf");
    convert(&model_directory(), tensor_type, &file);
    Model::open(&file).unwrap()
}

fn regions(model: &Model, image: &Path) -> Regions {
    let FrontEnd::PatchGrid(grid) = model.front_end() else { panic!("a patch grid") };
    grid.regions(&load_image(image).unwrap()).unwrap()
}

fn session(model: &Model) -> Session {
    session_on(model, Device::Cpu)
}

fn session_on(model: &Model, device: Device) -> Session {
    let mut options = SessionOptions::new(model);
    (options.device, options.threads) = (device, 1);
    Session::new(model, options).unwrap()
}

#[derive(Deserialize)]
struct Example {
    image: String,
    question: String,
    input_ids: Vec<u32>,
    predicted: String,
    probability: f32,
    logits: Vec<f32>,
}

fn examples() -> Vec<Example> {
    serde_json::from_slice(&std::fs::read(model_directory().join("examples.json")).unwrap()).unwrap()
}

#[test]
fn examples_come_out_as_in_pytorch() {
    let model = load(TensorType::F32);
    let mut session = session(&model);
    for example in examples() {
        session.encode_image(&regions(&model, &model_directory().join(&example.image))).unwrap();
        assert_eq!(model.tokenizer().unwrap().encode(&example.question).unwrap(), example.input_ids);
        let answers = session.ask(&example.question).unwrap();
        for (found, expected) in answers.logits().iter().zip(&example.logits) {
            assert!((found - expected).abs() <= 1e-4 * 10.0, "{}: {found} {expected}", example.image);
        }
        let best = answers.top(1)[0];
        assert_eq!(best.text, Some(example.predicted.as_str()));
        assert!((best.softmax - example.probability).abs() < 1e-4);
    }
}

/// Every hidden state and attention of the eight examples as one padded batch.
#[test]
fn a_padded_batch_comes_out_as_in_pytorch() {
    let directory = TempDir::new().unwrap();
    let (model, outputs) = (directory.path().join("m.gguf"), directory.path().join("out.safetensors"));
    convert(&model_directory(), TensorType::F32, &model);
    let recorded = test_data().join("examples_batch.safetensors");
    let inputs = directory.path().join("in.safetensors");
    let mut raw = common::RawTensors::read(&recorded);
    raw.retain(|name| ["input_ids", "attention_mask", "visual_feats", "visual_pos"].contains(&name));
    raw.write(&inputs);
    let mut expected = read_tensors(&recorded);
    let logits = expected.remove("logits").unwrap();
    expected.insert("question_answering_score".to_owned(), logits);
    for lowering in lowerings() {
        let lowering = lowering.to_string();
        let arguments = ["--lowering", &lowering, "--output-hidden-states", "--output-attentions"];
        lxmert_run(&model, &inputs, &outputs, &arguments);
        let found = read_tensors(&outputs);
        for (name, (shape, values)) in &found {
            let (expected_shape, expected) = &expected[name];
            assert_eq!(shape, expected_shape, "{name}");
            let largest = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
            for (found, expected) in values.iter().zip(expected) {
                let close = (found - expected).abs() <= 1e-4 * largest;
                assert!(close, "{lowering} {name}: {found} {expected}");
            }
        }
        assert_eq!(found.len(), 4 + 5 + 4 + 3 + 2 + 2);
    }
}

/// The whole test split: how many of the 9673 questions are answered right, and PyTorch's logits beside ours.
fn test_split(session: Session) -> (usize, f32) {
    first_questions(session, usize::MAX)
}

/// The same of the first so many questions.
fn first_questions(mut session: Session, count: usize) -> (usize, f32) {
    let model = session.model().clone();
    let text = std::fs::read_to_string(test_data().join("test_questions.json")).unwrap();
    let questions: Vec<(String, String, usize)> = serde_json::from_str(&text).unwrap();
    let recorded: Tensors = read_tensors(&test_data().join("test_logits.safetensors"));
    let (shape, logits) = &recorded["logits"];
    assert_eq!(shape, &[questions.len(), 13]);

    let (mut image, mut right, mut difference) = (usize::MAX, 0, 0.0f32);
    for ((question, expected, number), reference) in questions.iter().zip(logits.chunks_exact(13)).take(count)
    {
        if *number != image {
            image = *number;
            let path = test_data().join(format!("test_images/{image}.png"));
            session.encode_image(&regions(&model, &path)).unwrap();
        }
        let answers = session.ask(question).unwrap();
        right += usize::from(answers.top(1)[0].text == Some(expected));
        for (found, expected) in answers.logits().iter().zip(reference) {
            difference = difference.max((found - expected).abs());
        }
    }
    (right, difference)
}

/// Right answers in fp32 by PyTorch.
const PYTORCH: usize = 9543;
/// Questions in the test split.
const QUESTIONS: f64 = 9673.0;

#[test]
fn f32_answers_the_test_split_as_pytorch_does() {
    let (right, difference) = test_split(session(&load(TensorType::F32)));
    // One question's two best logits are 0.0003 apart, so it may fall either way.
    assert!(right.abs_diff(PYTORCH) <= 1, "{right}");
    assert!(difference < 2e-3, "{difference}");
}

#[test]
fn q8_0_is_within_0_3_points_on_the_test_split() {
    let (right, _) = test_split(session(&load(TensorType::Q8_0)));
    let points = (PYTORCH as f64 - right as f64) / QUESTIONS * 100.0;
    println!("q8_0: {right} of 9673 right, {points:.2} points below PyTorch");
    assert!(points.abs() <= 0.3, "{right}");
}

#[test]
fn four_bits_answer_most_of_the_test_split() {
    for (tensor_type, least) in [(TensorType::Q4_0, 0.95), (TensorType::Q4K, 0.97)] {
        let (right, _) = test_split(session(&load(tensor_type)));
        let accuracy = right as f64 / QUESTIONS;
        println!("{tensor_type}: {right} of 9673 right, {:.2} %", 100.0 * accuracy);
        assert!(accuracy >= least, "{tensor_type}: {accuracy}");
    }
}

/// Questions for what computes on the CPU and takes long: of 500, 0.2 points are one.
const FEW: usize = 500;

/// The whole test split on every GPU in three types; the first questions in one type on ggml's CPU backend in a device's place and on drivers
/// that compute on the CPU.
#[test]
fn every_device_is_within_0_2_points_of_the_cpu() {
    let found = devices().unwrap();
    let on_gpu = |description: &str| !description.contains("llvmpipe");
    let (gpus, others): (Vec<_>, Vec<_>) = found.iter().partition(|info| on_gpu(&info.description));
    let all = QUESTIONS as usize;
    let others: Vec<Device> = others.iter().map(|info| info.device).chain([Device::Emulated]).collect();
    let gpus: Vec<Device> = gpus.iter().map(|info| info.device).collect();
    let tasks = [
        (TensorType::Q8_0, FEW, &others),
        (TensorType::F16, all, &gpus),
        (TensorType::Q8_0, all, &gpus),
        (TensorType::Q4_0, all, &gpus),
    ];
    for (tensor_type, count, devices) in tasks.into_iter().filter(|(_, _, devices)| !devices.is_empty()) {
        let model = load(tensor_type);
        let (expected, _) = first_questions(session(&model), count);
        for &device in devices {
            let (right, _) = first_questions(session_on(&model, device), count);
            let points = 100.0 * (right as f64 - expected as f64).abs() / count as f64;
            println!("{tensor_type} on {device}: {right} of {count} right, {expected} on the CPU");
            assert!(points <= 0.2, "{tensor_type} on {device}: {right} right, {expected} on the CPU");
        }
    }
}

#[test]
fn the_file_in_the_program_is_what_the_converter_makes() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("model.gguf");
    convert(&model_directory(), TensorType::Q8_0, &file);
    let committed = model_directory().join("easy-vqa-q8_0.gguf");
    assert!(
        std::fs::read(file).unwrap() == std::fs::read(&committed).unwrap(),
        "convert it again: {committed:?}"
    );
}

#[test]
fn one_image_serves_many_questions() {
    let model = load(TensorType::Q8_0);
    let mut asked_twice = session(&model);
    asked_twice.encode_image(&regions(&model, &model_directory().join("example_0.png"))).unwrap();
    for question in ["what shape is in the image?", "is there a circle?", "what shape is in the image?"] {
        let again = asked_twice.ask(question).unwrap().logits().to_vec();
        let mut fresh = session(&model);
        fresh.encode_image(&regions(&model, &model_directory().join("example_0.png"))).unwrap();
        assert_eq!(fresh.ask(question).unwrap().logits(), again, "{question}");
    }
}

/// Sessions share a model from several threads, and answer as one alone does.
#[test]
fn sessions_on_many_threads_answer_alike() {
    let model = load(TensorType::Q8_0);
    let logits = &|example: usize| {
        let mut session = session(&model);
        let image = model_directory().join(format!("example_{example}.png"));
        session.encode_image(&regions(&model, &image)).unwrap();
        session.ask("what color is the shape?").unwrap().logits().to_vec()
    };
    let alone: Vec<_> = (0..4).map(logits).collect();
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|example| scope.spawn(move || logits(example))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn a_session_computes_only_what_it_was_made_for() {
    let model = load(TensorType::Q8_0);
    let mut session = session(&model);
    session.encode_image(&regions(&model, &model_directory().join("example_0.png"))).unwrap();
    session.ask("what shape?").unwrap();
    assert!(session.output(Output::QuestionAnsweringScore).is_ok());
    assert!(session.output(Output::PooledOutput).is_err());
}
