//! The model and the picture that are part of the program.

use std::error::Error;

use lxmert::vision::{RgbImage, decode_image};
use lxmert::{Model, ModelOptions};

/// A teal circle; see `models/easy-vqa/examples.json`.
pub const PICTURE: &[u8] = include_bytes!("../../../models/easy-vqa/example_1.png");

/// What a picture of the data set may be asked.
pub const QUESTIONS: [&str; 4] = [
    "what shape is in the image?",
    "what color is the shape?",
    "is there a red shape in the image?",
    "does the image not contain a triangle?",
];

/// Aligns the file so that its weights can be used where the program is mapped.
#[repr(C, align(64))]
struct Aligned<Bytes: ?Sized>(Bytes);

static MODEL: &Aligned<[u8]> = &Aligned(*include_bytes!("../../../models/easy-vqa/easy-vqa-q8_0.gguf"));

/// The trained easy-VQA model.
pub fn model(options: &ModelOptions) -> Result<Model, Box<dyn Error>> {
    Ok(options.from_static(&MODEL.0)?)
}

/// The picture, to show it.
pub fn picture() -> Result<RgbImage, Box<dyn Error>> {
    Ok(decode_image(PICTURE)?)
}
