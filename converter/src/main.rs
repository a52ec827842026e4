//! `lxmert-quantize`: a checkpoint becomes one quantized GGUF file.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::run(&cli::Program::parse())
}
