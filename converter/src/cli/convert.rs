//! A checkpoint to a GGUF file, which is what the program does unless told otherwise.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use indicatif::{ProgressBar, ProgressStyle};
use lxmert::gguf::TensorType;
use lxmert_converter::{
    Checkpoint, Error, Options, Progress, Report, Stage, Synthetic, TENSOR_TYPES, convert,
};

/// Converts an LXMERT checkpoint to one GGUF file.
///
/// MODEL is a directory as transformers saves it: config.json and model.safetensors or pytorch_model.bin (or shards with an
/// index). Also taken in, where they are there: tokenizer.json or vocab.txt, answers.json, preprocessing.json. Or it is a
/// file of weights alone (.safetensors, .bin, .pth; the original *_LXRT.pth and BEST.pth too), with --config, --tokenizer and
/// --labels for what is not in it, or a GGUF file, which brings everything.
#[derive(Clone, Parser)]
#[command(name = "lxmert-quantize", version)]
pub struct Arguments {
    /// Type of the weight matrices; everything else stays f32
    #[arg(value_name = "TYPE", ignore_case = true, value_parser = tensor_type())]
    tensor_type: TensorType,

    /// Directory or file of the checkpoint
    #[arg(value_name = "MODEL", required_unless_present = "synthetic")]
    model_dir: Option<PathBuf>,

    /// File to write [default: NAME-TYPE.gguf in the current directory, NAME being that of MODEL]
    #[arg(value_name = "OUT.gguf")]
    out: Option<PathBuf>,

    /// Random weights of this architecture instead of a checkpoint; no MODEL is given then
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(Synthetic::NAMES))]
    synthetic: Option<String>,

    /// Seed of the random weights
    #[arg(long, value_name = "N", default_value_t = 1, requires = "synthetic")]
    seed: u64,

    /// JSON file with the answers: a list, or an object of answers and ids
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,

    /// config.json of the model, where MODEL is a file of weights alone
    #[arg(long, value_name = "FILE", conflicts_with = "synthetic")]
    config: Option<PathBuf>,

    /// tokenizer.json or vocab.txt, or a directory with one
    #[arg(long, value_name = "DIR|FILE", conflicts_with = "synthetic")]
    tokenizer: Option<PathBuf>,

    /// Take a GGUF file whose tensors are quantized already, at a cost in accuracy
    #[arg(long, conflicts_with = "synthetic")]
    allow_requantize: bool,

    /// Threads to work with [default: one for each core]
    #[arg(long, short, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,

    /// Fail if a tensor has a lower cosine with its source than this, and write nothing then
    #[arg(long, value_name = "X", value_parser = cosine)]
    min_cosine: Option<f64>,

    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,

    /// List every tensor with its error and the tensors it is made of
    #[arg(long, short, conflicts_with = "json")]
    verbose: bool,
}

fn tensor_type() -> impl TypedValueParser<Value = TensorType> {
    let parse = |name: String| name.parse::<TensorType>();
    PossibleValuesParser::new(TENSOR_TYPES.map(|(known, _)| known.name())).try_map(parse)
}

fn cosine(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|cosine| (0.0..=1.0).contains(cosine))
        .ok_or_else(|| "give a number from 0 to 1".to_owned())
}

/// What is converted, and to which file.
enum Input {
    Directory { path: PathBuf, out: Option<PathBuf> },
    Synthetic { synthetic: Synthetic, out: Option<PathBuf> },
}

/// Converts, and tells how it went.
pub fn run(arguments: &Arguments) -> ExitCode {
    let input = input(arguments);
    match convert_input(arguments, input) {
        Ok(report) => print(arguments, &report),
        Err(error) => {
            super::complain(&error, &details(&error));
            ExitCode::FAILURE
        }
    }
}

/// Sorts the positional arguments: with `--synthetic`, the first is the output.
fn input(arguments: &Arguments) -> Input {
    let Arguments { model_dir, out, synthetic, seed, .. } = arguments;
    let misuse = |message| -> ! { Arguments::command().error(ErrorKind::ArgumentConflict, message).exit() };
    match (synthetic.as_deref().and_then(|name| Synthetic::named(name, *seed)), model_dir) {
        (Some(_), Some(_)) if out.is_some() => misuse("--synthetic takes the place of MODEL"),
        (Some(synthetic), out) => Input::Synthetic { synthetic, out: out.clone() },
        (None, Some(path)) => Input::Directory { path: path.clone(), out: out.clone() },
        (None, None) => misuse("give MODEL or --synthetic"),
    }
}

fn convert_input(arguments: &Arguments, input: Input) -> Result<Report, Error> {
    let Arguments { tensor_type, threads, labels, config, tokenizer, .. } = arguments.clone();
    let Arguments { allow_requantize, min_cosine, dry_run, .. } = *arguments;
    let options = Options { threads, labels, config, tokenizer, allow_requantize, min_cosine, dry_run };
    let (checkpoint, out) = match input {
        Input::Directory { path, out } => {
            let checkpoint = Checkpoint::open_with(&path, &options)?;
            (checkpoint, out.unwrap_or_else(|| default_out(&path, tensor_type)))
        }
        Input::Synthetic { synthetic, out } => {
            let default = format!("synthetic-{}-{tensor_type}.gguf", synthetic.name);
            let checkpoint = Checkpoint::synthetic(&synthetic, options.labels.as_deref())?;
            (checkpoint, out.unwrap_or_else(|| default.into()))
        }
    };
    let mut bar = Bar::new();
    convert(&checkpoint, tensor_type, &out, &options, &mut |progress| bar.show(progress))
}

fn default_out(model: &Path, tensor_type: TensorType) -> PathBuf {
    // Resolved, so that "." has a name too.
    let resolved = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let name = if resolved.is_file() { resolved.file_stem() } else { resolved.file_name() };
    let mut name = name.unwrap_or("lxmert".as_ref()).to_owned();
    name.push(format!("-{tensor_type}.gguf"));
    name.into()
}

/// A progress bar, where there is a terminal to show it.
struct Bar {
    bar: ProgressBar,
    stage: Option<Stage>,
}

impl Bar {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{msg:8} {wide_bar} {percent:>3} % {eta:>4}") {
            bar.set_style(style);
        }
        Bar { bar, stage: None }
    }

    fn show(&mut self, progress: Progress) {
        if self.stage.replace(progress.stage) != Some(progress.stage) {
            self.bar.reset();
            self.bar.set_length(progress.total);
            self.bar.set_message(match progress.stage {
                Stage::Checking => "checking",
                Stage::Writing => "writing",
            });
        }
        self.bar.set_position(progress.done);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn print(arguments: &Arguments, report: &Report) -> ExitCode {
    if arguments.json {
        return super::print(&super::json(report));
    }
    let table = if arguments.verbose { report.tensor_table() + "\n" } else { String::new() };
    super::print(&(table + &report.to_string()))
}

/// What an error has to say beyond its one line.
fn details(error: &Error) -> Vec<String> {
    match error {
        Error::Tensors { problems } => problems.iter().map(ToString::to_string).collect(),
        Error::TooFar { tensors, .. } => {
            tensors.iter().map(|(name, cosine)| format!("{name}: {cosine:.6}")).collect()
        }
        _ => Vec::new(),
    }
}
