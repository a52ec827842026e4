//! The tab-separated files of many images.

use lxmert::vision::{FeatureOptions, load_features};

use crate::helpers::{BOXES, Scratch, assert_expected, fixture, message, message_of, of_image};

#[test]
fn reads_the_chosen_row_of_a_tsv_file() {
    for name in ["plain.tsv", "repr.tsv"] {
        assert_expected(&load_features(&fixture(name), &of_image("second")).unwrap());
        let first = load_features(&fixture(name), &of_image("first")).unwrap();
        assert_eq!(first.features(), [100.0, 100.25, 100.5, 100.75, 101.0]);
        assert_eq!(first.boxes(), &BOXES[..4]);
    }
}

#[test]
fn lists_some_ids_when_a_tsv_file_has_not_the_one_or_none_is_given() {
    assert_eq!(
        message_of("plain.tsv"),
        r#"holds many images; give the id of one (--image-id), such as "first", "second", "third""#
    );
    assert_eq!(
        message(&fixture("plain.tsv"), &of_image("fourth")),
        r#"has no image "fourth"; ids look like "first", "second", "third""#
    );
    let empty = Scratch::new("a.tsv", b"\n\n");
    assert!(empty.message_with(&FeatureOptions::default()).ends_with("the file has no rows"));
    assert_eq!(
        empty.message_with(&of_image("x")),
        r#"has no image "x"; ids look like none: the file has no rows"#
    );
}

#[test]
fn refuses_tsv_rows_that_are_damaged() {
    let text = std::fs::read_to_string(fixture("plain.tsv")).unwrap();
    let fields: Vec<&str> = text.lines().nth(1).unwrap().split('\t').collect();
    let with = |field: usize, value: &str| {
        let mut fields = fields.clone();
        fields[field] = value;
        Scratch::new("a.tsv", fields.join("\t").as_bytes()).message_with(&of_image("second"))
    };
    for (message, expected) in [
        (with(1, "tall"), "line 1: img_h is \"tall\", not a number"),
        (with(2, "0"), "cannot be divided by an image width of 0"),
        (with(1, "-5"), "cannot be divided by an image height of -5"),
        (with(1, "NaN"), "cannot be divided by an image height of NaN"),
        (with(2, "16"), "boxes row 0, column 2 is 8, which looks like pixels"),
        (with(7, "0"), "num_boxes is \"0\", not 1 to 4096"),
        (with(7, "1000000000000"), "not 1 to 4096"),
        (with(7, "2"), "features has 15 values, which is not 2 rows"),
        (with(7, "5"), "boxes has 12 values, which is not 5 rows"),
        (with(8, "AAAA"), "boxes has 3 bytes, which are no 32-bit numbers"),
        (with(8, "!!!!"), "boxes is not base64"),
        (with(8, "b'AAAA"), "boxes is not base64"),
        (with(8, ""), "boxes has 0 values"),
        (with(9, "a\tb"), "has more than 10 fields, not 10"),
    ] {
        assert!(message.contains(expected), "{message} should say {expected}");
    }
    let nine = Scratch::new("a.tsv", fields[..9].join("\t").as_bytes());
    let message = nine.message_with(&of_image("second"));
    assert!(message.contains("line 1: has 9 fields, not 10"), "{message}");
    let no_tab = Scratch::new("a.tsv", b"second");
    let message = no_tab.message_with(&of_image("second"));
    assert!(message.contains("line 1 has no tab; expected 10 fields"), "{message}");
}

#[test]
fn refuses_a_tsv_line_without_end() {
    let file = Scratch::new("a.tsv", b"a\t");
    std::fs::OpenOptions::new().write(true).open(&file.path).unwrap().set_len(145 << 20).unwrap();
    let message = file.message_with(&of_image("b"));
    assert!(
        message.starts_with("line 1 takes 150994945 bytes or more; at most 150994944 are read"),
        "{message}"
    );
}
