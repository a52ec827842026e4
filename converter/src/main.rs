//! `lxmert-quantize`: a checkpoint becomes one quantized GGUF file.

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::convert::run(&cli::convert::Arguments::parse())
}
