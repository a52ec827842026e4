//! A checkpoint: weights, configuration and whatever else its directory holds.

use std::path::{Path, PathBuf};

use lxmert::model::Head;

use crate::Error;
use crate::files::existing;
use crate::frontend::Preprocessing;
use crate::hf_config::HfConfig;
use crate::labels::Labels;
use crate::source::{SafetensorsSource, Source, Synthetic, SyntheticSource};
use crate::tokenizer::FoundTokenizer;

/// Everything that a conversion starts from.
pub struct Checkpoint {
    pub(crate) source: Box<dyn Source>,
    pub(crate) config: HfConfig,
    pub(crate) tokenizer: Option<FoundTokenizer>,
    pub(crate) preprocessing: Preprocessing,
    labels: LabelSource,
    files: Vec<PathBuf>,
}

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
    /// Opens a directory as Hugging Face's `save_pretrained` makes it: `config.json` and `model.safetensors`, or
    /// shards with an index; optionally `tokenizer.json` or `vocab.txt`, `answers.json` and
    /// `preprocessing.json`. The answers in `labels` go before those of the directory.
    ///
    /// # Errors
    /// [`Error::Directory`], [`Error::MissingFile`], and whatever is wrong with one of the files. The
    /// tensors' values and whether the files go together are not looked at yet.
    pub fn open(directory: &Path, labels: Option<&Path>) -> Result<Self, Error> {
        check_directory(directory)?;
        let config = existing(directory, "config.json").ok_or_else(|| Error::MissingFile {
            directory: directory.to_owned(),
            name: "config.json",
            remedy: "give the directory of a Hugging Face checkpoint".to_owned(),
        })?;
        let config = HfConfig::read(&config)?;
        let source = open_weights(directory)?;
        let tokenizer = FoundTokenizer::find(directory)?;
        let preprocessing = match existing(directory, "preprocessing.json") {
            Some(path) => Preprocessing::read(&path)?,
            None => Preprocessing::regions(),
        };

        let mut files = source.files();
        files.push(config.path.clone());
        files.extend(tokenizer.iter().flat_map(|tokenizer| tokenizer.files.clone()));
        files.extend(preprocessing.path.clone());
        let labels = match (labels, existing(directory, "answers.json")) {
            (Some(path), _) => {
                files.push(path.to_owned());
                LabelSource::Given(Labels::read(path)?)
            }
            (None, Some(path)) => {
                let labels = Labels::read(&path)?;
                files.push(path);
                LabelSource::Directory(labels)
            }
            (None, None) => LabelSource::Config,
        };
        Ok(Checkpoint { source: Box::new(source), config, tokenizer, preprocessing, labels, files })
    }

    /// Random weights; the answer head gets as many rows as there are `labels`, where these are given.
    ///
    /// # Errors
    /// Whatever is wrong with the labels.
    pub fn synthetic(synthetic: &Synthetic, labels: Option<&Path>) -> Result<Self, Error> {
        let files = labels.map(Path::to_owned).into_iter().collect();
        let labels = labels.map(Labels::read).transpose()?;
        let mut synthetic = synthetic.clone();
        let rows = labels.as_ref().map(|labels| labels.answers.len());
        match (&mut synthetic.config.head, rows) {
            (Head::QuestionAnswering { labels }, Some(rows)) => *labels = rows,
            (Head::PreTraining { labels, .. }, Some(rows)) => *labels = Some(rows),
            _ => {}
        }
        let config = HfConfig {
            num_attention_heads: Some(synthetic.config.num_attention_heads),
            hidden_act: Some(synthetic.config.hidden_act.name().to_owned()),
            ..HfConfig::default()
        };
        Ok(Checkpoint {
            source: Box::new(SyntheticSource::new(&synthetic)),
            config,
            tokenizer: None,
            preprocessing: Preprocessing::regions(),
            labels: labels.map_or(LabelSource::Config, LabelSource::Given),
            files,
        })
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
        // An output that does not exist yet cannot be an input.
        let Ok(canonical) = out.canonicalize() else { return Ok(()) };
        let same = |file: &PathBuf| file.canonicalize().is_ok_and(|file| file == canonical);
        if self.files.iter().any(same) {
            return Err(Error::OutputIsInput { path: out.to_owned() });
        }
        Ok(())
    }
}

fn check_directory(directory: &Path) -> Result<(), Error> {
    let found = std::fs::metadata(directory).map_err(Error::io(directory))?;
    if found.is_dir() {
        return Ok(());
    }
    let reason = "not a directory: give the one that holds config.json and model.safetensors";
    Err(Error::Directory { path: directory.to_owned(), reason })
}

fn open_weights(directory: &Path) -> Result<SafetensorsSource, Error> {
    const NAME: &str = "model.safetensors";
    if let Some(path) = existing(directory, NAME) {
        return SafetensorsSource::open(&path);
    }
    if let Some(index) = existing(directory, "model.safetensors.index.json") {
        return SafetensorsSource::open_sharded(&index);
    }
    let remedy = match other_weights(directory) {
        Some(name) => format!(
            "{name:?} is of a form that is not read, only safetensors is: load the checkpoint with transformers \
             in Python and save it with save_pretrained"
        ),
        None => "give the directory of a Hugging Face checkpoint, with its weights as safetensors".to_owned(),
    };
    Err(Error::MissingFile { directory: directory.to_owned(), name: NAME, remedy })
}

/// The first file that looks like weights of another form.
fn other_weights(directory: &Path) -> Option<String> {
    let entries = std::fs::read_dir(directory).ok()?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let is_weights = |name: &String| {
        let extension = Path::new(name).extension().unwrap_or_default();
        ["bin", "pt", "pth", "h5", "msgpack"].iter().any(|known| extension == *known)
    };
    names.filter(is_weights).min()
}
