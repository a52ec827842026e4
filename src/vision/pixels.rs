//! Pixels in someone else's memory.

use ::image::RgbImage;

use super::{Error, MAX_IMAGE_SIDE};

/// A picture of 8-bit RGB where it lies, such as in a camera's buffer: rows from the top, in each red, green and blue of
/// every pixel from the left.
///
/// A value of this type has 1 to [`MAX_IMAGE_SIDE`] pixels each way, and bytes for all of them.
#[derive(Clone, Copy)]
pub struct Pixels<'a> {
    data: &'a [u8],
    width: u32,
    height: u32,
    stride: usize,
}

impl std::fmt::Debug for Pixels<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Pixels { width, height, stride, .. } = self;
        f.debug_struct("Pixels")
            .field("width", width)
            .field("height", height)
            .field("stride", stride)
            .finish_non_exhaustive()
    }
}

impl<'a> Pixels<'a> {
    /// Takes `width` x `height` pixels whose rows start `stride` bytes apart, the first at the start of `data`. What lies
    /// between rows and after the last is not looked at.
    ///
    /// # Errors
    /// [`Error::EmptyImage`] for a side of 0, [`Error::ImageSide`] for one longer than [`MAX_IMAGE_SIDE`], [`Error::Stride`]
    /// if rows would overlap, [`Error::PixelBytes`] if `data` ends before the last pixel.
    pub fn new(data: &'a [u8], width: u32, height: u32, stride: usize) -> Result<Self, Error> {
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { width, height });
        }
        if width > MAX_IMAGE_SIDE || height > MAX_IMAGE_SIDE {
            return Err(Error::ImageSide { width, height });
        }
        let row = width as usize * 3;
        if stride < row {
            return Err(Error::Stride { stride, row });
        }
        // What saturates is more than any slice has.
        let needed = (height as usize - 1).saturating_mul(stride).saturating_add(row);
        if data.len() < needed {
            return Err(Error::PixelBytes { bytes: data.len(), needed });
        }
        Ok(Pixels { data, width, height, stride })
    }

    /// Pixels from left to right.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Pixels from top to bottom.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The colours of row `y`, `[width, 3]`.
    pub(super) fn row(&self, y: usize) -> &'a [u8] {
        &self.data[y * self.stride..][..self.width as usize * 3]
    }
}

impl<'a> TryFrom<&'a RgbImage> for Pixels<'a> {
    type Error = Error;

    /// # Errors
    /// [`Error::EmptyImage`] and [`Error::ImageSide`], as with [`Pixels::new`].
    fn try_from(image: &'a RgbImage) -> Result<Self, Error> {
        Pixels::new(image.as_raw(), image.width(), image.height(), image.width() as usize * 3)
    }
}
