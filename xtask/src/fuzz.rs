//! Fuzzing: random bytes through every door of `fuzz/doors`, with the sanitizers watching Rust and ggml.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::tools::{host, is_there, output_of, rustc, succeed, target_directory};
use crate::{Result, root};

/// Longer inputs only take longer; the specimens that need more are replayed by the ordinary tests.
const MAX_BYTES: usize = 128 << 10;

/// After so many seconds an input counts as one that never ends. Sanitizers slow everything down many times.
const TIMEOUT: usize = 20;

/// Megabytes that a door may take: a picture of the largest size that is decoded takes 512, and the sanitizer's own on top.
const MEMORY: usize = 3072;

#[derive(clap::Args)]
pub struct Arguments {
    /// The doors; all of them by default.
    doors: Vec<String>,
    /// How long each door is tried.
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// How many doors are tried at a time.
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Only build the targets.
    #[arg(long)]
    build: bool,
}

pub fn fuzz(arguments: &Arguments) -> Result<()> {
    let known = doors()?;
    if let Some(unknown) = arguments.doors.iter().find(|door| !known.contains(door)) {
        return Err(format!("no door is called {unknown:?}; there are {}", known.join(", ")));
    }
    let target = target_directory()?.join("fuzz");
    build(&target)?;
    if arguments.build {
        return Ok(());
    }
    let doors = if arguments.doors.is_empty() { &known } else { &arguments.doors };
    let programs = target.join(host()?).join("release");
    let queue = Mutex::new(doors.iter());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..arguments.jobs.clamp(1, doors.len()) {
            scope.spawn(|| {
                while let Some(door) = next() {
                    let outcome = enter(door, &programs, &target, arguments.seconds);
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let findings: usize = outcomes.into_iter().sum::<Result<usize>>()?;
    if findings == 0 { Ok(()) } else { Err(format!("{findings} findings")) }
}

/// The doors that have a target.
fn doors() -> Result<Vec<String>> {
    let folder = root().join("fuzz/targets");
    let mut doors: Vec<_> =
        files(&folder)?.iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    doors.sort();
    Ok(doors)
}

fn build(target: &Path) -> Result<()> {
    if !is_there("cargo-fuzz") {
        return Err("cargo-fuzz is not installed: cargo install cargo-fuzz".to_owned());
    }
    let mut build = Command::new("cargo-fuzz");
    build.current_dir(root()).args(["fuzz", "build", "--fuzz-dir", "fuzz"]);
    build.env("CARGO_TARGET_DIR", target);
    // Rust's sanitizers are not in its stable part, and a stable compiler has them all the same.
    if !output_of(rustc().arg("-V"))?.contains("nightly") {
        build.env("RUSTC_BOOTSTRAP", "1");
    }
    // GCC's instrumentation wants a runtime of its own, beside which Rust's cannot be linked; clang's wants the same as Rust's, and
    // none is linked with a static library.
    let (c, cpp) = clang()?;
    build.env("CC", c).env("CXX", cpp).env("LXMERT_SANITIZE", "address,undefined,fuzzer-no-link");
    succeed(&mut build)
}

/// clang's names for C and C++, the plain ones or those with a version.
fn clang() -> Result<(String, String)> {
    let suffixes = std::iter::once(String::new()).chain((14..30).rev().map(|version| format!("-{version}")));
    let mut names = suffixes.map(|suffix| (format!("clang{suffix}"), format!("clang++{suffix}")));
    names.find(|(c, cpp)| is_there(c) && is_there(cpp)).ok_or_else(|| {
        "clang is not installed (Debian: apt-get install clang): ggml is compiled with it".to_owned()
    })
}

/// Tries a door and tells of it in one line. Returns the number of findings.
fn enter(door: &str, programs: &Path, target: &Path, seconds: u32) -> Result<usize> {
    let (corpus, found) = (target.join("corpus").join(door), target.join("findings").join(door));
    for folder in [&corpus, &found] {
        fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    let before = files(&found)?;
    let log = target.join(format!("{door}.log"));
    let output = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
    let mut program = Command::new(programs.join(door));
    program
        .arg(&corpus)
        .arg(root().join("fuzz/corpus").join(door))
        .arg(format!("-artifact_prefix={}/", found.display()))
        .args([format!("-max_total_time={seconds}"), format!("-max_len={MAX_BYTES}")])
        .args([format!("-timeout={TIMEOUT}"), format!("-rss_limit_mb={MEMORY}")])
        .args(["-print_final_stats=1", "-detect_leaks=0"])
        // Leaks are for tests of their own: thread-locals of the standard library's threads are taken for some here.
        .env("ASAN_OPTIONS", "detect_leaks=0:allocator_may_return_null=1")
        .stderr(output);
    let status = program.status().map_err(|error| crate::tools::does_not_start(&program, &error))?;
    let text = String::from_utf8_lossy(&fs::read(&log).unwrap_or_default()).into_owned();
    let new: Vec<PathBuf> = files(&found)?.into_iter().filter(|path| !before.contains(path)).collect();
    let (executions, coverage) = (executions(&text), coverage(&text));
    println!("{door}: {executions} executions, coverage {coverage}, {} findings", new.len());
    for path in &new {
        println!("  {}", path.display());
    }
    if !status.success() && new.is_empty() {
        return Err(format!("{door} failed ({status}): see {}", log.display()));
    }
    if !new.is_empty() {
        let words = text.lines().find(|line| line.contains("panicked at") || line.contains("ERROR: "));
        println!("  {} (all of it: {})", words.unwrap_or("no panic"), log.display());
        println!("  mend it, and commit the smallest such file as fuzz/corpus/{door}/found-WHAT");
    }
    Ok(new.len())
}

/// What libFuzzer counts at the end, or, where it did not come to that, in its last line.
fn executions(log: &str) -> u64 {
    let last = log.lines().rev();
    let total = last.clone().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    let number = total.or_else(|| last.clone().find_map(|line| line.strip_prefix('#')));
    number.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The places in the code that were reached.
fn coverage(log: &str) -> u64 {
    let number = log.lines().rev().find_map(|line| line.split_once(" cov: "));
    number.and_then(|(_, rest)| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_libfuzzer_prints() {
        let log = "INFO: Seed: 1\n#2\tINITED cov: 11 ft: 12 corp: 1/1b exec/s: 0 rss: 30Mb\n\
                   #4096\tpulse  cov: 345 ft: 400 corp: 9/1Kb lim: 4 exec/s: 2048 rss: 31Mb\n";
        assert_eq!((executions(log), coverage(log)), (4096, 345));
        let ended = format!("{log}stat::number_of_executed_units: 5000\n");
        assert_eq!((executions(&ended), coverage(&ended)), (5000, 345));
        assert_eq!((executions(""), coverage("")), (0, 0));
    }

    #[test]
    fn every_target_is_a_door_of_the_corpus() {
        let mut corpus: Vec<_> = files(&root().join("fuzz/corpus"))
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        corpus.sort();
        assert_eq!(doors().unwrap(), corpus);
    }
}
