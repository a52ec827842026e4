//! A GGUF file of this project as the source of another: its tensors under the names that transformers gives them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lxmert::Limits;
use lxmert::ggml::dequantize;
use lxmert::gguf::{self, Header, Metadata, TensorType};
use lxmert::model::{About, Head};

use super::data_file::DataFile;
use super::{Source, SourceTensor};
use crate::Error;
use crate::names::source_keys;
use crate::plan::source_shape;

/// What a GGUF file starts with.
const MAGIC: &[u8] = b"GGUF";

/// Values that are unpacked at a time, a whole number of every type's blocks.
const STEP: usize = 1 << 13;

/// The tensors of a GGUF file that the runtime would accept.
pub struct GgufSource {
    file: DataFile,
    about: About,
    metadata: Metadata,
    tensors: BTreeMap<String, SourceTensor>,
    places: BTreeMap<String, Place>,
    quantized: Option<TensorType>,
}

/// Where a tensor is: a GGUF tensor may be stacked of several.
struct Place {
    own_name: String,
    tensor_type: TensorType,
    /// Where the GGUF tensor's data starts.
    offset: u64,
    /// The part's first value in it.
    first: u64,
}

impl GgufSource {
    /// Whether a file that starts so is of this format.
    pub fn is_gguf(start: &[u8]) -> bool {
        start.starts_with(MAGIC)
    }

    /// Opens a file and checks its header as loading it would.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Packed`], or [`Error::Model`] for a file that the runtime would refuse, or that is not what its checksums
    /// say.
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let file = DataFile::open(path, limits)?;
        let header = Header::parse_start_within(&file.start(limits.start_bytes() as u64)?, file.len, limits)?;
        let about = About::read(&header)?;
        if about.packing.is_some() {
            return Err(Error::Packed { path: path.to_owned() });
        }
        // What is damaged must not get new checksums.
        if header.checksums().is_some() {
            let in_file = |source| lxmert::Error::File { path: path.to_owned(), source: Box::new(source) };
            gguf::File::open_within(path, limits)?.verify().map_err(in_file)?;
        }
        let prefix = if about.config.head == Head::None { "" } else { "lxmert." };
        let (mut tensors, mut places) = (BTreeMap::new(), BTreeMap::new());
        for expected in lxmert::model::tensors(&about.config) {
            let Some(found) = header.tensor(&expected.name) else {
                unreachable!("the tensors were compared with the configuration")
            };
            let keys = source_keys(&expected.name, prefix);
            let shape = source_shape(&expected.dims, keys.len());
            let part_len = found.elements() / keys.len() as u64;
            for (key, part) in keys.into_iter().zip(0..) {
                let dtype = found.tensor_type().name().to_uppercase();
                tensors.insert(key.clone(), SourceTensor { shape: shape.clone(), dtype, readable: true });
                let place = Place {
                    own_name: expected.name.clone(),
                    tensor_type: found.tensor_type(),
                    offset: found.offset(),
                    first: part * part_len,
                };
                places.insert(key, place);
            }
        }
        let types = header.tensors().iter().map(|tensor| tensor.tensor_type());
        let quantized = types.into_iter().find(|tensor_type| tensor_type.is_quantized());
        Ok(GgufSource { file, about, metadata: header.metadata().clone(), tensors, places, quantized })
    }

    /// A quantized type that the file has, if it has one.
    pub fn quantized(&self) -> Option<TensorType> {
        self.quantized
    }

    /// What the file says about its model.
    pub fn about(&self) -> &About {
        &self.about
    }

    /// All keys and values of the file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

impl Source for GgufSource {
    fn description(&self) -> String {
        self.file.path.display().to_string()
    }

    fn tensors(&self) -> &BTreeMap<String, SourceTensor> {
        &self.tensors
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.file.path.clone()]
    }

    fn own_name(&self, name: &str) -> String {
        self.places.get(name).map_or(name, |place| &place.own_name).to_owned()
    }

    fn read(&self, name: &str, start: u64, out: &mut [f32]) -> Result<(), Error> {
        let Place { tensor_type, offset, first, .. } = self.places[name];
        let block_len = tensor_type.block_len() as u64;
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        let (mut number, mut rest) = (first + start, out);
        while !rest.is_empty() {
            // Blocks are unpacked whole, from the one that holds the next value.
            let before = number % block_len;
            let wanted = (STEP - before as usize).min(rest.len());
            let len = (before + wanted as u64).next_multiple_of(block_len);
            let block = (number / block_len) * tensor_type.block_bytes() as u64;
            bytes.resize((len / block_len) as usize * tensor_type.block_bytes(), 0);
            values.resize(len as usize, 0.0);
            self.file.read_at(offset + block, &mut bytes)?;
            dequantize(tensor_type, &bytes, &mut values);
            let (part, after) = rest.split_at_mut(wanted);
            part.copy_from_slice(&values[before as usize..before as usize + wanted]);
            number += wanted as u64;
            rest = after;
        }
        Ok(())
    }
}
