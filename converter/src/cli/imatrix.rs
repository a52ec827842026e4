//! Which columns of a model's matrices matter, measured on real questions.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lxmert::atomic_file::is_same_file;
use lxmert::gguf::File;
use lxmert::{Model, Output, Session, SessionOptions};
use lxmert_converter::Collector;

use super::questions::Questions;
use super::{Asked, Failure};

/// Measures how much each column of a model's matrices matters, for quantization with --imatrix
///
/// DATA.jsonl is as for eval; the answers are not looked at. Take an f32 or f16 model, and questions that it will not
/// be judged by.
#[derive(Parser)]
pub struct Arguments {
    /// Model to observe
    #[arg(value_name = "MODEL.gguf")]
    model: PathBuf,

    /// Questions to ask it
    #[arg(value_name = "DATA.jsonl")]
    data: PathBuf,

    /// File to write
    #[arg(long, short, value_name = "OUT.gguf")]
    output: PathBuf,

    #[command(flatten)]
    asked: Asked,

    /// Threads to compute with [default: all cores]
    #[arg(long, short, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// Asks, and writes what the matrices were multiplied with.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (most, options) = arguments.asked.options()?;
    let mut questions = Questions::read(&arguments.data, most)?;
    if [&arguments.model, &arguments.data].iter().any(|input| is_same_file(input, &arguments.output)) {
        return Err(format!("{}: the output is one of the input files", arguments.output.display()).into());
    }
    let file = File::open_within(&arguments.model, &options.limits)?;
    let sha256 = file.header().metadata().opt_str("lxmert.source.sha256").ok().flatten();
    let model = options.open(&arguments.model)?;
    let collected = collect(&model, &mut questions, arguments.threads)?;

    let dataset = arguments.data.file_name().unwrap_or_default().to_string_lossy();
    collected.write(&arguments.output, &dataset, questions.lines(), questions.len(), sha256)?;
    let matrices = collected.matrices();
    let (asked, output) = (questions.len(), arguments.output.display());
    Ok(super::print(&format!("questions   {asked}\nmatrices    {matrices}\noutput      {output}\n")))
}

fn collect(
    model: &Model,
    questions: &mut Questions,
    threads: Option<NonZeroUsize>,
) -> Result<Collector, Failure> {
    let mut options = SessionOptions::new(model);
    options.threads = threads.map_or(options.threads, NonZeroUsize::get);
    if model.labels().is_none() {
        return Err("the model's file holds no answers, so there are no questions to ask it".into());
    }
    // Beside the answers' the heads of pre-training, so that all matrices that anybody reads are seen.
    let of_heads = [Output::CrossRelationshipScore, Output::PredictionLogits, Output::VisualObjScore]
        .into_iter()
        .chain([Output::VisualAttrScore, Output::VisualFeatScore]);
    options.outputs.extend(of_heads.filter(|output| output.exists_in(model.config())));
    let mut session = Session::observing(model, options)?;

    let bar = super::bar(questions.len() as u64, "asking");
    let mut collector = Collector::default();
    for number in 0..questions.len() {
        if questions.encode(number, &mut session)? {
            session
                .image_factors()
                .for_each(|factor| collector.add(factor.matrix, factor.width, factor.rows));
        }
        let question = &questions.get(number).question;
        session.ask(question).map_err(|error| questions.wrong(number, error))?;
        session.question_factors().for_each(|factor| collector.add(factor.matrix, factor.width, factor.rows));
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(collector)
}
