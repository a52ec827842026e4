use crate::gguf::{Array, Error, Metadata, Rule, Value};

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.insert("number", 12u32).unwrap();
    metadata.insert("small", 7u8).unwrap();
    metadata.insert("large", 1u64 << 32).unwrap();
    metadata.insert("negative", -1i32).unwrap();
    metadata.insert("eps", 1e-12f32).unwrap();
    metadata.insert("flag", true).unwrap();
    metadata.insert("name", "model").unwrap();
    metadata.insert("words", vec!["a".to_string()]).unwrap();
    metadata.insert("mean", vec![0.5f32]).unwrap();
    metadata.insert("sizes", vec![3i32, 4]).unwrap();
    metadata.insert("signed", vec![3i32, -4]).unwrap();
    metadata
}

#[track_caller]
fn assert_error<T: std::fmt::Debug>(result: Result<T, Error>, rule: Rule, key: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.rule, error.name.as_deref()), (rule, Some(key)));
    assert!(error.to_string().contains(&format!("key {key:?}: ")), "{error}");
}

#[test]
fn getters_return_what_was_inserted() {
    let metadata = metadata();
    assert_eq!(metadata.u32("number").unwrap(), 12);
    assert_eq!(metadata.f32("eps").unwrap(), 1e-12);
    assert!(metadata.bool("flag").unwrap());
    assert_eq!(metadata.str("name").unwrap(), "model");
    assert_eq!(metadata.strings("words").unwrap(), ["a"]);
    assert_eq!(metadata.f32s("mean").unwrap(), [0.5]);
    assert_eq!(metadata.get("small"), Some(&Value::U8(7)));
}

#[test]
fn a_key_taken_out_leaves_the_others_in_their_order() {
    let mut metadata = metadata();
    assert_eq!(metadata.remove("small"), Some(Value::U8(7)));
    assert_eq!((metadata.remove("small"), metadata.get("small")), (None, None));
    assert_eq!(metadata.remove("signed"), Some(Value::Array(Array::I32(vec![3, -4]))));
    let keys = ["number", "large", "negative", "eps", "flag", "name", "words", "mean", "sizes"];
    assert_eq!(metadata.iter().map(|(key, _)| key).collect::<Vec<_>>(), keys);
    for (key, value) in metadata.iter() {
        assert_eq!(metadata.get(key), Some(value));
    }
}

#[test]
fn integers_of_any_width_fit_where_their_value_does() {
    let metadata = metadata();
    assert_eq!(metadata.u32("small").unwrap(), 7);
    assert_eq!(metadata.u32s("sizes").unwrap(), [3, 4]);
    assert_error(metadata.u32("large"), Rule::ValueRange, "large");
    assert_error(metadata.u32("negative"), Rule::ValueRange, "negative");
    assert_error(metadata.u32s("signed"), Rule::ValueRange, "signed");
}

#[test]
fn a_missing_key_is_an_error_only_where_it_is_required() {
    let metadata = metadata();
    assert_error(metadata.u32("none"), Rule::KeyMissing, "none");
    assert_error(metadata.f32("none"), Rule::KeyMissing, "none");
    assert_error(metadata.bool("none"), Rule::KeyMissing, "none");
    assert_error(metadata.str("none"), Rule::KeyMissing, "none");
    assert_error(metadata.strings("none"), Rule::KeyMissing, "none");
    assert_error(metadata.f32s("none"), Rule::KeyMissing, "none");
    assert_error(metadata.u32s("none"), Rule::KeyMissing, "none");
    assert_eq!(metadata.opt_u32("none"), Ok(None));
    assert_eq!(metadata.opt_f32("none"), Ok(None));
    assert_eq!(metadata.opt_bool("none"), Ok(None));
    assert_eq!(metadata.opt_str("none"), Ok(None));
    assert_eq!(metadata.opt_strings("none"), Ok(None));
    assert_eq!(metadata.opt_f32s("none"), Ok(None));
    assert_eq!(metadata.opt_u32s("none"), Ok(None));
}

#[test]
fn a_wrong_type_is_an_error_even_where_the_key_is_optional() {
    let metadata = metadata();
    assert_error(metadata.opt_u32("eps"), Rule::WrongType, "eps");
    assert_error(metadata.opt_f32("number"), Rule::WrongType, "number");
    assert_error(metadata.opt_bool("small"), Rule::WrongType, "small");
    assert_error(metadata.opt_str("words"), Rule::WrongType, "words");
    assert_error(metadata.opt_strings("name"), Rule::WrongType, "name");
    assert_error(metadata.opt_f32s("sizes"), Rule::WrongType, "sizes");
    assert_error(metadata.opt_u32s("mean"), Rule::WrongType, "mean");
    assert_error(metadata.opt_u32s("number"), Rule::WrongType, "number");
    assert_eq!(
        metadata.opt_str("words").unwrap_err().to_string(),
        "key \"words\": wrong type: expected string, found array of string"
    );
}

#[test]
fn keys_stay_in_the_order_of_insertion() {
    let metadata = metadata();
    let keys = metadata.iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys.len(), metadata.len());
    assert_eq!(keys[..3], ["number", "small", "large"]);
}

#[test]
fn insert_refuses_keys_that_no_file_can_hold() {
    let mut metadata = metadata();
    let mut rule = |key: &str| metadata.insert(key, 1u8).unwrap_err().rule;
    assert_eq!(rule(""), Rule::KeyEmpty);
    assert_eq!(rule(&"k".repeat(65536)), Rule::KeyTooLong);
    assert_eq!(rule("a\0b"), Rule::KeyNul);
    assert_eq!(rule("number"), Rule::KeyDuplicate);
    assert_eq!(metadata.len(), 11);
    assert_eq!(metadata.u32("number").unwrap(), 12);
}

#[test]
fn set_replaces_in_place_and_adds_at_the_end() {
    let mut metadata = metadata();
    metadata.set("number", "twelve").unwrap();
    metadata.set("new", Array::I8(vec![-1])).unwrap();
    assert_eq!(metadata.str("number").unwrap(), "twelve");
    assert_eq!(metadata.iter().next().unwrap().0, "number");
    assert_eq!(metadata.iter().last().unwrap().0, "new");
    assert_eq!(metadata.len(), 12);
    assert_eq!(metadata.set("", 1u8).unwrap_err().rule, Rule::KeyEmpty);
}
