//! GGUF files as the source of others.

mod common;

use std::path::{Path, PathBuf};

use common::{Gguf, converted, easy_vqa, golden};
use lxmert::gguf::{TensorInfo, TensorSpec, TensorType, Writer};
use lxmert_converter::{Error, FILE_TYPES, FileType, Options, convert_directory};
use tempfile::TempDir;

fn make(from: &Path, file_type: impl Into<FileType>, to: &Path, options: &Options) -> Result<(), Error> {
    convert_directory(from, file_type, to, options).map(drop)
}

fn made(directory: &TempDir, from: &Path, tensor_type: TensorType) -> PathBuf {
    let out = directory.path().join(format!("{tensor_type}.gguf"));
    make(from, tensor_type, &out, &Options::default()).unwrap();
    out
}

/// Tokenizer, answers and front end come through too: the model has them all.
#[test]
fn an_f32_file_gives_what_the_checkpoint_gives() {
    let directory = TempDir::new().unwrap();
    for checkpoint in
        [easy_vqa(), golden("pretraining-small"), golden("model-odd-sizes"), golden("nlvr2-small")]
    {
        let whole = made(&directory, &checkpoint, TensorType::F32);
        for file_type in FILE_TYPES {
            let out = directory.path().join("out.gguf");
            make(&whole, file_type, &out, &Options::default()).unwrap();
            let direct = directory.path().join("direct.gguf");
            make(&checkpoint, file_type, &direct, &Options::default()).unwrap();
            let same = std::fs::read(&out).unwrap() == std::fs::read(&direct).unwrap();
            assert!(same, "{} {file_type}", checkpoint.display());
        }
    }
}

#[test]
fn half_precision_needs_no_permission() {
    let directory = TempDir::new().unwrap();
    for half in [TensorType::F16, TensorType::BF16] {
        let file = made(&directory, &golden("qa-small"), half);
        let back = directory.path().join("back.gguf");
        make(&file, half, &back, &Options::default()).unwrap();
        assert!(std::fs::read(&file).unwrap() == std::fs::read(&back).unwrap());
    }
}

#[test]
fn a_quantized_file_needs_permission() {
    let directory = TempDir::new().unwrap();
    let file = made(&directory, &golden("qa-small"), TensorType::Q8_0);
    let out = directory.path().join("out.gguf");
    let error = make(&file, TensorType::Q4_0, &out, &Options::default()).unwrap_err();
    assert!(matches!(error, Error::Requantize { found: TensorType::Q8_0, .. }) && !out.exists());
    assert!(error.to_string().contains("--allow-requantize"));

    make(&file, TensorType::Q4_0, &out, &Options { allow_requantize: true, ..Options::default() }).unwrap();
    let (quantized, again) = (Gguf::read(&file), Gguf::read(&out));
    assert_eq!(again.tensor_type("pooler.weight"), TensorType::Q4_0);
    let metadata = again.metadata();
    assert_eq!(
        (metadata.u32("general.file_type").unwrap(), metadata.u32("general.quantization_version").unwrap()),
        (2, 2)
    );
    // Of the weights in the beginning, not of those that were rounded once.
    let sha256 = quantized.metadata().str("lxmert.source.sha256").unwrap();
    assert_eq!(metadata.str("lxmert.source.sha256").unwrap(), sha256);
    assert_eq!(converted(&golden("qa-small"), TensorType::F32).1.sha256, sha256);

    make(&file, TensorType::F32, &out, &Options { allow_requantize: true, ..Options::default() }).unwrap();
    let unpacked = Gguf::read(&out);
    assert!(unpacked.metadata().get("general.quantization_version").is_none());
    let mut expected = vec![0.0; 64 * 64];
    lxmert::ggml::dequantize(TensorType::Q8_0, quantized.data("pooler.weight"), &mut expected);
    assert_eq!(unpacked.values("pooler.weight"), expected);
}

#[test]
fn keeps_keys_that_it_does_not_know() {
    let directory = TempDir::new().unwrap();
    let file = Gguf::read(&made(&directory, &golden("qa-small"), TensorType::F32));
    let mut metadata = file.metadata().clone();
    metadata.insert("general.license", "mit").unwrap();
    let spec = |tensor: &TensorInfo| TensorSpec {
        name: tensor.name().to_owned(),
        tensor_type: tensor.tensor_type(),
        dims: tensor.dims().to_vec(),
    };
    let specs: Vec<_> = file.header.tensors().iter().map(spec).collect();
    let data: Vec<_> = file.header.tensors().iter().map(|tensor| &file.bytes[tensor.range()]).collect();
    let licensed = directory.path().join("licensed.gguf");
    std::fs::write(&licensed, Writer::to_vec(&metadata, &specs, &data).unwrap()).unwrap();
    let out = directory.path().join("out.gguf");
    make(&licensed, TensorType::Q8_0, &out, &Options::default()).unwrap();
    assert_eq!(Gguf::read(&out).metadata().str("general.license").unwrap(), "mit");
}

#[test]
fn refuses_what_the_runtime_would_refuse() {
    let directory = TempDir::new().unwrap();
    let file = made(&directory, &golden("qa-small"), TensorType::F32);
    let whole = std::fs::read(&file).unwrap();
    let broken = directory.path().join("broken.gguf");
    let out = directory.path().join("out.gguf");
    for length in [0, 4, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&broken, &whole[..length]).unwrap();
        assert!(make(&broken, TensorType::F16, &out, &Options::default()).is_err(), "{length}");
    }
    let labels = Options { labels: Some(broken.clone()), ..Options::default() };
    let error = make(&file, TensorType::F16, &out, &labels).unwrap_err();
    assert!(matches!(error, Error::Given { option: "--labels", .. }) && !out.exists());
}
