//! What every program does around its own work: the library's warnings are shown, and a fault of the program ends it in one line.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Runs a program. Returns its exit code, or 1 after one line that tells of a panic.
pub fn start(program: impl FnOnce() -> ExitCode) -> ExitCode {
    lxmert::reserve::begin();
    // There is no other logger in the program.
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
    set_hook(Box::new(keep));
    catch_unwind(AssertUnwindSafe(program)).unwrap_or_else(|_| {
        let fault = FAULT.lock().unwrap_or_else(PoisonError::into_inner);
        eprintln!("error: a fault of the program, please report it: {}", lxmert::shown(&*fault));
        ExitCode::FAILURE
    })
}

/// Shows warnings and errors of the library, each in one line on standard error.
struct Warnings;

impl Log for Warnings {
    fn enabled(&self, about: &Metadata<'_>) -> bool {
        about.level() <= Level::Warn && about.target().starts_with("lxmert")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("warning: {}", lxmert::shown(record.args()));
        }
    }

    fn flush(&self) {}
}

/// What the last panic said.
static FAULT: Mutex<String> = Mutex::new(String::new());

/// Keeps what a panic says, and shows nothing: some are caught and become errors.
fn keep(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
    let place = panic.location().map(|place| format!(" ({}:{})", place.file(), place.line()));
    *FAULT.lock().unwrap_or_else(PoisonError::into_inner) = format!("{text}{}", place.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_a_program_with_1_and_is_kept_for_its_line() {
        assert_eq!(start(|| ExitCode::from(3)), ExitCode::from(3));
        assert_eq!(start(|| panic!("the {}th wheel\ncame off", 5)), ExitCode::FAILURE);
        let fault = FAULT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(fault.starts_with("the 5th wheel\ncame off (") && fault.contains("start.rs:"), "{fault}");
        assert_eq!(lxmert::shown(&fault).to_string().lines().count(), 1);
    }
}
