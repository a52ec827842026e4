//! The programs that the build script runs beside those that `cc` does, and the files that it writes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::cargo_env;

/// The program of that name that a shell would run.
pub fn on_path(name: &str) -> Option<PathBuf> {
    println!("cargo::rerun-if-env-changed=PATH");
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Runs a program for what it prints. Its complaint is part of the error.
pub fn output_of(command: &mut Command) -> Result<String, String> {
    let program = name(command);
    let Output { status, stdout, stderr } = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let complaint = String::from_utf8_lossy(&stderr);
    Err(format!("{program} fails ({status}): {}\n{}", arguments.join(" "), complaint.trim_end()))
}

/// Runs programs side by side, as many as Cargo may. After one that fails no more are started.
pub fn run_all(commands: Vec<Command>) -> Result<(), String> {
    let jobs: usize = cargo_env("NUM_JOBS").parse().unwrap_or(1);
    let commands = Mutex::new(commands.into_iter());
    let failed = AtomicBool::new(false);
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let next = commands.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(mut command) = next else { break };
            output_of(&mut command).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        // All are waited for, whichever failed.
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        results.into_iter().try_for_each(|result| result.expect("programs are run without a panic"))
    })
}

pub fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

pub fn create_folder(path: &Path) -> Result<(), String> {
    std::fs::create_dir_all(path).map_err(|error| format!("cannot make {}: {error}", path.display()))
}

/// How messages name a program.
fn name(command: &Command) -> String {
    Path::new(command.get_program()).display().to_string()
}
