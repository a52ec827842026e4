//! The array files: `.safetensors`, `.npz` and `.npy`.

use lxmert::vision::{FeatureOptions, load_features};

use crate::helpers::{
    Scratch, assert_expected, fixture, load, message_of, npy, npz, safetensors, with_boxes,
};

#[test]
fn reads_safetensors_of_every_float_type() {
    for name in ["f32", "f16", "bf16", "f64"] {
        assert_expected(&load(&format!("{name}.safetensors")).unwrap());
    }
}

#[test]
fn reads_npz_stored_and_deflated() {
    assert_expected(&load("names.npz").unwrap());
    assert_expected(&load("deflated.npz").unwrap());
}

#[test]
fn divides_the_pixel_boxes_of_npz_by_the_image_size() {
    assert_expected(&load("pixels.npz").unwrap());
    assert_expected(&load("arrays_of_one.npz").unwrap());
}

#[test]
fn reads_numpy_arrays_in_any_order_and_version() {
    for name in ["fortran.npz", "big_endian.npz", "versions.npz"] {
        assert_expected(&load(name).unwrap());
    }
}

#[test]
fn reads_npy_features_with_a_file_of_boxes() {
    let options = with_boxes(fixture("boxes.npy"));
    assert_expected(&load_features(&fixture("features.npy"), &options).unwrap());
}

#[test]
fn refuses_tensors_of_the_wrong_rank_or_type() {
    let with = |dtype: &str, shape: &str, len: usize| {
        let header =
            format!(r#"{{"features":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{len}]}}}}"#);
        Scratch::new("a.safetensors", &safetensors(&header, &vec![0; len])).message()
    };
    assert_eq!(with("F32", "[4]", 16), "array features: has shape [4]; expected [regions, values]");
    assert_eq!(with("F32", "[2,2,1]", 16), "array features: has shape [2, 2, 1]; expected [regions, values]");
    assert_eq!(with("I32", "[2,2]", 16), "array features: is of type I32; expected F32, F64, F16 or BF16");
}

#[test]
fn refuses_a_file_without_the_arrays() {
    let header = r#"{"weights":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let file = Scratch::new("a.safetensors", &safetensors(header, &[0; 4]));
    assert!(file.message().contains("it has no visual_feats; expected features and boxes"));

    let array = std::fs::read(fixture("features.npy")).unwrap();
    let file = Scratch::new("a.npz", &npz(&[("weights.npy", &array)]));
    assert!(file.message().contains("none of the arrays features, visual_feats and x"));
    let file = Scratch::new("a.npz", &npz(&[("features.npy", &array)]));
    assert_eq!(file.message(), "not a usable .npz file: it has no array boxes");
    assert_eq!(message_of("no_size.npz"), "not a usable .npz file: it has no array image_w");
}

#[test]
fn refuses_safetensors_that_claim_more_than_they_hold() {
    let header = r#"{"features":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}"#;
    for bytes in [safetensors(header, &[0; 4]), u64::MAX.to_le_bytes().to_vec(), vec![], b"{}".to_vec()] {
        let message = Scratch::new("a.safetensors", &bytes).message();
        assert!(message.starts_with("not a usable .safetensors file: "), "{message}");
    }
}

#[test]
fn refuses_files_that_would_take_much_memory_to_list() {
    let header = format!("{{{}}}", " ".repeat(1 << 20));
    let message = Scratch::new("a.safetensors", &safetensors(&header, &[])).message();
    assert!(message.contains("its header takes 1048578 bytes"), "{message}");

    let names: Vec<String> = (0..16385).map(|n| n.to_string()).collect();
    let members: Vec<(&str, &[u8])> = names.iter().map(|name| (&name[..], &b""[..])).collect();
    let message = Scratch::new("a.npz", &npz(&members)).message();
    assert!(message.starts_with("not a usable .npz file: it has more than 16384 members"), "{message}");
    let message = Scratch::new("a.npz", &npz(&members[..16384])).message();
    assert!(message.contains("none of the arrays"), "{message}");
}

#[test]
fn refuses_npz_that_is_cut_short() {
    let bytes = std::fs::read(fixture("deflated.npz")).unwrap();
    for len in 0..bytes.len() {
        let file = Scratch::new("a.npz", &bytes[..len]);
        load_features(&file.path, &FeatureOptions::default()).unwrap_err();
    }
}

#[test]
fn refuses_arrays_whose_data_is_not_as_long_as_their_shape() {
    let options = with_boxes(fixture("boxes.npy"));
    let bytes = std::fs::read(fixture("features.npy")).unwrap();
    let short = Scratch::new("a.npy", &bytes[..bytes.len() - 1]);
    assert_eq!(
        short.message_with(&options),
        "array features: is cut short; it has 59 bytes, and shape [3, 5] takes 60"
    );
    let long = Scratch::new("a.npy", &[&bytes[..], &[0]].concat());
    assert_eq!(
        long.message_with(&options),
        "array features: has more data than its shape asks for: 61 bytes, and shape [3, 5] takes 60"
    );
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }";
    let bomb = npy(text, &vec![0; 50 << 20]);
    let file = Scratch::new("a.npz", &npz(&[("features.npy", &bomb)]));
    assert!(file.message().contains("more data than its shape asks for: 5 bytes"));
}

#[test]
fn refuses_numpy_headers_that_it_cannot_use() {
    let options = with_boxes(fixture("boxes.npy"));
    let reason = |text: &str| Scratch::new("a.npy", &npy(text, &[0; 16])).message_with(&options);
    let with = |descr: &str, shape: &str| {
        reason(&format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"))
    };
    for (message, expected) in [
        (with("'|O'", "(2, 2)"), "is of type \"|O\"; expected numbers"),
        (with("'<c8'", "(1, 2)"), "is of type \"<c8\""),
        (with("[('x', '<f4')]", "(4,)"), "only plain numbers can be read"),
        (with("'<f4'", "(4,)"), "has shape [4]; expected [regions, values]"),
        (with("'<f8'", "()"), "shape [] takes 8"),
        (with("'<f4'", "(-1, 4)"), "no list of sizes"),
        (with("'<f4'", "(99999999999999999999, 4)"), "no list of sizes"),
        (with("'<f4'", "(18446744073709551615, 18446744073709551615)"), "values are read"),
        (with("'<f4'", "(4096, 4097)"), "at most 16777216 values are read"),
        (with("'<f4'", "(0, 18446744073709551615, 3)"), "takes 0"),
        (with("'<f4'", "(1, 1, 1, 1, 1, 1, 1, 1, 4)"), "more than 8 axes"),
        (with("'é'", "(2, 2)"), "expected numbers"),
        (with("''", "(2, 2)"), "expected numbers"),
        (reason(""), "has \"\" in its header"),
        (reason("{}"), "has no descr"),
        (reason("{'descr': '<f4'"), "in its header where"),
        (reason("{'descr': '<f4"), "unfinished string"),
        (reason("{'descr': '<f4', 'shape': (2, 2)}"), "no fortran_order"),
        (reason("{'fortran_order': 0}"), "neither True nor False"),
        (reason("{'eval': '1'}"), "unknown key"),
        (reason("{} {}"), "text after"),
    ] {
        assert!(message.contains(expected), "{message} should say {expected}");
    }
    let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 4)}";
    let message = Scratch::new("a.npy", &npy(text, &[])).message_with(&options);
    assert!(message.starts_with("0 regions"), "{message}");
    assert_eq!(
        reason("{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 2L)}"),
        "array boxes: has 3 rows, but features is 2 x 2",
        "Python 2 writes sizes with an L, and they are read"
    );
}

#[test]
fn refuses_bytes_that_are_no_numpy_array() {
    let options = with_boxes(fixture("boxes.npy"));
    let good = std::fs::read(fixture("features.npy")).unwrap();
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        Scratch::new("a.npy", &bytes).message_with(&options)
    };
    assert!(with(1, b'X').contains("not in NumPy's .npy format"));
    assert!(with(6, 9).contains("has .npy version 9"));
    assert!(with(9, 0xff).contains("header of 65398 bytes; at most 16384"));
    assert!(with(8, 0xff).contains("header cannot be read"));
    assert!(message_of("objects.npz").contains("is of type \"|O\""));
}
