//! Every golden case, through the converter and `lxmert-run`, against PyTorch, in every way to compute that this CPU has.

mod common;

use common::golden::{CASES, Converted, case, largest, largest_difference, relative_l2};
use common::program::program;
use common::{Tensors, lowerings};
use lxmert::Lowering;
use lxmert::gguf::TensorType;

#[test]
fn f32_equals_pytorch_in_every_output_of_every_case() {
    for name in CASES {
        let converted = Converted::new(name, TensorType::F32);
        let expected = converted.expected();
        for lowering in lowerings() {
            let found = converted.run(lowering, &["--output-hidden-states", "--output-attentions"]);
            let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(&found), names(&expected), "{lowering} {name}");
            for (output, (shape, expected)) in &expected {
                let (found_shape, found) = &found[output];
                assert_eq!(found_shape, shape, "{lowering} {name} {output}");
                let difference = largest_difference(found, expected);
                let relative = difference / largest(expected);
                let close = difference <= 1e-4 && relative <= 1e-4;
                assert!(close, "{lowering} {name} {output}: {difference} {relative}");
            }
        }
    }
}

#[test]
fn q8_0_keeps_the_logits_of_the_64_wide_cases() {
    let logits = ["question_answering_score", "prediction_logits", "cross_relationship_score"];
    for name in ["qa-small", "qa-masked-batch", "qa-silu", "qa-gelu-new", "pretraining-small"] {
        let converted = Converted::new(name, TensorType::Q8_0);
        let expected = converted.expected();
        for lowering in lowerings() {
            let found = converted.run(lowering, &[]);
            for output in logits.iter().filter(|output| expected.contains_key(**output)) {
                let error = relative_l2(&found[*output].1, &expected[*output].1);
                assert!(error <= 0.02, "{lowering} {name} {output}: {error}");
            }
        }
    }
}

#[test]
fn every_type_runs() {
    let bounds = [
        (TensorType::F16, 0.005),
        (TensorType::BF16, 0.02),
        (TensorType::Q5_1, 0.2),
        (TensorType::Q5_0, 0.2),
        (TensorType::Q4_1, 0.3),
        (TensorType::Q4_0, 0.3),
        // Rows of 64 do not fit blocks of 256, so these keep f16 here.
        (TensorType::Q6K, 0.005),
        (TensorType::Q5K, 0.005),
        (TensorType::Q4K, 0.005),
    ];
    let output = "question_answering_score";
    for (tensor_type, bound) in bounds {
        let converted = Converted::new("qa-masked-batch", tensor_type);
        let expected = converted.expected();
        for lowering in lowerings() {
            let found = converted.run(lowering, &[]);
            let error = relative_l2(&found[output].1, &expected[output].1);
            assert!(error <= bound, "{lowering} {tensor_type}: {error}");
        }
    }
}

/// Dropping padding and computing only the first row of the last layer changes nothing that is asked for.
#[test]
fn one_output_alone_equals_the_same_among_all() {
    for name in ["qa-masked-batch", "qa-small", "pretraining-small"] {
        let converted = Converted::new(name, TensorType::F32);
        for lowering in lowerings() {
            let all = converted.run(lowering, &["--output-hidden-states"]);
            for output in ["question_answering_score", "pooled_output"] {
                let alone = converted.run(lowering, &["--output", output]);
                assert_eq!(alone.len(), 1);
                let difference = largest_difference(&alone[output].1, &all[output].1);
                assert!(difference <= 1e-5, "{lowering} {name} {output}: {difference}");
            }
        }
    }
}

#[test]
fn threads_on_the_command_line_change_no_byte() {
    let converted = Converted::new("qa-masked-batch", TensorType::F32);
    for lowering in lowerings() {
        let runs = ["1", "2", "4"]
            .map(|threads| converted.run(lowering, &["--threads", threads, "--output-hidden-states"]));
        assert!(runs[0] == runs[1] && runs[1] == runs[2], "{lowering}");
    }
}

#[test]
fn lists_can_be_asked_for_whole_or_one_by_one() {
    let converted = Converted::new("model-relu", TensorType::F32);
    let arguments = ["--output", "vision_attentions", "--output", "language_hidden_states.2"];
    let found = converted.run(Lowering::Fastest, &arguments);
    let expected = converted.expected();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["language_hidden_states.2", "vision_attentions.0", "vision_attentions.1", "vision_attentions.2"]
    );
    for (output, (_, found)) in &found {
        assert!(largest_difference(found, &expected[output].1) <= 1e-5, "{output}");
    }
}

/// A whole row of masked keys becomes uniform, as in transformers since 4.57.
#[test]
fn a_question_without_any_kept_token_attends_evenly() {
    let converted = Converted::new("qa-masked-batch", TensorType::F32);
    let inputs = converted.directory.path().join("inputs.safetensors");
    let mut tensors = common::RawTensors::read(&case("qa-masked-batch").join("inputs.safetensors"));
    let mask = tensors.get_mut("attention_mask");
    mask.fill(0);
    tensors.write(&inputs);
    for lowering in lowerings() {
        let outputs = converted.run_on(&inputs, lowering, &["--output", "language_attentions.0"]);
        let (shape, weights) = &outputs["language_attentions.0"];
        let even = 1.0 / shape[3] as f32;
        assert!(weights.iter().all(|weight| (weight - even).abs() < 1e-6), "{lowering}");
    }
}

#[test]
fn version_tells_the_build() {
    let output = program(env!("CARGO_BIN_EXE_lxmert-run")).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    assert!(text.contains("ggml: 0.26.0") && text.contains(std::env::consts::ARCH), "{text}");
}
