//! The model that is measured: a file, or random weights in a temporary one.

use std::error::Error;
use std::path::{Path, PathBuf};

use lxmert::Limits;
use lxmert_converter::{Checkpoint, FileType, Options, Stage, Synthetic, convert};
use tempfile::TempDir;

use crate::Arguments;
use crate::progress::bar;

/// Where the model comes from.
pub enum Source {
    File(PathBuf),
    /// Random weights. The directory goes with them.
    Synthetic {
        name: String,
        file_type: FileType,
        file: PathBuf,
        _directory: TempDir,
    },
}

impl Source {
    /// The model that the arguments ask for, made if it has to be.
    pub fn of(arguments: &Arguments) -> Result<Self, Box<dyn Error>> {
        let synthetic = arguments.synthetic.as_deref().and_then(|name| Synthetic::named(name, 1));
        match (&arguments.model, synthetic) {
            (Some(path), _) => Ok(Source::File(path.clone())),
            (None, Some(synthetic)) => make(synthetic, arguments.file_type),
            (None, None) => Err("give --model or --synthetic".into()),
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            Source::File(file) | Source::Synthetic { file, .. } => file,
        }
    }
}

fn make(synthetic: Synthetic, file_type: FileType) -> Result<Source, Box<dyn Error>> {
    let directory = tempfile::Builder::new().prefix("lxmert-bench-").tempdir()?;
    let file = directory.path().join("model.gguf");
    let checkpoint = Checkpoint::synthetic(&synthetic, None, &Limits::default())?;
    let bar = bar("making the model");
    convert(&checkpoint, file_type, &file, &Options::default(), &mut |progress| {
        let passed = if progress.stage == Stage::Writing { progress.total } else { 0 };
        bar.set_length(2 * progress.total);
        bar.set_position(passed + progress.done);
    })?;
    bar.finish_and_clear();
    Ok(Source::Synthetic { name: synthetic.name, file_type, file, _directory: directory })
}
