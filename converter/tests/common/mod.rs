//! Checkpoints for the tests: the golden ones of the repository, and altered copies of them.

#![allow(dead_code, reason = "each test crate uses a part of it")]

#[path = "../../../tests/common/program.rs"]
pub mod program;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lxmert::gguf::{Header, Metadata, TensorType};
use lxmert_converter::{Error, Options, Problem, Report, convert_directory};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tempfile::TempDir;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A tiny checkpoint that transformers saved.
pub fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// The small trained model, with tokenizer, answers and preprocessing.
pub fn easy_vqa() -> PathBuf {
    root().join("models/easy-vqa")
}

/// A tensor of a checkpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

impl Tensor {
    pub fn f32(shape: &[usize], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Tensor { dtype: Dtype::F32, shape: shape.to_vec(), data }
    }

    pub fn values(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        f32s(&self.data)
    }

    pub fn set(&mut self, index: usize, value: f32) {
        self.data[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
    }
}

pub type Tensors = BTreeMap<String, Tensor>;

pub fn read_tensors(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, TensorView)| {
        let tensor = Tensor { dtype: view.dtype(), shape: view.shape().to_vec(), data: view.data().to_vec() };
        (name, tensor)
    };
    file.tensors().into_iter().map(tensor).collect()
}

pub fn write_tensors(path: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, tensor)| {
        (name, TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data).unwrap())
    });
    safetensors::serialize_to_file(views, None, path).unwrap();
}

/// A copy of a golden checkpoint in a directory of its own, to be altered.
pub struct Altered {
    pub temporary: TempDir,
    pub tensors: Tensors,
    pub config: serde_json::Value,
}

impl Altered {
    pub fn golden(name: &str) -> Self {
        let config = std::fs::read(golden(name).join("config.json")).unwrap();
        Altered {
            temporary: TempDir::new().unwrap(),
            tensors: read_tensors(&golden(name).join("model.safetensors")),
            config: serde_json::from_slice(&config).unwrap(),
        }
    }

    pub fn directory(&self) -> &Path {
        self.temporary.path()
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.get_mut(name).unwrap_or_else(|| panic!("no {name}"))
    }

    pub fn write(&self) {
        write_tensors(&self.directory().join("model.safetensors"), &self.tensors);
        self.write_config();
    }

    pub fn write_config(&self) {
        self.write_file("config.json", &self.config.to_string());
    }

    pub fn write_file(&self, name: &str, text: &str) {
        std::fs::write(self.directory().join(name), text).unwrap();
    }

    pub fn out(&self) -> PathBuf {
        self.directory().join("out.gguf")
    }

    /// Writes the checkpoint and converts it to f32.
    pub fn convert(&self) -> Result<Report, Error> {
        self.write();
        self.convert_written()
    }

    /// Converts what lies in the directory to f32.
    pub fn convert_written(&self) -> Result<Report, Error> {
        convert_directory(self.directory(), TensorType::F32, &self.out(), &Options::default())
    }

    /// Writes and converts a checkpoint that has to be refused for its tensors, without leaving a file.
    pub fn problems(&self) -> Vec<Problem> {
        self.write();
        let files = self.files();
        match self.convert_written() {
            Err(Error::Tensors { problems }) => {
                assert_eq!(self.files(), files, "files were left behind");
                problems
            }
            other => panic!("not refused for its tensors: {other:?}"),
        }
    }

    pub fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.directory()).unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }
}

/// A GGUF file, read back.
pub struct Gguf {
    pub bytes: Vec<u8>,
    pub header: Header,
}

impl Gguf {
    pub fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let header = Header::parse(&bytes).unwrap();
        Gguf { bytes, header }
    }

    pub fn metadata(&self) -> &Metadata {
        self.header.metadata()
    }

    pub fn names(&self) -> Vec<&str> {
        self.header.tensors().iter().map(|tensor| tensor.name()).collect()
    }

    pub fn tensor_type(&self, name: &str) -> TensorType {
        self.info(name).tensor_type()
    }

    pub fn dims(&self, name: &str) -> &[u64] {
        self.info(name).dims()
    }

    pub fn data(&self, name: &str) -> &[u8] {
        &self.bytes[self.info(name).range()]
    }

    /// The values of an f32 tensor.
    pub fn values(&self, name: &str) -> Vec<f32> {
        assert_eq!(self.tensor_type(name), TensorType::F32);
        f32s(self.data(name))
    }

    fn info(&self, name: &str) -> &lxmert::gguf::TensorInfo {
        let tensors = self.header.tensors();
        tensors.iter().find(|tensor| tensor.name() == name).unwrap_or_else(|| panic!("no {name}"))
    }
}

/// Converts a directory and reads the result back.
pub fn converted(directory: &Path, tensor_type: TensorType) -> (Gguf, Report) {
    let temporary = TempDir::new().unwrap();
    let out = temporary.path().join("out.gguf");
    let report = convert_directory(directory, tensor_type, &out, &Options::default()).unwrap();
    (Gguf::read(&out), report)
}

pub fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}
