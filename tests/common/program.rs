//! How tests start programs of this project.

use std::process::Command;

/// A program that Cargo built. One for another machine than this is run by what `LXMERT_RUNNER_` and its architecture name: Cargo's own
/// runner starts only the tests.
pub fn program(path: &str) -> Command {
    let variable = format!("LXMERT_RUNNER_{}", std::env::consts::ARCH.to_uppercase());
    match std::env::var_os(variable).filter(|runner| !runner.is_empty()) {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(path);
            command
        }
        None => Command::new(path),
    }
}
