//! Decoding pictures.

use std::io::{self, Cursor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ::image::error::LimitErrorKind;
use ::image::{DynamicImage, ImageError, ImageFormat, ImageReader, RgbImage};

use super::{Error, features::read_bounded};
use crate::limits::raise;
use crate::{Limits, reserve};

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
    let limits = limits.in_range();
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    match reader.format() {
        Some(ImageFormat::Png) => check_png(bytes, &limits)?,
        Some(ImageFormat::Jpeg) => check_jpeg(bytes, &limits)?,
        _ => return Err(unusable("neither PNG nor JPEG")),
    }
    let mut decoder = ::image::Limits::default();
    decoder.max_image_width = Some(limits.image_side as u32);
    decoder.max_image_height = Some(limits.image_side as u32);
    decoder.max_alloc = Some(limits.image_memory_bytes as u64);
    reader.limits(decoder);
    // Decoders are other people's code, and what is decoded may be made to break them. Nothing of theirs is used after a panic.
    let decoded = catch_unwind(AssertUnwindSafe(|| reader.decode()));
    let decoded =
        decoded.map_err(|_| unusable("the decoder failed on it, which is a fault of the program"))?;
    let image = decoded.map_err(|error| match error {
        ImageError::Limits(error) => match error.kind() {
            LimitErrorKind::DimensionError => too_long(&limits),
            _ => too_much_memory(&limits),
        },
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

/// Bytes that decoding takes for a pixel at most: four channels of 16 bits, and the RGB that becomes of them.
const PIXEL_BYTES: usize = 11;

/// Refuses what would take more memory as RGB, whatever it takes in its own colours. Of the rest the memory is asked for before the decoder
/// does, which takes no for an answer only here and there.
fn check_pixels(pixels: u64, limits: &Limits) -> Result<(), Error> {
    if pixels.saturating_mul(3) > limits.image_memory_bytes as u64 {
        return Err(too_much_memory(limits));
    }
    let bytes = (pixels as usize).saturating_mul(PIXEL_BYTES).min(limits.image_memory_bytes);
    reserve::probe(bytes, "the image").map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    Ok(())
}

fn too_long(limits: &Limits) -> Error {
    unusable(&format!("too large; a side may have {} pixels, or {}", limits.image_side, raise!(image_side)))
}

fn too_much_memory(limits: &Limits) -> Error {
    let most = limits.image_memory_bytes;
    unusable(&format!("too large; decoding may take {most} bytes, or {}", raise!(image_memory_bytes)))
}

/// Refuses a PNG image that is too large, or whose palette is no list of colours, which the decoder takes for one. What lacks a size or
/// is cut short is left to the decoder to refuse.
fn check_png(bytes: &[u8], limits: &Limits) -> Result<(), Error> {
    let number = |at: usize| bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
    let side = |at| u64::from(number(at).unwrap_or(0));
    check_pixels(side(16).saturating_mul(side(20)), limits)?;
    // Chunks follow the signature: length, name, data, checksum.
    let mut at = 8;
    while let (Some(len), Some(name)) = (number(at), bytes.get(at + 4..at + 8)) {
        if name == b"PLTE" && (len % 3 != 0 || len == 0 || len > 3 * 256) {
            return Err(unusable(&format!(
                "a palette of {len} bytes, expected 3 for each of 1 to 256 colours"
            )));
        }
        at = at.saturating_add(12 + len as usize);
    }
    Ok(())
}

/// Refuses a JPEG image that is cut short, or that takes more work than its size is worth.
fn check_jpeg(bytes: &[u8], limits: &Limits) -> Result<(), Error> {
    let Outline { pixels, scans } = Outline::of(bytes).map_err(unusable)?;
    if pixels == 0 || scans == 0 {
        return Err(unusable("the JPEG data has no frame or no scan"));
    }
    check_pixels(pixels, limits)?;
    let most = limits.image_scanned_pixels;
    if pixels.saturating_mul(scans) > most as u64 {
        return Err(unusable(&format!(
            "{scans} scans of {pixels} pixels take too long; at most {most} pixels are gone over, or {}",
            raise!(image_scanned_pixels)
        )));
    }
    Ok(())
}

/// What the segments of a JPEG image say of its size.
struct Outline {
    /// Pixels of the largest frame.
    pixels: u64,
    scans: u64,
}

impl Outline {
    /// Reads up to the end mark. Segments are stepped over, as one may hold a thumbnail with an end mark of its own.
    ///
    /// # Errors
    /// What is wrong: the end mark is not reached, or there are marks about which decoders do not agree whether a segment follows. What
    /// stands in that segment would be seen by one of them alone.
    fn of(bytes: &[u8]) -> Result<Self, &'static str> {
        // The decoder fills what is missing with grey, and an answer about grey is no answer.
        const CUT: &str = "the JPEG data is cut short";
        let mut outline = Outline { pixels: 0, scans: 0 };
        let mut rest = bytes.get(2..).ok_or(CUT)?;
        loop {
            // In compressed data, which lies between segments, 0 after 0xff is no mark.
            let place = rest.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff));
            rest = &rest[place.ok_or(CUT)? + 1..];
            let side = |at: usize| match rest.get(at..at + 2) {
                Some(bytes) => Ok(u64::from(u16::from_be_bytes([bytes[0], bytes[1]]))),
                None => Err(CUT),
            };
            match rest[0] {
                // Compressed data starts again.
                0xd0..=0xd7 if outline.scans > 0 => {
                    rest = &rest[1..];
                    continue;
                }
                0x01 | 0xd0..=0xd8 => return Err("the JPEG data is damaged: a mark where none may be"),
                0xd9 => return Ok(outline),
                0xda => outline.scans += 1,
                // Of the marks in this range, these are tables.
                0xc4 | 0xc8 | 0xcc => {}
                0xc0..=0xcf => outline.pixels = outline.pixels.max(side(4)? * side(6)?),
                _ => {}
            }
            rest = rest.get(1 + side(1)? as usize..).ok_or(CUT)?;
        }
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
