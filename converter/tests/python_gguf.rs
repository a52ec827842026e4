//! The Python package `gguf` reads what is written here, and finds the same numbers.
//!
//! `LXMERT_PYTHON` names the interpreter, `python3` without it. Where it lacks the package, the test says so and passes.

mod common;

use std::process::Command;

use common::{Gguf, f32s};
use lxmert::InstructionSet;
use lxmert::gguf::TensorType;
use lxmert_converter::{FILE_TYPES, Options, Synthetic, convert_synthetic};
use tempfile::TempDir;

/// Prints a line for each tensor, name, type and shape, and writes all of their values as f32.
const DUMP: &str = r#"
import sys
import numpy
from gguf import GGUFReader
from gguf.quants import dequantize
reader = GGUFReader(sys.argv[1])
with open(sys.argv[2], "wb") as out:
    for tensor in reader.tensors:
        print(tensor.name, tensor.tensor_type.name, *tensor.shape)
        values = dequantize(tensor.data, tensor.tensor_type)
        out.write(numpy.ascontiguousarray(values, dtype="<f4").tobytes())
"#;

fn python() -> String {
    std::env::var("LXMERT_PYTHON").unwrap_or_else(|_| "python3".to_owned())
}

fn has_gguf() -> bool {
    let output = Command::new(python()).args(["-c", "import gguf.quants"]).output();
    let found = output.is_ok_and(|output| output.status.success());
    if !found {
        println!("skipped: {} has no package gguf; LXMERT_PYTHON names another interpreter", python());
    }
    found
}

#[test]
fn python_finds_the_same_numbers_in_every_type() {
    if !has_gguf() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (model, values) = (directory.path().join("m.gguf"), directory.path().join("values"));
    for file_type in FILE_TYPES {
        let synthetic = Synthetic::named("tiny", 5).unwrap();
        convert_synthetic(&synthetic, file_type, &model, &Options::default()).unwrap();
        let output = Command::new(python()).arg("-c").arg(DUMP).args([&model, &values]).output().unwrap();
        assert!(output.status.success(), "{file_type}: {}", String::from_utf8_lossy(&output.stderr));

        let file = Gguf::read(&model);
        let listed = file.header.tensors().iter().map(|tensor| {
            let shape: Vec<_> = tensor.dims().iter().map(u64::to_string).collect();
            format!("{} {} {}", tensor.name(), tensor.tensor_type().name().to_uppercase(), shape.join(" "))
        });
        assert!(String::from_utf8(output.stdout).unwrap().lines().eq(listed), "{file_type}");

        let found = f32s(&std::fs::read(&values).unwrap());
        let mut found = &found[..];
        for tensor in file.header.tensors() {
            let (of_tensor, rest) = found.split_at(tensor.elements() as usize);
            found = rest;
            let mut expected = vec![0.0; of_tensor.len()];
            lxmert::ggml::dequantize(tensor.tensor_type(), file.data(tensor.name()), &mut expected);
            let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            for (found, expected) in of_tensor.iter().zip(&expected) {
                // The same formula in f32, but its steps may be rounded in another order.
                let close = (found - expected).abs() <= 2.0 * f32::EPSILON * largest;
                assert!(close, "{file_type}: {}: {found} {expected}", tensor.name());
            }
        }
        assert!(found.is_empty());
    }
}

/// Prints a line for each tensor, name, type and where its data lies, and writes all data as it is.
const DUMP_BYTES: &str = r#"
import sys
from gguf import GGUFReader
reader = GGUFReader(sys.argv[1])
print(bytes(reader.get_field("lxmert.pack.layout").parts[-1]).decode())
with open(sys.argv[2], "wb") as out:
    for tensor in reader.tensors:
        print(tensor.name, tensor.tensor_type.name, tensor.data_offset)
        out.write(tensor.data.tobytes())
"#;

#[test]
fn python_opens_a_packed_file() {
    if !has_gguf() {
        return;
    }
    let directory = TempDir::new().unwrap();
    let (model, bytes) = (directory.path().join("m.gguf"), directory.path().join("bytes"));
    let options = Options { pack: Some(InstructionSet::Avx512Vnni), ..Options::default() };
    convert_synthetic(&Synthetic::named("tiny", 5).unwrap(), TensorType::Q8_0, &model, &options).unwrap();
    let output = Command::new(python()).arg("-c").arg(DUMP_BYTES).args([&model, &bytes]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = Gguf::read(&model);
    let listed = file.header.tensors().iter().map(|tensor| {
        format!("{} {} {}", tensor.name(), tensor.tensor_type().name().to_uppercase(), tensor.offset())
    });
    let expected: Vec<String> = std::iter::once("panel32x4.1".to_owned()).chain(listed).collect();
    assert!(String::from_utf8(output.stdout).unwrap().lines().eq(expected));
    let data = file.header.tensors().iter().flat_map(|tensor| file.data(tensor.name()).to_vec());
    assert!(std::fs::read(&bytes).unwrap().into_iter().eq(data));
}
