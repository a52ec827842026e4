//! Regions, checked.

use super::Error;
use crate::Limits;

/// Longest feature vector of a region. Detectors give 2048; a patch of 64 x 64 pixels has 12288 values.
pub const MAX_FEATURE_LEN: usize = 16384;

/// Most values that describe the place of one region.
pub const MAX_BOX_LEN: usize = 64;

/// How far a corner may lie outside [0, 1], for the rounding of the division by width or height.
const SLACK: f32 = 1e-5;

/// The regions of one image: a feature vector and a box for each.
///
/// A value of this type has 1 to [`Limits::regions`] regions, only finite numbers, and boxes whose corners lie
/// within the image.
#[derive(Debug, Clone, PartialEq)]
pub struct Regions {
    features: Vec<f32>,
    feature_len: usize,
    boxes: Vec<f32>,
    box_len: usize,
}

impl Regions {
    /// Takes `features` `[n, feature_len]` and `boxes` `[n, box_len]`, row by row. The first four values of
    /// a box are x1, y1, x2, y2 of its corners, divided by the image's width (x) and height (y).
    ///
    /// # Errors
    /// [`Error::FeatureLen`], [`Error::BoxLen`], [`Error::RegionCount`], [`Error::Length`],
    /// [`Error::NotFinite`], and [`Error::BoxOutside`] for a corner beyond [0, 1] by more than 1e-5.
    pub fn new(
        features: Vec<f32>,
        feature_len: usize,
        boxes: Vec<f32>,
        box_len: usize,
    ) -> Result<Self, Error> {
        Self::new_within(features, feature_len, boxes, box_len, &Limits::DEFAULT)
    }

    /// As [`new`](Self::new), within other limits than the default ones.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn new_within(
        features: Vec<f32>,
        feature_len: usize,
        boxes: Vec<f32>,
        box_len: usize,
        limits: &Limits,
    ) -> Result<Self, Error> {
        if !(1..=MAX_FEATURE_LEN).contains(&feature_len) {
            return Err(Error::FeatureLen { len: feature_len });
        }
        if !(4..=MAX_BOX_LEN).contains(&box_len) {
            return Err(Error::BoxLen { len: box_len });
        }
        let regions = features.len() / feature_len;
        for (what, values, len) in
            [("features", features.len(), feature_len), ("boxes", boxes.len(), box_len)]
        {
            if regions.checked_mul(len) != Some(values) {
                return Err(Error::Length { what, values, regions, len });
            }
        }
        let limit = limits.in_range().regions;
        if !(1..=limit).contains(&regions) {
            return Err(Error::RegionCount { regions, limit });
        }
        check_finite("features", &features, feature_len)?;
        check_finite("boxes", &boxes, box_len)?;
        check_boxes(&boxes, box_len)?;
        Ok(Self { features, feature_len, boxes, box_len })
    }

    /// Number of regions, at least 1.
    #[allow(clippy::len_without_is_empty)] // never empty
    pub fn len(&self) -> usize {
        self.features.len() / self.feature_len
    }

    /// Values in a region's feature vector.
    pub fn feature_len(&self) -> usize {
        self.feature_len
    }

    /// Values in a region's box.
    pub fn box_len(&self) -> usize {
        self.box_len
    }

    /// The feature vectors, `[len, feature_len]`.
    pub fn features(&self) -> &[f32] {
        &self.features
    }

    /// The boxes, `[len, box_len]`.
    pub fn boxes(&self) -> &[f32] {
        &self.boxes
    }
}

/// Checks that the corners of boxes `[n, box_len]` lie within the image. Boxes of fewer than four values have no corners.
pub(crate) fn check_boxes(boxes: &[f32], box_len: usize) -> Result<(), Error> {
    for (row, corners) in boxes.chunks_exact(box_len).enumerate().filter(|_| box_len >= 4) {
        for (column, &value) in corners[..4].iter().enumerate() {
            if !(-SLACK..=1.0 + SLACK).contains(&value) {
                return Err(Error::BoxOutside { row, column, value });
            }
        }
    }
    Ok(())
}

fn check_finite(what: &'static str, values: &[f32], len: usize) -> Result<(), Error> {
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(at) => Err(Error::NotFinite { what, row: at / len, column: at % len, value: values[at] }),
    }
}
