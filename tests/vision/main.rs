//! Images and feature files, against what NumPy and Pillow made of them (`tests/features/make.py`), and
//! damaged ones, which must give an error.

#[path = "../common/allocations.rs"]
mod allocations;
mod arrays;
mod features;
mod helpers;
mod images;
mod pixels;
mod regions;
mod tsv;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
