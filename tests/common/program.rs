//! How tests start programs of this project.

use std::process::Command;

/// A program that Cargo built. One for another machine than this is run by what `LXMERT_RUNNER` names: Cargo's own runner starts only
/// the tests.
pub fn program(path: &str) -> Command {
    match std::env::var_os("LXMERT_RUNNER").filter(|runner| !runner.is_empty()) {
        Some(runner) => {
            let mut command = Command::new(runner);
            command.arg(path);
            command
        }
        None => Command::new(path),
    }
}
