//! The program's commands, one file each, and what they share.

pub mod convert;
mod diff;
mod eval;
mod imatrix;
mod inspect;
mod questions;
mod verify;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

/// Converts an LXMERT checkpoint to one GGUF file.
///
/// MODEL is a directory as transformers saves it: config.json and model.safetensors or pytorch_model.bin (or shards with an
/// index). Also taken in, where they are there: tokenizer.json or vocab.txt, answers.json, preprocessing.json. Or it is a
/// file of weights alone (.safetensors, .bin, .pth; the original *_LXRT.pth and BEST.pth too), with --config, --tokenizer and
/// --labels for what is not in it, or a GGUF file, which brings everything.
#[derive(Parser)]
#[command(
    name = "lxmert-quantize",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true
)]
pub struct Program {
    #[command(flatten)]
    convert: Option<convert::Arguments>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Arguments),
    Diff(diff::Arguments),
    Eval(eval::Arguments),
    Imatrix(imatrix::Arguments),
    Verify(verify::Arguments),
}

/// Why a command failed, in one line.
type Failure = Box<dyn std::error::Error>;

/// Does what the arguments say.
pub fn run(program: &Program) -> ExitCode {
    let Some(command) = &program.command else {
        let Some(convert) = &program.convert else {
            use clap::CommandFactory;
            let message = "give TYPE and MODEL, or a command";
            Program::command().error(clap::error::ErrorKind::MissingRequiredArgument, message).exit()
        };
        return convert::run(convert);
    };
    let (result, trouble) = match command {
        Command::Inspect(arguments) => (inspect::run(arguments), 1),
        // As diff has it, 1 says that the files differ.
        Command::Diff(arguments) => (diff::run(arguments), 2),
        Command::Eval(arguments) => (eval::run(arguments), 1),
        Command::Imatrix(arguments) => (imatrix::run(arguments), 1),
        Command::Verify(arguments) => (verify::run(arguments), 1),
    };
    result.unwrap_or_else(|error| {
        complain(&error, &[]);
        ExitCode::from(trouble)
    })
}

/// A progress bar, where there is a terminal to show it.
fn bar(total: u64, message: &'static str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(total) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{msg:8} {wide_bar} {percent:>3} % {eta:>4}") {
        bar.set_style(style);
    }
    bar.with_message(message)
}

/// Prints a result, all at once.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever was reading has gone.
        Err(_) => ExitCode::FAILURE,
    }
}

/// One line of JSON.
fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    text + "\n"
}

/// Longer lists are only counted from here on.
const MAX_DETAILS: usize = 50;

/// Says what went wrong in one line, and below it the details, if there are any.
fn complain(error: &dyn Display, details: &[String]) {
    let mut text = format!("error: {error}\n");
    for detail in details.iter().take(MAX_DETAILS) {
        text += &format!("  {detail}\n");
    }
    if details.len() > MAX_DETAILS {
        text += &format!("  … and {} more\n", details.len() - MAX_DETAILS);
    }
    // There is nobody left to tell if standard error is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
