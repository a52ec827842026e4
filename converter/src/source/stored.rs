//! Checkpoints whose tensors lie in files as plain numbers: safetensors and what `torch.save` writes, each as
//! one file or as shards with an index.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lxmert::Limits;
use lxmert::numbers::Float;

use super::data_file::DataFile;
use super::index::ShardIndex;
use super::rename::hugging_face_name;
use super::{Source, SourceTensor, safetensors, torch};
use crate::Error;
use crate::error::Problem;

/// The tensors of one file, or of several that an index ties together, under Hugging Face's names.
pub struct FileSource {
    description: String,
    files: Vec<DataFile>,
    index: Option<PathBuf>,
    tensors: BTreeMap<String, SourceTensor>,
    places: BTreeMap<String, Place>,
    notes: Vec<String>,
}

/// What one file holds.
pub(super) struct Listing {
    pub entries: Vec<Entry>,
    /// What a person should know, such as parts of the file that are no weights.
    pub notes: Vec<String>,
}

/// A tensor as its file describes it.
pub(super) struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: String,
    /// `None` for a type that is not converted.
    pub element: Option<Float>,
    /// Where the first element is.
    pub offset: u64,
    pub layout: Layout,
}

/// In which order a tensor's elements lie in the file. Strides count elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Row-major, without gaps.
    Contiguous,
    /// Rows without gaps, `stride` apart: a part of a wider matrix.
    Rows { columns: usize, stride: u64 },
    /// Columns without gaps, `stride` apart: a transposed matrix.
    Columns { columns: usize, stride: u64 },
}

/// Where a tensor's elements are.
struct Place {
    file: usize,
    own_name: String,
    element: Option<Float>,
    offset: u64,
    layout: Layout,
}

impl FileSource {
    /// Opens a single file, whose first bytes tell its format.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Safetensors`] or [`Error::Torch`] for a file that breaks its format;
    /// [`Error::Tensors`] where two tensors come to the same name.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let mut source = Self::empty(path.display().to_string(), None);
        source.add(path, limits)?;
        source.renamed()
    }

    /// Opens the shards that an index lists, which lie beside it.
    ///
    /// # Errors
    /// As [`FileSource::open`]; [`Error::Json`] and [`Error::Index`] for a broken index, and
    /// [`Error::Tensors`] where the index and the shards disagree.
    pub fn open_sharded(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let index = ShardIndex::read(path, limits)?;
        let shards = index.shards();
        let description = format!("{} with {} shards", path.display(), shards.len());
        let mut source = Self::empty(description, Some(path.to_owned()));
        for shard in &shards {
            source.add(&index.path_of(shard), limits)?;
        }
        let shard_of = |(name, place): (&String, &Place)| (name.clone(), shards[place.file].to_owned());
        index.compare_with(&source.places.iter().map(shard_of).collect())?;
        source.renamed()
    }

    fn empty(description: String, index: Option<PathBuf>) -> Self {
        let (tensors, places) = (BTreeMap::new(), BTreeMap::new());
        FileSource { description, files: Vec::new(), index, tensors, places, notes: Vec::new() }
    }

    fn add(&mut self, path: &Path, limits: &Limits) -> Result<(), Error> {
        let file = DataFile::open(path, limits)?;
        let is_torch = torch::is_torch(&file.start(torch::START)?);
        let Listing { entries, notes } =
            if is_torch { torch::list(&file)? } else { safetensors::list(&file)? };
        for Entry { name, shape, dtype, element, offset, layout } in entries {
            let tensor = SourceTensor { shape, dtype, readable: element.is_some() };
            let place = Place { file: self.files.len(), own_name: name.clone(), element, offset, layout };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                let reason = format!("tensor {name:?} is there twice, or in another shard as well");
                let path = path.to_owned();
                return Err(if is_torch {
                    Error::Torch { path, reason }
                } else {
                    Error::Safetensors { path, reason }
                });
            }
            self.places.insert(name, place);
        }
        self.notes.extend(notes);
        self.files.push(file);
        Ok(())
    }

    /// Brings all tensors under Hugging Face's names.
    fn renamed(mut self) -> Result<Self, Error> {
        let (tensors, places) = (std::mem::take(&mut self.tensors), std::mem::take(&mut self.places));
        let (mut problems, mut count) = (Vec::new(), 0);
        for ((own, tensor), place) in tensors.into_iter().zip(places.into_values()) {
            let name = hugging_face_name(&own);
            count += usize::from(name != own);
            if let Some(other) = self.places.get(&name) {
                problems.push(Problem::SameName { name, own_names: [other.own_name.clone(), own] });
                continue;
            }
            self.tensors.insert(name.clone(), tensor);
            self.places.insert(name, place);
        }
        if !problems.is_empty() {
            return Err(Error::Tensors { problems });
        }
        if count > 0 {
            let total = self.tensors.len();
            self.notes
                .push(format!("{count} of {total} tensors were renamed as in transformers: see --verbose"));
        }
        Ok(self)
    }
}

impl Source for FileSource {
    fn description(&self) -> String {
        self.description.clone()
    }

    fn tensors(&self) -> &BTreeMap<String, SourceTensor> {
        &self.tensors
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).chain(self.index.clone()).collect()
    }

    fn own_name(&self, name: &str) -> String {
        self.places.get(name).map_or(name, |place| &place.own_name).to_owned()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn read(&self, name: &str, start: u64, out: &mut [f32]) -> Result<(), Error> {
        let Place { file, element, offset, layout, .. } = &self.places[name];
        let Some(element) = *element else { panic!("{name} was not announced as readable") };
        let file = &self.files[*file];
        let at = |index: u64| offset + index * element.bytes() as u64;
        match *layout {
            Layout::Contiguous => file.read_elements(element, at(start), out),
            Layout::Rows { columns, stride } => each_row(start, columns, out, |row, column, part| {
                file.read_elements(element, at(row * stride + column), part)
            }),
            Layout::Columns { columns, stride } => {
                let (width, end) = (columns as u64, start + out.len() as u64);
                let (first, last) = (start / width, end.div_ceil(width));
                let mut rows = vec![0.0; (last - first) as usize];
                for column in 0..width {
                    file.read_elements(element, at(column * stride + first), &mut rows)?;
                    for (row, value) in (first..).zip(&rows) {
                        let number = row * width + column;
                        if (start..end).contains(&number) {
                            out[(number - start) as usize] = *value;
                        }
                    }
                }
                Ok(())
            }
        }
    }
}

/// Calls `read` for the part of each row that `out`, which starts at element `start`, has a place for.
fn each_row(
    start: u64,
    columns: usize,
    out: &mut [f32],
    mut read: impl FnMut(u64, u64, &mut [f32]) -> Result<(), Error>,
) -> Result<(), Error> {
    let (mut number, mut rest) = (start, out);
    while !rest.is_empty() {
        let (row, column) = (number / columns as u64, number % columns as u64);
        let len = (columns - column as usize).min(rest.len());
        let (part, after) = rest.split_at_mut(len);
        read(row, column, part)?;
        number += len as u64;
        rest = after;
    }
    Ok(())
}
