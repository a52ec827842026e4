//! Timing one case: warm runs in this process, cold starts in others.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use lxmert::{Device, Lowering, Model};

use crate::cold_start::{self, ColdStart};
use crate::loading::Loading;
use crate::memory::Memory;
use crate::profile::Profile;
use crate::progress::bar;
use crate::work::{Input, Sizes, Work};

/// One thing to measure.
pub struct Case {
    pub device: Device,
    pub lowering: Lowering,
    pub threads: usize,
    /// The CPUs of all threads but the calling one; `None` for all.
    pub cpus: Option<Vec<usize>>,
    pub memory: Memory,
    pub loading: Loading,
    pub input: Input,
}

/// How often.
#[derive(Clone, Copy)]
pub struct Repeats {
    pub runs: usize,
    pub warmup: usize,
    pub cold_starts: usize,
    /// Whether there are as many runs again to profile.
    pub profile: bool,
}

/// What was measured.
pub struct Results {
    /// Where and how the session computed.
    pub device: Device,
    pub lowering: Lowering,
    pub sizes: Sizes,
    /// Image and question, or a batch.
    pub latency: Vec<Duration>,
    /// A question about an image that is encoded already; `None` for a batch.
    pub next_question: Option<Vec<Duration>>,
    pub cold_starts: Vec<ColdStart>,
    /// `None` if nobody wants it, or where operations are not measured.
    pub profile: Option<Profile>,
    pub scratch_bytes: usize,
    /// In the memory of the device, weights included, as planned.
    pub device_bytes: usize,
    /// By how much less of the device's memory is free since the session was made, as its driver counts; what others take or give back
    /// meanwhile counts too. `None` on the CPU, and where a driver does not count.
    pub device_taken_bytes: Option<usize>,
    /// Of packed matrices, beside the file.
    pub packed_bytes: usize,
}

/// Measures a case on the model, which lies in `file`.
pub fn measure(model: &Model, file: &Path, case: &Case, repeats: Repeats) -> Result<Results, Box<dyn Error>> {
    let free_before = free_memory(case.device)?;
    let mut work = Work::new(model, case)?;
    let (device, lowering) = (work.plan().device, work.plan().lowering);
    // On the CPU, ggml's operations are not measured one by one.
    let profiled = repeats.profile && (device != Device::Cpu || lowering != Lowering::Ggml);
    let bar = bar("measuring");
    let loops = if work.has_next() { 2 } else { 1 };
    let runs = repeats.runs.saturating_add(repeats.warmup).saturating_mul(loops);
    let profiled_runs = if profiled { repeats.runs } else { 0 };
    bar.set_length(runs.saturating_add(repeats.cold_starts).saturating_add(profiled_runs) as u64);

    let latency = time(repeats, &bar, || work.run())?;
    let next_question = match work.has_next() {
        true => Some(time(repeats, &bar, || work.run_next())?),
        false => None,
    };
    let (sizes, scratch_bytes, device_bytes) = (work.sizes, work.plan().session, work.plan().device_bytes);
    let free_after = free_memory(device)?;
    // A driver that tells of nothing does not count.
    let taken = |(before, after): (usize, usize)| before.checked_sub(after).filter(|taken| *taken > 0);
    let device_taken_bytes = free_before.zip(free_after).and_then(taken);
    // Its threads must not be in the way of other processes.
    drop(work);
    let profile = match profiled {
        true => Some(Profile::measure(model, case, repeats.runs, &bar)?),
        false => None,
    };
    let mut cold_starts = Vec::new();
    for _ in 0..repeats.cold_starts {
        cold_starts.push(cold_start::measure(file, case)?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let packed_bytes = model.packed_bytes();
    Ok(Results {
        device,
        lowering,
        sizes,
        latency,
        next_question,
        cold_starts,
        profile,
        scratch_bytes,
        device_bytes,
        device_taken_bytes,
        packed_bytes,
    })
}

/// Bytes of a device's memory that nobody uses; `None` for the CPU, whose drivers are not asked for.
fn free_memory(device: Device) -> Result<Option<usize>, Box<dyn Error>> {
    if device == Device::Cpu {
        return Ok(None);
    }
    let all = lxmert::devices()?;
    Ok(all.into_iter().find(|info| info.device == device).map(|info| info.free_memory))
}

fn time(
    repeats: Repeats,
    bar: &ProgressBar,
    mut run: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    for _ in 0..repeats.warmup {
        run()?;
        bar.inc(1);
    }
    let mut durations = Vec::new();
    for _ in 0..repeats.runs {
        let started = Instant::now();
        run()?;
        durations.push(started.elapsed());
        bar.inc(1);
    }
    Ok(durations)
}
