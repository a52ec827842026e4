//! What the programs have in common: how they begin and end, how they tell their version, and where they compute.

mod start;

use std::process::ExitCode;
use std::sync::OnceLock;

pub use start::start;

/// The CPUs to compute on.
#[derive(clap::Args, Clone)]
pub struct Cpus {
    /// The CPUs that worker threads may run on, by the system's numbers (Linux, and not with ggml's operations). The main thread
    /// computes too, and stays where the program was started [default: all].
    #[arg(long = "cpus", value_name = "N,…", value_delimiter = ',')]
    pub numbers: Option<Vec<usize>>,
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
