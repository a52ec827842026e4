//! Images and feature files, against what NumPy and Pillow made of them (`tests/features/make.py`), and
//! damaged ones, which must give an error.

mod arrays;
mod features;
mod helpers;
mod images;
mod regions;
mod tsv;
