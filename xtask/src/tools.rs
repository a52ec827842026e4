//! The programs that a task runs.

use std::ffi::OsString;
use std::path::PathBuf;
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

/// Runs a program whose output the user sees.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|error| does_not_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed ({status})", name(command))) }
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

fn name(command: &Command) -> String {
    PathBuf::from(command.get_program()).display().to_string()
}

fn does_not_start(command: &Command, error: &std::io::Error) -> String {
    format!("{} does not start: {error}", name(command))
}

/// The GNU binutils of one target.
pub struct Binutils {
    prefix: OsString,
}

impl Binutils {
    /// Those of this machine for `None`, or those that `CROSS_COMPILE` is the prefix of; by default Debian's names for the target.
    pub fn of(target: Option<&str>) -> Self {
        let given = std::env::var_os("CROSS_COMPILE").filter(|prefix| !prefix.is_empty());
        let prefix = match (target, given) {
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
