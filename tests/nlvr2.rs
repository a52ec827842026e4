//! The NLVR2 head: one answer about two images.

mod common;

use std::path::{Path, PathBuf};

use common::{RawTensors, lowerings, lxmert_run, read_tensors, try_lxmert_run};
use lxmert::gguf::TensorType;
use lxmert::vision::Regions;
use lxmert::{Error, Inputs, Model, Output, Session, SessionOptions, Text};
use tempfile::TempDir;

fn case() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nlvr2-small")
}

fn converted(directory: &TempDir, tensor_type: TensorType) -> PathBuf {
    let model = directory.path().join("model.gguf");
    common::convert(&case(), tensor_type, &model);
    model
}

/// `tests/golden/make_nlvr2.py` computes the expected numbers with PyTorch.
#[test]
fn equals_pytorch() {
    let directory = TempDir::new().unwrap();
    let outputs = directory.path().join("outputs.safetensors");
    for (tensor_type, bound) in [(TensorType::F32, 1e-4), (TensorType::Q8_0, 0.1)] {
        let model = converted(&directory, tensor_type);
        for lowering in lowerings() {
            let lowering = lowering.to_string();
            let inputs = case().join("inputs.safetensors");
            lxmert_run(&model, &inputs, &outputs, &["--lowering", &lowering]);
            let (found, expected) =
                (read_tensors(&outputs), read_tensors(&case().join("outputs.safetensors")));
            assert_eq!(found["question_answering_score"].0, [3, 2]);
            for (name, (shape, expected)) in &expected {
                let (found_shape, found) = &found[name];
                assert_eq!(found_shape, shape, "{name}");
                let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
                let largest = differences.fold(0.0, f32::max);
                assert!(largest <= bound, "{lowering} {tensor_type} {name}: {largest}");
            }
        }
    }
}

#[test]
fn names_its_two_answers() {
    let directory = TempDir::new().unwrap();
    let model = Model::open(converted(&directory, TensorType::F32)).unwrap();
    assert_eq!(model.labels().unwrap(), ["False", "True"]);
    assert_eq!(SessionOptions::new(&model).max_batch, 2);
}

#[test]
fn refuses_an_image_without_its_partner() {
    let directory = TempDir::new().unwrap();
    let model = Model::open(converted(&directory, TensorType::F32)).unwrap();
    let (features, boxes) = (vec![0.5; 3 * 12], vec![0.5; 3 * 4]);
    let inputs = Inputs {
        batch: 3,
        tokens: 1,
        regions: 1,
        text: Text::Ids(&[1, 2, 3]),
        attention_mask: None,
        token_type_ids: None,
        visual_feats: &features,
        visual_pos: &boxes,
        visual_attention_mask: None,
    };
    let mut options = SessionOptions::new(&model);
    options.max_batch = 3;
    let mut session = Session::new(&model, options.clone()).unwrap();
    let error = session.run(&inputs).unwrap_err();
    assert!(matches!(&error, Error::Input { found, .. } if found == "3 rows"), "{error}");

    // Any number of images has pooled outputs.
    options.outputs = vec![Output::PooledOutput];
    let mut session = Session::new(&model, options).unwrap();
    session.run(&inputs).unwrap();
    assert_eq!(session.output(Output::PooledOutput).unwrap().shape[..], [3, 32]);
}

#[test]
fn refuses_a_question_about_one_image() {
    let directory = TempDir::new().unwrap();
    let model = Model::open(converted(&directory, TensorType::F32)).unwrap();
    let mut session = Session::new(&model, SessionOptions::new(&model)).unwrap();
    session.encode_image(&Regions::new(vec![0.5; 12], 12, vec![0.5; 4], 4).unwrap()).unwrap();
    let error = session.ask_tokens(&[1, 2]).unwrap_err();
    assert!(matches!(error, Error::Missing { .. }) && error.to_string().contains("two images"), "{error}");
}

#[test]
fn lxmert_run_tells_of_an_odd_batch_in_one_line() {
    let directory = TempDir::new().unwrap();
    let model = converted(&directory, TensorType::F32);
    let inputs = directory.path().join("inputs.safetensors");
    let mut tensors = RawTensors::read(&case().join("inputs.safetensors"));
    tensors.retain(|_| false);
    tensors.insert_i64("input_ids", &[1, 2], &[1, 2]);
    tensors.insert_f32("visual_feats", &[1, 1, 12], &[0.5; 12]);
    tensors.insert_f32("visual_pos", &[1, 1, 4], &[0.5; 4]);
    tensors.write(&inputs);
    let output = try_lxmert_run(&model, &inputs, &directory.path().join("out.safetensors"), &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.lines().count() == 1, "{text}");
    assert!(text.contains("a batch of 2 rows for each answer"), "{text}");
}
