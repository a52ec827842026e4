//! Reading the small files of a checkpoint, whose sizes are not trusted.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lxmert::Limits;
use serde::de::DeserializeOwned;

use crate::Error;

/// Reads a whole file that may have at most as many bytes as a description.
pub(crate) fn read_bounded(path: &Path, limits: &Limits) -> Result<Vec<u8>, Error> {
    let limit = limits.description_bytes as u64;
    let file = File::open(path).map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large, even one that tells no size, as a pipe.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > limit {
        let bytes = std::fs::metadata(path).map_or(limit + 1, |found| found.len().max(limit + 1));
        return Err(Error::TooLarge { path: path.to_owned(), bytes, limit });
    }
    Ok(bytes)
}

/// Reads a JSON file of at most as many bytes as a description.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, limits: &Limits) -> Result<T, Error> {
    serde_json::from_slice(&read_bounded(path, limits)?).map_err(json_error(path))
}

/// An [`Error::Json`] for that path.
pub(crate) fn json_error(path: &Path) -> impl FnOnce(serde_json::Error) -> Error {
    move |source| Error::Json { path: path.to_owned(), source }
}

/// The file of that name, where the directory has one.
pub(crate) fn existing(directory: &Path, name: &str) -> Option<PathBuf> {
    let path = directory.join(name);
    path.is_file().then_some(path)
}
