//! Checkpoints as `model.safetensors`, or as shards with `model.safetensors.index.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::{Source, SourceTensor};
use crate::Error;
use crate::error::Problem;
use crate::files::{json_error, read_bounded};

/// The largest header that the format allows.
const MAX_HEADER: u64 = 100_000_000;

/// The largest shard index that is read; a real one has a hundred bytes for each tensor.
const MAX_INDEX: u64 = 16 << 20;

/// Bytes that are decoded at a time, a multiple of every element's size.
const BLOCK: usize = 32 << 10;

/// One safetensors file, or several that an index ties together.
pub struct SafetensorsSource {
    description: String,
    shards: Vec<Shard>,
    index: Option<PathBuf>,
    tensors: BTreeMap<String, SourceTensor>,
    places: BTreeMap<String, Place>,
}

struct Shard {
    path: PathBuf,
    file: Mutex<File>,
}

/// Where a tensor's bytes are.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    offset: u64,
    dtype: Dtype,
}

impl SafetensorsSource {
    /// Opens a single file.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Safetensors`] for a file that breaks the format.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut source = Self::empty(path.display().to_string(), None);
        source.add_shard(path)?;
        Ok(source)
    }

    /// Opens the shards that an index lists, which lie beside it.
    ///
    /// # Errors
    /// As [`SafetensorsSource::open`]; [`Error::Json`] and [`Error::Index`] for a broken index, and
    /// [`Error::Tensors`] where the index and the shards disagree.
    pub fn open_sharded(index: &Path) -> Result<Self, Error> {
        let weight_map = read_index(index)?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort();
        names.dedup();
        let directory = index.parent().unwrap_or(Path::new(""));
        let missing: Vec<_> = names.iter().filter(|name| !directory.join(name).is_file()).collect();
        if !missing.is_empty() {
            return Err(Error::Index {
                path: index.to_owned(),
                reason: format!("it lists files that are not there: {missing:?}"),
            });
        }

        let mut source =
            Self::empty(format!("{} with {} shards", index.display(), names.len()), Some(index.to_owned()));
        for name in names {
            source.add_shard(&directory.join(name))?;
        }
        source.compare_with(&weight_map)?;
        Ok(source)
    }

    fn empty(description: String, index: Option<PathBuf>) -> Self {
        let (shards, tensors, places) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        SafetensorsSource { description, shards, index, tensors, places }
    }

    fn add_shard(&mut self, path: &Path) -> Result<(), Error> {
        let mut file = File::open(path).map_err(Error::io(path))?;
        let (data_start, metadata) = read_header(&mut file, path)?;
        let shard = self.shards.len();
        for (name, info) in metadata.tensors() {
            let place = Place { shard, offset: data_start + info.data_offsets.0 as u64, dtype: info.dtype };
            let tensor = SourceTensor {
                shape: info.shape.clone(),
                dtype: format!("{:?}", info.dtype),
                readable: matches!(info.dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64),
            };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                let reason = format!("tensor {name:?} is in another shard as well");
                return Err(Error::Safetensors { path: path.to_owned(), reason });
            }
            self.places.insert(name, place);
        }
        self.shards.push(Shard { path: path.to_owned(), file: Mutex::new(file) });
        Ok(())
    }

    /// Demands that every shard holds just the tensors which the index puts there.
    fn compare_with(&self, weight_map: &BTreeMap<String, String>) -> Result<(), Error> {
        let shard_of =
            |name: &str| self.places.get(name).map(|place| file_name(&self.shards[place.shard].path));
        let mut problems = Vec::new();
        for (name, listed) in weight_map {
            if shard_of(name).as_ref() != Some(listed) {
                problems.push(Problem::NotInShard { name: name.clone(), shard: listed.clone() });
            }
        }
        for name in self.tensors.keys().filter(|name| !weight_map.contains_key(*name)) {
            let shard = shard_of(name).unwrap_or_default();
            problems.push(Problem::NotInIndex { name: name.clone(), shard });
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Tensors { problems }) }
    }
}

impl Source for SafetensorsSource {
    fn description(&self) -> String {
        self.description.clone()
    }

    fn tensors(&self) -> &BTreeMap<String, SourceTensor> {
        &self.tensors
    }

    fn files(&self) -> Vec<PathBuf> {
        self.shards.iter().map(|shard| shard.path.clone()).chain(self.index.clone()).collect()
    }

    fn read(&self, name: &str, start: u64, out: &mut [f32]) -> Result<(), Error> {
        let Place { shard, offset, dtype } = self.places[name];
        let shard = &self.shards[shard];
        // A panic elsewhere cannot leave the file in a bad state: its position is set before each read.
        let mut file = shard.file.lock().unwrap_or_else(PoisonError::into_inner);
        read_values(&mut file, offset, dtype, start, out).map_err(Error::io(&shard.path))
    }
}

fn read_values(
    file: &mut File,
    offset: u64,
    dtype: Dtype,
    start: u64,
    out: &mut [f32],
) -> std::io::Result<()> {
    let (size, decode): (usize, fn(&[u8]) -> f32) = match dtype {
        Dtype::F16 => (2, |bytes| f16::from_le_bytes(array(bytes)).to_f32()),
        Dtype::BF16 => (2, |bytes| bf16::from_le_bytes(array(bytes)).to_f32()),
        Dtype::F32 => (4, |bytes| f32::from_le_bytes(array(bytes))),
        Dtype::F64 => (8, |bytes| f64::from_le_bytes(array(bytes)) as f32),
        other => panic!("elements of type {other:?} were not announced as readable"),
    };
    file.seek(SeekFrom::Start(offset + start * size as u64))?;
    let mut block = [0; BLOCK];
    for values in out.chunks_mut(BLOCK / size) {
        let bytes = &mut block[..values.len() * size];
        file.read_exact(bytes)?;
        for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(size)) {
            *value = decode(bytes);
        }
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("chunks have the element's size")
}

/// Reads and checks the header; also returns where the tensors' data starts.
fn read_header(file: &mut File, path: &Path) -> Result<(u64, Metadata), Error> {
    let broken = |reason: String| Error::Safetensors { path: path.to_owned(), reason };
    let file_len = file.metadata().map_err(Error::io(path))?.len();
    if file_len < 8 {
        return Err(broken(format!("it has {file_len} bytes, fewer than the 8 of a header's length")));
    }
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(Error::io(path))?;
    let header_len = u64::from_le_bytes(length);
    if header_len > MAX_HEADER.min(file_len - 8) {
        return Err(broken(format!("its header claims {header_len} bytes of a file of {file_len}")));
    }
    let mut header = vec![0; header_len as usize];
    file.read_exact(&mut header).map_err(Error::io(path))?;

    // Deserializing checks that the tensors lie one after the other and that each fills its place.
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| broken(format!("its header is broken: {error}")))?;
    let (data_len, data_start) = (metadata.data_len() as u64, 8 + header_len);
    let found = file_len - data_start;
    if data_len != found {
        let what = if data_len > found { "cut short" } else { "too long" };
        let reason =
            format!("it is {what}: its tensors take {data_len} bytes, the file has {found} for them");
        return Err(broken(reason));
    }
    Ok((data_start, metadata))
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = read_bounded(path, MAX_INDEX)?;
    let Index { weight_map } = serde_json::from_slice(&text).map_err(json_error(path))?;
    for shard in weight_map.values() {
        // An index may not lead out of its directory.
        let mut components = Path::new(shard).components();
        let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
        if !plain || shard.contains(['/', '\\']) {
            let reason = format!("{shard:?} is not the plain name of a file beside it");
            return Err(Error::Index { path: path.to_owned(), reason });
        }
    }
    Ok(weight_map)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
