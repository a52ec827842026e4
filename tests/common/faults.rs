//! Programs to which faults happen: `tests/faults/shim.c` stands between them and the C library.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The shim, compiled for this machine. None, with the reason on standard error, where it cannot stand between: it knows glibc, and the
/// emulator of another machine would get it in the place of the program.
pub fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = SHIM.get_or_init(|| {
        let emulated = format!("LXMERT_RUNNER_{}", std::env::consts::ARCH.to_uppercase());
        if !cfg!(all(target_os = "linux", target_env = "gnu")) || std::env::var_os(emulated).is_some() {
            eprintln!("skipped: faults on purpose need Linux with glibc, and no emulator");
            return None;
        }
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(|root| root.join("tests/faults/shim.c"));
        let source = source.into_iter().find(|source| source.exists()).expect("the shim's source");
        // Other tests may compile it at the same moment.
        let library =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("faults-{}.so", std::process::id()));
        let mut compiler = Command::new(std::env::var_os("CC").unwrap_or("cc".into()));
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source);
        let Ok(output) = compiler.output() else {
            eprintln!("skipped: no C compiler");
            return None;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(library)
    });
    built.as_deref()
}

/// What happens to a program.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing: everything is only counted.
    None,
    /// The k-th request for memory fails.
    MemoryOnce(usize),
    /// The k-th and all later ones do.
    MemoryFrom(usize),
    /// The k-th call of that name goes wrong in that way.
    Files(&'static str, &'static str, usize),
}

/// Runs a program to which something happens.
pub fn run(shim: &Path, command: &mut Command, fault: Fault) -> Output {
    command.env("LD_PRELOAD", shim);
    for variable in ["FAULT_MEMORY", "FAULT_FILES", "RUST_BACKTRACE"] {
        command.env_remove(variable);
    }
    let command = match fault {
        Fault::None => command,
        Fault::MemoryOnce(k) => command.env("FAULT_MEMORY", format!("once {k}")),
        Fault::MemoryFrom(k) => command.env("FAULT_MEMORY", format!("from {k}")),
        Fault::Files(call, kind, k) => command.env("FAULT_FILES", format!("{call} {kind} {k}")),
    };
    command.output().unwrap()
}

/// How often a program that succeeds asks for memory ("memory"), and makes each of the calls.
pub struct Counts(String);

impl Counts {
    pub fn of(shim: &Path, command: &mut Command, directory: &Path) -> Self {
        let report = directory.join(".counts");
        let output = run(shim, command.env("FAULT_REPORT", &report), Fault::None);
        command.env_remove("FAULT_REPORT");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = std::fs::read_to_string(&report).unwrap();
        std::fs::remove_file(report).unwrap();
        Counts(text)
    }

    pub fn get(&self, call: &str) -> usize {
        let line = self.0.lines().find_map(|line| line.strip_prefix(call)?.trim().parse().ok());
        line.unwrap_or_else(|| panic!("{call} in {}", self.0))
    }
}

/// Which of so many requests are refused in turn: about `most`, evenly spread, and those at both ends; or with `LXMERT_EVERY_FAULT=1` all of
/// them, which takes minutes.
pub fn refused(last: usize, most: usize) -> impl Iterator<Item = usize> {
    let most =
        if std::env::var_os("LXMERT_EVERY_FAULT").is_some_and(|value| value == "1") { last } else { most };
    let step = last.div_ceil(most.max(1)).max(1);
    (1..=last).filter(move |k| k % step == 0 || *k < most / 8 || last - *k < most / 8)
}

/// Whether a program ended as it does when memory for a thread is refused, which the standard library and glibc ask for past every
/// allocator: by SIGABRT, after a line that says so.
pub fn ended_for_a_thread(output: &Output) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    // Two threads may end it at once, and write into each other's lines.
    let is_told = text.contains("memory allocation of ") || text.contains("Fatal glibc error: ");
    // A larger block than a thread's own ones is the program's, and has to come from the reserve.
    let sizes = text
        .split("memory allocation of ")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    is_told
        && sizes.max().unwrap_or(0) <= 4096
        && std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(6)
}

/// Demands what every fault has to end in: success, or exit status 1 and one line. Returns the line.
pub fn success_or_one_line(output: &Output, what: &dyn std::fmt::Debug) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    match output.status.code() {
        Some(0) => None,
        Some(1) if text.starts_with("error: ") && text.lines().count() == 1 => Some(text),
        _ => panic!("{what:?}: {:?}: {text}", output.status),
    }
}
