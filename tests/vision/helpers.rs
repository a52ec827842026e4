//! Fixtures, what they hold, and files made for one test.

use std::io::Write;
use std::path::{Path, PathBuf};

use lxmert::vision::{Error, FeatureOptions, Regions, load_features};

pub fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/features").join(name)
}

pub fn of_image(id: &str) -> FeatureOptions {
    FeatureOptions { image_id: Some(id.into()), boxes: None }
}

pub fn with_boxes(path: PathBuf) -> FeatureOptions {
    FeatureOptions { image_id: None, boxes: Some(path) }
}

pub fn load(name: &str) -> Result<Regions, Error> {
    load_features(&fixture(name), &FeatureOptions::default())
}

/// What make.py writes: 10 * row + column / 4, and pixel boxes over 256 x 512 pixels.
pub const FEATURES: [f32; 15] =
    [0.0, 0.25, 0.5, 0.75, 1.0, 10.0, 10.25, 10.5, 10.75, 11.0, 20.0, 20.25, 20.5, 20.75, 21.0];
pub const BOXES: [f32; 12] = [0.0625, 0.125, 0.5, 0.5, 0.0, 0.0, 1.0, 1.0, 0.25, 0.0625, 0.75, 0.9375];

pub fn assert_expected(regions: &Regions) {
    assert_eq!((regions.len(), regions.feature_len(), regions.box_len()), (3, 5, 4));
    assert_eq!(regions.features(), FEATURES);
    assert_eq!(regions.boxes(), BOXES);
}

/// The message about a file, which must be one line and begin with the file's path.
pub fn message(path: &Path, options: &FeatureOptions) -> String {
    let error = load_features(path, options).unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error:?}");
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    let (start, rest) = message.split_once(": ").unwrap();
    let boxes = options.boxes.as_deref().unwrap_or(path);
    assert!([path, boxes].contains(&Path::new(start)), "{message}");
    rest.into()
}

pub fn message_of(name: &str) -> String {
    message(&fixture(name), &FeatureOptions::default())
}

/// A file of its own kind and content for one test, gone afterwards.
pub struct Scratch {
    pub path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scratch {
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self { path, _folder: folder }
    }

    pub fn message(&self) -> String {
        message(&self.path, &FeatureOptions::default())
    }

    pub fn message_with(&self, options: &FeatureOptions) -> String {
        message(&self.path, options)
    }
}

pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

pub fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A file with `features` `[n, 1]` and `boxes` of the given values.
pub fn small_safetensors(features: &[f32], boxes: &[f32]) -> Vec<u8> {
    let (rows, first) = (features.len(), features.len() * 4);
    let (box_rows, last) = (boxes.len() / 4, first + boxes.len() * 4);
    let header = format!(
        r#"{{"features":{{"dtype":"F32","shape":[{rows},1],"data_offsets":[0,{first}]}},"boxes":{{"dtype":"F32","shape":[{box_rows},4],"data_offsets":[{first},{last}]}}}}"#
    );
    safetensors(&header, &[floats(features), floats(boxes)].concat())
}

pub fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

pub fn npz(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in members {
        let options =
            zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        writer.start_file(*name, options).unwrap();
        writer.write_all(bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}
