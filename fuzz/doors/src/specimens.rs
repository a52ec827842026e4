//! The corpus: one small file for each way in which readers of such files have failed, and some good ones for every door.

mod files;
mod models;
mod pickles;
mod pictures;
mod programs;
mod texts;

use std::path::Path;

/// A file of the corpus.
pub struct Specimen {
    /// The door that it is for.
    pub door: &'static str,
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Words of the error that has to come of it; `None` if it is good.
    pub refusal: Option<&'static str>,
}

/// All of them.
pub fn all() -> Vec<Specimen> {
    let mut all = List(Vec::new());
    models::add(&mut all);
    files::add(&mut all);
    texts::add(&mut all);
    pictures::add(&mut all);
    pickles::add(&mut all);
    programs::add(&mut all);
    all.0
}

/// Whether a file of the corpus was found by fuzzing, and is in no list.
pub fn is_found(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("found-"))
}

struct List(Vec<Specimen>);

impl List {
    fn good(&mut self, door: &'static str, name: &str, bytes: impl Into<Vec<u8>>) {
        self.0.push(Specimen { door, name: name.to_owned(), bytes: bytes.into(), refusal: None });
    }

    fn bad(&mut self, door: &'static str, name: &str, refusal: &'static str, bytes: impl Into<Vec<u8>>) {
        self.0.push(Specimen { door, name: name.to_owned(), bytes: bytes.into(), refusal: Some(refusal) });
    }
}

/// A file of the repository.
fn fixture(path: &str) -> Vec<u8> {
    let path = crate::root().join(path);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
