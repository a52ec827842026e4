//! Calls are given up on request, and the next one is as if nothing had been.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::wide::{Batch, config, synthetic};
use lxmert::gguf::TensorType;
use lxmert::{Error, InstructionSet, Loader, Lowering, Model, Output, Residency, Session, SessionOptions};
use tempfile::TempDir;

const ANSWERS: Output = Output::QuestionAnsweringScore;

fn lowerings() -> [Lowering; 2] {
    let best = *InstructionSet::ALL.iter().rfind(|set| set.is_available()).unwrap();
    [Lowering::Kernels(best), Lowering::Ggml]
}

fn model(directory: &TempDir) -> Model {
    Model::open(synthetic(config(), TensorType::Q8_0, directory.path())).unwrap()
}

fn options(model: &Model, lowering: Lowering, threads: usize) -> SessionOptions {
    let mut options = SessionOptions::new(model);
    (options.max_tokens, options.max_regions, options.lowering, options.threads) = (9, 7, lowering, threads);
    options
}

/// An abort callback that says yes when it is asked for the n-th time: every operation of a run is interrupted once.
#[test]
fn an_abort_at_any_operation_leaves_the_session_exact() {
    let directory = TempDir::new().unwrap();
    let model = model(&directory);
    let batch = Batch::of(1);
    for lowering in lowerings() {
        for threads in [1, 2] {
            let left = Arc::new(AtomicUsize::new(usize::MAX));
            let asked = Arc::clone(&left);
            let mut options = options(&model, lowering, threads);
            options.abort = Some(Arc::new(move || asked.fetch_sub(1, Ordering::Relaxed) == 0));
            let mut session = Session::new(&model, options).unwrap();
            session.run(&batch.inputs()).unwrap();
            let expected = session.output(ANSWERS).unwrap().data.to_vec();
            let mut aborted = 0;
            loop {
                left.store(aborted, Ordering::Relaxed);
                match session.run(&batch.inputs()) {
                    Ok(()) => break,
                    Err(Error::Cancelled) => aborted += 1,
                    Err(error) => panic!("{error}"),
                }
                assert!(matches!(session.output(ANSWERS), Err(Error::NotRequested { .. })));
                left.store(usize::MAX, Ordering::Relaxed);
                session.run(&batch.inputs()).unwrap();
                assert_eq!(session.output(ANSWERS).unwrap().data, expected);
            }
            assert!(aborted > 20, "asked {aborted} times with {lowering}");
        }
    }
}

#[test]
fn an_image_survives_a_question_that_was_given_up() {
    let directory = TempDir::new().unwrap();
    let model = model(&directory);
    let batch = Batch::of(1);
    let inputs = batch.inputs();
    for lowering in lowerings() {
        let mut session = Session::new(&model, options(&model, lowering, 2)).unwrap();
        session.encode_regions(7, inputs.visual_feats, inputs.visual_pos).unwrap();
        let expected = session.ask_tokens(&[1, 2, 3]).unwrap().logits().to_vec();
        session.set_time_limit(Some(Duration::ZERO));
        let late = session.ask_tokens(&[1, 2, 3]);
        assert!(matches!(late, Err(Error::TimeLimit { limit: Duration::ZERO })));
        session.set_time_limit(Some(Duration::from_secs(600)));
        assert_eq!(session.ask_tokens(&[1, 2, 3]).unwrap().logits(), expected);
        // An image that was given up is none.
        session.set_time_limit(Some(Duration::ZERO));
        assert!(session.encode_regions(7, inputs.visual_feats, inputs.visual_pos).is_err());
        session.set_time_limit(None);
        assert!(matches!(session.ask_tokens(&[1, 2, 3]), Err(Error::NoImage)));
        session.encode_regions(7, inputs.visual_feats, inputs.visual_pos).unwrap();
        assert_eq!(session.ask_tokens(&[1, 2, 3]).unwrap().logits(), expected);
    }
}

#[test]
fn a_canceller_ends_the_call_in_progress_and_no_other() {
    let directory = TempDir::new().unwrap();
    let model = model(&directory);
    let batch = Batch::of(1);
    for lowering in lowerings() {
        let mut options = options(&model, lowering, 2);
        // The call waits in its first operation until it has been cancelled.
        let gate = Arc::new(AtomicUsize::new(0));
        let inside = Arc::clone(&gate);
        options.abort = Some(Arc::new(move || {
            if inside.load(Ordering::Acquire) == 1 {
                inside.store(2, Ordering::Release);
                while inside.load(Ordering::Acquire) == 2 {
                    std::thread::yield_now();
                }
            }
            false
        }));
        let mut session = Session::new(&model, options).unwrap();
        let canceller = session.canceller();
        canceller.cancel();
        session.run(&batch.inputs()).expect("no call was in progress");
        let expected = session.output(ANSWERS).unwrap().data.to_vec();
        for _ in 0..20 {
            gate.store(1, Ordering::Release);
            let other = std::thread::spawn({
                let (gate, canceller) = (Arc::clone(&gate), canceller.clone());
                move || {
                    while gate.load(Ordering::Acquire) != 2 {
                        std::thread::yield_now();
                    }
                    canceller.cancel();
                    gate.store(0, Ordering::Release);
                }
            });
            assert!(matches!(session.run(&batch.inputs()), Err(Error::Cancelled)));
            other.join().unwrap();
            session.run(&batch.inputs()).unwrap();
            assert_eq!(session.output(ANSWERS).unwrap().data, expected);
        }
    }
}

#[test]
fn progress_grows_to_one_and_can_give_up() {
    let directory = TempDir::new().unwrap();
    let model = model(&directory);
    let [kernels, _] = lowerings();
    let with = |progress: Box<dyn Fn(f32) -> bool + Send + Sync>| {
        let mut options = options(&model, kernels, 3);
        options.residency = Residency::Resident;
        options.progress = Some(Arc::from(progress));
        Session::new(&model, options)
    };
    assert!(matches!(with(Box::new(|share| share < 0.5)), Err(Error::Cancelled)));
    assert_eq!(model.packed_bytes(), 0);
    let shares = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (told, asked) = (Arc::clone(&shares), model.clone());
    with(Box::new(move |share| {
        // Whoever is told may ask.
        assert_eq!(asked.packed_bytes(), 0);
        told.lock().unwrap().push(share);
        true
    }))
    .unwrap();
    let shares = shares.lock().unwrap();
    assert!(shares.len() > 10 && shares.is_sorted() && *shares.last().unwrap() == 1.0, "{shares:?}");
}

#[test]
fn a_panic_of_whoever_is_asked_comes_out_and_the_session_stays_exact() {
    let directory = TempDir::new().unwrap();
    let model = model(&directory);
    let batch = Batch::of(1);
    for lowering in lowerings() {
        let left = Arc::new(AtomicUsize::new(usize::MAX));
        let asked = Arc::clone(&left);
        let mut options = options(&model, lowering, 2);
        options.abort = Some(Arc::new(move || {
            assert!(asked.fetch_sub(1, Ordering::Relaxed) > 0, "no answer");
            false
        }));
        let mut session = Session::new(&model, options).unwrap();
        session.run(&batch.inputs()).unwrap();
        let expected = session.output(ANSWERS).unwrap().data.to_vec();
        for after in [0, 7] {
            left.store(after, Ordering::Relaxed);
            let panicked = catch_unwind(AssertUnwindSafe(|| session.run(&batch.inputs())));
            assert!(panicked.is_err(), "{lowering}");
            left.store(usize::MAX, Ordering::Relaxed);
            session.run(&batch.inputs()).unwrap();
            assert_eq!(session.output(ANSWERS).unwrap().data, expected);
        }
    }
}

/// A loader that takes long, of which the first read after a limit has passed is the last.
struct Slow {
    bytes: Vec<u8>,
    pause: Arc<AtomicUsize>,
    reads: Arc<AtomicUsize>,
}

impl Loader for Slow {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.pause.load(Ordering::Relaxed) as u64));
        self.reads.fetch_add(1, Ordering::Relaxed);
        buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

#[test]
fn a_time_limit_ends_reading_with_the_read_at_hand() {
    let directory = TempDir::new().unwrap();
    let bytes = std::fs::read(synthetic(config(), TensorType::Q8_0, directory.path())).unwrap();
    let (pause, reads) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let loader = Slow { bytes, pause: Arc::clone(&pause), reads: Arc::clone(&reads) };
    let model = Model::from_loader(Box::new(loader)).unwrap();
    let [kernels, _] = lowerings();
    let mut options = options(&model, kernels, 1);
    options.residency = Residency::Streamed;
    let mut session = Session::new(&model, options).unwrap();
    let batch = Batch::of(1);
    session.run(&batch.inputs()).unwrap();
    let expected = session.output(ANSWERS).unwrap().data.to_vec();
    pause.store(20, Ordering::Relaxed);
    session.set_time_limit(Some(Duration::from_millis(10)));
    let before = reads.load(Ordering::Relaxed);
    assert!(matches!(session.run(&batch.inputs()), Err(Error::TimeLimit { .. })));
    assert_eq!(reads.load(Ordering::Relaxed) - before, 1);
    pause.store(0, Ordering::Relaxed);
    session.set_time_limit(None);
    session.run(&batch.inputs()).unwrap();
    assert_eq!(session.output(ANSWERS).unwrap().data, expected);
}
