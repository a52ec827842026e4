//! Front ends: an image or a feature file becomes regions.
//!
//! LXMERT sees an image as a set of regions, each a feature vector and a box. [`load_features`] reads
//! regions that a detector wrote to a file. For models that were trained on plain patches instead,
//! [`PatchGrid`] cuts them from an image that [`load_image`] read. Either way the result is [`Regions`],
//! whose values have been checked once and need no further check downstream.

mod error;
mod features;
mod image;
mod patch_grid;
mod regions;
mod resize;

pub use ::image::RgbImage;

pub use error::Error;
pub use features::{FeatureOptions, load_features};
pub use image::{MAX_IMAGE_FILE_BYTES, MAX_IMAGE_SIDE, decode_image, load_image};
pub use patch_grid::PatchGrid;
pub use regions::{MAX_BOX_LEN, MAX_FEATURE_LEN, MAX_REGIONS, Regions};

/// How an image becomes regions for one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FrontEnd {
    /// Only from ready features: the detector is not part of the model.
    Regions,
    /// By cutting the image into patches.
    PatchGrid(PatchGrid),
}
