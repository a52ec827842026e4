//! Why something did not become regions.

use std::io;
use std::path::{Path, PathBuf};

use super::{MAX_BOX_LEN, MAX_FEATURE_LEN};
use crate::limits::raise;
use crate::shown;

/// Why an image or a feature file did not become regions.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Something is wrong with the content of a file; `source` says what.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// A file could not be opened or read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A file, or an array in it, is larger than any that holds the regions of one image.
    #[error("{what} takes {bytes} bytes or more; at most {limit} are read, or {remedy}")]
    TooLarge {
        /// The file or the array.
        what: String,
        /// The size found, in bytes; reading stops there.
        bytes: u64,
        /// The most that is read, in bytes.
        limit: u64,
        /// How to raise it.
        remedy: &'static str,
    },
    /// The bytes are not a readable PNG or JPEG image.
    #[error("not a usable image: {}", shown(reason))]
    Image {
        /// What is wrong.
        reason: String,
    },
    /// The file's name does not end like that of a feature file.
    #[error("not known as a feature file by its name; use .safetensors, .npz, .npy or .tsv")]
    UnknownKind,
    /// The options ask for something that this kind of file does not have, or leave out what it needs.
    #[error("{reason}")]
    Options {
        /// What is missing or too much, and what to do.
        reason: String,
    },
    /// The file as a whole is damaged or not of the kind that its name says.
    #[error("not a usable {kind} file: {}", shown(reason))]
    Format {
        /// The kind of file, such as `.npz`.
        kind: &'static str,
        /// What is wrong, and where.
        reason: String,
    },
    /// An array is missing, damaged, or has the wrong shape or element type.
    #[error("array {name}: {}", shown(reason))]
    Array {
        /// Name of the array in the file.
        name: String,
        /// What is wrong, and what is expected.
        reason: String,
    },
    /// A TSV file holds many images and none was chosen.
    #[error("holds many images; give the id of one (--image-id), such as {}", shown(listed(known)))]
    ImageIdNeeded {
        /// The first few ids in the file.
        known: Vec<String>,
    },
    /// A TSV file has no row for the image.
    #[error("has no image {id:?}; ids look like {}", shown(listed(known)))]
    UnknownImageId {
        /// The id that was asked for.
        id: String,
        /// The first few ids in the file.
        known: Vec<String>,
    },
    /// An image must have at least one region and at most [`Limits::regions`](crate::Limits::regions).
    #[error("{regions} regions; give 1 to {limit}, or {}", raise!(regions))]
    RegionCount {
        /// The number found.
        regions: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A region's feature vector is empty or longer than [`MAX_FEATURE_LEN`].
    #[error("{len} features a region; give 1 to {MAX_FEATURE_LEN}")]
    FeatureLen {
        /// The length found.
        len: usize,
    },
    /// A box has fewer than the four corner values or more than [`MAX_BOX_LEN`].
    #[error("{len} values a box; give 4 to {MAX_BOX_LEN}, the first four being x1, y1, x2, y2")]
    BoxLen {
        /// The length found.
        len: usize,
    },
    /// The number of values is not a whole number of regions, or not the same in features and boxes.
    #[error("{what} hold {values} values, which is not {regions} regions of {len}")]
    Length {
        /// `features` or `boxes`.
        what: &'static str,
        /// The number of values found.
        values: usize,
        /// Regions that the features make up.
        regions: usize,
        /// Values that one region takes.
        len: usize,
    },
    /// A value is infinite or not a number.
    #[error("{what} row {row}, column {column} is {value}; every value must be finite")]
    NotFinite {
        /// `features` or `boxes`.
        what: &'static str,
        /// Region, from 0.
        row: usize,
        /// Place in the region, from 0.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// A corner of a box lies outside the image.
    #[error(
        "boxes row {row}, column {column} is {value}{}; \
         boxes must be x1, y1, x2, y2 divided by the image's width and height, so within [0, 1]",
        if *value > 1.5 { ", which looks like pixels" } else { "" }
    )]
    BoxOutside {
        /// Region, from 0.
        row: usize,
        /// Which of x1, y1, x2, y2, from 0.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// A number that describes a patch grid is out of its range.
    #[error("patch grid: {field} is {value}; it must be {range}")]
    PatchGrid {
        /// Name of the number.
        field: &'static str,
        /// The number found.
        value: f64,
        /// The range that it must lie in.
        range: &'static str,
    },
    /// The image has no pixels.
    #[error("the image is {width} x {height} pixels; it must have at least one")]
    EmptyImage {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
    },
    /// A side of the image is longer than [`Limits::image_side`](crate::Limits::image_side).
    #[error("the image is {width} x {height} pixels; a side may have at most {limit}, or {}", raise!(image_side))]
    ImageSide {
        /// Pixels across.
        width: u32,
        /// Pixels down.
        height: u32,
        /// The most allowed.
        limit: usize,
    },
    /// Rows of pixels start closer together than they are long.
    #[error("rows start {stride} bytes apart, but one takes {row}")]
    Stride {
        /// Bytes from the start of a row to the start of the next.
        stride: usize,
        /// Bytes of a row.
        row: usize,
    },
    /// Pixels are missing.
    #[error("the pixels are {bytes} bytes; the size of the image takes {needed}")]
    PixelBytes {
        /// The number found.
        bytes: usize,
        /// Bytes up to the end of the last pixel.
        needed: usize,
    },
    /// The scratch memory is too small.
    #[error("{values} values of scratch memory; cutting patches takes {needed}")]
    Scratch {
        /// The number found.
        values: usize,
        /// The number needed.
        needed: usize,
    },
}

impl Error {
    pub(super) fn in_file(self, path: &Path) -> Self {
        Error::File { path: path.into(), source: Box::new(self) }
    }

    pub(super) fn array(name: impl Into<String>, reason: impl Into<String>) -> Self {
        Error::Array { name: name.into(), reason: reason.into() }
    }

    pub(super) fn format(kind: &'static str, reason: impl Into<String>) -> Self {
        Error::Format { kind, reason: reason.into() }
    }
}

fn listed(ids: &[String]) -> String {
    if ids.is_empty() {
        return "none: the file has no rows".into();
    }
    let ids: Vec<String> = ids.iter().map(|id| format!("{id:?}")).collect();
    ids.join(", ")
}
