//! The memory that a conversion takes, which must not grow with the checkpoint. Alone in its process, whose
//! peak it measures.

#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;

use lxmert::gguf::TensorType;
use lxmert::model::Config;
use lxmert_converter::source::{Source, SyntheticSource};
use lxmert_converter::{Options, Synthetic, convert_directory};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// The peak of this process's resident memory in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

#[test]
fn stays_small_for_a_large_tensor() {
    let directory = TempDir::new().unwrap();
    let tiny = Synthetic::named("tiny", 0).unwrap();
    let config = Config { vocab_size: 150_000, ..tiny.config.clone() };
    let source = SyntheticSource::new(&Synthetic { config, ..tiny });

    // A file of zeros, which the file system need not store.
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, tensor) in source.tensors() {
        let start = end;
        end += 4 * tensor.shape.iter().product::<usize>();
        let entry =
            serde_json::json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(name.clone(), entry);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = File::create(directory.path().join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    file.set_len((8 + header.len() + end) as u64).unwrap();
    std::fs::write(directory.path().join("config.json"), r#"{"num_attention_heads": 4}"#).unwrap();

    let before = peak();
    let options = Options { threads: NonZeroUsize::new(2), ..Options::default() };
    let out = directory.path().join("out.gguf");
    convert_directory(directory.path(), TensorType::Q8_0, &out, &options).unwrap();
    let grown = peak() - before;
    assert!(end as u64 > 150 * MIB, "the checkpoint has {end} bytes");
    assert!(grown < 32 * MIB, "the conversion took {grown} bytes");
}
