//! Which way from an image to regions a model takes.

use super::PatchGrid;
use crate::Error;
use crate::gguf::Metadata;

/// How an image becomes regions for one model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FrontEnd {
    /// Only from ready features: the detector is not part of the model.
    Regions,
    /// By cutting the image into patches.
    PatchGrid(PatchGrid),
}

const KIND: &str = "lxmert.vision.frontend";
const GRID_SIZE: &str = "lxmert.vision.frontend.grid_size";
const PATCH_SIZE: &str = "lxmert.vision.frontend.patch_size";
const IMAGE_MEAN: &str = "lxmert.vision.frontend.image_mean";
const IMAGE_STD: &str = "lxmert.vision.frontend.image_std";

const REGIONS: &str = "regions";
const PATCH_GRID: &str = "patch_grid";

impl FrontEnd {
    /// Reads the front end from a file's metadata; a file that tells none takes ready features.
    ///
    /// # Errors
    /// [`Error::Hyperparameter`] for a front end that does not exist, [`Error::Gguf`] for a key that is missing or of
    /// another type, [`Error::Vision`] for a number out of range.
    pub fn from_metadata(metadata: &Metadata) -> Result<Self, Error> {
        match metadata.opt_str(KIND)? {
            None | Some(REGIONS) => Ok(FrontEnd::Regions),
            Some(PATCH_GRID) => {
                let [rows, columns] = exactly(GRID_SIZE, &metadata.u32s(GRID_SIZE)?)?;
                let [height, width] = exactly(PATCH_SIZE, &metadata.u32s(PATCH_SIZE)?)?;
                let mean = exactly(IMAGE_MEAN, metadata.f32s(IMAGE_MEAN)?)?;
                let std = exactly(IMAGE_STD, metadata.f32s(IMAGE_STD)?)?;
                Ok(FrontEnd::PatchGrid(PatchGrid::new(rows, columns, height, width, mean, std)?))
            }
            Some(kind) => Err(Error::Hyperparameter {
                key: KIND.to_owned(),
                expected: format!("{REGIONS} or {PATCH_GRID}"),
                found: format!("{kind:?}"),
            }),
        }
    }

    /// What is wrong with its regions for a model of these widths; `None` if they fit.
    pub fn mismatch(&self, visual_feat_dim: usize, visual_pos_dim: usize) -> Option<String> {
        let FrontEnd::PatchGrid(grid) = self else { return None };
        let (features, boxes) = (grid.feature_len(), 4);
        let fits = (features, boxes) == (visual_feat_dim, visual_pos_dim);
        (!fits).then(|| {
            format!(
                "patches have {features} features and boxes of {boxes}, the model takes {visual_feat_dim} and \
                 {visual_pos_dim}"
            )
        })
    }

    /// The kind's name in GGUF files.
    pub fn name(&self) -> &'static str {
        match self {
            FrontEnd::Regions => REGIONS,
            FrontEnd::PatchGrid(_) => PATCH_GRID,
        }
    }

    /// Writes the keys that [`FrontEnd::from_metadata`] reads.
    ///
    /// # Errors
    /// [`Error::Gguf`] where the metadata holds one of the keys already.
    pub fn write_metadata(&self, metadata: &mut Metadata) -> Result<(), Error> {
        metadata.insert(KIND, self.name())?;
        if let FrontEnd::PatchGrid(grid) = self {
            metadata.insert(GRID_SIZE, vec![grid.rows(), grid.columns()])?;
            metadata.insert(PATCH_SIZE, vec![grid.patch_height(), grid.patch_width()])?;
            metadata.insert(IMAGE_MEAN, grid.mean().to_vec())?;
            metadata.insert(IMAGE_STD, grid.std().to_vec())?;
        }
        Ok(())
    }
}

fn exactly<T: Copy, const N: usize>(key: &str, values: &[T]) -> Result<[T; N], Error> {
    values.try_into().map_err(|_| Error::Hyperparameter {
        key: key.to_owned(),
        expected: format!("{N} values"),
        found: values.len().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_from_metadata() {
        let grid = PatchGrid::new(8, 4, 16, 2, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]).unwrap();
        for front_end in [FrontEnd::Regions, FrontEnd::PatchGrid(grid)] {
            let mut metadata = Metadata::new();
            front_end.write_metadata(&mut metadata).unwrap();
            assert_eq!(FrontEnd::from_metadata(&metadata).unwrap(), front_end);
        }
        assert_eq!(FrontEnd::from_metadata(&Metadata::new()).unwrap(), FrontEnd::Regions);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let mut metadata = Metadata::new();
        metadata.insert(KIND, "faster_rcnn").unwrap();
        assert!(matches!(FrontEnd::from_metadata(&metadata), Err(Error::Hyperparameter { .. })));
        let mut metadata = Metadata::new();
        metadata.insert(KIND, PATCH_GRID).unwrap();
        metadata.insert(GRID_SIZE, vec![8u32]).unwrap();
        assert!(matches!(FrontEnd::from_metadata(&metadata), Err(Error::Hyperparameter { .. })));
    }
}
