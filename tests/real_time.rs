//! What a session's runs take from the system, once the first ones are over: nothing.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::shared_library;
use tempfile::TempDir;

/// Compiles the program that counts.
fn program(directory: &Path) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = shared_library::build();
    let folder = library.parent().unwrap();
    // Under the name that it asks for when it is loaded.
    std::fs::copy(&library, directory.join(shared_library::SONAME)).unwrap();
    let program = directory.join("real_time");
    let status = Command::new("cc")
        .args(["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"])
        .arg("-I")
        .arg(root.join("include"))
        .arg(root.join("tests/real_time/real_time.c"))
        .arg("-o")
        .arg(&program)
        .arg("-L")
        .arg(folder)
        .arg("-l:liblxmert.so")
        .status()
        .unwrap();
    assert!(status.success());
    program
}

/// Runs it, and returns its counts by name.
fn counts(program: &Path, arguments: &[&str]) -> BTreeMap<String, i64> {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/easy-vqa/easy-vqa-q8_0.gguf");
    let output = Command::new(program)
        .env("LD_LIBRARY_PATH", program.parent().unwrap())
        .arg(model)
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let count = |line: &str| {
        let (name, number) = line.split_once(' ').unwrap();
        (name.to_owned(), number.parse().unwrap())
    };
    text.lines().map(count).collect()
}

#[test]
fn ten_thousand_runs_take_nothing_from_the_system() {
    if shared_library::computes_with_ggml() {
        println!("skipped: ggml allocates in every run, and this CPU has no kernels of the project's own");
        return;
    }
    let directory = TempDir::new().unwrap();
    let program = program(directory.path());
    for (runs, threads, locked, residency) in [
        ("10000", "1", "unlocked", "resident"),
        ("1000", "2", "locked", "resident"),
        ("1000", "2", "unlocked", "streamed"),
    ] {
        let mut counts = counts(&program, &[runs, threads, locked, residency]);
        let control = counts.remove("control").unwrap();
        assert!(control > 0, "the counter is blind");
        let read = counts.remove("bytes_read").unwrap();
        // Streamed weights are what is read.
        assert_eq!(read == 0, residency == "resident", "{read} bytes were read");
        // Code that is reached for the first time, or memory that the kernel has moved, may be found again once in a thousand runs.
        // What grew would be missing in each of them.
        let faults = counts.remove("minor_faults").unwrap();
        let number: i64 = runs.parse().unwrap();
        assert!(faults <= number / 1000, "{faults} page faults in {runs} runs");
        assert_eq!(counts.len(), 4);
        let taken = counts.values().any(|count| *count != 0);
        assert!(!taken, "{runs} runs on {threads} threads, {locked}, {residency}: {counts:?}");
    }
}
