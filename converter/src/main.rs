//! `lxmert-quantize`: a checkpoint becomes one quantized GGUF file.

mod cli;

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: lxmert::Reserve = lxmert::Reserve::system();

fn main() -> ExitCode {
    lxmert::reserve::begin();
    cli::run(&cli::Program::parse())
}
