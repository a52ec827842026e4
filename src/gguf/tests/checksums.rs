use super::{RawFile, array, sample_fields};
use crate::gguf::{Header, Metadata, Rule, TensorSpec, TensorType, Writer, reserve_checksums};

const TENSORS: &str = "lxmert.checksum.xxh3.tensors";
const HEADER: &str = "lxmert.checksum.xxh3.header";

fn rule(file: RawFile) -> Rule {
    Header::parse(&file.bytes()).unwrap_err().rule
}

fn written(in_file: bool) -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.insert("general.name", "model").unwrap();
    reserve_checksums(&mut metadata, 2).unwrap();
    let spec =
        |name: &str| TensorSpec { name: name.to_owned(), tensor_type: TensorType::F32, dims: vec![250] };
    let specs = [spec("a"), spec("b")];
    // As 1000 bytes of which the reference implementation was asked.
    let bytes: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
    if !in_file {
        return Writer::to_vec(&metadata, &specs, &[&[0; 1000], &bytes]).unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    let mut writer = Writer::create(&path, &metadata, &specs).unwrap();
    for piece in [&[0; 1000], &bytes[..]].concat().chunks(77) {
        writer.write(piece).unwrap();
    }
    writer.finish().unwrap();
    std::fs::read(&path).unwrap()
}

#[test]
fn are_filled_in_when_all_data_is_there() {
    let file = written(true);
    assert_eq!(file, written(false));
    let header = Header::parse(&file).unwrap();
    assert_eq!(header.checksums().unwrap()[1], 0x33ef_703f_b2b2_0ed1);
    assert_ne!(header.checksums().unwrap()[0], 0);
    assert!(header.metadata().get(HEADER).is_some_and(|value| *value != 0u64.into()));
    assert_eq!(
        Header::parse_start(&file[..header.tensors()[0].range().start], file.len() as u64).unwrap(),
        header
    );
}

#[test]
fn of_a_header_are_compared_when_it_is_read() {
    let mut file = written(false);
    let place = file.windows(5).position(|bytes| bytes == b"model").unwrap();
    file[place] = b'n';
    let error = Header::parse(&file).unwrap_err();
    assert_eq!(error.rule, Rule::HeaderChecksum);
    assert!(error.to_string().starts_with("damaged header: expected checksum "), "{error}");
    assert_eq!(Header::parse_start(&file, file.len() as u64).unwrap_err(), error);
}

#[test]
fn are_numbers_one_for_each_tensor() {
    let number = 7u64.to_le_bytes();
    assert_eq!(rule(sample_fields().key(TENSORS, 10, number)), Rule::Checksums);
    assert_eq!(rule(sample_fields().key(TENSORS, 9, array(10, 1, &number))), Rule::Checksums);
    assert_eq!(rule(sample_fields().key(TENSORS, 9, array(4, 2, &number))), Rule::Checksums);
    assert_eq!(rule(sample_fields().key(HEADER, 4, [0; 4])), Rule::Checksums);
    assert_eq!(rule(sample_fields().key(HEADER, 9, array(10, 1, &number))), Rule::Checksums);
    assert_eq!(rule(sample_fields().key(HEADER, 10, number)), Rule::HeaderChecksum);
    let two = [number, number].concat();
    assert!(Header::parse(&sample_fields().key(TENSORS, 9, array(10, 2, &two)).bytes()).is_ok());
}
