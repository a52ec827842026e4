//! What the matrices of a model are multiplied with: the importance of a matrix's columns for its quantization follows
//! from it.

use super::{Session, SessionOptions};
use crate::Error;
use crate::ggml::Region;
use crate::model::Model;

/// What one matrix of the model was multiplied with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor<'s> {
    /// The matrix's name in the GGUF file. It occurs twice where a matrix serves both directions of a cross layer.
    pub matrix: &'s str,
    /// Numbers in a row: the matrix's columns.
    pub width: usize,
    /// The rows, one after the other: of tokens or of regions.
    pub rows: &'s [f32],
}

impl Session {
    /// Makes a session that keeps what every matrix is multiplied with, in memory that grows with the model's layers.
    /// It always runs on ggml's operations, whatever [`SessionOptions::lowering`] says, and so takes neither a choice of CPUs nor a
    /// packed file.
    ///
    /// # Errors
    /// As [`Session::new`].
    pub fn observing(model: &Model, options: SessionOptions) -> Result<Self, Error> {
        Self::with(model, options, true, None)
    }

    /// What the matrices were multiplied with when the last image was encoded; nothing unless the session was made by
    /// [`Session::observing`].
    pub fn image_factors(&self) -> impl Iterator<Item = Factor<'_>> {
        self.factors(0)
    }

    /// As [`Session::image_factors`], for the last question. What does not contribute to the session's outputs is not
    /// computed and so not there.
    pub fn question_factors(&self) -> impl Iterator<Item = Factor<'_>> {
        self.factors(1)
    }

    fn factors<'s>(&'s self, stage: usize) -> impl Iterator<Item = Factor<'s>> {
        let factor = |(matrix, width, region): &'s (String, usize, Region)| Factor {
            matrix,
            width: *width,
            rows: region.read(self.engine.memory()),
        };
        self.engine.factors()[stage].iter().map(factor)
    }
}
