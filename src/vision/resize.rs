//! Scaling a picture.

use std::ops::Range;

use super::Pixels;
use super::patch_grid::Patches;

/// Columns of the source that are summed at a time: few enough for their sums to stay in the fastest cache.
const STRIP: usize = 512;

/// Values of scratch memory that [`scale`] needs for a result of `width` pixels a row.
pub(super) fn scratch_len(width: u32) -> usize {
    // In the worst rounding three windows see a pixel of the source, or a window sees three.
    STRIP * 3 + 3 * STRIP.max(width as usize)
}

/// Scales a picture to `width` x `height` with a triangle (bilinear) filter that widens when shrinking, so
/// that every source pixel counts and nothing aliases. Pillow's `BILINEAR` is the same filter; it rounds
/// to whole levels between the two axes, so single values may differ by one.
///
/// The result goes to `patches`, which have its size, as red, green and blue from 0 to 255, not rounded.
///
/// The source is taken in strips of whole columns, and what each adds to the result is added there. So `scratch`, of
/// [`scratch_len`] values, is for one strip and not for a row of a source of any width.
pub(super) fn scale(
    pixels: &Pixels<'_>,
    (width, height): (u32, u32),
    scratch: &mut [f32],
    patches: &mut Patches<'_>,
) {
    if (pixels.width(), pixels.height()) == (width, height) {
        for y in 0..height as usize {
            for (place, pixel) in patches.row(y).zip(pixels.row(y).as_chunks::<3>().0) {
                *place = pixel.map(f32::from);
            }
        }
        return;
    }

    let (across, down) = (Axis::new(pixels.width(), width), Axis::new(pixels.height(), height));
    let (sums, weights) = scratch.split_at_mut(STRIP * 3);
    patches.clear();
    let mut first = 0;
    for start in (0..across.from).step_by(STRIP) {
        let strip = start..across.from.min(start + STRIP);
        let seen = |x| {
            let seen = across.seen(x);
            seen.start.max(strip.start)..seen.end.min(strip.end)
        };
        // The windows of neighbours move to the right, so those that see the strip are neighbours too.
        let mut end = first;
        let mut len = 0;
        while end < width as usize && !seen(end).is_empty() {
            let total = across.total_weight(end);
            for column in seen(end) {
                weights[len] = (across.weight(end, column) / total) as f32;
                len += 1;
            }
            end += 1;
        }

        let sums = &mut sums[..strip.len() * 3];
        for y in 0..height as usize {
            sums.fill(0.0);
            let rows = down.seen(y);
            let total = down.total_weight(y);
            // Two rows at a time, so that the sums are read and written half as often.
            for above in rows.clone().step_by(2) {
                // A row that has none below it comes twice, the second time without weight.
                let below = (above + 1).min(rows.end - 1);
                let weights = [
                    (down.weight(y, above) / total) as f32,
                    if below > above { (down.weight(y, below) / total) as f32 } else { 0.0 },
                ];
                let [above, below] =
                    [above, below].map(|row| &pixels.row(row)[strip.start * 3..strip.end * 3]);
                for ((sum, &above), &below) in sums.iter_mut().zip(above).zip(below) {
                    *sum = *sum + weights[0] * f32::from(above) + weights[1] * f32::from(below);
                }
            }

            let sums = sums.as_chunks::<3>().0;
            let mut weights = &weights[..len];
            for (x, pixel) in (first..end).zip(patches.row(y).skip(first)) {
                let seen = seen(x);
                let (own, others) = weights.split_at(seen.len());
                weights = others;
                let mut total = *pixel;
                for (values, weight) in sums[seen.start - strip.start..].iter().zip(own) {
                    for (sum, value) in total.iter_mut().zip(values) {
                        *sum += weight * value;
                    }
                }
                *pixel = total;
            }
        }
        while first < end && across.seen(first).end <= strip.end {
            first += 1;
        }
    }
}

/// How the pixels of the result see the source's along one axis.
struct Axis {
    /// Pixels of the source.
    from: usize,
    /// Pixels of the source to one of the result.
    scale: f64,
    /// How far a pixel of the result sees to either side of its centre, in pixels of the source.
    reach: f64,
}

impl Axis {
    fn new(from: u32, to: u32) -> Self {
        let scale = f64::from(from) / f64::from(to);
        Axis { from: from as usize, scale, reach: scale.max(1.0) }
    }

    fn centre(&self, at: usize) -> f64 {
        (at as f64 + 0.5) * self.scale
    }

    /// The pixels of the source whose own centre lies within reach, among them the one under the centre.
    fn seen(&self, at: usize) -> Range<usize> {
        let centre = self.centre(at);
        let first = (centre - self.reach + 0.5).max(0.0) as usize;
        let end = ((centre + self.reach + 0.5) as usize).min(self.from);
        first..end
    }

    fn weight(&self, at: usize, pixel: usize) -> f64 {
        (1.0 - ((pixel as f64 + 0.5 - self.centre(at)) / self.reach).abs()).max(0.0)
    }

    /// What the weights of the pixels seen add up to, above 0.
    fn total_weight(&self, at: usize) -> f64 {
        self.seen(at).map(|pixel| self.weight(at, pixel)).sum()
    }
}
