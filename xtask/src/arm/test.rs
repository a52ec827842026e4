//! The tests, built once and run under qemu on each CPU.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::toolchain::{Cpu, RustFrom, TARGET, Toolchain};
use super::{loops, newer_cpu};
use crate::Result;
use crate::tools::{does_not_start, output_of};

#[derive(clap::Args)]
pub struct Arguments {
    /// A CPU to run on; may be repeated [default: all].
    #[arg(long = "cpu", value_name = "NAME")]
    cpus: Vec<Cpu>,
    /// Run the golden cases and the bare command on each CPU, on the newest the kernels' tests, the recorded answers and those that compare
    /// the ways to compute, and no others.
    #[arg(long, conflicts_with = "cargo_arguments")]
    quick: bool,
    /// Where Rust's standard library for the target is from [default: rustup, or Debian where that has none].
    #[arg(long, value_name = "NAME")]
    toolchain: Option<RustFrom>,
    /// What `cargo test` is told beside, in place of all packages: --package lxmert --test golden.
    #[arg(last = true)]
    cargo_arguments: Vec<String>,
}

/// The tests that are not run under qemu, by name, and why.
const LEFT_OUT: [(&str, &str); 7] = [
    ("f32_answers_the_test_split_as_pytorch_does", TEST_SPLIT),
    ("q8_0_is_within_0_3_points_on_the_test_split", TEST_SPLIT),
    ("four_bits_answer_most_of_the_test_split", TEST_SPLIT),
    ("the_base_model_answers_within_its_budgets", PEAK),
    ("all_but_weights_and_scratch_is_little", PEAK),
    ("stays_small_for_a_large_tensor", PEAK),
    ("a_killed_run_leaves_a_whole_file_or_none", "fifty processes are killed, and it is qemu that dies"),
];
const TEST_SPLIT: &str = "9673 questions, of which the tests of single answers see some";
const PEAK: &str = "the kernel counts qemu and the code that it makes with the process";

/// What `--quick` runs on each CPU, with the kernels that are chosen there.
const QUICK: &[&str] = &["--package", "lxmert", "--test", "golden"];

/// What `--quick` runs on the CPU that has every instruction set: all of them there, one against the other and against the answers of
/// other machines. A CPU that has fewer would run the same ones once more.
const QUICK_SETS: [&[&str]; 2] = [
    &["--package", "lxmert", "--test", "lowerings", "--test", "same_answers"],
    &["--package", "lxmert", "--lib", "kernels"],
];

/// Every package but this one, whose tests build and install for the machine that they run on.
const ALL: [&str; 3] = ["--workspace", "--exclude", "xtask"];

pub fn test(arguments: &Arguments) -> Result<()> {
    let toolchain = Toolchain::set_up(arguments.toolchain)?;
    let cpus = if arguments.cpus.is_empty() { &Cpu::ALL[..] } else { &arguments.cpus };
    let given: Vec<&str> = arguments.cargo_arguments.iter().map(String::as_str).collect();
    let runs = |cpu: Cpu| -> Vec<&[&str]> {
        match (arguments.quick, given.as_slice()) {
            // The long ones first: the others end beside them.
            (true, _) if cpu == Cpu::Max => [&QUICK_SETS[..], &[QUICK]].concat(),
            (true, _) => vec![QUICK],
            (false, []) => vec![&ALL],
            (false, given) => vec![given],
        }
    };
    let whole = !arguments.quick && given.is_empty();

    say(&format!("building for {TARGET}"));
    let different: BTreeSet<&[&str]> = cpus.iter().flat_map(|cpu| runs(*cpu)).collect();
    let listed = different.into_iter().map(|run| list(&toolchain, run)).collect::<Result<Vec<_>>>()?;
    if whole {
        explain_what_is_left_out(&listed.concat())?;
    }
    // Many tests are alone in their program for minutes, so one CPU after the other would leave cores idle.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (cores / cpus.len()).max(1);
    let done = std::thread::scope(|scope| {
        let run_on = |cpu: &Cpu| {
            let (cpu, toolchain, runs) = (*cpu, &toolchain, runs(*cpu));
            scope.spawn(move || {
                let mut outcome = Outcome::new(cpu);
                runs.into_iter().try_for_each(|run| outcome.add(toolchain, run, threads))?;
                if arguments.quick || whole {
                    outcome.add_bare_command(toolchain);
                }
                outcome.time = outcome.started.elapsed();
                Ok(outcome)
            })
        };
        let started: Vec<_> = cpus.iter().map(run_on).collect();
        started.into_iter().map(|cpu| cpu.join().expect("it does not panic")).collect::<Result<Vec<_>>>()
    })?;
    let mut others: Vec<(&str, Result<()>)> = Vec::new();
    if whole {
        say("programs for newer CPUs");
        others.push(("programs for newer CPUs", newer_cpu::check(&toolchain)));
    }
    if arguments.quick || whole {
        say("inner loops");
        others.push(("inner loops", loops::check(&toolchain)));
    }

    say("summary");
    done.iter().for_each(Outcome::print);
    for (name, outcome) in others {
        outcome.map_err(|error| format!("{name}: {error}"))?;
    }
    if done.iter().any(|outcome| !outcome.failures.is_empty()) {
        return Err("tests failed under qemu".to_owned());
    }
    Ok(())
}

fn say(what: &str) {
    println!("\n== arm: {what}");
}

/// A `cargo test` with further options for the tests themselves.
fn cargo_test(toolchain: &Toolchain, cpu: Cpu, run: &[&str], options: &[&str]) -> Command {
    let mut cargo = toolchain.cargo(cpu);
    cargo.args(["test", "--release", "--target", TARGET, "--no-fail-fast"]).args(run);
    if !run.contains(&"--") {
        cargo.arg("--");
    }
    cargo.args(options);
    cargo
}

/// Builds the tests, and returns their names.
fn list(toolchain: &Toolchain, run: &[&str]) -> Result<Vec<String>> {
    // The first CPU has the fewest instructions: what is built runs there or nowhere.
    let mut cargo = cargo_test(toolchain, Cpu::ALL[0], run, &["--list", "--format", "terse"]);
    let lines = output_of(cargo.stderr(Stdio::inherit()))?;
    Ok(lines.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Prints the tests that are not run. A name that no test has is an error: it would hide that the test is run, or is gone.
fn explain_what_is_left_out(names: &[String]) -> Result<()> {
    let names: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    say(&format!("{} of {} tests are left out", LEFT_OUT.len(), names.len()));
    for (name, reason) in LEFT_OUT {
        if !names.contains(name) {
            return Err(format!("{name} is to be left out, but there is no such test"));
        }
        println!("{name}: {reason}");
    }
    println!("all of xtask: its tests build and install for the machine that they run on");
    Ok(())
}

/// What became of the tests on one CPU.
struct Outcome {
    cpu: Cpu,
    passed: u64,
    failures: Vec<String>,
    started: Instant,
    time: Duration,
}

impl Outcome {
    fn new(cpu: Cpu) -> Self {
        Outcome { cpu, passed: 0, failures: Vec::new(), started: Instant::now(), time: Duration::ZERO }
    }

    /// Runs tests, so many at a time, showing what they print.
    fn add(&mut self, toolchain: &Toolchain, run: &[&str], threads: usize) -> Result<()> {
        say(&format!("on {}: cargo test {}", self.cpu.name(), run.join(" ")));
        let skips: Vec<&str> = LEFT_OUT.iter().flat_map(|(name, _)| ["--skip", *name]).collect();
        let mut cargo = cargo_test(toolchain, self.cpu, run, &skips);
        cargo.env("RUST_TEST_THREADS", threads.to_string());
        let mut child =
            cargo.stdout(Stdio::piped()).spawn().map_err(|error| does_not_start(&cargo, &error))?;
        let failures = self.failures.len();
        for line in child.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines()) {
            let line = line.map_err(|error| format!("cargo test printed no text: {error}"))?;
            println!("{:>10}: {line}", self.cpu.name());
            self.read(&line);
        }
        let status = child.wait().map_err(|error| format!("cargo test: {error}"))?;
        if !status.success() && self.failures.len() == failures {
            self.failures.push(format!("cargo test {} ({status})", run.join(" ")));
        }
        Ok(())
    }

    /// Counts a line of a test program.
    fn read(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(name.to_owned());
        }
        // test result: ok. 12 passed; 0 failed; ...
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["test", "result:", _, passed, "passed;", ..] = words[..] {
            self.passed += passed.parse::<u64>().unwrap_or(0);
        }
    }

    /// What a new user runs first.
    fn add_bare_command(&mut self, toolchain: &Toolchain) {
        say(&format!("on {}: cargo run --release", self.cpu.name()));
        let mut cargo = toolchain.cargo(self.cpu);
        match output_of(cargo.args([
            "run",
            "--release",
            "--quiet",
            "--package",
            "lxmert",
            "--target",
            TARGET,
        ])) {
            Ok(answers) => {
                self.passed += 1;
                answers.lines().for_each(|line| println!("{:>10}: {line}", self.cpu.name()));
            }
            Err(error) => self.failures.push(format!("the bare command: {error}")),
        }
    }

    fn print(&self) {
        let (cpu, minutes) = (self.cpu.name(), self.time.as_secs_f64() / 60.0);
        println!("{cpu}: {} passed, {} failed, {minutes:.1} minutes", self.passed, self.failures.len());
        self.failures.iter().for_each(|failure| println!("{cpu}: failed: {failure}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_passed_and_names_what_failed() {
        let mut outcome = Outcome::new(Cpu::Max);
        for line in [
            "test golden::a ... ok",
            "test golden::b ... FAILED",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 2 filtered out; finished in 0.10s",
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
        ] {
            outcome.read(line);
        }
        assert_eq!(outcome.passed, 7);
        assert_eq!(outcome.failures, ["golden::b"]);
    }
}
