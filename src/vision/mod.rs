//! Front ends: an image or a feature file becomes regions.
