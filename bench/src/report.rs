//! What is printed: a table, or JSON with every timing.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};

use lxmert::{Device, Model};
use serde::Serialize;

use crate::measure::{Case, Repeats, Results};
use crate::profile::Profile;
use crate::source::Source;
use crate::stats::{Summary, milliseconds};
use crate::work::Input;

/// The results of one case, with all that they depend on.
#[derive(Serialize)]
pub struct Report {
    build: &'static str,
    ggml: &'static str,
    cpu_features: Vec<&'static str>,
    model: ModelFacts,
    /// The file of the inputs; `None` if they are made up.
    inputs: Option<PathBuf>,
    batch: usize,
    tokens: usize,
    regions: usize,
    device: String,
    /// What the device's driver calls it, if it is not the CPU.
    device_name: Option<String>,
    lowering: String,
    threads: usize,
    cpus: Option<Vec<usize>>,
    runs: usize,
    warmup: usize,
    latency_ms: Vec<f64>,
    latency: Option<Summary>,
    pairs_per_second: Option<f64>,
    next_question_ms: Option<Vec<f64>>,
    next_question: Option<Summary>,
    cold_start_ms: Vec<f64>,
    cold_start: Option<Summary>,
    /// The largest of the cold starts.
    peak_memory_bytes: Option<u64>,
    /// What the session takes of it for its tensors.
    scratch_bytes: usize,
    /// In the memory of the device that computes, if it is not the CPU: weights, scratch and the encoded image.
    device_bytes: usize,
    /// The same as the driver counts it, from before the session was made until it had answered.
    device_taken_bytes: Option<usize>,
    /// What the model takes of it for matrices that were packed when it was loaded.
    packed_bytes: usize,
    profile: Option<Profile>,
}

#[derive(Serialize)]
struct ModelFacts {
    file: Option<PathBuf>,
    synthetic: Option<String>,
    r#type: Option<&'static str>,
    name: Option<String>,
    parameters: u64,
    file_bytes: usize,
    head: &'static str,
    hidden_size: usize,
    l_layers: usize,
    r_layers: usize,
    x_layers: usize,
}

impl Report {
    pub fn new(model: &Model, source: &Source, case: &Case, repeats: Repeats, results: Results) -> Self {
        let latency_ms = milliseconds(&results.latency);
        let latency = Summary::of(&latency_ms);
        let next_question_ms = results.next_question.as_deref().map(milliseconds);
        let cold: Vec<_> = results.cold_starts.iter().map(|start| start.time).collect();
        let cold_start_ms = milliseconds(&cold);
        Report {
            build: lxmert::BUILD,
            ggml: lxmert::ggml::version(),
            cpu_features: lxmert::ggml::cpu_features(),
            model: ModelFacts::new(model, source),
            inputs: match &case.input {
                Input::File(path) => Some(path.clone()),
                Input::MadeUp(_) => None,
            },
            batch: results.sizes.batch,
            tokens: results.sizes.tokens,
            regions: results.sizes.regions,
            device: results.device.to_string(),
            device_name: name_of(results.device),
            lowering: results.lowering.to_string(),
            threads: case.threads,
            cpus: case.cpus.clone(),
            runs: repeats.runs,
            warmup: repeats.warmup,
            pairs_per_second: latency.map(|latency| results.sizes.batch as f64 / latency.mean_ms * 1e3),
            latency_ms,
            latency,
            next_question: next_question_ms.as_deref().and_then(Summary::of),
            next_question_ms,
            cold_start: Summary::of(&cold_start_ms),
            cold_start_ms,
            peak_memory_bytes: results.cold_starts.iter().filter_map(|start| start.peak_bytes).max(),
            scratch_bytes: results.scratch_bytes,
            device_bytes: results.device_bytes,
            device_taken_bytes: results.device_taken_bytes,
            packed_bytes: results.packed_bytes,
            profile: results.profile,
        }
    }

    /// What all rows of a table have in common.
    fn head(&self) -> String {
        let inputs = self.inputs.as_deref().map_or("made up".into(), Path::to_string_lossy);
        format!(
            "model: {}\ninput: {} tokens, {} regions, {inputs}\nbuild: {}\ncomputed on: {}\n{} runs after {} to warm up, {} cold starts; times in ms\n\n{}",
            self.model.describe(),
            self.tokens,
            self.regions,
            self.build,
            self.device,
            self.runs,
            self.warmup,
            self.cold_start_ms.len(),
            row([
                "lowering",
                "threads",
                "batch",
                "measured",
                "mean",
                "p50",
                "p90",
                "p99",
                "max",
                "pairs/s",
                "peak memory"
            ]),
        )
    }

    fn rows(&self) -> String {
        let whole = if self.next_question.is_some() { "first question" } else { "batch" };
        let pairs = self.pairs_per_second.map(|pairs| format!("{pairs:.1}"));
        let next = self.next_question.map(|next| format!("{:.1}", 1e3 / next.mean_ms));
        let memory = match self.peak_memory_bytes {
            Some(bytes) => format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
            None => "not measured".to_owned(),
        };
        let lines = [
            (whole, self.latency, pairs, None),
            ("next question", self.next_question, next, None),
            ("cold start", self.cold_start, None, Some(memory)),
        ];
        let mut rows = String::new();
        for (measured, summary, pairs, memory) in lines {
            let Some(summary) = summary else { continue };
            let ms = |value: f64| format!("{value:.2}");
            rows += &row([
                &self.lowering,
                &self.threads.to_string(),
                &self.batch.to_string(),
                measured,
                &ms(summary.mean_ms),
                &ms(summary.p50_ms),
                &ms(summary.p90_ms),
                &ms(summary.p99_ms),
                &ms(summary.max_ms),
                pairs.as_deref().unwrap_or(""),
                memory.as_deref().unwrap_or(""),
            ]);
        }
        rows
    }

    fn profile(&self) -> String {
        let Report { lowering, threads, batch, .. } = self;
        let profile = match &self.profile {
            Some(profile) => profile.table(),
            None => "ggml's operations on the CPU are not measured one by one\n".to_owned(),
        };
        format!("\nprofile of {lowering}, threads {threads}, batch {batch}: {profile}")
    }
}

fn row([lowering, threads, batch, measured, mean, p50, p90, p99, max, pairs, memory]: [&str; 11]) -> String {
    let line = format!(
        "{lowering:10}  {threads:>7}  {batch:>5}  {measured:14}  {mean:>8}  {p50:>8}  {p90:>8}  {p99:>8}  {max:>8}  {pairs:>7}  {memory:>12}"
    );
    line.trim_end().to_owned() + "\n"
}

impl ModelFacts {
    fn new(model: &Model, source: &Source) -> Self {
        let (file, synthetic, r#type) = match source {
            Source::File(path) => (Some(path.clone()), None, None),
            Source::Synthetic { name, file_type, .. } => (None, Some(name.clone()), Some(file_type.name())),
        };
        let config = model.config();
        ModelFacts {
            file,
            synthetic,
            r#type,
            name: model.name().map(str::to_owned),
            parameters: model.parameters(),
            file_bytes: model.file_bytes(),
            head: config.head.name(),
            hidden_size: config.hidden_size,
            l_layers: config.l_layers,
            r_layers: config.r_layers,
            x_layers: config.x_layers,
        }
    }

    fn describe(&self) -> String {
        let what = match (&self.file, &self.synthetic, self.r#type) {
            (Some(path), ..) => path.display().to_string(),
            (_, Some(name), Some(file_type)) => format!("{name}, random weights, {file_type}"),
            _ => String::new(),
        };
        let (parameters, bytes) = (self.parameters as f64 / 1e6, self.file_bytes as f64 / 1e6);
        format!("{what} ({parameters:.1} M parameters, {bytes:.1} MB)")
    }
}

/// Prints reports as they come, and tables of profiles after all of them.
pub struct Printer {
    json: bool,
    profile: bool,
    printed: Vec<Report>,
}

impl Printer {
    pub fn new(json: bool, profile: bool) -> Self {
        Printer { json, profile, printed: Vec::new() }
    }

    pub fn print(&mut self, report: Report) -> Result<(), Box<dyn Error>> {
        let text = match (self.json, self.printed.is_empty()) {
            (true, _) => serde_json::to_string(&report)? + "\n",
            (false, true) => report.head() + &report.rows(),
            (false, false) => report.rows(),
        };
        self.printed.push(report);
        write(&text)
    }

    pub fn finish(self) -> Result<(), Box<dyn Error>> {
        if self.json || !self.profile {
            return Ok(());
        }
        let profiles: String = self.printed.iter().map(Report::profile).collect();
        write(&profiles)
    }
}

fn name_of(device: Device) -> Option<String> {
    // Who computes on the CPU wakes no driver.
    if device == Device::Cpu {
        return None;
    }
    let found = lxmert::devices().unwrap_or_default();
    found.into_iter().find(|info| info.device == device).map(|info| info.description)
}

fn write(text: &str) -> Result<(), Box<dyn Error>> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}
