//! What holds for feature files of every kind.

use lxmert::Limits;
use lxmert::vision::{FeatureOptions, load_features};

use crate::helpers::{
    Scratch, assert_expected, fixture, load, message, message_of, of_image, small_safetensors, with_boxes,
};

#[test]
fn reads_hugging_face_names_and_a_batch_of_one() {
    assert_expected(&load("batch.safetensors").unwrap());
    assert_expected(&load("batch.npz").unwrap());
}

#[test]
fn the_ending_of_the_name_may_be_in_capitals() {
    let bytes = std::fs::read(fixture("f32.safetensors")).unwrap();
    let file = Scratch::new("IMAGE.SafeTensors", &bytes);
    assert_expected(&load_features(&file.path, &FeatureOptions::default()).unwrap());
}

#[test]
fn refuses_a_name_of_no_known_kind() {
    for name in ["features", "features.bin", "features.pt", ".npz"] {
        let message = Scratch::new(name, b"").message();
        assert!(message.contains("use .safetensors, .npz, .npy or .tsv"), "{message}");
    }
}

#[test]
fn reports_a_file_that_is_not_there() {
    for name in ["absent.npz", "absent.tsv", "absent.npy", "absent.safetensors"] {
        let options = FeatureOptions {
            image_id: name.ends_with("tsv").then(|| "first".into()),
            boxes: name.ends_with("npy").then(|| fixture("boxes.npy")),
        };
        let message = message(&fixture(name), &options);
        assert!(message.starts_with("cannot be read: "), "{message}");
    }
}

#[test]
fn refuses_options_that_the_file_has_no_use_for() {
    for name in ["f32.safetensors", "names.npz", "features.npy"] {
        let message = message(&fixture(name), &of_image("1"));
        assert_eq!(message, "holds one image and no id; leave --image-id out");
    }
    for name in ["f32.safetensors", "names.npz", "plain.tsv"] {
        let message = message(&fixture(name), &with_boxes(fixture("boxes.npy")));
        assert_eq!(message, "holds its own boxes; leave --boxes out");
    }
}

#[test]
fn refuses_pixel_boxes_that_no_image_size_goes_with() {
    assert_eq!(
        message_of("pixels.safetensors"),
        "boxes row 0, column 0 is 16, which looks like pixels; boxes must be x1, y1, x2, y2 \
         divided by the image's width and height, so within [0, 1]"
    );
}

#[test]
fn refuses_a_box_just_outside_the_image_but_not_rounding() {
    let build = |corner: f32| {
        Scratch::new(
            "a.safetensors",
            &small_safetensors(&[1.0, 2.0], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, corner, 1.0]),
        )
    };
    let message = build(1.0001).message();
    assert!(message.starts_with("boxes row 1, column 2 is 1.0001; "), "{message}");
    assert!(build(-0.5).message().contains("is -0.5;"));
    for corner in [1.000_009, -0.000_009] {
        let file = build(corner);
        let regions = load_features(&file.path, &FeatureOptions::default()).unwrap();
        assert_eq!(regions.boxes()[6], corner);
    }
}

#[test]
fn refuses_values_that_are_not_finite() {
    let whole = [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0];
    let file = Scratch::new("a.safetensors", &small_safetensors(&[1.0, f32::NAN], &whole));
    assert_eq!(file.message(), "features row 1, column 0 is NaN; every value must be finite");
    let mut boxes = whole;
    boxes[3] = f32::INFINITY;
    let file = Scratch::new("a.safetensors", &small_safetensors(&[1.0, 2.0], &boxes));
    assert_eq!(file.message(), "boxes row 0, column 3 is inf; every value must be finite");
}

#[test]
fn refuses_an_image_without_regions() {
    let file = Scratch::new("a.safetensors", &small_safetensors(&[], &[]));
    assert!(file.message().starts_with("0 regions; give 1 to 4096, or raise the limit regions: "));
}

#[test]
fn refuses_more_regions_than_the_limit() {
    let over = Limits::DEFAULT.regions + 1;
    let (features, boxes) = (vec![0.0; over], vec![0.0; 4 * over]);
    let file = Scratch::new("a.safetensors", &small_safetensors(&features, &boxes));
    assert!(file.message().starts_with("4097 regions; give 1 to 4096, or raise the limit regions: "));
}

#[test]
fn refuses_boxes_for_another_number_of_regions() {
    let file =
        Scratch::new("a.safetensors", &small_safetensors(&[1.0], &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]));
    assert_eq!(file.message(), "array boxes: has 2 rows, but features is 1 x 1");
    assert_eq!(
        message_of("transposed.npz"),
        "array bbox: has 3 rows, but x is 5 x 3; transpose the features"
    );
}

#[test]
fn names_the_file_of_boxes_when_that_is_the_wrong_one() {
    let boxes = Scratch::new("boxes.npy", b"no array");
    let error = load_features(&fixture("features.npy"), &with_boxes(boxes.path.clone())).unwrap_err();
    assert!(error.to_string().starts_with(&boxes.path.display().to_string()), "{error}");
    assert_eq!(message_of("features.npy"), "holds only features; give a .npy file of boxes too (--boxes)");
}

#[test]
fn flipped_bytes_never_panic() {
    let boxes = fixture("boxes.npy");
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "f32.safetensors",
        "bf16.safetensors",
        "names.npz",
        "pixels.npz",
        "fortran.npz",
        "versions.npz",
        "features.npy",
        "plain.tsv",
        "repr.tsv",
    ] {
        let bytes = std::fs::read(fixture(name)).unwrap();
        let options = FeatureOptions {
            image_id: name.ends_with("tsv").then(|| "second".into()),
            boxes: name.ends_with("npy").then(|| boxes.clone()),
        };
        let path = folder.path().join(name);
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut damaged = bytes.clone();
                damaged[at] ^= flip;
                std::fs::write(&path, &damaged).unwrap();
                if let Ok(regions) = load_features(&path, &options) {
                    assert!(regions.features().iter().all(|value| value.is_finite()));
                }
                // Some file systems flush a file that is overwritten, which is slow; not one that is new.
                std::fs::remove_file(&path).unwrap();
            }
        }
    }
}
