//! Pixels in someone else's memory.

use ::image::RgbImage;

use super::Error;
use crate::Limits;

/// A picture of 8-bit RGB where it lies, such as in a camera's buffer: rows from the top, in each red, green and blue of
/// every pixel from the left.
///
/// A value of this type has 1 to [`Limits::image_side`] pixels each way, and bytes for all of them.
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
    /// [`Error::EmptyImage`] for a side of 0, [`Error::ImageSide`] for one longer than [`Limits::image_side`] is by default,
    /// [`Error::Stride`] if rows would overlap, [`Error::PixelBytes`] if `data` ends before the last pixel.
    pub fn new(data: &'a [u8], width: u32, height: u32, stride: usize) -> Result<Self, Error> {
        Self::new_within(data, width, height, stride, &Limits::DEFAULT)
    }

    /// As [`new`](Self::new), within other limits than the default ones.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_within(
        data: &'a [u8],
        width: u32,
        height: u32,
        stride: usize,
        limits: &Limits,
    ) -> Result<Self, Error> {
        if width == 0 || height == 0 {
            return Err(Error::EmptyImage { width, height });
        }
        let limit = limits.in_range().image_side;
        if width.max(height) as usize > limit {
            return Err(Error::ImageSide { width, height, limit });
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
    /// [`Error::EmptyImage`]; [`Error::ImageSide`] for a side that is longer than any limit can be.
    fn try_from(image: &'a RgbImage) -> Result<Self, Error> {
        // Whoever has decoded it has had a limit for that.
        let limits = Limits { image_side: usize::MAX, ..Limits::DEFAULT };
        Pixels::new_within(image.as_raw(), image.width(), image.height(), image.width() as usize * 3, &limits)
    }
}
