//! From the start of a process to its first answer.
//!
//! The process is this program again, told to answer once. It writes a line when the answer is there, which stops the clock, and
//! then a line with its peak memory in bytes, empty if that is unknown.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lxmert::Model;

use crate::measure::Case;
use crate::resident::peak_bytes;
use crate::work::{Input, Sizes, Work};

/// One start.
pub struct ColdStart {
    pub time: Duration,
    /// `None` where the system does not tell.
    pub peak_bytes: Option<u64>,
}

/// Starts a process and waits for its answer.
pub fn measure(model: &Path, case: &Case) -> Result<ColdStart, Box<dyn Error>> {
    let mut command = command(model, case)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = command.spawn().map_err(failed)?;
    let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(failed("its output is not at hand"));
    };
    let mut stdout = BufReader::new(stdout);
    let (mut answer, mut peak, mut complaint) = (String::new(), String::new(), String::new());
    stdout.read_line(&mut answer)?;
    let time = started.elapsed();
    stdout.read_line(&mut peak)?;
    stderr.read_to_string(&mut complaint)?;
    let status = child.wait()?;
    match status.success() && answer == ANSWERED {
        true => Ok(ColdStart { time, peak_bytes: peak.trim().parse().ok() }),
        false if complaint.is_empty() => Err(failed(status)),
        false => Err(failed(complaint.trim().trim_start_matches("error: "))),
    }
}

/// This program again. Under an emulator that the kernel does not know, `LXMERT_RUNNER_AARCH64` (or another architecture's) names that.
fn this_program() -> Result<Command, Box<dyn Error>> {
    let program = std::env::current_exe().map_err(failed)?;
    let variable = format!("LXMERT_RUNNER_{}", std::env::consts::ARCH.to_uppercase());
    Ok(match std::env::var_os(variable).filter(|runner| !runner.is_empty()) {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(program);
            command
        }
        None => Command::new(program),
    })
}

const ANSWERED: &str = "answered\n";

fn failed(why: impl std::fmt::Display) -> Box<dyn Error> {
    format!("a fresh process for the cold start failed: {why}").into()
}

fn command(model: &Path, case: &Case) -> Result<Command, Box<dyn Error>> {
    let mut command = this_program()?;
    command.args(["--answer", "1,0"]).arg("--model").arg(model);
    command.arg("--device").arg(case.device.to_string());
    command.arg("--lowering").arg(case.lowering.to_string());
    command.arg("--threads").arg(case.threads.to_string());
    if let Some(cpus) = &case.cpus {
        let numbers: Vec<String> = cpus.iter().map(usize::to_string).collect();
        command.arg("--cpus").arg(numbers.join(","));
    }
    command.args(case.memory.arguments());
    // Not whether to verify: that is no part of a start.
    command.args(case.loading.arguments());
    match &case.input {
        Input::File(path) => {
            command.arg("--inputs").arg(path);
        }
        Input::MadeUp(Sizes { batch, tokens, regions }) => {
            for (name, size) in [("--batch", batch), ("--tokens", tokens), ("--regions", regions)] {
                command.arg(name).arg(size.to_string());
            }
        }
    }
    Ok(command)
}

/// What the process does: so many first questions, then so many about the last one's image.
pub fn answer(model: &Model, case: &Case, first: usize, next: usize) -> Result<(), Box<dyn Error>> {
    let mut work = Work::new(model, case)?;
    (0..first).try_for_each(|_| work.run())?;
    (0..next).try_for_each(|_| work.run_next())?;
    drop(work);
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(ANSWERED.as_bytes())?;
    stdout.flush()?;
    let peak = peak_bytes().map(|bytes| bytes.to_string()).unwrap_or_default();
    Ok(writeln!(stdout, "{peak}")?)
}
