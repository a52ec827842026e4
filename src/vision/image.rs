//! Decoding pictures.

use std::io::Cursor;
use std::path::Path;

use ::image::{DynamicImage, ImageError, ImageFormat, ImageReader, RgbImage};

use super::{Error, features::read_bounded};
use crate::Limits;
use crate::limits::raise;

/// Reads a PNG or JPEG file; the content decides which, not the name. See [`decode_image`].
///
/// # Errors
/// [`Error::File`] with the path and what is wrong: the file cannot be read, is larger than
/// [`Limits::image_file_bytes`], or [`decode_image`] refuses it.
pub fn load_image(path: &Path) -> Result<RgbImage, Error> {
    load_image_within(path, &Limits::DEFAULT)
}

/// As [`load_image`], within other limits than the default ones.
///
/// # Errors
/// As [`load_image`].
pub fn load_image_within(path: &Path, limits: &Limits) -> Result<RgbImage, Error> {
    read_bounded(path, limits.in_range().image_file_bytes, raise!(image_file_bytes))
        .and_then(|bytes| decode_image_within(&bytes, limits))
        .map_err(|error| error.in_file(path))
}

/// Decodes a PNG or JPEG image to 8-bit RGB, as Pillow's `convert("RGB")` does: an alpha channel is dropped
/// and not blended, grey is repeated, a palette looked up, and the orientation in EXIF data ignored.
/// Of 16-bit values the high byte is taken. For 16-bit grey Pillow differs: it clips at level 255, which
/// turns nearly every such image white.
///
/// PNG gives the same pixels with any decoder. JPEG decoders may differ by a few levels.
///
/// # Errors
/// [`Error::Image`] if the bytes are neither PNG nor JPEG, are damaged or cut short, or if a side is longer
/// than [`Limits::image_side`] or decoding would take more than [`Limits::image_memory_bytes`].
pub fn decode_image(bytes: &[u8]) -> Result<RgbImage, Error> {
    decode_image_within(bytes, &Limits::DEFAULT)
}

/// As [`decode_image`], within other limits than the default ones.
///
/// # Errors
/// As [`decode_image`].
pub fn decode_image_within(bytes: &[u8], limits: &Limits) -> Result<RgbImage, Error> {
    let Limits { image_side: side, image_memory_bytes: memory, .. } = limits.in_range();
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    match reader.format() {
        Some(ImageFormat::Png) => {}
        // The decoder fills what is missing with grey, and an answer about grey is no answer.
        Some(ImageFormat::Jpeg) if after_jpeg(bytes).is_none() => {
            return Err(unusable("the JPEG data is cut short"));
        }
        Some(ImageFormat::Jpeg) => {}
        _ => return Err(unusable("neither PNG nor JPEG")),
    }
    let mut decoder = ::image::Limits::default();
    decoder.max_image_width = Some(side as u32);
    decoder.max_image_height = Some(side as u32);
    decoder.max_alloc = Some(memory as u64);
    reader.limits(decoder);
    let image = reader.decode().map_err(|error| match error {
        ImageError::Limits(_) => unusable(&format!(
            "too large; a side may have {side} pixels and decoding take {memory} bytes, or {}; {}",
            raise!(image_side),
            raise!(image_memory_bytes)
        )),
        error => {
            let text = error.to_string();
            let words: Vec<&str> = text.split_whitespace().collect();
            unusable(&words.join(" "))
        }
    })?;
    Ok(match image {
        DynamicImage::ImageLuma16(image) => high_bytes(image.width(), image.height(), &image, 1),
        DynamicImage::ImageLumaA16(image) => high_bytes(image.width(), image.height(), &image, 2),
        DynamicImage::ImageRgb16(image) => high_bytes(image.width(), image.height(), &image, 3),
        DynamicImage::ImageRgba16(image) => high_bytes(image.width(), image.height(), &image, 4),
        image => image.into_rgb8(),
    })
}

/// What follows the end mark of a JPEG image, or nothing if the mark is not reached. Segments are stepped
/// over, as one may hold a thumbnail with an end mark of its own.
fn after_jpeg(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes.get(2..)?;
    loop {
        // Between segments lies compressed data, in which these bytes after 0xff are no segment's mark.
        let mark = rest
            .windows(2)
            .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0x01 | 0xd0..=0xd8 | 0xff))?;
        rest = &rest[mark + 1..];
        if rest[0] == 0xd9 {
            return Some(&rest[1..]);
        }
        let len = u16::from_be_bytes([*rest.get(1)?, *rest.get(2)?]);
        rest = rest.get(1 + usize::from(len)..)?;
    }
}

/// Takes the high byte of each colour, where the image library would round to the nearest level.
fn high_bytes(width: u32, height: u32, samples: &[u16], channels: usize) -> RgbImage {
    let colours = if channels < 3 { [0, 0, 0] } else { [0, 1, 2] };
    let mut pixels = Vec::with_capacity(samples.len() / channels * 3);
    for pixel in samples.chunks_exact(channels) {
        pixels.extend(colours.map(|colour| (pixel[colour] >> 8) as u8));
    }
    RgbImage::from_raw(width, height, pixels).expect("a pixel was pushed for every place")
}

fn unusable(reason: &str) -> Error {
    Error::Image { reason: reason.into() }
}
