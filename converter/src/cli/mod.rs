//! The program's commands, one file each, and what they share.

pub mod convert;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// Prints a result, all at once.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever was reading has gone.
        Err(_) => ExitCode::FAILURE,
    }
}

/// One line of JSON.
fn json(value: &impl serde::Serialize) -> String {
    let text = serde_json::to_string(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    text + "\n"
}

/// Longer lists are only counted from here on.
const MAX_DETAILS: usize = 50;

/// Says what went wrong in one line, and below it the details, if there are any.
fn complain(error: &dyn Display, details: &[String]) {
    let mut text = format!("error: {error}\n");
    for detail in details.iter().take(MAX_DETAILS) {
        text += &format!("  {detail}\n");
    }
    if details.len() > MAX_DETAILS {
        text += &format!("  … and {} more\n", details.len() - MAX_DETAILS);
    }
    // There is nobody left to tell if standard error is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
