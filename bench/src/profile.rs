//! What the operations of a run cost.

use std::error::Error;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use lxmert::{Device, Model, OperationTime};
use serde::Serialize;

use crate::measure::Case;
use crate::work::Work;

/// The mean of some runs of image and question, or of a batch.
#[derive(Serialize)]
pub struct Profile {
    runs: usize,
    /// How long one took.
    run_ms: f64,
    /// Of the CPU; the device counts as one.
    threads: usize,
    /// Where they are computed, unless it says otherwise.
    device: String,
    /// How many there are, each at least one launch on a device that starts them one by one.
    count: usize,
    /// How many of them the device lacks, which are computed on the CPU.
    on_cpu: usize,
    /// In the order in which they run.
    operations: Vec<Operation>,
}

/// One operation, or several, in one run.
#[derive(Debug, PartialEq, Serialize)]
struct Operation {
    kind: &'static str,
    /// The tensor that it belongs to.
    name: String,
    /// Where it is computed.
    device: String,
    /// How many of them there are.
    count: usize,
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
        let device = work.plan().device;
        let operations: Vec<_> = work.profile().into_iter().map(|times| Operation::of(times, runs)).collect();
        let cpu = Device::Cpu.to_string();
        let on_cpu = operations.iter().filter(|operation| device != Device::Cpu && operation.device == cpu);
        Ok(Profile {
            runs,
            run_ms,
            threads: if device == Device::Cpu { case.threads } else { 1 },
            device: device.to_string(),
            count: operations.len(),
            on_cpu: on_cpu.count(),
            operations,
        })
    }

    /// A table of the operations, summed up by kind and tensor, the most expensive first.
    pub fn table(&self) -> String {
        let groups = groups(&self.operations);
        let total: f64 = groups.iter().map(|group| group.ms).sum();
        let percent = |ms: f64, of: f64| 100.0 * ms / of;
        let mut table = if self.is_of_cpu() {
            let worked = percent(total, self.run_ms * self.threads as f64);
            format!(
                "{} runs of {:.2} ms, of which the threads worked {worked:.1} %; ms of all threads together, GMAC/s of one\n\n",
                self.runs, self.run_ms
            )
        } else {
            format!(
                "{} runs of {:.2} ms, one operation at a time; {} operations in one, {} of them on the CPU\n\n",
                self.runs, self.run_ms, self.count, self.on_cpu
            )
        };
        table += &row("operation", "count", "ms", "share", "GMAC/s");
        for Operation { kind, name, device, count, ms, multiplications } in &groups {
            let rate = match multiplications {
                0 => String::new(),
                count => format!("{:.1}", *count as f64 / ms / 1e6),
            };
            let share = format!("{:.1} %", percent(*ms, total));
            let place = if *device == self.device { String::new() } else { format!(" on {device}") };
            let ms = format!("{ms:.3}");
            table += &row(&format!("{kind} {name}{place}"), &count.to_string(), &ms, &share, &rate);
        }
        table + &row("all", &self.count.to_string(), &format!("{total:.3}"), "", "")
    }

    fn is_of_cpu(&self) -> bool {
        self.device == Device::Cpu.to_string()
    }
}

impl Operation {
    fn of(times: OperationTime, runs: usize) -> Self {
        Operation {
            kind: times.kind,
            name: times.name,
            device: times.device.to_string(),
            count: 1,
            ms: per_run(times.time, runs),
            multiplications: times.multiplications / runs as u64,
        }
    }
}

fn per_run(time: Duration, runs: usize) -> f64 {
    time.as_secs_f64() * 1e3 / runs as f64
}

fn row(operation: &str, count: &str, ms: &str, share: &str, rate: &str) -> String {
    let line = format!("{operation:44}  {count:>5}  {ms:>9}  {share:>7}  {rate:>7}");
    line.trim_end().to_owned() + "\n"
}

/// Sums of the operations of the same kind on the same tensor of every layer, where they are computed alike.
fn groups(operations: &[Operation]) -> Vec<Operation> {
    let mut groups: Vec<Operation> = Vec::new();
    for Operation { kind, name, device, count, ms, multiplications } in operations {
        let role = role(name);
        let is_same = |group: &Operation| (group.kind, &group.name, &group.device) == (*kind, &role, device);
        let known = groups.iter().position(is_same);
        let group = known.unwrap_or_else(|| {
            let device = device.clone();
            groups.push(Operation { kind, name: role, device, count: 0, ms: 0.0, multiplications: 0 });
            groups.len() - 1
        });
        groups[group].count += count;
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
    fn sums_up_over_layers_but_not_over_kinds_encoders_or_devices() {
        let operation = |kind, name: &str, count, ms, multiplications| Operation {
            kind,
            name: name.to_owned(),
            device: "cpu".to_owned(),
            count,
            ms,
            multiplications,
        };
        let elsewhere = |operation| Operation { device: "cuda:0".to_owned(), ..operation };
        let operations = [
            operation("prepare", "v.blk.0.attn_qkv.weight", 1, 0.5, 0),
            operation("product", "v.blk.0.attn_qkv.weight", 1, 1.0, 10),
            operation("product", "blk.0.attn_qkv.weight", 1, 2.0, 20),
            operation("product", "blk.10.attn_qkv.weight", 1, 4.0, 40),
            elsewhere(operation("product", "blk.11.attn_qkv.weight", 1, 0.25, 40)),
            operation("product", "cls.answer.1.weight", 1, 3.0, 30),
        ];
        let expected = [
            operation("product", "blk.*.attn_qkv", 2, 6.0, 60),
            operation("product", "cls.answer.1", 1, 3.0, 30),
            operation("product", "v.blk.*.attn_qkv", 1, 1.0, 10),
            operation("prepare", "v.blk.*.attn_qkv", 1, 0.5, 0),
            elsewhere(operation("product", "blk.*.attn_qkv", 1, 0.25, 40)),
        ];
        assert_eq!(groups(&operations), expected);
    }
}
