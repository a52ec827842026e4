//! The programs that a task runs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::{Result, root};

/// The Cargo that runs this task, in the workspace's folder.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}

/// The compiler that Cargo uses.
pub fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// This machine, as Cargo names targets.
pub fn host() -> Result<String> {
    let version = output_of(rustc().arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc -vV names no host".to_owned())
}

/// The folder that Cargo builds in.
pub fn target_directory() -> Result<PathBuf> {
    let metadata = output_of(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Option<serde_json::Value> = serde_json::from_str(&metadata).ok();
    let folder = metadata.as_ref().and_then(|metadata| metadata["target_directory"].as_str());
    folder.map(PathBuf::from).ok_or_else(|| "cargo metadata names no target_directory".to_owned())
}

/// Whether a program can be started.
pub fn is_there(program: impl AsRef<OsStr>) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Sees to a Python environment with packages from PyPI in that folder.
pub fn python_environment(folder: &Path, packages: &[&str]) -> Result<()> {
    // Nothing else tells a complete environment from one that was interrupted.
    let complete = folder.join(packages.join(" "));
    if complete.is_file() {
        return Ok(());
    }
    eprintln!("installing {} into {}", packages.join(" and "), folder.display());
    succeed(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder))
        .map_err(|error| format!("no Python environment (Debian: apt-get install python3-venv): {error}"))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    succeed(pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(packages))?;
    fs::write(&complete, "").map_err(|error| format!("{}: {error}", complete.display()))
}

/// Runs a program whose output the user sees.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| does_not_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", name(command))) }
}

/// As [`succeed`], with what the program prints on standard error: standard output may be a shell's to read.
pub fn succeed_aside(command: &mut Command) -> Result<()> {
    succeed(command.stdout(std::io::stderr()))
}

/// Runs a program for what it prints.
pub fn output_of(command: &mut Command) -> Result<String> {
    let Output { status, stdout, stderr } =
        command.output().map_err(|error| does_not_start(command, &error))?;
    if !status.success() {
        let stderr = String::from_utf8_lossy(&stderr);
        return Err(format!("{} failed ({status}): {}", name(command), stderr.trim_end()));
    }
    String::from_utf8(stdout).map_err(|_| format!("{} printed no UTF-8", name(command)))
}

/// How messages name a program.
pub fn name(command: &Command) -> String {
    PathBuf::from(command.get_program()).display().to_string()
}

/// Why a program never ran.
pub fn does_not_start(command: &Command, error: &std::io::Error) -> String {
    format!("{} does not start: {error}", name(command))
}

/// What the names of the target's compiler and binutils begin with, where that was told.
pub fn cross_compile() -> Option<OsString> {
    std::env::var_os("CROSS_COMPILE").filter(|prefix| !prefix.is_empty())
}

/// The GNU binutils of one target.
pub struct Binutils {
    prefix: OsString,
}

impl Binutils {
    /// Those of this machine for `None`, or those that `CROSS_COMPILE` is the prefix of; by default Debian's names for the target.
    pub fn of(target: Option<&str>) -> Self {
        let prefix = match (target, cross_compile()) {
            (None, _) => OsString::new(),
            (Some(_), Some(prefix)) => prefix,
            (Some(target), None) => format!("{}-", target.replace("-unknown-", "-")).into(),
        };
        Binutils { prefix }
    }

    /// `ld`, `ar`, `nm`, `objcopy`.
    pub fn tool(&self, name: &str) -> Command {
        let mut program = self.prefix.clone();
        program.push(name);
        Command::new(program)
    }
}
