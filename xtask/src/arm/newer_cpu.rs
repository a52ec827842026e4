//! Programs whose ggml was compiled for a newer CPU than the one that they run on: they say so where they need ggml's operations, work
//! where they do not, and never die of an illegal instruction.

use std::process::{Command, Output};

use super::program;
use super::toolchain::{Cpu, Toolchain};
use crate::Result;
use crate::tools::output_of;

/// What `LXMERT_CPU` is in the build, and an instruction in it that the oldest CPU lacks.
const BUILDS: [(&str, &str); 2] = [("armv8.2-a+dotprod+fp16", "dotprod"), ("armv8.6-a+i8mm", "i8mm")];

const QUESTION: [&str; 2] = ["--question", "what shape is in the image?"];

/// Builds for each and runs it.
pub fn check(toolchain: &Toolchain) -> Result<()> {
    for (built_for, instruction) in BUILDS {
        println!("building with LXMERT_CPU={built_for}");
        let program = program::build(toolchain, Some(built_for), &program::VQA)?;
        let run = |cpu, arguments: &[&str]| {
            let mut command = toolchain.run(cpu, &program);
            command.args(QUESTION).args(arguments);
            command
        };
        let (old, new) = (Cpu::CortexA57, Cpu::Max);
        for arguments in [&["--lowering", "ggml"][..], &["--lowering", "ggml", "--plan"]] {
            refuses(&mut run(old, arguments), instruction)?;
        }
        answers(&mut run(old, &["--lowering", "portable"]))?;
        // ggml's operations are one of the ways that a budget chooses from, and left out here.
        answers(&mut run(old, &["--memory-budget", "32MiB"]))?;
        answers(&mut run(old, &[]))?;
        output_of(toolchain.run(old, &program).arg("--version"))?;
        answers(&mut run(new, &["--lowering", "ggml"]))?;
        println!("built for {built_for}: {} is refused where it cannot run", old.name());
    }
    Ok(())
}

fn answers(command: &mut Command) -> Result<()> {
    let text = output_of(command)?;
    if text.contains("circle") { Ok(()) } else { Err(format!("{command:?} found no circle: {text}")) }
}

fn refuses(command: &mut Command, instruction: &str) -> Result<()> {
    let output = run(command)?;
    if is_refusal(&output, instruction) { Ok(()) } else { Err(unexpected(command, &output)) }
}

fn run(command: &mut Command) -> Result<Output> {
    command.output().map_err(|error| format!("{command:?}: {error}"))
}

/// One line that names what is missing, and the exit status of an error.
fn is_refusal(output: &Output, instruction: &str) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    // What it was built for names the instruction too.
    let missing = text.split_once("this CPU lacks ").and_then(|(_, rest)| rest.split(':').next());
    output.status.code() == Some(1)
        && text.lines().count() == 1
        && missing.is_some_and(|list| list.split([' ', ',']).any(|name| name == instruction))
}

fn unexpected(command: &Command, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    format!("{command:?} ended with {} and said: {}", output.status, text.trim_end())
}
