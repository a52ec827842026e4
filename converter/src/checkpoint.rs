//! A checkpoint: weights, configuration and whatever else its directory holds.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lxmert::Limits;
use lxmert::atomic_file::is_same_file;
use lxmert::gguf::Metadata;
use lxmert::model::{About, Head};
use lxmert::reserve::{Threads, watched};

use crate::Error;
use crate::convert::Options;
use crate::files::existing;
use crate::frontend::Preprocessing;
use crate::hf_config::HfConfig;
use crate::job::SOURCE_SHA256;
use crate::labels::Labels;
use crate::source::{FileSource, GgufSource, Source, Synthetic, SyntheticSource};
use crate::tokenizer::FoundTokenizer;

/// Everything that a conversion starts from.
pub struct Checkpoint {
    pub(crate) source: Box<dyn Source>,
    pub(crate) config: HfConfig,
    pub(crate) tokenizer: Option<FoundTokenizer>,
    pub(crate) preprocessing: Preprocessing,
    /// The metadata of the GGUF file that this is.
    pub(crate) origin: Option<Metadata>,
    labels: LabelSource,
    notes: Vec<String>,
    files: Vec<PathBuf>,
}

/// What lacks memory, when it is for one of many small things.
const PART: &str = "a part of the checkpoint";

/// Where answers may come from.
enum LabelSource {
    /// A file that was asked for: the model has to have a head for it.
    Given(Labels),
    /// The directory's `answers.json`.
    Directory(Labels),
    /// Only what `config.json` says.
    Config,
}

impl Checkpoint {
    /// Opens a checkpoint with nothing beside it but, maybe, answers; see [`Checkpoint::open_with`].
    ///
    /// # Errors
    /// Those of [`Checkpoint::open_with`].
    pub fn open(path: &Path, labels: Option<&Path>) -> Result<Self, Error> {
        Self::open_with(path, &Options { labels: labels.map(Path::to_owned), ..Options::default() })
    }

    /// Opens what a person calls a model:
    ///
    /// - A directory as Hugging Face's `save_pretrained` makes it: `config.json` and `model.safetensors` or
    ///   `pytorch_model.bin`, or shards of either with an index; optionally `tokenizer.json` or `vocab.txt`,
    ///   `answers.json` and `preprocessing.json`.
    /// - A file of weights alone, in safetensors or as `torch.save` writes it, such as the original code's `*_LXRT.pth` and
    ///   `BEST.pth`. Nothing beside it is read. Without a configuration, a model as wide as LXMERT-base is taken to have
    ///   its attention heads and activation too, and any other is refused. The configuration of such a file
    ///   may be that of another task's checkpoint: its class, tasks and number of answers do not count.
    /// - A GGUF file of this project, whose metadata is kept.
    ///
    /// What `options` name goes before what lies in the directory.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Requantize`], [`Error::Given`], and whatever is wrong with one of the files. The
    /// tensors' values and whether the files go together are not looked at yet.
    pub fn open_with(path: &Path, options: &Options) -> Result<Self, Error> {
        watched(Threads::This, PART, || Self::open_any(path, options))
    }

    fn open_any(path: &Path, options: &Options) -> Result<Self, Error> {
        if std::fs::metadata(path).map_err(Error::io(path))?.is_dir() {
            return Self::open_directory(path, options);
        }
        let mut start = Vec::new();
        let file = File::open(path).map_err(Error::io(path))?;
        file.take(16).read_to_end(&mut start).map_err(Error::io(path))?;
        if GgufSource::is_gguf(&start) {
            Self::open_gguf(path, options)
        } else {
            Self::open_file(path, options)
        }
    }

    fn open_directory(directory: &Path, options: &Options) -> Result<Self, Error> {
        let limits = &options.limits.in_range();
        let config = options.config.clone().or_else(|| existing(directory, "config.json"));
        let config = config.ok_or_else(|| Error::MissingFile {
            directory: directory.to_owned(),
            name: "config.json",
            remedy: "give the directory of a Hugging Face checkpoint, or the file with --config".to_owned(),
        })?;
        let config = HfConfig::read(&config, limits)?;
        let source = open_weights(directory, limits)?;
        let tokenizer = match &options.tokenizer {
            Some(path) => Some(FoundTokenizer::given(path, limits)?),
            None => FoundTokenizer::find(directory, limits)?,
        };
        let preprocessing = match existing(directory, "preprocessing.json") {
            Some(path) => Preprocessing::read(&path, limits)?,
            None => Preprocessing::regions(),
        };
        let answers = existing(directory, "answers.json").filter(|_| options.labels.is_none());
        let mut checkpoint = Self::of_source(source, config, tokenizer, preprocessing, options)?;
        if let Some(path) = answers {
            checkpoint.labels = LabelSource::Directory(Labels::read(&path, limits)?);
            checkpoint.files.push(path);
        }
        Ok(checkpoint)
    }

    fn open_file(path: &Path, options: &Options) -> Result<Self, Error> {
        let limits = &options.limits.in_range();
        let source = FileSource::open(path, limits)?;
        let mut notes = Vec::new();
        let config = match &options.config {
            Some(path) => HfConfig::read(path, limits)?.without_task(),
            None => {
                notes.push(assume_base(path, &source)?);
                HfConfig::default()
            }
        };
        let tokenizer = match &options.tokenizer {
            Some(path) => Some(FoundTokenizer::given(path, limits)?),
            None => None,
        };
        let mut checkpoint = Self::of_source(source, config, tokenizer, Preprocessing::regions(), options)?;
        checkpoint.notes = notes;
        Ok(checkpoint)
    }

    fn open_gguf(path: &Path, options: &Options) -> Result<Self, Error> {
        let limits = &options.limits.in_range();
        let given = [
            ("--config", &options.config),
            ("--tokenizer", &options.tokenizer),
            ("--labels", &options.labels),
        ];
        if let Some((option, _)) = given.iter().find(|(_, file)| file.is_some()) {
            return Err(Error::Given { path: path.to_owned(), option });
        }
        let source = GgufSource::open(path, limits)?;
        if let Some(found) = source.quantized().filter(|_| !options.allow_requantize) {
            return Err(Error::Requantize { path: path.to_owned(), found });
        }
        let About { config, labels, front_end, .. } = source.about().clone();
        let metadata = source.metadata().clone();
        let tokenizer = FoundTokenizer::in_gguf(path, &metadata, limits)?;
        let preprocessing = Preprocessing { path: Some(path.to_owned()), front_end };
        let mut checkpoint =
            Self::of_source(source, HfConfig::of(&config), tokenizer, preprocessing, options)?;
        if let Some(answers) = labels {
            checkpoint.labels =
                LabelSource::Directory(Labels { origin: path.display().to_string(), answers });
        }
        checkpoint.origin = Some(metadata);
        Ok(checkpoint)
    }

    fn of_source(
        source: impl Source + 'static,
        config: HfConfig,
        tokenizer: Option<FoundTokenizer>,
        preprocessing: Preprocessing,
        options: &Options,
    ) -> Result<Self, Error> {
        let mut files = source.files();
        files.push(config.path.clone());
        files.extend(tokenizer.iter().flat_map(|tokenizer| tokenizer.files.clone()));
        files.extend(preprocessing.path.clone());
        files.extend(options.labels.clone());
        let labels = match &options.labels {
            Some(path) => LabelSource::Given(Labels::read(path, &options.limits.in_range())?),
            None => LabelSource::Config,
        };
        let source = Box::new(source);
        Ok(Checkpoint {
            source,
            config,
            tokenizer,
            preprocessing,
            origin: None,
            labels,
            notes: Vec::new(),
            files,
        })
    }

    /// Random weights; the answer head gets as many rows as there are `labels`, where these are given.
    ///
    /// # Errors
    /// Whatever is wrong with the labels.
    pub fn synthetic(synthetic: &Synthetic, labels: Option<&Path>, limits: &Limits) -> Result<Self, Error> {
        let options = Options { labels: labels.map(Path::to_owned), limits: *limits, ..Options::default() };
        let labels = labels.map(|path| Labels::read(path, &limits.in_range())).transpose()?;
        let mut synthetic = synthetic.clone();
        let rows = labels.as_ref().map(|labels| labels.answers.len());
        match (&mut synthetic.config.head, rows) {
            (Head::QuestionAnswering { labels }, Some(rows)) => *labels = rows,
            (Head::PreTraining { labels, .. }, Some(rows)) => *labels = Some(rows),
            _ => {}
        }
        watched(Threads::This, PART, || {
            let config = HfConfig::of(&synthetic.config);
            let source = SyntheticSource::new(&synthetic);
            Self::of_source(source, config, None, Preprocessing::regions(), &options)
        })
    }

    /// What a person should know about the checkpoint.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.source.notes().into_iter().chain(self.notes.iter().cloned()).collect()
    }

    /// The checksum of the weights that a GGUF file was made from.
    pub(crate) fn origin_sha256(&self) -> Option<&str> {
        self.origin.as_ref()?.str(SOURCE_SHA256).ok()
    }

    /// The answers of the model's head, one for each row; `None` if nobody named them.
    pub(crate) fn labels(&self, head: &Head) -> Result<Option<Labels>, Error> {
        let labels = match (&self.labels, head.labels()) {
            (LabelSource::Given(labels), None) => {
                let (origin, reason) = (labels.origin.clone(), "the model has no answer head".to_owned());
                return Err(Error::Labels { origin, reason });
            }
            (LabelSource::Given(labels) | LabelSource::Directory(labels), Some(_)) => labels.clone(),
            (LabelSource::Config, Some(_)) => {
                match self.config.id2label.as_ref().filter(|table| !table.is_placeholder()) {
                    Some(table) => {
                        let origin = format!("{}: id2label", self.config.path.display());
                        Labels::from_table(table.clone(), origin)?
                    }
                    None if *head == Head::Nlvr2 => Labels {
                        origin: "the NLVR2 head".to_owned(),
                        answers: Head::NLVR2_LABELS.map(str::to_owned).into(),
                    },
                    None => return Ok(None),
                }
            }
            (_, None) => return Ok(None),
        };
        labels.check_len(head.labels().unwrap_or(0))?;
        Ok(Some(labels))
    }

    /// Refuses to overwrite what the conversion reads.
    pub(crate) fn check_output(&self, out: &Path) -> Result<(), Error> {
        if self.files.iter().any(|file| is_same_file(file, out)) {
            return Err(Error::OutputIsInput { path: out.to_owned() });
        }
        Ok(())
    }
}

/// The weights of a directory, safetensors before what `torch.save` writes.
fn open_weights(directory: &Path, limits: &Limits) -> Result<FileSource, Error> {
    for name in ["model.safetensors", "pytorch_model.bin"] {
        if let Some(path) = existing(directory, name) {
            return FileSource::open(&path, limits);
        }
        if let Some(index) = existing(directory, &format!("{name}.index.json")) {
            return FileSource::open_sharded(&index, limits);
        }
    }
    let remedy = match other_weights(directory) {
        Some(name) => format!("if {name:?} is meant, give that file and --config instead of the directory"),
        None => "give the directory of a Hugging Face checkpoint".to_owned(),
    };
    let name = "model.safetensors or pytorch_model.bin";
    Err(Error::MissingFile { directory: directory.to_owned(), name, remedy })
}

/// What is taken for granted about a file without a configuration: what no tensor tells is as in LXMERT-base, if the model
/// is as wide. The original files are all of this kind and hold no configuration.
fn assume_base(path: &Path, source: &FileSource) -> Result<String, Error> {
    const BASE_WIDTH: usize = 768;
    let is_embedding = |name: &&String| name.ends_with("embeddings.word_embeddings.weight");
    let embedding = source.tensors().keys().find(is_embedding).and_then(|name| source.tensors().get(name));
    match embedding.map(|tensor| &tensor.shape[..]) {
        Some([_, width]) if *width != BASE_WIDTH => Err(Error::MissingFile {
            directory: path.to_owned(),
            name: "configuration",
            remedy: format!(
                "the model is {width} wide, not {BASE_WIDTH} as LXMERT-base, so its attention heads and activation are \
                 not known: give its config.json with --config"
            ),
        }),
        // Without such a tensor, that is the news.
        _ => Ok("no configuration was given: 12 attention heads and gelu are assumed, as in LXMERT-base"
            .to_owned()),
    }
}

/// The first file that looks like weights of another form.
fn other_weights(directory: &Path) -> Option<String> {
    let entries = std::fs::read_dir(directory).ok()?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let is_weights = |name: &String| {
        let extension = Path::new(name).extension().unwrap_or_default();
        ["safetensors", "bin", "pt", "pth", "gguf"].iter().any(|known| extension == *known)
    };
    names.filter(is_weights).min()
}
