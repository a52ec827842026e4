//! What the operations of a run cost.

use std::error::Error;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use lxmert::{Model, OperationTime};
use serde::Serialize;

use crate::measure::Case;
use crate::work::Work;

/// The mean of some runs of image and question, or of a batch.
#[derive(Serialize)]
pub struct Profile {
    runs: usize,
    /// How long one took.
    run_ms: f64,
    threads: usize,
    /// In the order in which they run.
    operations: Vec<Operation>,
}

/// One operation, or several, in one run.
#[derive(Debug, PartialEq, Serialize)]
struct Operation {
    kind: &'static str,
    /// The tensor that it belongs to.
    name: String,
    /// The time of all threads together.
    ms: f64,
    /// Multiplications of a weight and a number.
    multiplications: u64,
}

impl Profile {
    /// Runs a case in a session of its own, since measuring slows a run down.
    pub fn measure(
        model: &Model,
        case: &Case,
        runs: usize,
        bar: &ProgressBar,
    ) -> Result<Self, Box<dyn Error>> {
        let mut work = Work::profiled(model, case)?;
        let started = Instant::now();
        for _ in 0..runs {
            work.run()?;
            bar.inc(1);
        }
        let run_ms = per_run(started.elapsed(), runs);
        let operations = work.profile().into_iter().map(|times| Operation::of(times, runs)).collect();
        Ok(Profile { runs, run_ms, threads: case.threads, operations })
    }

    /// A table of the operations, summed up by kind and tensor, the most expensive first.
    pub fn table(&self) -> String {
        let groups = groups(&self.operations);
        let total: f64 = groups.iter().map(|group| group.ms).sum();
        let percent = |ms: f64, of: f64| 100.0 * ms / of;
        let threads_ms = self.run_ms * self.threads as f64;
        let mut table = format!(
            "{} runs of {:.2} ms, of which the threads worked {:.1} %; ms of all threads together, GMAC/s of one\n\n",
            self.runs,
            self.run_ms,
            percent(total, threads_ms)
        );
        table += &row("operation", "ms", "share", "GMAC/s");
        for Operation { kind, name, ms, multiplications } in &groups {
            let rate = match multiplications {
                0 => String::new(),
                count => format!("{:.1}", *count as f64 / ms / 1e6),
            };
            let share = format!("{:.1} %", percent(*ms, total));
            table += &row(&format!("{kind} {name}"), &format!("{ms:.3}"), &share, &rate);
        }
        table + &row("all", &format!("{total:.3}"), "", "")
    }
}

impl Operation {
    fn of(times: OperationTime, runs: usize) -> Self {
        Operation {
            kind: times.kind,
            name: times.name,
            ms: per_run(times.time, runs),
            multiplications: times.multiplications / runs as u64,
        }
    }
}

fn per_run(time: Duration, runs: usize) -> f64 {
    time.as_secs_f64() * 1e3 / runs as f64
}

fn row(operation: &str, ms: &str, share: &str, rate: &str) -> String {
    let line = format!("{operation:44}  {ms:>9}  {share:>7}  {rate:>7}");
    line.trim_end().to_owned() + "\n"
}

/// Sums of the operations of the same kind on the same tensor of every layer.
fn groups(operations: &[Operation]) -> Vec<Operation> {
    let mut groups: Vec<Operation> = Vec::new();
    for Operation { kind, name, ms, multiplications } in operations {
        let role = role(name);
        let known = groups.iter().position(|group| group.kind == *kind && group.name == role);
        let group = known.unwrap_or_else(|| {
            groups.push(Operation { kind, name: role, ms: 0.0, multiplications: 0 });
            groups.len() - 1
        });
        groups[group].ms += ms;
        groups[group].multiplications += multiplications;
    }
    groups.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    groups
}

/// A tensor's name without its layer: `blk.*.attn_qkv` for `blk.0.attn_qkv.weight`.
fn role(name: &str) -> String {
    let mut parts: Vec<&str> = name.split('.').collect();
    parts.pop_if(|last| *last == "weight");
    if let Some(layer) = parts.iter().position(|part| *part == "blk") {
        parts.iter_mut().skip(layer + 1).take(1).for_each(|number| *number = "*");
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_up_over_layers_but_not_over_kinds_or_encoders() {
        let operation = |kind, name: &str, ms, multiplications| Operation {
            kind,
            name: name.to_owned(),
            ms,
            multiplications,
        };
        let operations = [
            operation("prepare", "v.blk.0.attn_qkv.weight", 0.5, 0),
            operation("product", "v.blk.0.attn_qkv.weight", 1.0, 10),
            operation("product", "blk.0.attn_qkv.weight", 2.0, 20),
            operation("product", "blk.10.attn_qkv.weight", 4.0, 40),
            operation("product", "cls.answer.1.weight", 3.0, 30),
        ];
        let expected = [
            operation("product", "blk.*.attn_qkv", 6.0, 60),
            operation("product", "cls.answer.1", 3.0, 30),
            operation("product", "v.blk.*.attn_qkv", 1.0, 10),
            operation("prepare", "v.blk.*.attn_qkv", 0.5, 0),
        ];
        assert_eq!(groups(&operations), expected);
    }
}
