//! Regions that are the patches of a grid.

use ::image::RgbImage;

use super::resize::{scale, scratch_len};
use super::{Error, Pixels, Regions};

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
    /// Values of a region's box: x1, y1, x2, y2.
    pub const BOX_LEN: usize = 4;

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

    /// Cuts an image into regions, as [`cut`](Self::cut) does.
    ///
    /// # Errors
    /// [`Error::EmptyImage`] if the image has no pixels, [`Error::ImageSide`] if it has too many.
    pub fn regions(&self, image: &RgbImage) -> Result<Regions, Error> {
        let pixels = Pixels::try_from(image)?;
        let mut scratch = vec![0.0; self.scratch_len()];
        let mut features = vec![0.0; self.region_count() * self.feature_len()];
        let mut boxes = vec![0.0; self.region_count() * Self::BOX_LEN];
        self.cut(&pixels, &mut scratch, &mut features, &mut boxes)?;
        Regions::new(features, self.feature_len(), boxes, Self::BOX_LEN)
    }

    /// Values of scratch memory that [`cut`](Self::cut) needs, whatever the size of the picture.
    pub fn scratch_len(&self) -> usize {
        scratch_len(self.image_size().0)
    }

    /// Cuts a picture into regions, row by row from the top left, without allocating: `features` `[regions, feature_len]`
    /// and `boxes` `[regions, 4]`. Of `scratch`, [`scratch_len`](Self::scratch_len) values are overwritten.
    ///
    /// Features are ordered by pixel row, pixel column, colour; each is (value / 255 - mean) / std. Boxes are
    /// x1, y1, x2, y2 over the size of the image. An image of another size is first scaled to
    /// [`image_size`](Self::image_size), whatever its aspect ratio, with an antialiased bilinear filter (that
    /// of Pillow's `BILINEAR`, up to one level out of 255).
    ///
    /// # Errors
    /// [`Error::Length`] unless `features` and `boxes` are of these shapes, [`Error::Scratch`] if `scratch` is too short.
    pub fn cut(
        &self,
        pixels: &Pixels<'_>,
        scratch: &mut [f32],
        features: &mut [f32],
        boxes: &mut [f32],
    ) -> Result<(), Error> {
        let (regions, feature_len) = (self.region_count(), self.feature_len());
        for (what, values, len) in
            [("features", features.len(), feature_len), ("boxes", boxes.len(), Self::BOX_LEN)]
        {
            if values != regions * len {
                return Err(Error::Length { what, values, regions, len });
            }
        }
        if scratch.len() < self.scratch_len() {
            return Err(Error::Scratch { values: scratch.len(), needed: self.scratch_len() });
        }

        let (width, height) = self.image_size();
        let [columns, patch_height, patch_width] =
            [self.columns, self.patch_height, self.patch_width].map(|side| side as usize);
        let (colours, _) = features.as_chunks_mut::<3>();
        let mut patches = Patches { colours, columns, patch_height, patch_width };
        scale(pixels, (width, height), scratch, &mut patches);
        let levels = self.levels();
        for pixel in patches.colours {
            for (value, level) in pixel.iter_mut().zip(&levels) {
                // A cast from f32 saturates, so rounding just past 255 is harmless.
                *value = level[usize::from((*value + 0.5) as u8)];
            }
        }
        for (region, corners) in boxes.as_chunks_mut::<{ Self::BOX_LEN }>().0.iter_mut().enumerate() {
            let (left, top) = (region % columns * patch_width, region / columns * patch_height);
            let (right, bottom) = (left + patch_width, top + patch_height);
            *corners = [
                left as f32 / width as f32,
                top as f32 / height as f32,
                right as f32 / width as f32,
                bottom as f32 / height as f32,
            ];
        }
        Ok(())
    }

    /// The feature that each of the 256 levels of red, green and blue stands for.
    fn levels(&self) -> [[f32; 256]; 3] {
        std::array::from_fn(|colour| {
            std::array::from_fn(|value| (value as f32 / 255.0 - self.mean[colour]) / self.std[colour])
        })
    }
}

/// The pixels of an image in the order of the patches that they belong to.
pub(super) struct Patches<'a> {
    colours: &'a mut [[f32; 3]],
    columns: usize,
    patch_height: usize,
    patch_width: usize,
}

impl Patches<'_> {
    /// Makes every pixel black.
    pub fn clear(&mut self) {
        self.colours.fill([0.0; 3]);
    }

    /// The pixels of row `y` of the image from the left.
    pub fn row(&mut self, y: usize) -> impl Iterator<Item = &mut [f32; 3]> {
        let Patches { columns, patch_height, patch_width, .. } = *self;
        let patches = self.colours.chunks_exact_mut(patch_height * patch_width);
        patches
            .skip(y / patch_height * columns)
            .take(columns)
            .flat_map(move |patch| &mut patch[y % patch_height * patch_width..][..patch_width])
    }
}
