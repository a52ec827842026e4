//! Files of ready features, as detectors write them.

mod npy;
mod npz;
mod safetensors;
mod tsv;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::Error;
use super::regions::Regions;
use crate::Limits;
use crate::limits::raise;

/// What to take from a feature file, where the file alone does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeatureOptions {
    /// The image whose regions to take from a `.tsv` file, which holds many. Other kinds hold one.
    pub image_id: Option<String>,
    /// The `.npy` file with the boxes that go with a `.npy` file of features. Other kinds hold both.
    pub boxes: Option<PathBuf>,
}

/// Reads the regions of one image from a feature file. The ending of its name says which kind it is:
///
/// - `.safetensors`: tensors `features` `[n, d]` and `boxes` `[n, 4]`, or `visual_feats` and `visual_pos`;
///   F32, F64, F16 or BF16.
/// - `.npz`: arrays of the same names, or `x` `[n, d]` and `bbox` `[n, 4]` in pixels with `image_w` and
///   `image_h`; any number type.
/// - `.npy`: the features `[n, d]`; the boxes `[n, 4]` are in the file [`FeatureOptions::boxes`].
/// - `.tsv`: the rows of `*_obj36.tsv` (img_id, img_h, img_w, objects_id, objects_conf, attrs_id,
///   attrs_conf, num_boxes, boxes in pixels, features; arrays in base64). It is read line by line up to the
///   row of [`FeatureOptions::image_id`].
///
/// Boxes are x1, y1, x2, y2. Those in pixels are divided by the image's width and height; all others must
/// be divided already. A leading axis of length 1 is accepted in front of any array.
///
/// # Errors
/// [`Error::File`] with the path and, inside it, what is wrong with the file, an array or a row.
pub fn load_features(path: &Path, options: &FeatureOptions) -> Result<Regions, Error> {
    load_features_within(path, options, &Limits::DEFAULT)
}

/// As [`load_features`], within other limits than the default ones.
///
/// # Errors
/// As [`load_features`].
pub fn load_features_within(
    path: &Path,
    options: &FeatureOptions,
    limits: &Limits,
) -> Result<Regions, Error> {
    read(path, options, &limits.in_range()).map_err(|error| match error {
        // The boxes are in a file of their own, and it is already named.
        error @ Error::File { .. } => error,
        error => error.in_file(path),
    })
}

fn read(path: &Path, options: &FeatureOptions, limits: &Limits) -> Result<Regions, Error> {
    let whole = |path: &Path| read_bounded(path, limits.feature_file_bytes, raise!(feature_file_bytes));
    let kind = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    let kind = kind.as_deref().ok_or(Error::UnknownKind)?;
    let unused =
        |what: &str, option: &str| Err(Error::Options { reason: format!("{what}; leave {option} out") });
    if options.image_id.is_some() && matches!(kind, "safetensors" | "npz" | "npy") {
        return unused("holds one image and no id", "--image-id");
    }
    if options.boxes.is_some() && matches!(kind, "safetensors" | "npz" | "tsv") {
        return unused("holds its own boxes", "--boxes");
    }
    match kind {
        "safetensors" => safetensors::read(&whole(path)?, limits),
        "npz" => npz::read(&whole(path)?, limits),
        "npy" => {
            let Some(boxes_path) = &options.boxes else {
                return Err(Error::Options {
                    reason: "holds only features; give a .npy file of boxes too (--boxes)".into(),
                });
            };
            let array =
                |path: &Path, name: &str| npy::Array::parse(name, &whole(path)?, limits)?.matrix(limits);
            let features = array(path, "features")?;
            let boxes = array(boxes_path, "boxes").map_err(|error| error.in_file(boxes_path))?;
            regions(features, boxes, limits)
        }
        "tsv" => tsv::read(File::open(path)?, options.image_id.as_deref(), limits),
        _ => Err(Error::UnknownKind),
    }
}

/// A named array of two axes, row by row.
struct Matrix {
    name: String,
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

fn regions(features: Matrix, boxes: Matrix, limits: &Limits) -> Result<Regions, Error> {
    if features.rows == 0 {
        return Err(Error::RegionCount { regions: 0, limit: limits.regions });
    }
    if features.rows != boxes.rows {
        let hint = if features.columns == boxes.rows { "; transpose the features" } else { "" };
        return Err(Error::array(
            boxes.name,
            format!(
                "has {} rows, but {} is {} x {}{hint}",
                boxes.rows, features.name, features.rows, features.columns
            ),
        ));
    }
    Regions::new_within(features.values, features.columns, boxes.values, boxes.columns, limits)
}

/// Turns corners in pixels into corners from 0 to 1.
fn divide_boxes(boxes: &mut Matrix, width: f32, height: f32) -> Result<(), Error> {
    for (name, size) in [("width", width), ("height", height)] {
        if !(size > 0.0 && size.is_finite()) {
            return Err(Error::array(
                boxes.name.clone(),
                format!("cannot be divided by an image {name} of {size}"),
            ));
        }
    }
    if boxes.columns < 4 {
        return Err(Error::BoxLen { len: boxes.columns });
    }
    for corners in boxes.values.chunks_exact_mut(boxes.columns) {
        for (value, size) in corners.iter_mut().zip([width, height, width, height]) {
            *value /= size;
        }
    }
    Ok(())
}

/// The number of rows and columns in a shape of two axes, or of three with a leading 1, and not more
/// values than any image needs.
fn matrix_shape(name: &str, shape: &[usize], limits: &Limits) -> Result<(usize, usize), Error> {
    let (rows, columns) = match *shape {
        [rows, columns] | [1, rows, columns] => (rows, columns),
        _ => {
            return Err(Error::array(name, format!("has shape {shape:?}; expected [regions, values]")));
        }
    };
    match rows.checked_mul(columns) {
        Some(values) if values <= limits.feature_values => Ok((rows, columns)),
        _ => Err(Error::array(name, too_many(shape, limits))),
    }
}

/// What is wrong with an array of that shape, which has too many values.
fn too_many(shape: &[usize], limits: &Limits) -> String {
    let (most, raise) = (limits.feature_values, raise!(feature_values));
    format!("has shape {shape:?}; at most {most} values are read, or {raise}")
}

/// Reads a whole file of at most `limit` bytes, which are raised so. Memory grows with what has been read, not with what the
/// file system says.
pub(super) fn read_bounded(path: &Path, limit: usize, remedy: &'static str) -> Result<Vec<u8>, Error> {
    let limit = limit as u64;
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(Error::TooLarge { what: "the file".into(), bytes: bytes.len() as u64, limit, remedy });
    }
    Ok(bytes)
}
