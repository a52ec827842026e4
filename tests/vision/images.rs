//! Images and patch grids against what Pillow and NumPy made of them (`tests/features/make.py`).

use std::collections::HashMap;

use lxmert::vision::{Error, PatchGrid, RgbImage, decode_image, load_image};
use safetensors::SafeTensors;
use serde::Deserialize;

use crate::helpers::fixture;

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

/// The grid of the easy-VQA model.
fn easy_vqa_grid() -> PatchGrid {
    PatchGrid::new(8, 8, 8, 8, [0.5; 3], [0.5; 3]).unwrap()
}

#[derive(Deserialize)]
struct Decoded {
    width: u32,
    height: u32,
    pixels: Vec<u8>,
}

#[test]
fn decodes_to_the_pixels_of_pillow() {
    let decoded: HashMap<String, Decoded> = serde_json::from_slice(&bytes("decoded.json")).unwrap();
    assert_eq!(decoded.len(), 8);
    for (name, expected) in decoded {
        let image = load_image(&fixture(&name)).unwrap();
        assert_eq!(image.dimensions(), (expected.width, expected.height), "{name}");
        assert_eq!(image.into_raw(), expected.pixels, "{name}");
    }
}

#[test]
fn decodes_grey_jpeg_to_rgb() {
    let image = load_image(&fixture("grey.jpg")).unwrap();
    assert_eq!(image.dimensions(), (16, 8));
    assert!(image.as_raw().iter().all(|&value| value == 77));
}

#[test]
fn takes_the_high_byte_of_16_bit_grey() {
    let image = load_image(&fixture("grey16.png")).unwrap();
    for (x, y, pixel) in image.enumerate_pixels() {
        let high = ((x * 7000 + y * 300 + 129) / 256) as u8;
        assert_eq!(pixel.0, [high; 3]);
    }
}

#[test]
fn refuses_what_is_neither_png_nor_jpeg() {
    for bytes in [&b""[..], b"GIF89a\x01\x00\x01\x00", b"RIFF\0\0\0\0WEBPVP8 ", b"\x89PNG", b"\xff\xd8"] {
        let error = decode_image(bytes).unwrap_err();
        assert!(matches!(error, Error::Image { .. }), "{error:?}");
    }
    let path = fixture("make.py");
    let message = load_image(&path).unwrap_err().to_string();
    assert_eq!(message, format!("{}: not a usable image: neither PNG nor JPEG", path.display()));
    let message = load_image(&fixture("absent.png")).unwrap_err().to_string();
    assert!(message.contains("absent.png: cannot be read: "), "{message}");
}

#[test]
fn refuses_images_that_are_cut_short() {
    for name in ["jpeg_named.png", "rgb.png", "example_0.png"] {
        let whole = bytes(name);
        // PNG data may be complete before the end mark.
        for len in 0..whole.len() - 16 {
            let error = decode_image(&whole[..len]).unwrap_err();
            assert!(matches!(error, Error::Image { .. }), "{name} {len} {error:?}");
        }
    }
}

#[test]
fn a_thumbnail_does_not_pass_for_the_end_of_a_jpeg() {
    let plain = bytes("grey.jpg");
    let segment = [&[0xff, 0xe1], &(plain.len() as u16 + 2).to_be_bytes()[..], &plain].concat();
    let whole = [&plain[..2], &segment, &plain[2..]].concat();
    assert_eq!(decode_image(&whole).unwrap(), decode_image(&plain).unwrap());
    for len in 0..whole.len() {
        let error = decode_image(&whole[..len]).unwrap_err();
        assert!(matches!(error, Error::Image { .. }), "{len} {error:?}");
    }
    // Phones append a film, whose bytes are no business of the decoder.
    let film = [&plain[..], &[0xff, 0xda, 0x00]].concat();
    assert_eq!(decode_image(&film).unwrap(), decode_image(&plain).unwrap());
}

#[test]
fn refuses_an_image_that_claims_a_huge_size() {
    for (width, height) in [(16385, 1), (1, 16385), (16384, 16384), (u32::MAX, u32::MAX)] {
        let mut png = bytes("rgb.png");
        png[16..20].copy_from_slice(&u32::to_be_bytes(width));
        png[20..24].copy_from_slice(&u32::to_be_bytes(height));
        let checksum = crc32(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        let message = decode_image(&png).unwrap_err().to_string();
        assert!(message.starts_with("not a usable image: "), "{message}");
        // Only the limit at fault is named.
        if width <= 16385 {
            let limits = ["image_side", "image_memory_bytes"].map(|limit| message.contains(limit));
            assert_eq!(limits, [height.max(width) == 16385, width == 16384], "{message}");
            assert!(message.contains("too large"), "{message}");
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[test]
fn flipped_bytes_never_panic() {
    for name in ["rgb.png", "rgb16.png", "palette.png", "example_1.png", "jpeg_named.png", "grey.jpg"] {
        let whole = bytes(name);
        for at in 0..whole.len() {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] ^= flip;
                if let Ok(image) = decode_image(&damaged) {
                    let _ = easy_vqa_grid().regions(&image);
                }
            }
        }
    }
}

#[test]
fn patches_hold_the_pixels_that_the_model_was_trained_on() {
    let recorded = bytes("patches.safetensors");
    let recorded = SafeTensors::deserialize(&recorded).unwrap();
    let patches = recorded.tensor("patches").unwrap();
    let (patches, _) = patches.data().as_chunks::<8>();
    for number in [0, 1] {
        let image = load_image(&fixture(&format!("example_{number}.png"))).unwrap();
        let regions = easy_vqa_grid().regions(&image).unwrap();
        assert_eq!((regions.len(), regions.feature_len()), (64, 192));

        let expected = recorded.tensor(&format!("{number}.features")).unwrap();
        let (expected, _) = expected.data().as_chunks::<4>();
        assert_eq!(expected.len(), patches.len() * 192);
        for (&patch, expected) in patches.iter().zip(expected.chunks_exact(192)) {
            let patch = u64::from_le_bytes(patch) as usize;
            let features = &regions.features()[patch * 192..][..192];
            for (value, &expected) in features.iter().zip(expected) {
                let expected = f32::from_le_bytes(expected);
                assert!((value - expected).abs() <= 1e-6, "{value} {expected}");
            }
        }
    }
}

#[test]
fn patches_are_ordered_row_by_row_with_boxes_to_match() {
    // Every pixel of patch n is (n, 10 n, 100 + n).
    let grid = PatchGrid::new(2, 4, 3, 2, [0.0, 0.5, 1.0], [1.0, 0.5, 2.0]).unwrap();
    assert_eq!((grid.image_size(), grid.feature_len(), grid.region_count()), ((8, 6), 18, 8));
    let image = RgbImage::from_fn(8, 6, |x, y| {
        let patch = (y / 3 * 4 + x / 2) as u8;
        [patch, 10 * patch, 100 + patch].into()
    });
    let regions = grid.regions(&image).unwrap();
    assert_eq!(regions.len(), 8);
    for (patch, features) in regions.features().chunks_exact(18).enumerate() {
        for pixel in features.chunks_exact(3) {
            let level = patch as f32;
            let expected =
                [level / 255.0, (level * 10.0 / 255.0 - 0.5) * 2.0, ((100.0 + level) / 255.0 - 1.0) / 2.0];
            for (value, expected) in pixel.iter().zip(expected) {
                assert!((value - expected).abs() < 1e-6, "{value} {expected}");
            }
        }
    }
    assert_eq!(regions.boxes()[..4], [0.0, 0.0, 0.25, 0.5]);
    assert_eq!(regions.boxes()[4..8], [0.25, 0.0, 0.5, 0.5]);
    assert_eq!(regions.boxes()[5 * 4..6 * 4], [0.25, 0.5, 0.5, 1.0]);
    assert_eq!(regions.boxes()[7 * 4..], [0.75, 0.5, 1.0, 1.0]);
}

#[test]
fn features_of_a_patch_are_ordered_row_column_colour() {
    let grid = PatchGrid::new(1, 1, 2, 3, [0.0; 3], [1.0 / 255.0; 3]).unwrap();
    let image = RgbImage::from_fn(3, 2, |x, y| {
        let first = (y * 3 + x) as u8 * 3;
        [first, first + 1, first + 2].into()
    });
    let regions = grid.regions(&image).unwrap();
    let order: Vec<u32> = regions.features().iter().map(|value| value.round() as u32).collect();
    assert_eq!(order, (0..18).collect::<Vec<_>>());
}

#[test]
fn an_image_of_another_size_is_scaled_as_pillow_does() {
    // One pixel a region, scaled so that features are levels again.
    let grid = PatchGrid::new(48, 32, 1, 1, [0.0; 3], [1.0 / 255.0; 3]).unwrap();
    for name in ["small", "large"] {
        let image = load_image(&fixture(&format!("{name}.png"))).unwrap();
        let expected = load_image(&fixture(&format!("{name}_32x48.png"))).unwrap();
        let regions = grid.regions(&image).unwrap();
        let mut exact = 0;
        for (value, &expected) in regions.features().iter().zip(expected.as_raw()) {
            let level = value.round();
            assert!((level - f32::from(expected)).abs() <= 1.0, "{level} {expected}");
            exact += usize::from(level == f32::from(expected));
        }
        assert!(exact * 10 > regions.features().len() * 8, "{name}: only {exact} levels agree");
    }
}

#[test]
fn a_flat_image_of_any_size_stays_flat() {
    let grid = PatchGrid::new(3, 5, 7, 2, [0.0; 3], [1.0 / 255.0; 3]).unwrap();
    for (width, height) in [(1, 1), (1, 500), (500, 1), (9, 21), (11, 20), (640, 480)] {
        let image = RgbImage::from_pixel(width, height, [255, 0, 131].into());
        let regions = grid.regions(&image).unwrap();
        for pixel in regions.features().chunks_exact(3) {
            assert_eq!([0, 1, 2].map(|c| pixel[c].round()), [255.0, 0.0, 131.0]);
        }
    }
}

#[test]
fn refuses_an_image_without_pixels() {
    for (width, height) in [(0, 0), (0, 5), (5, 0)] {
        let error = easy_vqa_grid().regions(&RgbImage::new(width, height)).unwrap_err();
        assert!(matches!(error, Error::EmptyImage { .. }), "{error:?}");
    }
}

#[test]
fn refuses_grids_out_of_range() {
    let with = |sizes: [u32; 4], mean: f32, std: f32| {
        let [rows, columns, height, width] = sizes;
        PatchGrid::new(rows, columns, height, width, [0.5, mean, 0.5], [0.5, 0.5, std])
            .map_err(|error| error.to_string())
    };
    let good = [64, 1, 64, 1];
    assert!(with(good, 0.5, 0.5).is_ok());
    for (at, name) in ["rows", "columns", "patch height", "patch width"].into_iter().enumerate() {
        for size in [0, 65, u32::MAX] {
            let mut sizes = good;
            sizes[at] = size;
            assert_eq!(
                with(sizes, 0.5, 0.5).unwrap_err(),
                format!("patch grid: {name} is {size}; it must be 1 to 64")
            );
        }
    }
    for mean in [f32::NAN, f32::INFINITY, -1e4] {
        assert!(with(good, mean, 0.5).unwrap_err().contains("mean"));
    }
    for std in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        assert!(with(good, 0.5, std).unwrap_err().contains("std"));
    }
}
