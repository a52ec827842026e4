//! A model file, loaded.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::{Config, Packing, Role, tensors};
use crate::Error;
use crate::ggml::Weights;
use crate::gguf::{Header, Metadata, TensorType};
use crate::kernels::{Element, Kernels, PackedMatrix, Workers};
use crate::storage::Storage;
use crate::text::{Tokenizer, Vocabulary};
use crate::vision::FrontEnd;

/// A model: configuration, weights, tokenizer and answers. Immutable, shared by any number of
/// [`Session`](crate::Session)s on any threads; a clone is another handle to the same model.
#[derive(Clone)]
pub struct Model {
    loaded: Arc<Loaded>,
}

struct Loaded {
    config: Config,
    weights: Arc<Weights>,
    /// The matrices that the file itself has in the order in which the kernels read them.
    packing: Option<Packing>,
    /// The others in that order, packed when the first session needs them.
    packed: Mutex<HashMap<(String, Element), PackedMatrix>>,
    labels: Option<Vec<String>>,
    front_end: FrontEnd,
    vocabulary: Option<Vocabulary>,
    // Built when the first question comes: raw tensors need no tokenizer.
    tokenizer: OnceLock<Tokenizer>,
    name: Option<String>,
    parameters: u64,
    file_bytes: usize,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model").field("config", self.config()).finish_non_exhaustive()
    }
}

impl Model {
    /// Loads a GGUF file made by `lxmert-quantize`. The weights are mapped, not read: they take no memory that the
    /// operating system could not have back. The first session that runs on the project's own kernels packs the
    /// matrices that it needs into memory of their own, which all sessions of the model share; of a file that was made
    /// with `--pack` it uses them where they lie.
    ///
    /// A file that is shortened while it is mapped ends the process with SIGBUS, as with any map: replace a
    /// model by renaming a new file over it, or load it with [`Model::from_bytes`].
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened; [`Error::File`] with the path around everything that
    /// [`Model::from_bytes`] reports.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let storage = Storage::map(path)?;
        Self::load(storage).map_err(Error::in_file(path))
    }

    /// Loads a model from a copy of a file's bytes.
    ///
    /// # Errors
    /// [`Error::Gguf`], [`Error::Architecture`], [`Error::Hyperparameter`], [`Error::Tensor`], [`Error::Packed`] for a packed file that
    /// this build does not read, [`Error::Vision`] for a front end out of range, [`Error::OutOfMemory`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Self::load(Storage::copy_of(bytes)?)
    }

    /// Loads a model that is part of the program. The file's bytes are not copied if they are aligned to 64; packing is as
    /// with [`Model::open`].
    ///
    /// # Errors
    /// As [`Model::from_bytes`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, Error> {
        Self::load(Storage::from_static(bytes)?)
    }

    fn load(storage: Storage) -> Result<Self, Error> {
        let header = Header::parse(storage.as_slice())?;
        let About { config, labels, front_end, packing } = About::read(&header)?;
        let metadata = header.metadata();
        let vocabulary = Vocabulary::from_metadata(metadata)?;
        let name = metadata.opt_str("general.name")?.map(str::to_owned);
        let parameters = tensors(&config).iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum();
        let file_bytes = storage.as_slice().len();
        let weights = Arc::new(Weights::new(storage, header.tensors())?);
        let loaded = Loaded {
            config,
            weights,
            packing,
            packed: Mutex::default(),
            labels,
            front_end,
            vocabulary,
            tokenizer: OnceLock::new(),
            name,
            parameters,
            file_bytes,
        };
        Ok(Model { loaded: Arc::new(loaded) })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The answers by class, as many as the answer head has rows; `None` if the file holds none.
    pub fn labels(&self) -> Option<&[String]> {
        self.loaded.labels.as_deref()
    }

    /// How an image becomes regions.
    pub fn front_end(&self) -> &FrontEnd {
        &self.loaded.front_end
    }

    /// The model's name, if the file tells it.
    pub fn name(&self) -> Option<&str> {
        self.loaded.name.as_deref()
    }

    /// How many numbers the weights are.
    pub fn parameters(&self) -> u64 {
        self.loaded.parameters
    }

    /// The size of the file.
    pub fn file_bytes(&self) -> usize {
        self.loaded.file_bytes
    }

    /// Bytes of memory that packed matrices take beside the file: none until the first session on kernels, and none of a file
    /// that was made with `--pack`, but for matrices that are looked up row by row too.
    pub fn packed_bytes(&self) -> usize {
        let packed = self.loaded.packed.lock().unwrap_or_else(PoisonError::into_inner);
        packed.values().map(PackedMatrix::own_bytes).sum()
    }

    /// The tokenizer, which is made at the first call.
    ///
    /// # Errors
    /// [`Error::Missing`] if the file holds none, [`Error::Text`] if it is of no use, [`Error::Hyperparameter`] if it has
    /// more pieces than the model has words.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        if let Some(tokenizer) = self.loaded.tokenizer.get() {
            return Ok(tokenizer);
        }
        let vocabulary = self.loaded.vocabulary.as_ref().ok_or(Error::Missing {
            what: "tokenizer",
            remedy: "convert it again from a directory with tokenizer.json or vocab.txt; lxmert-run takes token ids",
        })?;
        let tokenizer = vocabulary.tokenizer()?;
        let (pieces, words) = (tokenizer.vocab_size(), self.config().vocab_size);
        if pieces > words {
            return Err(Error::Hyperparameter {
                key: "tokenizer".to_owned(),
                expected: format!("ids below the word embedding's {words} rows"),
                found: format!("{pieces} ids"),
            });
        }
        Ok(self.loaded.tokenizer.get_or_init(|| tokenizer))
    }

    /// Whether the file holds a tokenizer.
    pub(crate) fn has_tokenizer(&self) -> bool {
        self.loaded.vocabulary.is_some()
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.loaded.weights
    }

    /// How the file is packed, if it is.
    pub(crate) fn packing(&self) -> Option<&Packing> {
        self.loaded.packing.as_ref()
    }

    /// Those matrices, packed. What the file has packed stays where it is, and what another session has had packed already is
    /// shared.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub(crate) fn packed(
        &self,
        wanted: &[(String, Element)],
        kernels: Kernels,
        workers: &mut Workers,
    ) -> Result<Vec<PackedMatrix>, Error> {
        let in_file = |(name, element): &(String, Element)| {
            let layout = self.packing()?.layout(name).filter(|layout| layout.element == *element)?;
            Some(PackedMatrix::in_file(&self.loaded.weights, layout, self.weights().range(name).start))
        };
        let mut packed = self.loaded.packed.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = |key: &&_| in_file(key).is_none() && !packed.contains_key(*key);
        let missing: Vec<_> = wanted.iter().filter(missing).collect();
        let sources: Vec<_> =
            missing.iter().map(|(name, element)| (self.weights().stored(name), *element)).collect();
        let fresh = PackedMatrix::pack(&sources, kernels, workers)?;
        packed.extend(missing.into_iter().cloned().zip(fresh));
        Ok(wanted.iter().map(|key| in_file(key).unwrap_or_else(|| packed[key].clone())).collect())
    }
}

/// What a model file says about itself, beside its tokenizer: everything that loading checks.
#[derive(Clone, Debug)]
pub struct About {
    /// The hyper-parameters.
    pub config: Config,
    /// The answers by class, as many as the answer head has rows.
    pub labels: Option<Vec<String>>,
    /// How an image becomes regions.
    pub front_end: FrontEnd,
    /// Which matrices are packed.
    #[doc(hidden)]
    pub packing: Option<Packing>,
}

impl About {
    /// Reads a file's metadata and demands the tensors that follow from it.
    ///
    /// # Errors
    /// [`Error::Gguf`], [`Error::Architecture`], [`Error::Hyperparameter`], [`Error::Tensor`], [`Error::Packed`].
    pub fn read(header: &Header) -> Result<Self, Error> {
        let metadata = header.metadata();
        let config = Config::from_metadata(metadata)?;
        let packing = Packing::read(metadata, &config)?;
        if packing.is_some() {
            Packing::check_alignment(header.alignment())?;
        }
        check_tensors(header, &config, packing.as_ref())?;
        let labels = labels(metadata, &config)?;
        let front_end = FrontEnd::from_metadata(metadata)?;
        if let Some(reason) = front_end.mismatch(config.visual_feat_dim, config.visual_pos_dim) {
            return Err(Error::FrontEnd { reason });
        }
        let pieces = metadata.opt_strings("tokenizer.ggml.tokens")?.map_or(0, <[String]>::len);
        if pieces > config.vocab_size {
            return Err(Error::Hyperparameter {
                key: "tokenizer.ggml.tokens".to_owned(),
                expected: format!("at most the word embedding's {} rows", config.vocab_size),
                found: format!("{pieces} pieces"),
            });
        }
        Ok(About { config, labels, front_end, packing })
    }
}

fn labels(metadata: &Metadata, config: &Config) -> Result<Option<Vec<String>>, Error> {
    let key = "lxmert.classifier.output_labels";
    let Some(labels) = metadata.opt_strings(key)? else { return Ok(None) };
    let rows = config.head.labels().unwrap_or(0);
    if labels.len() != rows {
        return Err(Error::Hyperparameter {
            key: key.to_owned(),
            expected: format!("as many answers as the head has rows, {rows}"),
            found: labels.len().to_string(),
        });
    }
    Ok(Some(labels.to_vec()))
}

/// Demands exactly the tensors that follow from the configuration, packed or in types that the graph can read.
fn check_tensors(header: &Header, config: &Config, packing: Option<&Packing>) -> Result<(), Error> {
    let expected = tensors(config);
    for tensor in &expected {
        let dims = |dims: &[u64]| format!("shape {dims:?}");
        let mismatch = |expected, found| Error::Tensor { name: tensor.name.clone(), expected, found };
        let Some(info) = header.tensor(&tensor.name) else {
            return Err(mismatch(dims(&tensor.dims), "no such tensor".to_owned()));
        };
        if let Some(packing) = packing.filter(|packing| packing.layout(&tensor.name).is_some()) {
            packing.check(info)?;
            continue;
        }
        // A matrix with one output may be listed as a vector.
        let mut shape = info.dims().to_vec();
        shape.resize(shape.len().max(tensor.dims.len()), 1);
        if shape != tensor.dims {
            return Err(mismatch(dims(&tensor.dims), dims(info.dims())));
        }
        let vector = matches!(tensor.role, Role::Vector | Role::Table);
        if info.tensor_type().is_integer() || (vector && info.tensor_type() != TensorType::F32) {
            let expected = if vector { "type f32" } else { "a type of numbers" };
            return Err(mismatch(expected.to_owned(), format!("type {}", info.tensor_type())));
        }
    }
    if header.tensors().len() != expected.len() {
        let known: HashSet<&str> = expected.iter().map(|tensor| tensor.name.as_str()).collect();
        let extra = header.tensors().iter().find(|tensor| !known.contains(tensor.name()));
        return Err(Error::Tensor {
            name: extra.map_or(String::new(), |tensor| tensor.name().to_owned()),
            expected: "no such tensor in this configuration".to_owned(),
            found: "one".to_owned(),
        });
    }
    Ok(())
}
