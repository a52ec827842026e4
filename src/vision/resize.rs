//! Scaling a picture.

use ::image::RgbImage;

/// One output pixel along an axis: the first source pixel that it sees, and the weight of that one and
/// those that follow.
struct Window {
    first: usize,
    weights: Vec<f32>,
}

/// Scales an image to `width` x `height` with a triangle (bilinear) filter that widens when shrinking, so
/// that every source pixel counts and nothing aliases. Pillow's `BILINEAR` is the same filter; it rounds
/// to whole levels between the two axes, so single values may differ by one.
///
/// Rows are made one at a time: beside the result, memory for one row of the source is all it takes.
/// None of the four sizes may be 0.
pub(super) fn resize(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let row_len = image.width() as usize * 3;
    let source = image.as_raw();
    let columns = windows(image.width(), width);
    let mut sums = vec![0f32; row_len];
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);

    for rows in windows(image.height(), height) {
        sums.fill(0.0);
        let seen = source.chunks_exact(row_len).skip(rows.first);
        for (row, weight) in seen.zip(&rows.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += weight * f32::from(value);
            }
        }
        for column in &columns {
            let mut pixel = [0f32; 3];
            let seen = sums.chunks_exact(3).skip(column.first);
            for (values, weight) in seen.zip(&column.weights) {
                for (sum, value) in pixel.iter_mut().zip(values) {
                    *sum += weight * value;
                }
            }
            // A cast from f32 saturates, so rounding just past 255 is harmless.
            pixels.extend(pixel.map(|value| (value + 0.5) as u8));
        }
    }
    RgbImage::from_raw(width, height, pixels).expect("a pixel was pushed for every place")
}

fn windows(from: u32, to: u32) -> Vec<Window> {
    let scale = f64::from(from) / f64::from(to);
    let reach = scale.max(1.0);
    (0..to)
        .map(|at| {
            let centre = (f64::from(at) + 0.5) * scale;
            // The pixels whose own centre lies within reach, which include the one under `centre`.
            let first = (centre - reach + 0.5).max(0.0) as usize;
            let end = ((centre + reach + 0.5) as usize).min(from as usize);
            let weights: Vec<f64> = (first..end)
                .map(|pixel| (1.0 - ((pixel as f64 + 0.5 - centre) / reach).abs()).max(0.0))
                .collect();
            let sum: f64 = weights.iter().sum();
            Window { first, weights: weights.iter().map(|weight| (weight / sum) as f32).collect() }
        })
        .collect()
}
