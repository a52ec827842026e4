//! `lxmert-quantize`: a checkpoint becomes one quantized GGUF file.

mod cli;
#[path = "../../src/bin/support/start.rs"]
mod start;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: lxmert::Reserve = lxmert::Reserve::system();

fn main() -> ExitCode {
    start::start(|| cli::run(&cli::Program::parse()))
}
