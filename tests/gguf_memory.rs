//! What the GGUF reader asks of the allocator: little, and it takes no for an answer.

#[path = "common/allocations.rs"]
mod allocations;

use allocations::{Counting, allocated, with_failure};
use lxmert::gguf::{Header, Metadata, Rule, TensorSpec, TensorType, Writer};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn file() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.insert("general.name", "model").unwrap();
    let tokens = ["one", "", "three"].map(str::to_string).to_vec();
    metadata.insert("tokenizer.ggml.tokens", tokens).unwrap();
    metadata.insert("sizes", vec![1u32, 2]).unwrap();
    metadata.insert("flags", vec![true]).unwrap();
    let tensors = ["a", "b"].map(|name| TensorSpec {
        name: name.to_string(),
        tensor_type: TensorType::F32,
        dims: vec![8],
    });
    Writer::to_vec(&metadata, &tensors, &[&[1; 32], &[2; 32]]).unwrap()
}

#[test]
fn any_failing_allocation_is_an_error_without_a_leak() {
    let bytes = file();
    let mut failures = 0;
    let ((), memory) = allocated(|| {
        loop {
            let (result, failed) = with_failure(failures, || Header::parse(&bytes));
            if !failed {
                assert!(result.is_ok());
                break;
            }
            assert_eq!(result.unwrap_err().rule, Rule::OutOfMemory);
            failures += 1;
        }
    });
    // Two copies of each name, three strings, four arrays and tables.
    assert!(failures > 15, "{failures}");
    assert_eq!(memory.rest, 0);
}

#[test]
fn a_broken_file_is_reported_even_without_memory_for_the_words() {
    let mut bytes = file();
    bytes.push(0);
    let mut k = 0;
    loop {
        let (result, failed) = with_failure(k, || Header::parse(&bytes));
        let rule = result.unwrap_err().rule;
        assert!([Rule::TrailingBytes, Rule::OutOfMemory].contains(&rule));
        if !failed {
            assert_eq!(rule, Rule::TrailingBytes);
            break;
        }
        k += 1;
    }
}

#[test]
fn memory_is_a_small_multiple_of_the_file() {
    let start = |tensors: u64, keys: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes
    };
    let key = |bytes: &mut Vec<u8>, key: &str, type_id: u32| {
        bytes.extend((key.len() as u64).to_le_bytes());
        bytes.extend(key.as_bytes());
        bytes.extend(type_id.to_le_bytes());
    };

    let mut empty_strings = start(0, 1);
    key(&mut empty_strings, "tokenizer.x", 9);
    empty_strings.extend(8u32.to_le_bytes());
    empty_strings.extend(500_000u64.to_le_bytes());
    empty_strings.resize(empty_strings.len() + 8 * 500_000, 0);

    let mut short_keys = start(0, 50_000);
    for position in 0..50_000 {
        key(&mut short_keys, &format!("{position:05}"), 7);
        short_keys.push(1);
    }

    let mut many_tensors = start(20_000, 0);
    for position in 0..20_000u64 {
        let name = format!("{position:05}");
        many_tensors.extend(5u64.to_le_bytes());
        many_tensors.extend(name.as_bytes());
        many_tensors.extend(1u32.to_le_bytes());
        many_tensors.extend(1u64.to_le_bytes());
        many_tensors.extend(0u32.to_le_bytes());
        many_tensors.extend((position * 32).to_le_bytes());
    }

    let mut announced_only = start(30_000, 70_000);
    announced_only.resize(1 << 20, 0xff);

    for bytes in [empty_strings, short_keys, many_tensors, announced_only] {
        let ((), memory) = allocated(|| drop(Header::parse(&bytes)));
        assert!(memory.peak <= 12 * bytes.len(), "{memory:?} for {}", bytes.len());
        assert_eq!(memory.rest, 0);
    }
}
