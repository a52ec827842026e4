//! Sessions of one model on several threads answer as they do one after the other, to the bit.

mod common;

use common::wide::{Batch, config, synthetic};
use lxmert::gguf::TensorType;
use lxmert::{InstructionSet, Lowering, Model, Residency, Session, SessionOptions};
use tempfile::TempDir;

const QUESTIONS: usize = 6;

fn question(n: usize) -> Vec<u32> {
    (0..3 + n % 6).map(|token| ((n * 31 + token * 17) % 300) as u32).collect()
}

/// All answers to all questions about some images.
fn answers(model: &Model, options: SessionOptions, batch: &Batch, images: usize) -> Vec<Vec<f32>> {
    let mut session = Session::new(model, options).unwrap();
    let mut answers = Vec::new();
    for image in 0..images {
        let element = batch.element(image);
        session.encode_regions(7, &element.features, &element.boxes).unwrap();
        for n in 0..QUESTIONS {
            answers.push(session.ask_tokens(&question(n)).unwrap().logits().to_vec());
        }
    }
    answers
}

#[test]
fn many_threads_answer_as_one_does() {
    let directory = TempDir::new().unwrap();
    let file = synthetic(config(), TensorType::Q8_0, directory.path());
    let best = *InstructionSet::ALL.iter().rfind(|set| set.is_available()).unwrap();
    let batch = Batch::of(3);
    for (lowering, residencies) in [
        (Lowering::Kernels(best), &[Residency::Resident, Residency::Streamed][..]),
        (Lowering::Ggml, &[Residency::Mapped]),
    ] {
        let options = |model: &Model, thread: usize| {
            let mut options = SessionOptions::new(model);
            (options.max_tokens, options.max_regions, options.lowering) = (9, 7, lowering);
            options.residency = residencies[thread % residencies.len()];
            // Sessions with threads of their own beside those without. ggml's spin, and would only wait for each other.
            options.threads = if lowering == Lowering::Ggml { 1 } else { 1 + thread % 2 };
            options
        };
        let serial = Model::open(&file).unwrap();
        let expected = answers(&serial, options(&serial, 0), &batch, 3);
        // A model that no session has used yet: its weights are packed, and its tensors described, by whoever comes first.
        let shared = Model::open(&file).unwrap();
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..6)
                .map(|thread| {
                    let (shared, batch, options) = (&shared, &batch, &options);
                    scope.spawn(move || answers(shared, options(shared, thread), batch, 3))
                })
                .collect();
            for run in runs {
                assert!(run.join().unwrap() == expected, "{lowering}");
            }
        });
    }
}
