//! How much memory a program may take, and what it would take.

use std::fmt::Write;
use std::str::FromStr;
use std::sync::OnceLock;

use lxmert::{Error, MemoryPlan, Model, SessionOptions};

/// Where the weights are, and how much memory all of it may take.
#[derive(clap::Args, Clone)]
pub struct Memory {
    /// The most memory that the program may take, such as 96MiB: weights are then streamed from the file if need be.
    #[arg(long = "memory-budget", value_name = "SIZE")]
    budget: Option<String>,
    /// Where the weights are: in memory of their own (resident), where the file is mapped (mapped), read in every run (streamed), or
    /// wherever it is fastest within the budget (auto).
    #[arg(long, value_name = "NAME", default_value = "auto")]
    residency: String,
    /// Keep all memory from being swapped out or evicted (Linux; see ulimit -l).
    #[arg(long)]
    lock_memory: bool,
    /// Touch all memory at the start, so that no run has to wait for any.
    #[arg(long)]
    prefault: bool,
}

impl Memory {
    /// Sets what was asked for. The budget is what is left of it once the program itself has its part.
    pub fn apply(&self, options: &mut SessionOptions) -> Result<(), Error> {
        options.residency = self.residency.parse()?;
        options.lock_memory = self.lock_memory;
        options.prefault = self.prefault;
        if let Some(budget) = &self.budget {
            let Size(budget) = budget.parse()?;
            options.memory_budget = Some(budget.saturating_sub(program_bytes()));
        }
        Ok(())
    }

    /// The same options, for another process.
    #[allow(dead_code, reason = "not every program starts others")]
    pub fn arguments(&self) -> Vec<String> {
        let budget = self.budget.iter().map(|budget| format!("--memory-budget={budget}"));
        let switches = [("--lock-memory", self.lock_memory), ("--prefault", self.prefault)];
        let switches = switches.into_iter().filter(|(_, set)| *set).map(|(name, _)| name.to_owned());
        budget.chain([format!("--residency={}", self.residency)]).chain(switches).collect()
    }

    /// An error about the budget with the sizes that the user knows, those of the whole program.
    pub fn explain(&self, error: Error) -> Error {
        match (error, self.budget.as_deref().map(Size::from_str)) {
            (Error::Budget { smallest, .. }, Some(Ok(Size(budget)))) => {
                Error::Budget { budget, smallest: smallest + program_bytes() }
            }
            (error, _) => error,
        }
    }
}

/// What the program will take, a line for each part.
#[allow(dead_code, reason = "not every program tells")]
pub fn plan(model: &Model, options: &SessionOptions) -> Result<String, Error> {
    let plan = model.plan(options)?;
    let MemoryPlan {
        device_bytes, weights_mapped, weights_private, session, tokenizer, labels, other, ..
    } = plan;
    let program = program_bytes();
    let parts = [
        ("on the device", device_bytes),
        ("weights, mapped", weights_mapped),
        ("weights, private", weights_private),
        ("session", session),
        ("tokenizer, at most", tokenizer),
        ("answers", labels),
        ("threads and lists", other),
        ("this program", program),
        ("in all", plan.total() + program),
    ];
    let mut text = String::new();
    for (name, what) in [
        ("weights are", plan.residency.to_string()),
        ("computed on", plan.device.to_string()),
        ("computed by", plan.lowering.to_string()),
    ] {
        let _ = writeln!(text, "{name:<20}{what:>10}");
    }
    for (name, bytes) in parts.into_iter().filter(|(name, bytes)| *bytes > 0 || !name.contains("device")) {
        let _ = writeln!(text, "{name:<20}{:>10.1} MiB", bytes as f64 / f64::from(1 << 20));
    }
    Ok(text)
}

/// What the code takes that runs later, and the heap for what is read and written.
const LATER_BYTES: usize = 6 << 20;

/// What a program takes at its start varies by some pages; a budget that was named must do the next time too.
const ROUND_BYTES: usize = 4 << 20;

/// What a small program takes at its start, where the system does not tell.
const USUAL_BYTES: usize = 8 << 20;

/// What this program takes itself, beside a model and its session: told by the first call, which comes before a model is opened.
pub fn program_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes =
            resident.and_then(|value| value.trim().strip_suffix("kB")?.trim().parse::<usize>().ok());
        let start = kibibytes.map_or(USUAL_BYTES, |kibibytes| kibibytes * 1024);
        start.next_multiple_of(ROUND_BYTES) + LATER_BYTES
    })
}

/// A number of bytes as people write it: 96MiB, 100MB, 1.5GiB, 4096.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Size(usize);

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let split = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => Some(1.0),
            "k" | "kib" => Some(1024.0),
            "m" | "mib" => Some(1024.0 * 1024.0),
            "g" | "gib" => Some(1024.0 * 1024.0 * 1024.0),
            "kb" => Some(1e3),
            "mb" => Some(1e6),
            "gb" => Some(1e9),
            _ => None,
        };
        let bytes = number.trim().parse::<f64>().ok().zip(unit).map(|(number, unit)| number * unit);
        match bytes.filter(|bytes| (1.0..=1e15).contains(bytes)) {
            Some(bytes) => Ok(Size(bytes as usize)),
            None => Err(Error::Input {
                name: "memory-budget".to_owned(),
                expected: "a size such as 96MiB".to_owned(),
                found: format!("{text:?}"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes_as_people_write_them() {
        for (text, bytes) in [
            ("4096", 4096),
            ("96MiB", 96 << 20),
            ("96m", 96 << 20),
            ("100 MB", 100_000_000),
            ("1.5GiB", 3 << 29),
        ] {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes), "{text}");
        }
        for text in ["", "MiB", "-1", "0", "96 MiBs", "nan", "1e99"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
    }
}
