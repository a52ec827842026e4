//! Regions that are the patches of a grid.

use ::image::RgbImage;

use super::resize::resize;
use super::{Error, Regions};

/// Cuts an image into a grid of patches; each becomes a region whose features are its pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PatchGrid {
    rows: u32,
    columns: u32,
    patch_height: u32,
    patch_width: u32,
    mean: [f32; 3],
    std: [f32; 3],
}

impl PatchGrid {
    /// Describes a grid of `rows` x `columns` patches, each `patch_height` x `patch_width` pixels. `mean` and
    /// `std` are those of the colours red, green and blue on a scale from 0 to 1.
    ///
    /// # Errors
    /// [`Error::PatchGrid`] unless the first four lie in 1..=64, the means in -1000..=1000, and the standard
    /// deviations in 0.000001..=1000000.
    pub fn new(
        rows: u32,
        columns: u32,
        patch_height: u32,
        patch_width: u32,
        mean: [f32; 3],
        std: [f32; 3],
    ) -> Result<Self, Error> {
        for (field, value) in [
            ("rows", rows),
            ("columns", columns),
            ("patch height", patch_height),
            ("patch width", patch_width),
        ] {
            if !(1..=64).contains(&value) {
                return Err(Error::PatchGrid { field, value: value.into(), range: "1 to 64" });
            }
        }
        for value in mean {
            if !(-1e3..=1e3).contains(&value) {
                return Err(Error::PatchGrid { field: "mean", value: value.into(), range: "-1000 to 1000" });
            }
        }
        for value in std {
            if !(1e-6..=1e6).contains(&value) {
                return Err(Error::PatchGrid {
                    field: "std",
                    value: value.into(),
                    range: "0.000001 to 1000000",
                });
            }
        }
        Ok(Self { rows, columns, patch_height, patch_width, mean, std })
    }

    /// Patches from top to bottom.
    pub fn rows(&self) -> u32 {
        self.rows
    }

    /// Patches from left to right.
    pub fn columns(&self) -> u32 {
        self.columns
    }

    /// Pixels from top to bottom of a patch.
    pub fn patch_height(&self) -> u32 {
        self.patch_height
    }

    /// Pixels from left to right of a patch.
    pub fn patch_width(&self) -> u32 {
        self.patch_width
    }

    /// Mean of red, green and blue, on a scale from 0 to 1.
    pub fn mean(&self) -> [f32; 3] {
        self.mean
    }

    /// Standard deviation of red, green and blue, on a scale from 0 to 1.
    pub fn std(&self) -> [f32; 3] {
        self.std
    }

    /// Number of regions: rows times columns.
    pub fn region_count(&self) -> usize {
        self.rows as usize * self.columns as usize
    }

    /// Values in a region's feature vector: three for every pixel of a patch.
    pub fn feature_len(&self) -> usize {
        self.patch_height as usize * self.patch_width as usize * 3
    }

    /// Width and height, in pixels, of the image that the grid covers exactly.
    pub fn image_size(&self) -> (u32, u32) {
        (self.columns * self.patch_width, self.rows * self.patch_height)
    }

    /// Cuts an image into regions, row by row from the top left.
    ///
    /// Features are ordered by pixel row, pixel column, colour; each is (value / 255 - mean) / std. Boxes are
    /// x1, y1, x2, y2 over the size of the image. An image of another size is first scaled to
    /// [`image_size`](Self::image_size), whatever its aspect ratio, with an antialiased bilinear filter (that
    /// of Pillow's `BILINEAR`, up to one level out of 255).
    ///
    /// # Errors
    /// [`Error::EmptyImage`] if the image has no pixels.
    pub fn regions(&self, image: &RgbImage) -> Result<Regions, Error> {
        let (width, height) = self.image_size();
        if image.width() == 0 || image.height() == 0 {
            return Err(Error::EmptyImage { width: image.width(), height: image.height() });
        }
        let resized;
        let image = if image.dimensions() == (width, height) {
            image
        } else {
            resized = resize(image, width, height);
            &resized
        };

        let levels = self.levels();
        let row_len = width as usize * 3;
        let patch_row_len = self.patch_width as usize * 3;
        let pixels = image.as_raw();
        let mut features = Vec::with_capacity(pixels.len());
        let mut boxes = Vec::with_capacity(self.region_count() * 4);
        for row in 0..self.rows {
            for column in 0..self.columns {
                let (left, top) = (column * self.patch_width, row * self.patch_height);
                let (right, bottom) = (left + self.patch_width, top + self.patch_height);
                for y in top..bottom {
                    let start = y as usize * row_len + left as usize * 3;
                    for pixel in pixels[start..start + patch_row_len].chunks_exact(3) {
                        let colours = pixel.iter().zip(&levels);
                        features.extend(colours.map(|(&value, level)| level[usize::from(value)]));
                    }
                }
                boxes.extend([
                    left as f32 / width as f32,
                    top as f32 / height as f32,
                    right as f32 / width as f32,
                    bottom as f32 / height as f32,
                ]);
            }
        }
        Regions::new(features, self.feature_len(), boxes, 4)
    }

    /// The feature that each of the 256 levels of red, green and blue stands for.
    fn levels(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|colour| {
            std::array::from_fn(|value| (value as f32 / 255.0 - self.mean[colour]) / self.std[colour])
        })
    }
}
