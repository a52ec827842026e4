//! The golden cases: models, inputs, and what PyTorch computes.

use std::path::{Path, PathBuf};

use lxmert::Lowering;
use lxmert::gguf::TensorType;
use tempfile::TempDir;

use super::{Tensors, convert, lxmert_run, read_tensors};

pub const CASES: [&str; 8] = [
    "qa-small",
    "qa-masked-batch",
    "qa-silu",
    "qa-gelu-new",
    "pretraining-small",
    "model-relu",
    "model-embeds",
    "model-odd-sizes",
];

pub fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A case's model in some type, converted once for all runs.
pub struct Converted {
    name: &'static str,
    pub directory: TempDir,
}

impl Converted {
    pub fn new(name: &'static str, tensor_type: TensorType) -> Self {
        let converted = Converted { name, directory: TempDir::new().unwrap() };
        convert(&case(name), tensor_type, &converted.model());
        converted
    }

    pub fn model(&self) -> PathBuf {
        self.directory.path().join("model.gguf")
    }

    /// What is computed.
    pub fn run(&self, lowering: Lowering, arguments: &[&str]) -> Tensors {
        self.run_on(&case(self.name).join("inputs.safetensors"), lowering, arguments)
    }

    pub fn run_on(&self, inputs: &Path, lowering: Lowering, arguments: &[&str]) -> Tensors {
        let lowering = lowering.to_string();
        self.run_with(inputs, &[&["--device", "cpu", "--lowering", &lowering], arguments].concat())
    }

    pub fn run_with(&self, inputs: &Path, arguments: &[&str]) -> Tensors {
        let outputs = self.directory.path().join("outputs.safetensors");
        lxmert_run(&self.model(), inputs, &outputs, arguments);
        read_tensors(&outputs)
    }

    /// What PyTorch computed.
    pub fn expected(&self) -> Tensors {
        read_tensors(&case(self.name).join("outputs.safetensors"))
    }
}

pub fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let differences: Vec<f32> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    largest(&differences)
}

pub fn relative_l2(found: &[f32], expected: &[f32]) -> f32 {
    let error: f32 = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum();
    (error / expected.iter().map(|value| value.powi(2)).sum::<f32>()).sqrt()
}
