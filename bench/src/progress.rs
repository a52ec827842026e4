//! What a person sees while waiting.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar on standard error, where that is a terminal.
pub fn bar(message: &'static str) -> ProgressBar {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
    if let Ok(style) = ProgressStyle::with_template("{msg:16} {wide_bar} {percent:>3} % {eta:>4}") {
        bar.set_style(style);
    }
    bar.with_message(message)
}
