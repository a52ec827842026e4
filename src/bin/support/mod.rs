//! What the programs have in common: how they begin and end, how they tell their version, and where they compute.

use std::process::ExitCode;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// The CPUs to compute on.
#[derive(clap::Args, Clone)]
pub struct Cpus {
    /// The CPUs that worker threads may run on, by the system's numbers (Linux, and not with ggml's operations). The main thread
    /// computes too, and stays where the program was started [default: all].
    #[arg(long = "cpus", value_name = "N,…", value_delimiter = ',')]
    pub numbers: Option<Vec<usize>>,
}

/// What a program does first: warnings of the library's are shown from here on.
pub fn begin() {
    lxmert::reserve::begin();
    // There is no other logger in the program.
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
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

/// Ends the program: 0, or 1 after one line that says what went wrong.
pub fn finish(result: Result<(), Box<dyn std::error::Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if is_closed_pipe(error.as_ref()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the reader of our output has gone, as `head` does, which is no failure of ours.
fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Version, build, and what ggml's code was compiled for.
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let features = match lxmert::ggml::cpu_features().join(" ") {
            none if none.is_empty() => "none beyond the architecture's".to_owned(),
            some => some,
        };
        format!("{}\nggml: {}\ncpu: {features}", lxmert::BUILD, lxmert::ggml::version())
    })
}
