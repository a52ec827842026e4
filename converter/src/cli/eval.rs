//! How well a model answers, alone and beside another.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use lxmert::{Answers, ModelOptions, Session, SessionOptions};
use serde::Serialize;

use super::questions::Questions;
use super::{Asked, Failure};

/// Measures how well a model answers the questions of a file
///
/// Each line of DATA.jsonl is an object: "question"; "features" or "image", a path relative to the file; and, where
/// they are known, "answer" or a list of "answers". Fields beside these are ignored.
#[derive(Parser)]
pub struct Arguments {
    /// Model to measure
    #[arg(value_name = "MODEL.gguf")]
    model: PathBuf,

    /// Questions
    #[arg(value_name = "DATA.jsonl")]
    data: PathBuf,

    /// Model to compare the answers with, such as the f32 file
    #[arg(long, value_name = "F32.gguf")]
    reference: Option<PathBuf>,

    #[command(flatten)]
    asked: Asked,

    /// Threads to compute with [default: all cores]
    #[arg(long, short, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    /// Questions asked.
    questions: usize,
    /// Of these, how many have answers.
    answered: usize,
    /// The share of these where the best answer is the one that most people gave.
    accuracy: Option<f64>,
    /// The mean score of the VQA challenge.
    vqa_score: Option<f64>,
    /// The share of all questions where the reference has the same best answer.
    agreement: Option<f64>,
    /// The mean Kullback-Leibler divergence, in nats, of the answers' distribution from the reference's.
    kl_divergence: Option<f64>,
    /// The median time for a question about an encoded image, in milliseconds.
    question_ms: f64,
    /// The median time to encode an image, in milliseconds, reading it included.
    image_ms: f64,
}

/// Asks, and prints the measures.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (most, options) = arguments.asked.options()?;
    let mut questions = Questions::read(&arguments.data, most)?;
    let threads = arguments.threads.map(NonZeroUsize::get);
    let mut session = session(&arguments.model, &options, threads)?;
    let mut reference =
        arguments.reference.as_ref().map(|path| self::session(path, &options, threads)).transpose()?;
    if let Some(reference) = &reference
        && reference.model().labels() != session.model().labels()
    {
        return Err("the reference has other answers than the model".into());
    }
    let report = measure(&mut questions, &mut session, reference.as_mut())?;
    Ok(super::print(&if arguments.json { super::json(&report) } else { as_text(&report) }))
}

fn session(path: &PathBuf, options: &ModelOptions, threads: Option<usize>) -> Result<Session, Failure> {
    let model = options.open(path)?;
    if model.labels().is_none() {
        return Err(format!("{}: the file holds no answers", path.display()).into());
    }
    let mut options = SessionOptions::new(&model);
    options.threads = threads.unwrap_or(options.threads);
    Ok(Session::new(&model, options)?)
}

fn measure(
    questions: &mut Questions,
    session: &mut Session,
    mut reference: Option<&mut Session>,
) -> Result<Report, Failure> {
    let bar = super::bar(questions.len() as u64, "asking");
    let (mut question_times, mut image_times) = (Vec::new(), Vec::new());
    let (mut answered, mut right, mut score, mut agreed, mut divergence) = (0, 0, 0.0, 0, 0.0);
    for number in 0..questions.len() {
        let started = Instant::now();
        if questions.encode(number, session)? {
            image_times.push(started.elapsed());
            if let Some(reference) = &mut reference {
                questions.encode_again(number, reference)?;
            }
        }
        let question = questions.get(number);
        let started = Instant::now();
        let answers = session.ask(&question.question).map_err(|error| questions.wrong(number, error))?;
        question_times.push(started.elapsed());
        let best = answers.top(1)[0];
        if !question.answers().is_empty() {
            let text = best.text.unwrap_or_default();
            answered += 1;
            right += usize::from(is_most_frequent(text, question.answers()));
            score += vqa_score(text, question.answers());
        }
        if let Some(reference) = &mut reference {
            let expected =
                reference.ask(&question.question).map_err(|error| questions.wrong(number, error))?;
            agreed += usize::from(expected.top(1)[0].class == best.class);
            divergence += kl_divergence(expected, answers);
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mean = |sum: f64, count: usize| (count > 0).then(|| sum / count as f64);
    let beside = |sum: f64| reference.is_some().then(|| sum / questions.len() as f64);
    Ok(Report {
        questions: questions.len(),
        answered,
        accuracy: mean(right as f64, answered),
        vqa_score: mean(score, answered),
        agreement: beside(agreed as f64),
        kl_divergence: beside(divergence),
        question_ms: median(&mut question_times),
        image_ms: median(&mut image_times),
    })
}

/// Whether no other answer was given more often.
fn is_most_frequent(answer: &str, answers: &[String]) -> bool {
    let count = |wanted: &str| answers.iter().filter(|answer| *answer == wanted).count();
    let most = answers.iter().map(|answer| count(answer)).max().unwrap_or(0);
    most > 0 && count(answer) == most
}

/// The score of the VQA challenge (Antol et al. 2015, "VQA: Visual Question Answering", section 3): an answer that three
/// people gave is right. Of ten people each is left out in turn, and the ten scores averaged; a single answer is right
/// or wrong. Answers are compared as they are, without the challenge's normalisation of articles and punctuation.
fn vqa_score(answer: &str, answers: &[String]) -> f64 {
    const PEOPLE: usize = 10;
    let matches = answers.iter().filter(|given| *given == answer).count();
    let score = |matches: usize| (matches as f64 / 3.0).min(1.0);
    match answers.len() {
        1 => matches as f64,
        PEOPLE => {
            let without_a_match = matches as f64 * score(matches.saturating_sub(1));
            (without_a_match + (PEOPLE - matches) as f64 * score(matches)) / PEOPLE as f64
        }
        _ => score(matches),
    }
}

/// Σ p ln(p / q) over the softmax distributions, p being the reference's.
fn kl_divergence(reference: Answers<'_>, answers: Answers<'_>) -> f64 {
    let (p, q) = (log_softmax(reference.logits()), log_softmax(answers.logits()));
    p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>().max(0.0)
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let highest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let total: f64 = logits.iter().map(|logit| (f64::from(*logit) - highest).exp()).sum();
    logits.iter().map(|logit| f64::from(*logit) - highest - total.ln()).collect()
}

/// In milliseconds; of an even number the upper one.
fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

fn as_text(report: &Report) -> String {
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let lines = [
        ("questions", Some(report.questions.to_string())),
        ("with answers", Some(report.answered.to_string())),
        ("accuracy", report.accuracy.map(percent)),
        ("VQA score", report.vqa_score.map(percent)),
        ("agreement", report.agreement.map(percent)),
        ("divergence", report.kl_divergence.map(|nats| format!("{nats:.6} nats"))),
        ("per question", Some(format!("{:.3} ms", report.question_ms))),
        ("per image", Some(format!("{:.3} ms", report.image_ms))),
    ];
    let known = lines.into_iter().filter_map(|(name, text)| Some(format!("{name:<13} {}\n", text?)));
    known.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(list: &[(&str, usize)]) -> Vec<String> {
        list.iter().flat_map(|(answer, count)| vec![(*answer).to_owned(); *count]).collect()
    }

    /// Worked by hand: with three of ten, seven subsets of nine have three matches and three have two.
    #[test]
    fn scores_as_the_challenge_does() {
        let ten = answers(&[("red", 3), ("blue", 6), ("teal", 1)]);
        assert!((vqa_score("red", &ten) - 0.9).abs() < 1e-12);
        assert!((vqa_score("blue", &ten) - 1.0).abs() < 1e-12);
        assert!((vqa_score("teal", &ten) - 0.3).abs() < 1e-12);
        assert_eq!(vqa_score("green", &ten), 0.0);
        assert_eq!(vqa_score("red", &answers(&[("red", 1)])), 1.0);
        assert!((vqa_score("red", &answers(&[("red", 2), ("blue", 3)])) - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn the_most_frequent_answer_is_right() {
        let given = answers(&[("red", 3), ("blue", 3), ("teal", 1)]);
        assert!(is_most_frequent("red", &given) && is_most_frequent("blue", &given));
        assert!(!is_most_frequent("teal", &given) && !is_most_frequent("green", &given));
    }

    #[test]
    fn log_softmax_is_a_distribution() {
        let shares: Vec<_> =
            log_softmax(&[1000.0, 1000.0 + 3f32.ln(), -1e30]).iter().map(|l| l.exp()).collect();
        assert!((shares[0] - 0.25).abs() < 1e-4 && (shares[1] - 0.75).abs() < 1e-4 && shares[2] == 0.0);
    }
}
