//! A checkpoint to a GGUF file, which is what the program does unless told otherwise.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory};
use indicatif::ProgressBar;
use lxmert::gguf::TensorType;
use lxmert::{InstructionSet, Limits};
use lxmert_converter::{
    Checkpoint, Error, FILE_TYPES, FileType, Importance, KeyOverride, Options, Progress, Report, Stage,
    Synthetic, TypeOverrides, convert,
};
use regex::Regex;

/// What to convert, to what, and how.
#[derive(Args, Clone)]
pub struct Arguments {
    /// Type of the weight matrices; everything else stays f32. q4_K_M and q5_K_M give the matrices that need it more
    /// bits; q4_K and q5_K, by their other names q4_K_S and q5_K_S, do not
    #[arg(value_name = "TYPE", ignore_case = true, value_parser = file_type())]
    file_type: FileType,

    /// Directory or file of the checkpoint
    #[arg(value_name = "MODEL", required_unless_present = "synthetic")]
    model_dir: Option<PathBuf>,

    /// File to write [default: NAME-TYPE.gguf in the current directory, NAME being that of MODEL; NAME-TYPE-packed.gguf with --pack]
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

    /// Leave out what q4_K_M or q5_K_M improves
    #[arg(long)]
    pure: bool,

    /// Type of the matrices whose names in the file match; may be repeated, and the first match counts
    #[arg(long, value_name = "REGEX=TYPE", value_parser = by_name)]
    tensor_type: Vec<(Regex, TensorType)>,

    /// Type of the word embedding
    #[arg(long, value_name = "TYPE", ignore_case = true, value_parser = tensor_type())]
    token_embedding_type: Option<TensorType>,

    /// Type of the output matrices: cls.answer.1 and cls.mlm
    #[arg(long, value_name = "TYPE", ignore_case = true, value_parser = tensor_type())]
    output_tensor_type: Option<TensorType>,

    /// Keep the output matrices in f32
    #[arg(long, conflicts_with = "output_tensor_type")]
    leave_output_tensor: bool,

    /// Importance of the matrices' columns, as made by lxmert-quantize imatrix
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,

    /// Store the matrices as the kernels for that instruction set read them, so that a model starts without packing them. The file is
    /// for running only, by every CPU with kernels; but avx512vnni, amx and i8mm store f16 and bf16 matrices as bf16, which takes a CPU
    /// that multiplies it (all others store them as f32)
    #[arg(long, value_name = "ISA", ignore_case = true, value_parser = instruction_set())]
    pack: Option<InstructionSet>,

    /// Set a key of the file's metadata; TYPE is int, float, bool or str; may be repeated
    #[arg(long, value_name = "KEY=TYPE:VALUE")]
    override_kv: Vec<KeyOverride>,

    /// Set a limit on what is taken from the checkpoint's files, such as description_bytes=33554432; may be repeated. An error that
    /// speaks of a limit names it
    #[arg(long = "limit", value_name = "NAME=N")]
    limits: Vec<String>,

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

fn file_type() -> impl TypedValueParser<Value = FileType> {
    let parse = |name: String| name.parse::<FileType>();
    PossibleValuesParser::new(FILE_TYPES.iter().flat_map(|known| known.names())).try_map(parse)
}

fn tensor_type() -> impl TypedValueParser<Value = TensorType> {
    PossibleValuesParser::new(tensor_types().map(TensorType::name)).try_map(|name: String| name.parse())
}

/// The types of single tensors: those that a whole file can have.
fn tensor_types() -> impl Iterator<Item = TensorType> {
    FILE_TYPES.into_iter().filter(|known| FileType::from(known.base()) == *known).map(FileType::base)
}

fn instruction_set() -> impl TypedValueParser<Value = InstructionSet> {
    let sets = InstructionSet::ALL;
    let parse = move |name: String| sets.into_iter().find(|set| set.name() == name.to_lowercase());
    PossibleValuesParser::new(sets.map(InstructionSet::name))
        .try_map(move |name: String| parse(name).ok_or("no such instruction set"))
}

fn by_name(text: &str) -> Result<(Regex, TensorType), String> {
    // A pattern may have an equals sign in it, a type has none.
    let (pattern, name) = text.rsplit_once('=').ok_or("give REGEX=TYPE")?;
    let pattern = Regex::new(pattern).map_err(|error| error.to_string())?;
    let known = tensor_types().find(|known| known.name().eq_ignore_ascii_case(name));
    Ok((pattern, known.ok_or_else(|| format!("{name:?} is no type of tensors"))?))
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
    let misuse =
        |message| -> ! { super::Program::command().error(ErrorKind::ArgumentConflict, message).exit() };
    match (synthetic.as_deref().and_then(|name| Synthetic::named(name, *seed)), model_dir) {
        (Some(_), Some(_)) if out.is_some() => misuse("--synthetic takes the place of MODEL"),
        (Some(synthetic), out) => Input::Synthetic { synthetic, out: out.clone() },
        (None, Some(path)) => Input::Directory { path: path.clone(), out: out.clone() },
        (None, None) => misuse("give MODEL or --synthetic"),
    }
}

fn convert_input(arguments: &Arguments, input: Input) -> Result<Report, Error> {
    let file_type = arguments.file_type;
    let options = options(arguments)?;
    let ending = format!("{file_type}{}.gguf", if options.pack.is_some() { "-packed" } else { "" });
    let (checkpoint, out) = match input {
        Input::Directory { path, out } => {
            let checkpoint = Checkpoint::open_with(&path, &options)?;
            (checkpoint, out.unwrap_or_else(|| default_out(&path, &ending)))
        }
        Input::Synthetic { synthetic, out } => {
            let default = format!("synthetic-{}-{ending}", synthetic.name);
            let checkpoint = Checkpoint::synthetic(&synthetic, options.labels.as_deref(), &options.limits)?;
            (checkpoint, out.unwrap_or_else(|| default.into()))
        }
    };
    let mut bar = Bar::new();
    convert(&checkpoint, file_type, &out, &options, &mut |progress| bar.show(progress))
}

fn options(arguments: &Arguments) -> Result<Options, Error> {
    let arguments = arguments.clone();
    let mut limits = Limits::default();
    arguments.limits.iter().try_for_each(|limit| limits.set_from(limit))?;
    Ok(Options {
        limits,
        threads: arguments.threads,
        labels: arguments.labels,
        config: arguments.config,
        tokenizer: arguments.tokenizer,
        allow_requantize: arguments.allow_requantize,
        min_cosine: arguments.min_cosine,
        dry_run: arguments.dry_run,
        types: TypeOverrides {
            pure: arguments.pure,
            by_name: arguments.tensor_type,
            token_embedding: arguments.token_embedding_type,
            output_tensor: arguments.output_tensor_type,
            leave_output_tensor: arguments.leave_output_tensor,
        },
        keys: arguments.override_kv,
        pack: arguments.pack,
        importance: arguments.imatrix.as_deref().map(Importance::open).transpose()?,
    })
}

fn default_out(model: &Path, ending: &str) -> PathBuf {
    // Resolved, so that "." has a name too.
    let resolved = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let name = if resolved.is_file() { resolved.file_stem() } else { resolved.file_name() };
    let mut name = name.unwrap_or("lxmert".as_ref()).to_owned();
    name.push(format!("-{ending}"));
    name.into()
}

/// A progress bar that starts again with the second pass.
struct Bar {
    bar: ProgressBar,
    stage: Option<Stage>,
}

impl Bar {
    fn new() -> Self {
        Bar { bar: super::bar(0, ""), stage: None }
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
