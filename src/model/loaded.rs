//! A model file, loaded.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::{Config, Packing, Role, tensors};
use crate::ggml::{AlignedBuffer, Device, Tensors};
use crate::gguf::{Header, Metadata, TensorType};
use crate::kernels::{Element, PackedMatrix};
use crate::reserve::{Threads, Watch, watched};
use crate::text::{Tokenizer, Vocabulary};
use crate::vision::FrontEnd;
use crate::weights::{Loader, Storage, Weights};
use crate::{Error, Limits};

/// The key of a model's name.
const NAME: &str = "general.name";

/// What lacks memory, when it is for one of many small things.
const PART: &str = "a part of the model";

/// A model: configuration, weights, tokenizer and answers. Immutable, shared by any number of
/// [`Session`](crate::Session)s on any threads; a clone is another handle to the same model.
#[derive(Clone)]
pub struct Model {
    pub(super) loaded: Arc<Loaded>,
}

pub(super) struct Loaded {
    config: Config,
    pub weights: Arc<Weights>,
    /// The matrices that the file itself has in the order in which the kernels read them.
    pub packing: Option<Packing>,
    /// Matrices in that order in memory of their own, since the first session needed them.
    pub packed: Mutex<HashMap<(String, Element), PackedMatrix>>,
    /// Held while any of these is made.
    pub making: Mutex<()>,
    /// The tables that are looked up row by row, where the file is not in memory.
    pub tables: OnceLock<[AlignedBuffer; 3]>,
    /// The weights as ggml sees them, since the first session on its operations.
    pub tensors: OnceLock<Tensors>,
    /// The weights on devices, as long as sessions use them there.
    pub on_devices: Mutex<Vec<(Device, Weak<Tensors>)>>,
    labels: Option<Vec<String>>,
    front_end: FrontEnd,
    /// The most bytes of memory that the tokenizer takes; `None` if the file holds none.
    tokenizer_bytes: Option<usize>,
    // Built from the file when the first question comes: raw tensors need no tokenizer.
    tokenizer: OnceLock<Tokenizer>,
    /// Held while the tokenizer is built, so that no two threads take the memory for it at once.
    building: Mutex<()>,
    name: Option<String>,
    parameters: u64,
    file_bytes: usize,
    /// By which a file that holds another header since is told.
    header_digest: u64,
    limits: Limits,
}

/// How to load a model, where the defaults of [`Model::open`] and its like are not what is wanted.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ModelOptions {
    /// Whether to compare the weights with their checksums first, as [`Model::verify`] does.
    pub verify: bool,
    /// How large the parts of the file may be, and what sessions of the model can be made for.
    pub limits: Limits,
}

impl ModelOptions {
    /// As [`Model::open`].
    ///
    /// # Errors
    /// As [`Model::open`], and as [`Model::verify`] if that is asked for.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = path.as_ref();
        watched(Threads::This, PART, || {
            let storage = Storage::map(path)?;
            Model::load(storage, self).map_err(Error::in_file(path))
        })
    }

    /// As [`Model::from_bytes`].
    ///
    /// # Errors
    /// As [`Model::from_bytes`], and as [`Model::verify`] if that is asked for.
    pub fn from_bytes(&self, bytes: &[u8]) -> Result<Model, Error> {
        watched(Threads::This, PART, || Model::load(Storage::copy_of(bytes)?, self))
    }

    /// As [`Model::from_static`].
    ///
    /// # Errors
    /// As [`Model::from_static`], and as [`Model::verify`] if that is asked for.
    pub fn from_static(&self, bytes: &'static [u8]) -> Result<Model, Error> {
        watched(Threads::This, PART, || Model::load(Storage::from_static(bytes)?, self))
    }

    /// As [`Model::from_loader`].
    ///
    /// # Errors
    /// As [`Model::from_loader`], and as [`Model::verify`] if that is asked for.
    pub fn from_loader(&self, loader: Box<dyn Loader>) -> Result<Model, Error> {
        watched(Threads::This, PART, || Model::load(Storage::from_loader(loader)?, self))
    }
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
        ModelOptions::default().open(path)
    }

    /// Loads a model from a copy of a file's bytes.
    ///
    /// # Errors
    /// [`Error::Gguf`], [`Error::Architecture`], [`Error::Hyperparameter`], [`Error::Tensor`], [`Error::Packed`] for a packed file that
    /// this build does not read, [`Error::Vision`] for a front end out of range, [`Error::OutOfMemory`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        ModelOptions::default().from_bytes(bytes)
    }

    /// Loads a model that is part of the program. The file's bytes are not copied if they are aligned to 64; packing is as
    /// with [`Model::open`].
    ///
    /// # Errors
    /// As [`Model::from_bytes`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, Error> {
        ModelOptions::default().from_static(bytes)
    }

    /// Loads a model from a source of the caller's own. Only its header is read now; sessions read of the rest what they need, into
    /// memory of their own or, if their weights are streamed, in every run.
    ///
    /// # Errors
    /// As [`Model::from_bytes`]; [`Error::Read`] with what the loader says.
    pub fn from_loader(loader: Box<dyn Loader>) -> Result<Self, Error> {
        ModelOptions::default().from_loader(loader)
    }

    /// Compares the header and all weights with the checksums that the converter has stored in the file. This reads the whole file, a
    /// part at a time, and finds what has been damaged since; what was changed on purpose may have new checksums.
    ///
    /// # Errors
    /// [`Error::Checksum`] with the first tensor that is damaged, [`Error::Gguf`] for a damaged header, [`Error::Replaced`] if the file holds
    /// another model by now, [`Error::Missing`] if it holds no checksums, [`Error::Read`], [`Error::OutOfMemory`].
    pub fn verify(&self) -> Result<(), Error> {
        watched(Threads::This, PART, || self.weights().storage().verify(&self.header_again()?))
    }

    /// The header as it is in the file now.
    fn header_again(&self) -> Result<Header, Error> {
        let watch = Watch::start(Threads::This, PART);
        let header = self.weights().storage().header_again(self.limits())?;
        watch.check()?;
        if header.digest() != self.loaded.header_digest {
            return Err(Error::Replaced);
        }
        Ok(header)
    }

    fn load(storage: Storage, options: &ModelOptions) -> Result<Self, Error> {
        let limits = options.limits.in_range();
        let watch = Watch::start(Threads::This, PART);
        let header = storage.header(&limits)?;
        watch.check()?;
        if options.verify {
            storage.verify(&header)?;
        }
        let About { config, labels, front_end, packing } = About::read(&header)?;
        let name = header.metadata().opt_str(NAME)?.map(str::to_owned);
        let parameters = tensors(&config).iter().map(|tensor| tensor.dims.iter().product::<u64>()).sum();
        let file_bytes = storage.len();
        log::info!(
            "loaded {}: head {}, {parameters} parameters, {file_bytes} bytes",
            crate::shown(name.as_deref().unwrap_or("a model without a name")),
            config.head.name()
        );
        let header_digest = header.digest();
        let weights = Arc::new(Weights::new(storage, header.tensors()));
        let vocabulary = Vocabulary::from_metadata(header.into_metadata())?;
        let loaded = Loaded {
            config,
            weights,
            packing,
            packed: Mutex::default(),
            making: Mutex::default(),
            tables: OnceLock::new(),
            tensors: OnceLock::new(),
            on_devices: Mutex::default(),
            labels,
            front_end,
            tokenizer_bytes: vocabulary.map(|vocabulary| vocabulary.memory_bytes()),
            tokenizer: OnceLock::new(),
            building: Mutex::default(),
            name,
            parameters,
            file_bytes,
            header_digest,
            limits,
        };
        Ok(Model { loaded: Arc::new(loaded) })
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The limits that it was loaded with, which its sessions keep to.
    pub fn limits(&self) -> &Limits {
        &self.loaded.limits
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

    /// Bytes of memory that the tokenizer takes at most, as asked of the allocator; 0 if the file holds none. It takes them at the first
    /// call of [`Model::tokenizer`]; while it is built, the text that it is made of comes on top.
    pub fn tokenizer_bytes(&self) -> usize {
        self.loaded.tokenizer_bytes.unwrap_or(0)
    }

    /// Bytes of memory that the answers take.
    pub fn label_bytes(&self) -> usize {
        let labels = self.labels().unwrap_or_default();
        size_of_val(labels) + labels.iter().map(String::len).sum::<usize>()
    }

    /// The tokenizer, which is made of the file at the first call.
    ///
    /// # Errors
    /// [`Error::Missing`] if the file holds none, [`Error::Text`] if it is of no use, [`Error::Hyperparameter`] if it has
    /// more pieces than the model has words, [`Error::Replaced`] or [`Error::Gguf`] if the file has changed since it was opened,
    /// [`Error::OutOfMemory`], after which a later call may have it.
    pub fn tokenizer(&self) -> Result<&Tokenizer, Error> {
        if let Some(tokenizer) = self.loaded.tokenizer.get() {
            return Ok(tokenizer);
        }
        let _building = self.loaded.building.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tokenizer) = self.loaded.tokenizer.get() {
            return Ok(tokenizer);
        }
        let tokenizer = watched(Threads::This, "a part of the tokenizer", || self.build_tokenizer())?;
        Ok(self.loaded.tokenizer.get_or_init(|| tokenizer))
    }

    fn build_tokenizer(&self) -> Result<Tokenizer, Error> {
        let vocabulary = Vocabulary::from_metadata(self.header_again()?.into_metadata())?.ok_or(Error::Missing {
            what: "tokenizer",
            remedy: "convert it again from a directory with tokenizer.json or vocab.txt; lxmert-run takes token ids",
        })?;
        let tokenizer = vocabulary.into_tokenizer(self.limits())?;
        let (pieces, words) = (tokenizer.vocab_size(), self.config().vocab_size);
        if pieces > words {
            return Err(Error::Hyperparameter {
                key: "tokenizer".to_owned(),
                expected: format!("ids below the word embedding's {words} rows"),
                found: format!("{pieces} ids"),
            });
        }
        Ok(tokenizer)
    }

    /// Whether the file holds a tokenizer.
    pub(crate) fn has_tokenizer(&self) -> bool {
        self.loaded.tokenizer_bytes.is_some()
    }

    /// How the file is packed, if it is.
    pub(crate) fn packing(&self) -> Option<&Packing> {
        self.loaded.packing.as_ref()
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
        metadata.opt_str(NAME)?;
        Vocabulary::check(metadata)?;
        let pieces = metadata.opt_strings("tokenizer.ggml.tokens")?.map_or(0, <[String]>::len);
        if pieces > config.vocab_size {
            return Err(Error::Hyperparameter {
                key: "tokenizer.ggml.tokens".to_owned(),
                expected: format!("at most the word embedding's {} rows", config.vocab_size),
                found: format!("{pieces} pieces"),
            });
        }
        let ids = if pieces > 0 { pieces } else { config.vocab_size };
        if let Some((key, id)) = Vocabulary::special_ids(metadata)?.find(|(_, id)| *id as usize >= ids) {
            return Err(Error::Hyperparameter {
                key: key.to_owned(),
                expected: format!("the id of a word, below {ids}"),
                found: id.to_string(),
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
