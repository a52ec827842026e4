//! `lxmert-soak`: many sessions of one model at once, for a long time, whose answers must be those of one session alone.

mod progress;
mod resident;
#[path = "../../src/bin/support/mod.rs"]
mod support;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lxmert::{Canceller, Error, Lowering, Model, Residency, Session, SessionOptions};

use progress::bar;
use resident::anonymous_bytes;

/// Ask one model random questions about random images in many sessions at once, and give up calls at random moments.
///
/// Every answer must equal, to the bit, the one that a single session gave before; and the memory of the process must not grow once every
/// session has run. Sessions differ in where their weights are, and in their threads.
#[derive(Parser)]
#[command(version = support::version(), arg_required_else_help = true)]
struct Arguments {
    /// The model, a GGUF file made by lxmert-quantize.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// Sessions, each on a thread of its own.
    #[arg(long, value_name = "N", default_value = "8")]
    sessions: NonZeroUsize,
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 300)]
    seconds: u64,
    /// Images, and questions about each, among which every session chooses.
    #[arg(long, value_name = "N", default_value = "12")]
    images: NonZeroUsize,
    /// Where the random numbers begin.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// How much more memory than when all sessions had run for a while is still the allocator's.
const GROWTH_BYTES: u64 = 1 << 20;

/// The longest time between two calls that are given up.
const PAUSE: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    support::start(|| support::finish(run(&Arguments::parse())))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let model = Model::open(&arguments.model)?;
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let work = Work::new(&model, arguments.images.get(), &mut random)?;
    let mut sessions = Vec::new();
    for number in 0..arguments.sessions.get() {
        sessions.push(Session::new(&model, options(&model, number))?);
    }
    let cancellers: Vec<Canceller> = sessions.iter().map(Session::canceller).collect();
    let (counts, done) = (Counts::default(), AtomicBool::new(false));
    let (memory, outcomes) = std::thread::scope(|scope| {
        let askers: Vec<_> = sessions
            .into_iter()
            .map(|session| {
                let (work, counts, done, random) = (&work, &counts, &done, random.fork());
                scope.spawn(move || {
                    let outcome = ask(session, work, random, counts, done);
                    // Who finds a fault ends it for all.
                    done.store(done.load(Ordering::Relaxed) || outcome.is_err(), Ordering::Relaxed);
                    outcome
                })
            })
            .collect();
        scope.spawn(|| cancel(&cancellers, random.clone(), &done));
        let memory = watch(Duration::from_secs(arguments.seconds), &counts, &done);
        (memory, askers.into_iter().map(|asker| asker.join().expect("it does not panic")).collect::<Vec<_>>())
    });
    outcomes.into_iter().collect::<Result<(), String>>()?;

    let answers = counts.answers.load(Ordering::Relaxed);
    let cancelled = counts.cancelled.load(Ordering::Relaxed);
    println!(
        "{} sessions, {} s: {answers} answers as from one session alone, {cancelled} calls given up",
        arguments.sessions, arguments.seconds
    );
    match memory {
        Some(Memory { settled, last, most }) => {
            let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            println!(
                "memory: {:.2} MiB when all had run for a while, {:.2} MiB at most, {:.2} MiB at the end",
                mebibytes(settled),
                mebibytes(most),
                mebibytes(last)
            );
            if last > settled + GROWTH_BYTES {
                return Err(format!("memory grew by {} bytes", last - settled).into());
            }
        }
        None => println!("memory: this system does not tell"),
    }
    Ok(())
}

/// Sessions that share weights in each way there is, some with threads of their own.
fn options(model: &Model, number: usize) -> SessionOptions {
    let mut options = SessionOptions::new(model);
    options.threads = 1 + number % 2;
    if Lowering::Fastest.resolve().is_ok_and(|lowering| lowering != Lowering::Ggml) {
        options.residency = [Residency::Resident, Residency::Streamed][number / 2 % 2];
    }
    options
}

struct Image {
    regions: usize,
    features: Vec<f32>,
    boxes: Vec<f32>,
}

/// What is asked, and what the answers are.
struct Work {
    images: Vec<Image>,
    questions: Vec<Vec<u32>>,
    /// The scores of each question about each image.
    scores: Vec<Vec<Vec<f32>>>,
}

impl Work {
    fn new(model: &Model, count: usize, random: &mut fastrand::Rng) -> Result<Self, Error> {
        let config = model.config();
        let mut session = Session::new(model, options(model, 0))?;
        let limits = session.options().clone();
        let images: Vec<Image> = (0..count)
            .map(|_| {
                let regions = random.usize(1..=limits.max_regions);
                let features = (0..regions * config.visual_feat_dim).map(|_| random.f32()).collect();
                // Corners from the upper left to the lower right of each region.
                let boxes = (0..regions).flat_map(|_| {
                    let (left, top) = (random.f32() / 2.0, random.f32() / 2.0);
                    let corners = [left, top, left + random.f32() / 2.0, top + random.f32() / 2.0];
                    corners.into_iter().chain(std::iter::repeat(0.25)).take(config.visual_pos_dim)
                });
                let boxes = boxes.collect();
                Image { regions, features, boxes }
            })
            .collect();
        let questions: Vec<Vec<u32>> = (0..count)
            .map(|_| {
                let tokens = random.usize(1..=limits.max_tokens.min(24));
                (0..tokens).map(|_| random.u32(0..config.vocab_size as u32)).collect()
            })
            .collect();
        let scores = images
            .iter()
            .map(|image| {
                session.encode_regions(image.regions, &image.features, &image.boxes)?;
                let scores = questions.iter().map(|ids| Ok(session.ask_tokens(ids)?.logits().to_vec()));
                scores.collect()
            })
            .collect::<Result<_, Error>>()?;
        Ok(Work { images, questions, scores })
    }
}

#[derive(Default)]
struct Counts {
    answers: AtomicU64,
    cancelled: AtomicU64,
}

/// Asks until it is done; an error says which answer was wrong.
fn ask(
    mut session: Session,
    work: &Work,
    mut random: fastrand::Rng,
    counts: &Counts,
    done: &AtomicBool,
) -> Result<(), String> {
    let cancelled = || {
        counts.cancelled.fetch_add(1, Ordering::Relaxed);
    };
    while !done.load(Ordering::Relaxed) {
        let number = random.usize(..work.images.len());
        let image = &work.images[number];
        match session.encode_regions(image.regions, &image.features, &image.boxes) {
            Ok(()) => {}
            Err(Error::Cancelled) => {
                cancelled();
                continue;
            }
            Err(error) => return Err(format!("image {number}: {error}")),
        }
        for _ in 0..random.usize(1..=6) {
            let question = random.usize(..work.questions.len());
            match session.ask_tokens(&work.questions[question]) {
                Ok(answers) => {
                    if !same(answers.logits(), &work.scores[number][question]) {
                        return Err(format!("question {question} about image {number} has another answer"));
                    }
                    counts.answers.fetch_add(1, Ordering::Relaxed);
                }
                Err(Error::Cancelled) => cancelled(),
                Err(error) => return Err(format!("question {question} about image {number}: {error}")),
            }
        }
    }
    Ok(())
}

/// Equal to the bit: zeros of another sign are not the same.
fn same(found: &[f32], expected: &[f32]) -> bool {
    found.iter().map(|number| number.to_bits()).eq(expected.iter().map(|number| number.to_bits()))
}

/// Gives up what some session does, again and again.
fn cancel(cancellers: &[Canceller], mut random: fastrand::Rng, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        std::thread::sleep(PAUSE.mul_f32(random.f32()));
        cancellers[random.usize(..cancellers.len())].cancel();
    }
}

struct Memory {
    settled: u64,
    last: u64,
    most: u64,
}

/// Waits until the time is over, or a session found a fault, and watches the memory. A tenth of the time is for every session to touch its own.
fn watch(time: Duration, counts: &Counts, done: &AtomicBool) -> Option<Memory> {
    let (start, settling) = (Instant::now(), time / 10);
    let bar = bar("asking");
    bar.set_length(time.as_millis() as u64);
    let mut memory: Option<Memory> = None;
    while start.elapsed() < time && !done.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(100).min(time / 20));
        bar.set_position(start.elapsed().as_millis() as u64);
        if start.elapsed() < settling || counts.answers.load(Ordering::Relaxed) == 0 {
            continue;
        }
        if let Some(now) = anonymous_bytes() {
            let memory = memory.get_or_insert(Memory { settled: now, last: now, most: now });
            (memory.last, memory.most) = (now, memory.most.max(now));
        }
    }
    done.store(true, Ordering::Relaxed);
    bar.finish_and_clear();
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_the_same_to_the_bit() {
        assert!(same(&[1.0, f32::NAN], &[1.0, f32::NAN]));
        assert!(!same(&[0.0], &[-0.0]));
        assert!(!same(&[1.0], &[1.0, 1.0]));
    }
}
