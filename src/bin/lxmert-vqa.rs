//! Answers questions about an image.

fn main() {}
