//! Any bytes give a header or an error.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{RawFile, array, sample, string};
use crate::Limits;
use crate::gguf::{Error, Header, Rule};

/// A file with every type of value.
fn rich_file() -> Vec<u8> {
    let numbers = [1u8, 0, 0, 0, 0, 0, 0, 0];
    let mut file = RawFile::default();
    for (type_id, size) in [(0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4), (7, 1)]
        .into_iter()
        .chain([(10u32, 8), (11, 8), (12, 8)])
    {
        let value = &numbers[..size];
        file = file.key(format!("k{type_id}"), type_id, value).key(
            format!("tokenizer.{type_id}"),
            9,
            array(type_id, 1, value),
        );
    }
    let strings = [string("one"), string(""), string("zwölf")].concat();
    file.key("k8", 8, string("text"))
        .key("tokenizer.8", 9, array(8, 3, &strings))
        .tensor("a", &[8], 0, 0)
        .tensor("b", &[256, 1, 1, 1], 14, 32)
        .data(&[0; 32 + 224])
        .bytes()
}

/// What [`Header::parse`] promises of whatever it accepts.
fn parse(bytes: &[u8]) -> Result<Header, Error> {
    parse_within(bytes, &Limits::DEFAULT)
}

fn parse_within(bytes: &[u8], limits: &Limits) -> Result<Header, Error> {
    let header = Header::parse_within(bytes, limits)?;
    let mut end = 0;
    for tensor in header.tensors() {
        let range = tensor.range();
        assert!(range.start >= end && range.end <= bytes.len());
        assert_eq!(range.len() as u64, tensor.bytes());
        assert_eq!(tensor.elements(), tensor.dims().iter().product::<u64>());
        assert_eq!(header.tensor(tensor.name()), Some(tensor));
        end = range.end;
    }
    Ok(header)
}

#[test]
fn every_truncation_is_an_error() {
    for file in [sample(), rich_file()] {
        assert!(parse(&file).is_ok());
        for len in 0..file.len() {
            assert!(parse(&file[..len]).is_err(), "{len} bytes");
        }
    }
}

#[test]
fn every_value_of_every_byte_is_a_result() {
    for mut file in [sample(), rich_file()] {
        for position in 0..file.len() {
            let original = file[position];
            for value in 0..=u8::MAX {
                file[position] = value;
                let _ = parse(&file);
            }
            file[position] = original;
        }
    }
}

#[test]
fn many_keys_and_tensors_take_linear_time() {
    let mut file = RawFile::default();
    for position in 0..40_000 {
        file = file.key(format!("{position:05}"), 7, [1]);
    }
    let limits = Limits { metadata_keys: 40_000, tensors: 20_000, ..Limits::DEFAULT };
    let start = Instant::now();
    let header = parse_within(&file.bytes(), &limits).unwrap();
    assert_eq!(header.metadata().len(), 40_000);
    assert!(header.metadata().bool("39999").unwrap());

    let mut file = RawFile::default().data(&[0; 32 * 20_000]);
    for position in 0..20_000 {
        file = file.tensor(format!("{position:05}"), &[8], 0, position * 32);
    }
    assert_eq!(parse_within(&file.bytes(), &limits).unwrap().tensors().len(), 20_000);
    // Far more than it takes, far less than comparing each with each would.
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn duplicate_keys_end_the_reading_at_once() {
    let mut file = RawFile::default();
    for _ in 0..4000 {
        file = file.key("key", 7, [1]);
    }
    let error = parse(&file.bytes()).unwrap_err();
    assert_eq!((error.rule, error.offset), (Rule::KeyDuplicate, Some(40)));
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(u8),
    Number(u64),
    Insert(Vec<u8>),
    Delete(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let edge = prop_oneof![
        any::<u64>(),
        (0u32..64, -2i64..3).prop_map(|(bit, near)| (1u64 << bit).wrapping_add_signed(near)),
    ];
    prop_oneof![
        any::<u8>().prop_map(Mutation::Set),
        edge.prop_map(Mutation::Number),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Mutation::Insert),
        (1usize..40).prop_map(Mutation::Delete),
    ]
}

fn mutate(bytes: &mut Vec<u8>, at: usize, mutation: &Mutation) {
    match mutation {
        Mutation::Set(value) => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = *value),
        Mutation::Number(number) => {
            for (byte, new) in bytes[at..].iter_mut().zip(number.to_le_bytes()) {
                *byte = new;
            }
        }
        Mutation::Insert(inserted) => drop(bytes.splice(at..at, inserted.iter().copied())),
        Mutation::Delete(len) => drop(bytes.drain(at..(at + len).min(bytes.len()))),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_mutation_of_a_file_is_a_result(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), mutation()), 1..6),
        rich in any::<bool>(),
    ) {
        let mut bytes = if rich { rich_file() } else { sample() };
        for (at, mutation) in &mutations {
            let at = at.index(bytes.len() + 1);
            mutate(&mut bytes, at, mutation);
        }
        let _ = parse(&bytes);
    }

    #[test]
    fn any_bytes_after_the_version_are_a_result(
        rest in prop::collection::vec(prop_oneof![Just(0), Just(1), any::<u8>()], 0..300),
    ) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(rest);
        let _ = parse(&bytes);
    }
}
