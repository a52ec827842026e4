//! Front ends: an image or a feature file becomes regions.
//!
//! LXMERT sees an image as a set of regions, each a feature vector and a box. [`load_features`] reads
//! regions that a detector wrote to a file. For models that were trained on plain patches instead,
//! [`PatchGrid`] cuts them from an image that [`load_image`] read, or from [`Pixels`] that lie anywhere.
//! The result is [`Regions`], whose values have been checked once and need no further check downstream.

mod error;
mod features;
mod front_end;
mod image;
mod patch_grid;
mod pixels;
mod regions;
mod resize;

pub use ::image::RgbImage;

pub use error::Error;
pub use features::{FeatureOptions, load_features, load_features_within};
pub use front_end::FrontEnd;
pub use image::{decode_image, decode_image_within, load_image, load_image_within};
pub use patch_grid::PatchGrid;
pub use pixels::Pixels;
pub(crate) use regions::check_boxes;
pub use regions::{MAX_BOX_LEN, MAX_FEATURE_LEN, Regions};
