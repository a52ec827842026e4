//! One test per rule: a valid file, broken in exactly one place.

use super::{RawFile, array, sample, sample_fields, string};
use crate::Limits;
use crate::gguf::{Error, Header, Rule, TensorType};

fn error(bytes: &[u8]) -> Error {
    Header::parse(bytes).expect_err("the file is broken")
}

/// The error for [`sample`] with other bytes at one position.
fn patched(at: usize, with: impl AsRef<[u8]>) -> Error {
    let (mut bytes, with) = (sample(), with.as_ref());
    bytes[at..at + with.len()].copy_from_slice(with);
    error(&bytes)
}

#[track_caller]
fn assert_error(error: Error, rule: Rule, name: Option<&str>, offset: Option<u64>) {
    assert_eq!((error.rule, error.name.as_deref(), error.offset), (rule, name, offset), "{error}");
}

#[test]
fn accepts_the_file_that_the_others_break() {
    let bytes = sample();
    assert_eq!(bytes.len(), 384);
    let header = Header::parse(&bytes).unwrap();

    let metadata = header.metadata();
    assert_eq!(metadata.len(), 3);
    assert_eq!(metadata.str("general.name").unwrap(), "model");
    assert!(metadata.bool("flag").unwrap());
    assert_eq!(metadata.u32s("sizes").unwrap(), [1, 2]);

    assert_eq!(header.alignment(), 32);
    assert_eq!(header.tensors().len(), 2);
    let (a, b) = (&header.tensors()[0], header.tensor("b.weight").unwrap());
    assert_eq!((a.name(), a.tensor_type()), ("a.weight", TensorType::F32));
    assert_eq!((a.dims(), a.elements()), ([4, 3].as_slice(), 12));
    assert_eq!((a.offset(), a.bytes(), a.range()), (224, 48, 224..272));
    assert_eq!((b.name(), b.tensor_type()), ("b.weight", TensorType::Q8_0));
    assert_eq!((b.dims(), b.elements()), ([32, 2].as_slice(), 64));
    assert_eq!((b.offset(), b.bytes(), b.range()), (288, 68, 288..356));
    assert!(header.tensor("c.weight").is_none());
}

#[test]
fn accepts_a_file_of_nothing() {
    let header = Header::parse(&RawFile::default().bytes()).unwrap();
    assert!(header.metadata().is_empty());
    assert!(header.tensors().is_empty());
}

#[test]
fn rejects_files_without_room_for_the_counts() {
    for len in 0..24 {
        assert_error(error(&sample()[..len]), Rule::TooShort, None, Some(0));
    }
}

#[test]
fn rejects_other_magic() {
    assert_error(patched(0, "GGML"), Rule::Magic, None, Some(0));
    assert_error(error(b"PK\x03"), Rule::Magic, None, Some(0));
}

#[test]
fn rejects_big_endian_files() {
    let error = patched(4, 3u32.to_be_bytes());
    assert!(error.to_string().contains("little-endian"), "{error}");
    assert_error(error, Rule::ByteOrder, None, Some(4));
}

#[test]
fn rejects_every_version_but_3() {
    for version in [0u32, 1, 2, 4, u32::MAX] {
        let error = patched(4, version.to_le_bytes());
        assert_error(error, Rule::Version, None, Some(4));
    }
}

#[test]
fn rejects_more_tensors_than_the_file_can_list() {
    // 368 bytes follow the number, and a tensor takes 33 at least.
    for count in [12, 1 << 32, u64::MAX] {
        let error = patched(8, count.to_le_bytes());
        assert_eq!(error.expected, "at most 11");
        assert_error(error, Rule::TensorCount, None, Some(8));
    }
}

#[test]
fn rejects_more_keys_than_the_file_can_list() {
    // 360 bytes follow the number, and a key takes 13 at least.
    for count in [28, 1 << 32, u64::MAX] {
        let error = patched(16, count.to_le_bytes());
        assert_eq!(error.expected, "at most 27");
        assert_error(error, Rule::KeyCount, None, Some(16));
    }
}

#[test]
fn rejects_headers_that_are_cut_short() {
    let bytes = sample();
    let name = Some("general.name");
    assert_error(error(&bytes[..52]), Rule::TensorCount, None, Some(8));
    assert_error(error(&bytes[..90]), Rule::HeaderTruncated, None, Some(86));
    let sizes = Some("sizes");
    assert_error(error(&bytes[..100]), Rule::HeaderTruncated, sizes, Some(99));
    let b = Some("b.weight");
    assert_error(error(&bytes[..205]), Rule::HeaderTruncated, b, Some(203));

    let no_tensors = RawFile::default().key("general.name", 4, [1, 2]).bytes();
    let error = error(&no_tensors[..50]);
    assert_error(error, Rule::HeaderTruncated, name, Some(48));
}

#[test]
fn rejects_headers_beyond_the_cap() {
    let filler = string("x".repeat(Limits::DEFAULT.header_bytes));
    let file = RawFile::default().key("general.description", 8, &filler);
    let name = Some("general.description");
    assert_error(error(&file.bytes()), Rule::HeaderTooLarge, name, Some(55));
}

#[test]
fn counts_all_keys_against_the_cap() {
    let filler = string("x".repeat(Limits::DEFAULT.header_bytes / 4));
    let mut file = RawFile::default();
    for key in ["a", "b", "c"] {
        file = file.key(key, 8, &filler);
    }
    assert!(Header::parse(&file.bytes()).is_ok());
    let file = file.key("d", 8, &filler);
    assert_eq!(error(&file.bytes()).rule, Rule::HeaderTooLarge);
}

#[test]
fn bounds_the_vocabulary_apart_from_the_header() {
    let large = string("x".repeat(Limits::DEFAULT.header_bytes));
    let file = RawFile::default().key("tokenizer.huggingface.json", 8, &large).key(
        "lxmert.classifier.output_labels",
        9,
        array(8, 1, &large),
    );
    assert!(Header::parse(&file.bytes()).is_ok());

    // After these two, less than this is left.
    let rest = string("x".repeat(Limits::DEFAULT.vocabulary_bytes - 2 * Limits::DEFAULT.header_bytes));
    let bytes = file.key("tokenizer.x", 8, &rest).bytes();
    let error = error(&bytes);
    assert_eq!(error.name.as_deref(), Some("tokenizer.x"));
    assert_eq!(error.rule, Rule::VocabularyTooLarge);
}

#[test]
fn rejects_empty_keys() {
    let file = sample_fields().key("", 7, [1]);
    assert_error(error(&file.bytes()), Rule::KeyEmpty, None, Some(115));
}

#[test]
fn rejects_keys_over_1024_bytes() {
    let longest = sample_fields().key("k".repeat(1024), 7, [1]);
    assert!(Header::parse(&longest.bytes()).is_ok());
    let longer = sample_fields().key("k".repeat(1025), 7, [1]);
    assert_error(error(&longer.bytes()), Rule::KeyTooLong, None, Some(115));
    let error = patched(24, u64::MAX.to_le_bytes());
    assert_error(error, Rule::KeyTooLong, None, Some(24));
}

#[test]
fn rejects_keys_that_are_not_utf8() {
    assert_error(patched(33, [0xff]), Rule::KeyNotUtf8, None, Some(24));
}

#[test]
fn rejects_keys_with_nul() {
    assert_error(patched(33, [0]), Rule::KeyNul, None, Some(24));
}

#[test]
fn rejects_duplicate_keys() {
    let file = sample_fields().key("flag", 7, [1]);
    let error = error(&file.bytes());
    assert_error(error, Rule::KeyDuplicate, Some("flag"), Some(115));
}

#[test]
fn rejects_unknown_value_types() {
    for type_id in [13u32, u32::MAX] {
        let error = patched(44, type_id.to_le_bytes());
        assert_error(error, Rule::ValueType, Some("general.name"), Some(44));
    }
}

#[test]
fn rejects_bools_other_than_0_and_1() {
    assert_error(patched(77, [2]), Rule::BoolValue, Some("flag"), Some(77));
    let file = sample_fields().key("flags", 9, array(7, 3, &[0, 1, 255]));
    let error = error(&file.bytes());
    assert_error(error, Rule::BoolValue, Some("flags"), Some(146));
}

#[test]
fn rejects_strings_beyond_the_end_of_the_file() {
    // 328 bytes follow the length.
    for len in [329, u64::MAX] {
        let error = patched(48, len.to_le_bytes());
        assert_eq!(error.expected, "a length of at most 328");
        assert_error(error, Rule::StringLength, Some("general.name"), Some(48));
    }
}

#[test]
fn rejects_strings_that_are_not_utf8() {
    let error = patched(57, [0xc0]);
    assert_eq!(error.found, "byte 0xc0 at position 1");
    assert_error(error, Rule::StringNotUtf8, Some("general.name"), Some(48));
}

#[test]
fn rejects_strings_with_nul() {
    let error = patched(60, [0]);
    assert_error(error, Rule::StringNul, Some("general.name"), Some(48));
}

#[test]
fn rejects_unknown_types_of_array_elements() {
    let error = patched(95, 13u32.to_le_bytes());
    assert_error(error, Rule::ArrayType, Some("sizes"), Some(95));
}

#[test]
fn rejects_nested_arrays() {
    let error = patched(95, 9u32.to_le_bytes());
    assert_error(error, Rule::ArrayNested, Some("sizes"), Some(95));
}

#[test]
fn rejects_arrays_beyond_the_end_of_the_file() {
    // 277 bytes follow the length. 2^62 elements of 4 bytes are 0 bytes in 64-bit arithmetic.
    for len in [70, 1 << 62, u64::MAX] {
        let error = patched(99, len.to_le_bytes());
        assert_eq!(error.expected, "a length of at most 69");
        assert_error(error, Rule::ArrayLength, Some("sizes"), Some(99));
    }
}

#[test]
fn rejects_unusable_alignments() {
    let aligned = |type_id: u32, value: &[u8]| {
        let file = RawFile { alignment: Some(65536), ..RawFile::default() };
        Header::parse(&file.key("general.alignment", type_id, value).bytes())
    };
    for alignment in [0u32, 4, 24, 1 << 17, u32::MAX] {
        let error = aligned(4, &alignment.to_le_bytes()).unwrap_err();
        assert_error(error, Rule::Alignment, Some("general.alignment"), None);
    }
    let error = aligned(10, &32u64.to_le_bytes()).unwrap_err();
    assert_error(error, Rule::Alignment, Some("general.alignment"), None);
    let header = aligned(4, &65536u32.to_le_bytes()).unwrap();
    assert_eq!(header.alignment(), 65536);
}

#[test]
fn places_data_by_the_alignment_of_the_file() {
    let file = RawFile { alignment: Some(8), ..RawFile::default() };
    let file = file
        .key("general.alignment", 4, 8u32.to_le_bytes())
        .tensor("a", &[1], 0, 0)
        .tensor("b", &[1], 0, 8)
        .data(&[1, 1, 1, 1, 0, 0, 0, 0, 2, 2, 2, 2, 0, 0, 0, 0]);
    let bytes = file.bytes();
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(&bytes[header.tensor("a").unwrap().range()], [1; 4]);
    assert_eq!(&bytes[header.tensor("b").unwrap().range()], [2; 4]);
}

#[test]
fn rejects_empty_tensor_names() {
    let file = RawFile::default().tensor("", &[8], 0, 0).data(&[0; 32]);
    assert_error(error(&file.bytes()), Rule::TensorNameEmpty, None, Some(24));
}

#[test]
fn rejects_tensor_names_over_63_bytes() {
    let named = |len| {
        let file = RawFile::default().tensor("n".repeat(len), &[8], 0, 0);
        Header::parse(&file.data(&[0; 32]).bytes())
    };
    assert!(named(63).is_ok());
    let error = named(64).unwrap_err();
    assert_error(error, Rule::TensorNameTooLong, None, Some(24));
    let error = patched(115, u64::MAX.to_le_bytes());
    assert_error(error, Rule::TensorNameTooLong, None, Some(115));
}

#[test]
fn rejects_tensor_names_that_are_not_utf8() {
    let error = patched(123, [0x80]);
    assert_error(error, Rule::TensorNameNotUtf8, None, Some(115));
}

#[test]
fn rejects_tensor_names_with_nul() {
    assert_error(patched(130, [0]), Rule::TensorNameNul, None, Some(115));
}

#[test]
fn rejects_duplicate_tensor_names() {
    let error = patched(171, "a");
    let name = Some("a.weight");
    assert_error(error, Rule::TensorNameDuplicate, name, Some(163));
}

#[test]
fn rejects_no_dimensions_and_more_than_four() {
    for count in [0u32, 5, u32::MAX] {
        let error = patched(131, count.to_le_bytes());
        assert_error(error, Rule::DimensionCount, Some("a.weight"), Some(131));
    }
    let four = RawFile::default().tensor("a", &[2, 1, 2, 2], 0, 0);
    assert!(Header::parse(&four.data(&[0; 32]).bytes()).is_ok());
}

#[test]
fn rejects_zero_dimensions() {
    for at in [135, 143] {
        let error = patched(at, 0u64.to_le_bytes());
        assert_error(error, Rule::DimensionZero, Some("a.weight"), Some(131));
    }
}

#[test]
fn rejects_unknown_tensor_types() {
    // 4 and 5 were withdrawn by ggml, and 9 is for intermediate results only.
    for type_id in [4u32, 5, 9, 31, 1000, u32::MAX] {
        let error = patched(151, type_id.to_le_bytes());
        assert_error(error, Rule::TensorType, Some("a.weight"), Some(151));
    }
}

#[test]
fn rejects_dimensions_whose_product_wraps() {
    let product_is_0_in_64_bits = [1u64 << 32, 1 << 32].map(u64::to_le_bytes).concat();
    let product_is_0_in_128_bits = [u64::MAX; 4];
    let error_64 = patched(135, product_is_0_in_64_bits);
    assert_error(error_64, Rule::TensorTooLarge, Some("a.weight"), Some(131));
    let file = RawFile::default().tensor("a", &product_is_0_in_128_bits, 0, 0);
    let error_128 = error(&file.bytes());
    assert_error(error_128, Rule::TensorTooLarge, Some("a"), Some(33));
}

#[test]
fn rejects_data_whose_size_or_sum_wraps() {
    let too_many_bytes = RawFile::default().tensor("a", &[1 << 61], 0, 0);
    let large = error(&too_many_bytes.bytes());
    assert_error(large, Rule::TensorTooLarge, Some("a"), Some(33));

    // 2^63 - 32 bytes each: the third ends beyond 2^64.
    let elements = (1 << 61) - 8;
    let file = RawFile::default()
        .tensor("a", &[elements], 0, 0)
        .tensor("b", &[elements], 0, elements * 4)
        .tensor("c", &[elements], 0, elements * 8);
    let sum = error(&file.bytes());
    assert_error(sum, Rule::TensorTooLarge, Some("c"), Some(90));

    // The data section alone just fits 2^64, but not behind a header.
    let file = RawFile::default().tensor("a", &[elements], 0, 0).tensor("b", &[elements], 0, elements * 4);
    let end = error(&file.bytes());
    assert_eq!(end.rule, Rule::TensorTooLarge);
}

#[test]
fn rejects_rows_that_end_within_a_block() {
    // 16 x 4 elements would be two whole blocks.
    let dims = [16u64, 4].map(u64::to_le_bytes).concat();
    let error = patched(183, dims);
    assert_error(error, Rule::RowLength, Some("b.weight"), Some(179));
}

#[test]
fn rejects_misaligned_data() {
    let error = patched(203, 68u64.to_le_bytes());
    assert_error(error, Rule::OffsetAlignment, Some("b.weight"), Some(203));
}

#[test]
fn rejects_overlapping_data() {
    let error = patched(203, 32u64.to_le_bytes());
    assert_eq!(
        error.to_string(),
        "tensor \"b.weight\" at byte 203: overlapping data: expected offset 64, found 32"
    );
    assert_error(error, Rule::Overlap, Some("b.weight"), Some(203));
    let error = patched(203, 0u64.to_le_bytes());
    assert_error(error, Rule::Overlap, Some("b.weight"), Some(203));
}

#[test]
fn rejects_holes_before_data() {
    for offset in [96u64, u64::MAX - 31] {
        let error = patched(203, offset.to_le_bytes());
        assert_error(error, Rule::Hole, Some("b.weight"), Some(203));
    }
    let error = patched(155, 32u64.to_le_bytes());
    assert_error(error, Rule::Hole, Some("a.weight"), Some(155));
}

#[test]
fn says_how_much_data_is_missing() {
    let bytes = sample();
    let cut = error(&bytes[..300]);
    assert!(cut.to_string().contains("84 bytes are missing"), "{cut}");
    assert_error(cut, Rule::DataTruncated, Some("b.weight"), Some(288));
    let cut = error(&bytes[..230]);
    assert_error(cut, Rule::DataTruncated, Some("a.weight"), Some(224));
    let padding = error(&bytes[..383]);
    assert_error(padding, Rule::DataTruncated, Some("b.weight"), Some(383));
    let nothing = RawFile::default().bytes();
    assert_error(error(&nothing[..24]), Rule::DataTruncated, None, Some(24));
}

#[test]
fn rejects_trailing_bytes() {
    let mut bytes = sample();
    bytes.push(0);
    assert_error(error(&bytes), Rule::TrailingBytes, None, Some(384));
    bytes.extend([0; 31]);
    assert_error(error(&bytes), Rule::TrailingBytes, None, Some(384));
}

#[test]
fn rejects_padding_that_is_not_zero() {
    assert_error(patched(211, [1]), Rule::Padding, None, Some(211));
    assert_error(patched(223, [1]), Rule::Padding, None, Some(223));
    let (a, b) = (Some("a.weight"), Some("b.weight"));
    assert_error(patched(287, [1]), Rule::Padding, a, Some(287));
    assert_error(patched(356, [1]), Rule::Padding, b, Some(356));
    assert_error(patched(383, [1]), Rule::Padding, b, Some(383));
}

#[test]
fn errors_show_hostile_names_escaped_on_one_line() {
    let key = "\u{1b}[2J\n\"";
    let file = RawFile::default().key(key, 7, [2]);
    let error = error(&file.bytes());
    assert_eq!(error.name.as_deref(), Some(key));
    assert_eq!(
        error.to_string(),
        r#"key "\u{1b}[2J\n\"" at byte 42: malformed bool: expected 0 or 1, found 2"#
    );
}
