//! What the integration tests share. Each uses a part of it.
#![allow(dead_code)]

pub mod golden;
pub mod program;
pub mod wide;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;

use lxmert::gguf::TensorType;
use lxmert::{InstructionSet, Lowering};
use program::program;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// f32 tensors with their shapes, by name.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn read_tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = file.iter().filter(|(_, tensor)| tensor.dtype() == Dtype::F32);
    floats
        .map(|(name, tensor)| {
            let values = tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
            (name.to_owned(), (tensor.shape().to_vec(), values.collect()))
        })
        .collect()
}

/// A safetensors file, to change and write again.
#[derive(Default)]
pub struct RawTensors(BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>);

impl RawTensors {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensor = |(name, tensor): (&str, TensorView<'_>)| {
            (name.to_owned(), (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()))
        };
        RawTensors(file.iter().map(tensor).collect())
    }

    pub fn get_mut(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.0.get_mut(name).unwrap().2
    }

    pub fn insert_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.insert(name.to_owned(), (Dtype::F32, shape.to_vec(), bytes));
    }

    pub fn insert_i64(&mut self, name: &str, shape: &[usize], values: &[i64]) {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.insert(name.to_owned(), (Dtype::I64, shape.to_vec(), bytes));
    }

    pub fn remove(&mut self, name: &str) {
        self.0.remove(name).unwrap();
    }

    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| keep(name));
    }

    pub fn write(&self, path: &Path) {
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
    }
}

/// Every way to compute that this CPU has, ggml's operations and plain Rust at the least. Says which it leaves out.
pub fn lowerings() -> Vec<Lowering> {
    let (available, missing): (Vec<_>, Vec<_>) =
        InstructionSet::ALL.into_iter().partition(|set| set.is_available());
    assert!(available.contains(&InstructionSet::Portable));
    for set in missing {
        eprintln!("skipped: this CPU does not have {}", set.name());
    }
    std::iter::once(Lowering::Ggml).chain(available.into_iter().map(Lowering::Kernels)).collect()
}

/// An instruction set with kernels that this CPU does not have.
pub fn missing_set() -> Option<InstructionSet> {
    let missing = InstructionSet::ALL.into_iter().find(|set| !set.is_available());
    if missing.is_none() {
        eprintln!("skipped: this CPU has every instruction set");
    }
    missing
}

/// Converts a Hugging Face directory.
pub fn convert(directory: &Path, tensor_type: TensorType, out: &Path) {
    let options = lxmert_converter::Options::default();
    lxmert_converter::convert_directory(directory, tensor_type, out, &options).unwrap();
}

/// Runs `lxmert-run`, which must succeed.
pub fn lxmert_run(model: &Path, inputs: &Path, outputs: &Path, arguments: &[&str]) {
    let output = try_lxmert_run(model, inputs, outputs, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub fn try_lxmert_run(model: &Path, inputs: &Path, outputs: &Path, arguments: &[&str]) -> Output {
    program(env!("CARGO_BIN_EXE_lxmert-run"))
        .arg("--model")
        .arg(model)
        .arg("--inputs")
        .arg(inputs)
        .arg("--outputs")
        .arg(outputs)
        // ggml's threads wait for each other by spinning, which is slow beside other tests; later options override.
        .args(["--threads", "1"])
        .args(arguments)
        .output()
        .unwrap()
}
