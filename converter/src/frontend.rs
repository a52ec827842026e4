//! `preprocessing.json`: how a model's images become regions.

use std::path::{Path, PathBuf};

use lxmert::Limits;
use lxmert::model::Config;
use lxmert::vision::{FrontEnd, PatchGrid};
use serde::Deserialize;

use crate::Error;
use crate::files::read_json;

/// The one order in which patches become regions.
const PATCH_ORDER: &str = "row by row (y, then x)";

/// The one order in which a patch's pixels become features.
const FEATURE_ORDER: &str = "row, column, channel";

/// The one order of the colours.
const CHANNELS: &str = "RGB";

/// The front end of a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Preprocessing {
    /// The file that describes it; without one, the model takes only ready regions.
    pub path: Option<PathBuf>,
    /// What it describes.
    pub front_end: FrontEnd,
}

/// The fields of the file that the runtime acts upon.
#[derive(Deserialize)]
struct Description {
    /// Height and width of the image in pixels.
    image_size: Option<[u32; 2]>,
    /// Rows and columns.
    grid: [u32; 2],
    /// Height and width in pixels.
    patch_size: [u32; 2],
    channels: Option<String>,
    patch_order: Option<String>,
    feature_order: Option<String>,
    mean: [f32; 3],
    std: [f32; 3],
}

impl Preprocessing {
    /// The front end without a file.
    pub fn regions() -> Self {
        Preprocessing { path: None, front_end: FrontEnd::Regions }
    }

    /// Reads the description of a patch grid.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let description: Description = read_json(path, limits)?;
        match description.patch_grid() {
            Ok(grid) => {
                Ok(Preprocessing { path: Some(path.to_owned()), front_end: FrontEnd::PatchGrid(grid) })
            }
            Err(reason) => Err(Error::Preprocessing { path: path.to_owned(), reason }),
        }
    }

    /// Demands that regions are of the model's widths.
    pub fn check(&self, config: &Config) -> Result<(), Error> {
        let Some(path) = &self.path else { return Ok(()) };
        match self.front_end.mismatch(config.visual_feat_dim, config.visual_pos_dim) {
            Some(reason) => Err(Error::Preprocessing { path: path.clone(), reason }),
            None => Ok(()),
        }
    }
}

impl Description {
    fn patch_grid(&self) -> Result<PatchGrid, String> {
        let orders = [
            ("channels", &self.channels, CHANNELS),
            ("patch_order", &self.patch_order, PATCH_ORDER),
            ("feature_order", &self.feature_order, FEATURE_ORDER),
        ];
        for (field, found, known) in orders {
            if let Some(found) = found.as_deref().filter(|found| *found != known) {
                return Err(format!("{field} is {found:?}, the runtime has only {known:?}"));
            }
        }
        let ([rows, columns], [height, width]) = (self.grid, self.patch_size);
        let grid = PatchGrid::new(rows, columns, height, width, self.mean, self.std)
            .map_err(|error| error.to_string())?;
        let covered = [rows * height, columns * width];
        match self.image_size {
            Some(size) if size != covered => {
                Err(format!("image_size is {size:?}, but grid and patch_size cover {covered:?}"))
            }
            _ => Ok(grid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch_grid(json: &str) -> Result<PatchGrid, String> {
        serde_json::from_str::<Description>(json).unwrap().patch_grid()
    }

    #[test]
    fn reads_rows_before_columns() {
        let json = r#"{"grid": [2, 3], "patch_size": [4, 5], "mean": [0, 0.5, 1], "std": [1, 2, 3],
            "image_size": [8, 15], "channels": "RGB"}"#;
        let grid = patch_grid(json).unwrap();
        assert_eq!((grid.rows(), grid.columns(), grid.patch_height(), grid.patch_width()), (2, 3, 4, 5));
        assert_eq!((grid.mean(), grid.std()), ([0.0, 0.5, 1.0], [1.0, 2.0, 3.0]));
    }

    #[test]
    fn refuses_orders_and_sizes_that_the_runtime_lacks() {
        let sizes = r#""grid": [2, 2], "patch_size": [4, 4], "mean": [0, 0, 0], "std": [1, 1, 1]"#;
        for (field, fault) in [
            (r#""channels": "BGR""#, r#"channels is "BGR""#),
            (r#""patch_order": "column by column""#, "patch_order"),
            (r#""feature_order": "channel, row, column""#, "feature_order"),
            (r#""image_size": [8, 9]"#, "image_size is [8, 9]"),
        ] {
            let error = patch_grid(&format!("{{{sizes}, {field}}}")).unwrap_err();
            assert!(error.starts_with(fault), "{error}");
        }
        let huge = sizes.replace("[2, 2]", "[4294967295, 2]");
        assert!(patch_grid(&format!("{{{huge}}}")).is_err());
    }
}
