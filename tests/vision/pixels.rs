//! Pixels that are cut where they lie, against a filter that is written out for one pixel at a time.

use lxmert::vision::{Error, PatchGrid, Pixels, RgbImage};
use proptest::prelude::*;

use crate::allocations::allocated;

/// A grid whose features are levels, from 0 to 255.
fn levels_grid(rows: u32, columns: u32, patch_height: u32, patch_width: u32) -> PatchGrid {
    PatchGrid::new(rows, columns, patch_height, patch_width, [0.0; 3], [1.0 / 255.0; 3]).unwrap()
}

fn noise(width: u32, height: u32) -> RgbImage {
    let mut state = 1u32;
    let data = (0..width * height * 3).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    RgbImage::from_raw(width, height, data.collect()).unwrap()
}

fn cut(grid: &PatchGrid, pixels: &Pixels<'_>) -> (Vec<f32>, Vec<f32>) {
    let mut scratch = vec![f32::NAN; grid.scratch_len()];
    let mut features = vec![f32::NAN; grid.region_count() * grid.feature_len()];
    let mut boxes = vec![f32::NAN; grid.region_count() * 4];
    grid.cut(pixels, &mut scratch, &mut features, &mut boxes).unwrap();
    (features, boxes)
}

/// The weights with which a triangle of that place and width sees the pixels of one axis; they add up to 1.
fn triangle(at: u32, from: u32, to: u32) -> Vec<f64> {
    let scale = f64::from(from) / f64::from(to);
    let centre = (f64::from(at) + 0.5) * scale;
    let distance = |pixel| (f64::from(pixel) + 0.5 - centre).abs() / scale.max(1.0);
    let weights: Vec<f64> = (0..from).map(|pixel| (1.0 - distance(pixel)).max(0.0)).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / total).collect()
}

fn scaled_pixel(image: &RgbImage, (x, y): (u32, u32), (width, height): (u32, u32)) -> [f64; 3] {
    let across = triangle(x, image.width(), width);
    let down = triangle(y, image.height(), height);
    let mut sums = [0.0; 3];
    for (row, weight) in image.rows().zip(down) {
        for (pixel, across) in row.zip(&across) {
            for (sum, value) in sums.iter_mut().zip(pixel.0) {
                *sum += weight * across * f64::from(value);
            }
        }
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_picture_of_any_size_is_scaled_by_a_triangle(
        width in prop_oneof![1u32..40, 500u32..530, 1000u32..2600],
        height in prop_oneof![1u32..40, 1u32..200],
        (columns, patch_width) in (1u32..=64, 1u32..=20),
        (rows, patch_height) in (1u32..=4, 1u32..=8),
        at in any::<(prop::sample::Index, prop::sample::Index)>(),
    ) {
        let grid = levels_grid(rows, columns, patch_height, patch_width);
        let image = noise(width, height);
        let (features, _) = cut(&grid, &Pixels::try_from(&image).unwrap());
        let size = grid.image_size();
        let picked = (at.0.index(size.0 as usize) as u32, at.1.index(size.1 as usize) as u32);
        // The last column is where a picture's last strip ends.
        for (x, y) in [picked, (size.0 - 1, picked.1), (0, 0)] {
            let region = y / patch_height * columns + x / patch_width;
            let place = y % patch_height * patch_width + x % patch_width;
            let start = region as usize * grid.feature_len() + place as usize * 3;
            let expected = scaled_pixel(&image, (x, y), size);
            for (value, expected) in features[start..].iter().zip(expected) {
                // Half a level for rounding.
                prop_assert!((f64::from(*value) - expected).abs() < 0.502, "{x} {y}: {value} {expected}");
            }
        }
    }
}

#[test]
fn rows_may_lie_apart() {
    for (width, height) in [(1, 1), (24, 10), (7, 30), (700, 3), (1100, 9)] {
        let grid = levels_grid(2, 6, 5, 4);
        let image = noise(width, height);
        let regions = grid.regions(&image).unwrap();
        let row = width as usize * 3;
        for gap in [0, 1, 64] {
            let stride = row + gap;
            let mut data = vec![0xee; (height as usize - 1) * stride + row];
            for (to, from) in data.chunks_mut(stride).zip(image.as_raw().chunks_exact(row)) {
                to[..row].copy_from_slice(from);
            }
            let pixels = Pixels::new(&data, width, height, stride).unwrap();
            let (features, boxes) = cut(&grid, &pixels);
            assert_eq!(features, regions.features(), "{width} x {height}, stride {stride}");
            assert_eq!(boxes, regions.boxes());
        }
    }
}

#[test]
fn cutting_allocates_nothing() {
    let grid = levels_grid(4, 4, 8, 8);
    let mut scratch = vec![0.0; grid.scratch_len()];
    let mut features = vec![0.0; grid.region_count() * grid.feature_len()];
    let mut boxes = vec![0.0; grid.region_count() * 4];
    for (width, height) in [(32, 32), (3, 5), (1920, 40)] {
        let image = noise(width, height);
        let ((), memory) = allocated(|| {
            let pixels = Pixels::try_from(&image).unwrap();
            grid.cut(&pixels, &mut scratch, &mut features, &mut boxes).unwrap();
        });
        assert_eq!(memory.times, 0, "{width} x {height}");
    }
}

#[test]
fn refuses_pixels_that_are_not_all_there() {
    let data = [0; 100];
    assert!(Pixels::new(&data[..29], 3, 3, 10).is_ok());
    let refused = |len: usize, width, height, stride| {
        Pixels::new(&data[..len], width, height, stride).unwrap_err().to_string()
    };
    assert_eq!(refused(28, 3, 3, 10), "the pixels are 28 bytes; the size of the image takes 29");
    assert_eq!(refused(100, 3, 3, 8), "rows start 8 bytes apart, but one takes 9");
    assert_eq!(refused(100, 0, 3, 9), "the image is 0 x 3 pixels; it must have at least one");
    assert_eq!(refused(100, 3, 0, 9), "the image is 3 x 0 pixels; it must have at least one");
    for (width, height, stride) in [(16385, 1, 100_000), (1, 16385, 3)] {
        let text = refused(100, width, height, stride);
        let expected =
            format!("the image is {width} x {height} pixels; a side may have at most 16384, or raise ");
        assert!(text.starts_with(&expected), "{text}");
    }
    assert!(matches!(Pixels::new(&data, 1, 3, usize::MAX), Err(Error::PixelBytes { .. })));
    let wide = RgbImage::new(65536, 1);
    assert!(matches!(levels_grid(1, 1, 1, 1).regions(&wide), Err(Error::ImageSide { .. })));
}

#[test]
fn refuses_memory_of_another_size() {
    let grid = levels_grid(2, 2, 2, 2);
    let image = noise(4, 4);
    let pixels = Pixels::try_from(&image).unwrap();
    let refused = |scratch: usize, features, boxes| {
        grid.cut(&pixels, &mut vec![0.0; scratch], &mut vec![0.0; features], &mut vec![0.0; boxes])
            .unwrap_err()
    };
    let needed = grid.scratch_len();
    for features in [47, 49] {
        assert!(matches!(refused(needed, features, 16), Error::Length { what: "features", .. }));
    }
    for boxes in [15, 17] {
        assert!(matches!(refused(needed, 48, boxes), Error::Length { what: "boxes", .. }));
    }
    assert!(matches!(refused(needed - 1, 48, 16), Error::Scratch { .. }));
}
