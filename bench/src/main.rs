//! `lxmert-bench`: how long a model takes to answer, and how much memory.

mod cold_start;
#[path = "../../src/bin/support/loading.rs"]
mod loading;
mod measure;
#[path = "../../src/bin/support/memory.rs"]
mod memory;
mod profile;
mod progress;
mod report;
mod resident;
mod source;
mod stats;
#[path = "../../src/bin/support/mod.rs"]
mod support;
#[path = "../../src/bin/support/tensors.rs"]
mod tensors;
mod work;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use lxmert::vision::FrontEnd;
use lxmert::{Device, Error, Lowering, Model, SessionOptions};
use lxmert_converter::{FileType, Synthetic};

use loading::Loading;
use measure::{Case, Repeats};
use memory::Memory;
use report::{Printer, Report};
use source::Source;
use support::Cpus;
use work::{Input, Sizes};

/// Measure how long a model takes to answer, and how much memory.
///
/// "First question" encodes the image and answers, "next question" answers another one about the same image, and "batch" is one
/// run of several pairs of image and question. "Cold start" is the time from the start of a process to its first answer, with
/// the model's file in the page cache; "peak memory" is what that process had in memory at most, the touched part of
/// the mapped file included. Questions are token ids already. Percentiles are nearest ranks. A profile is taken in runs of its
/// own, after those that are timed.
#[derive(Parser)]
#[command(version = support::version(), arg_required_else_help = true)]
struct Arguments {
    /// The model, a GGUF file made by lxmert-quantize.
    #[arg(long, value_name = "FILE", required_unless_present = "synthetic")]
    model: Option<PathBuf>,
    /// Random weights of this architecture instead of a file.
    #[arg(long, value_name = "NAME", conflicts_with = "model", value_parser = PossibleValuesParser::new(Synthetic::NAMES))]
    synthetic: Option<String>,
    /// The type of the random weights, as lxmert-quantize has them.
    #[arg(long = "type", value_name = "TYPE", default_value = "q8_0", conflicts_with = "model")]
    file_type: FileType,
    /// The input tensors, a safetensors file as lxmert-run takes it [default: made up].
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tokens", "regions", "batch"])]
    inputs: Option<PathBuf>,
    /// Tokens of a made-up question [default: 20].
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Regions of a made-up image [default: 36, or what the model cuts from a picture].
    #[arg(long, value_name = "N")]
    regions: Option<usize>,
    /// Pairs of image and question in one run; several numbers are measured in turn [default: 1, or 2 for NLVR2].
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    batch: Vec<usize>,
    /// Threads to compute with; several numbers are measured in turn [default: all cores, or 1 for a small model].
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    threads: Vec<usize>,
    /// Which kernels compute, as lxmert-run has them; several names are measured in turn.
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "fastest")]
    lowering: Vec<String>,
    /// Where to compute, as lxmert-run has it. Another device than the CPU computes by ggml's operations there.
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    device: String,
    #[command(flatten)]
    loading: Loading,
    #[command(flatten)]
    cpus: Cpus,
    #[command(flatten)]
    memory: Memory,
    /// Runs that are timed.
    #[arg(long, value_name = "N", default_value = "50")]
    runs: NonZeroUsize,
    /// Runs before them that are not.
    #[arg(long, value_name = "N", default_value_t = 3)]
    warmup: usize,
    /// Fresh processes to time; 0 leaves cold start and peak memory out.
    #[arg(long, value_name = "N", default_value_t = 5)]
    cold_starts: usize,
    /// Tell what the operations of a run cost: summed up by the tensors they belong to, or one by one with --json. Measured in as
    /// many runs again, which are not timed. On another device than the CPU each operation is started alone and waited for, which takes
    /// longer than a run; what the device lacks is told to be on the CPU.
    #[arg(long)]
    profile: bool,
    /// Print one JSON object a line for each lowering, number of threads, and pairs.
    #[arg(long)]
    json: bool,
    /// Answer that many first and next questions and say so: what a cold start starts, and where instructions are counted.
    #[arg(long, value_name = "FIRST,NEXT", hide = true, value_parser = first_and_next)]
    answer: Option<(usize, usize)>,
}

#[global_allocator]
static ALLOCATOR: lxmert::Reserve = lxmert::Reserve::system();

fn main() -> ExitCode {
    support::start(|| support::finish(run(&Arguments::parse())))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    memory::program_bytes();
    // A name that is of no use is told before a model is made.
    let device: Device = arguments.device.parse()?;
    let lowerings = arguments.lowering.iter().map(|name| {
        let lowering: Lowering = name.parse()?;
        // What is fastest on a device is not what is on the CPU.
        if device == Device::Cpu { lowering.resolve() } else { Ok(lowering) }
    });
    let lowerings: Vec<Lowering> = lowerings.collect::<Result<_, Error>>()?;
    let loading = arguments.loading.options()?;
    let source = Source::of(arguments)?;
    let model = loading.open(source.path())?;
    let cases = cases(arguments, device, &lowerings, &model);
    if let Some((first, next)) = arguments.answer {
        return cases.iter().try_for_each(|case| cold_start::answer(&model, case, first, next));
    }
    let Arguments { runs, warmup, cold_starts, profile, .. } = *arguments;
    let repeats = Repeats { runs: runs.get(), warmup, cold_starts, profile };
    let mut printer = Printer::new(arguments.json, profile);
    for case in &cases {
        let results = measure::measure(&model, source.path(), case, repeats)?;
        printer.print(Report::new(&model, &source, case, repeats, results))?;
    }
    printer.finish()
}

/// Two numbers, as `--answer` takes them.
fn first_and_next(text: &str) -> Result<(usize, usize), String> {
    let numbers =
        text.split_once(',').and_then(|(first, next)| Some((first.parse().ok()?, next.parse().ok()?)));
    numbers.ok_or_else(|| "how many first and how many next questions, as in 1,0".to_owned())
}

/// All that is to be measured: with every lowering, on every number of threads, every batch.
fn cases(arguments: &Arguments, device: Device, lowerings: &[Lowering], model: &Model) -> Vec<Case> {
    let config = model.config();
    let threads: Vec<usize> = numbers(&arguments.threads, SessionOptions::new(model).threads).collect();
    let inputs: Vec<Input> = match &arguments.inputs {
        Some(path) => vec![Input::File(path.clone())],
        None => {
            let tokens =
                arguments.tokens.map_or(DEFAULT_TOKENS.min(config.max_position_embeddings), usize::from);
            let regions = arguments.regions.map_or(default_regions(model), usize::from);
            let batches = numbers(&arguments.batch, config.head.images());
            batches.map(|batch| Input::MadeUp(Sizes { batch, tokens, regions })).collect()
        }
    };
    let mut cases = Vec::new();
    for &lowering in lowerings {
        for &threads in &threads {
            let case = |input: &Input| Case {
                device,
                lowering,
                threads,
                cpus: arguments.cpus.numbers.clone(),
                memory: arguments.memory.clone(),
                loading: arguments.loading.clone(),
                input: input.clone(),
            };
            cases.extend(inputs.iter().map(case));
        }
    }
    cases
}

/// The sizes that LXMERT was trained with.
const DEFAULT_TOKENS: usize = 20;
const DEFAULT_REGIONS: usize = 36;

fn default_regions(model: &Model) -> usize {
    match model.front_end() {
        FrontEnd::PatchGrid(grid) => grid.region_count(),
        _ => DEFAULT_REGIONS,
    }
}

/// What was given, or else the default.
fn numbers(given: &[usize], default: usize) -> impl Iterator<Item = usize> {
    given.iter().copied().chain(given.is_empty().then_some(default))
}
