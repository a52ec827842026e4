//! Wherever the weights are, the answers are the same to the bit, and what is taken is what the plan said.

mod common;

use std::io::{Error as IoError, ErrorKind};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::wide::{Batch, all_outputs, config, synthetic};
use lxmert::gguf::TensorType;
use lxmert::{
    Error, ForeignMemory, InstructionSet, Loader, Lowering, Model, Output, Residency, Session, SessionOptions,
};
use lxmert_converter::{Options, Synthetic, convert_synthetic};
use tempfile::TempDir;

/// The fastest kernels, also where ggml's operations are faster still.
fn kernels() -> Lowering {
    Lowering::Kernels(*InstructionSet::ALL.iter().rfind(|set| set.is_available()).unwrap())
}

fn packed(tensor_type: TensorType, directory: &TempDir) -> PathBuf {
    let file = directory.path().join("packed.gguf");
    let synthetic = Synthetic { name: "test".to_owned(), config: config(), seed: 3 };
    let options = Options { pack: Some(InstructionSet::Portable), ..Options::default() };
    convert_synthetic(&synthetic, tensor_type, &file, &options).unwrap();
    file
}

/// A file's bytes behind a loader, which counts what is read and fails where it is told to.
struct Bytes {
    bytes: Vec<u8>,
    read: Arc<AtomicUsize>,
    /// The read that fails.
    fails_at: Arc<Mutex<Option<usize>>>,
    reads: usize,
}

impl Bytes {
    fn of(file: &PathBuf) -> Self {
        let bytes = std::fs::read(file).unwrap();
        Bytes { bytes, read: Arc::default(), fails_at: Arc::default(), reads: 0 }
    }
}

impl Loader for Bytes {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.reads += 1;
        let mut fails_at = self.fails_at.lock().unwrap();
        if let Some(left) = fails_at.as_mut() {
            if *left == 0 {
                return Err(IoError::new(ErrorKind::BrokenPipe, "the camera's flash has gone"));
            }
            *left -= 1;
        }
        let offset = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes[offset..offset + buffer.len()]);
        self.read.fetch_add(buffer.len(), Ordering::Relaxed);
        Ok(())
    }
}

/// Bytes that stand for ever, where those of a program would lie.
fn aligned(bytes: &[u8]) -> &'static [u8] {
    #[repr(align(64))]
    #[derive(Clone, Copy)]
    struct Line([u8; 64]);
    let mut lines = vec![Line([0; 64]); bytes.len().div_ceil(64)];
    for (line, bytes) in lines.iter_mut().zip(bytes.chunks(64)) {
        line.0[..bytes.len()].copy_from_slice(bytes);
    }
    let lines: &'static [Line] = lines.leak();
    // SAFETY: lines are nothing but bytes, and there are as many.
    unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), bytes.len()) }
}

#[test]
fn every_source_and_residency_gives_the_same_numbers() {
    let directory = TempDir::new().unwrap();
    let outputs = all_outputs(&config());
    let batch = Batch::of(2);
    for tensor_type in [TensorType::Q8_0, TensorType::Q4_0, TensorType::Q4K, TensorType::F16, TensorType::F32]
    {
        // Packed for any CPU, so that f16 becomes f32 in both files.
        let lowering = match tensor_type {
            TensorType::F16 => Lowering::Kernels(InstructionSet::Portable),
            _ => kernels(),
        };
        let files = [synthetic(config(), tensor_type, directory.path()), packed(tensor_type, &directory)];
        let mut expected: Option<Vec<Vec<f32>>> = None;
        for file in &files {
            let bytes = std::fs::read(file).unwrap();
            let part_of_program = aligned(&bytes);
            let sources = [
                ("map", Model::open(file).unwrap()),
                ("copy", Model::from_bytes(&bytes).unwrap()),
                ("static", Model::from_static(part_of_program).unwrap()),
                ("loader", Model::from_loader(Box::new(Bytes::of(file))).unwrap()),
            ];
            for (source, model) in sources {
                for residency in Residency::ALL {
                    for threads in [1, 3] {
                        let change = |options: &mut SessionOptions| {
                            options.lowering = lowering;
                            options.residency = residency;
                            options.threads = threads;
                        };
                        let mut options = SessionOptions::new(&model);
                        change(&mut options);
                        // Only what a file has packed can be used where the file is.
                        let is_packed = file.ends_with("packed.gguf");
                        let can_be_mapped = is_packed && ["map", "static"].contains(&source);
                        match model.plan(&options) {
                            Ok(plan) => {
                                assert!(residency == Residency::Auto || plan.residency == residency);
                                assert!(residency != Residency::Mapped || plan.weights_mapped > 0);
                                assert_ne!(plan.residency, Residency::Device);
                            }
                            Err(Error::Input { .. }) if residency == Residency::Mapped && !can_be_mapped => {
                                continue;
                            }
                            // These kernels are the CPU's.
                            Err(Error::Input { .. }) if residency == Residency::Device => continue,
                            Err(error) => panic!("{source}, {residency}: {error}"),
                        }
                        let found = batch.run(&model, &outputs, change);
                        let expected = expected.get_or_insert_with(|| found.clone());
                        assert!(
                            &found == expected,
                            "{tensor_type} from a {source}, {residency}, {threads} threads"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn ggml_reads_from_every_source() {
    let directory = TempDir::new().unwrap();
    let file = synthetic(config(), TensorType::Q8_0, directory.path());
    let bytes = std::fs::read(&file).unwrap();
    let outputs = Output::finals(&config());
    let run = |model: Model| Batch::of(1).run(&model, &outputs, |options| options.lowering = Lowering::Ggml);
    let expected = run(Model::open(&file).unwrap());
    assert!(run(Model::from_bytes(&bytes).unwrap()) == expected);
    assert!(run(Model::from_loader(Box::new(Bytes::of(&file))).unwrap()) == expected);
}

#[test]
fn a_residency_that_cannot_be_had_is_refused() {
    let directory = TempDir::new().unwrap();
    let model = Model::open(synthetic(config(), TensorType::Q8_0, directory.path())).unwrap();
    let refused = |lowering, residency| {
        let mut options = SessionOptions::new(&model);
        (options.lowering, options.residency) = (lowering, residency);
        match (model.plan(&options), Session::new(&model, options)) {
            (Err(Error::Input { name, .. }), Err(Error::Input { .. })) => assert_eq!(name, "residency"),
            (plan, _) => panic!("{residency}: {plan:?}"),
        }
    };
    refused(kernels(), Residency::Mapped);
    refused(Lowering::Ggml, Residency::Streamed);
    refused(Lowering::Ggml, Residency::Resident);
}

#[test]
fn a_budget_chooses_the_fastest_way_that_keeps_to_it() {
    let directory = TempDir::new().unwrap();
    let file = synthetic(config(), TensorType::Q4_0, directory.path());
    let options = |model: &Model, residency, budget| {
        let mut options = SessionOptions::new(model);
        (options.lowering, options.threads) = (kernels(), 1);
        (options.residency, options.memory_budget) = (residency, budget);
        options
    };
    let model = Model::open(&file).unwrap();
    let total = |residency| model.plan(&options(&model, residency, None)).unwrap().total();
    let (resident, streamed) = (total(Residency::Resident), total(Residency::Streamed));
    assert!(streamed < resident);
    for (budget, expected) in [
        (resident, Residency::Resident),
        (resident - 1, Residency::Streamed),
        (streamed, Residency::Streamed),
    ] {
        // What a session has had packed stays with its model.
        let model = Model::open(&file).unwrap();
        let plan = model.plan(&options(&model, Residency::Auto, Some(budget))).unwrap();
        assert_eq!(plan.residency, expected);
        assert!(plan.total() <= budget);
        let session = Session::new(&model, options(&model, Residency::Auto, Some(budget))).unwrap();
        assert_eq!(session.plan(), &plan);
    }
    // What is left of a budget holds some of the weights that would be read in every run.
    let bare = model.plan(&options(&model, Residency::Streamed, Some(streamed))).unwrap();
    let room = (resident - streamed) / 2;
    let filled = model.plan(&options(&model, Residency::Streamed, Some(streamed + room))).unwrap();
    assert_eq!(bare.weights_private, 0);
    assert!(filled.weights_private > room / 2 && filled.total() <= streamed + room, "{filled:?}");
    let outputs = [Output::QuestionAnsweringScore];
    let run = |budget| {
        Batch::of(1).run(&Model::open(&file).unwrap(), &outputs, |options| {
            (options.lowering, options.residency, options.memory_budget) =
                (kernels(), Residency::Streamed, budget);
        })
    };
    assert!(run(Some(streamed + room)) == run(None));

    let too_small = Session::new(&model, options(&model, Residency::Auto, Some(streamed - 1)));
    let Err(Error::Budget { budget, smallest }) = too_small else { panic!("more than the budget allows") };
    assert_eq!((budget, smallest), (streamed - 1, streamed));
}

#[test]
fn a_streamed_session_takes_no_weights_but_those_at_hand() {
    let directory = TempDir::new().unwrap();
    let file = synthetic(config(), TensorType::F32, directory.path());
    let bytes = Bytes::of(&file);
    let read = Arc::clone(&bytes.read);
    let model = Model::from_loader(Box::new(bytes)).unwrap();
    let mut options = SessionOptions::new(&model);
    (options.lowering, options.residency, options.threads) = (kernels(), Residency::Streamed, 1);
    let plan = model.plan(&options).unwrap();
    assert_eq!((plan.weights_mapped, plan.weights_private), (0, 0));
    let batch = Batch::of(1);
    let mut session = batch.session_after(&model, &[Output::QuestionAnsweringScore], |options| {
        (options.lowering, options.residency) = (kernels(), Residency::Streamed);
    });
    let mut run = || {
        let before = read.load(Ordering::Relaxed);
        session.run(&batch.inputs()).unwrap();
        read.load(Ordering::Relaxed) - before
    };
    let once = run();
    assert!(once > 1 << 20);
    assert_eq!(run(), once, "each run reads its weights");
    assert_eq!(model.packed_bytes(), 0);
}

#[test]
fn a_read_that_fails_is_an_error_and_the_next_run_is_exact() {
    let directory = TempDir::new().unwrap();
    let file = synthetic(config(), TensorType::Q8_0, directory.path());
    let bytes = Bytes::of(&file);
    let fails_at = Arc::clone(&bytes.fails_at);
    let model = Model::from_loader(Box::new(bytes)).unwrap();
    let batch = Batch::of(1);
    let outputs = [Output::QuestionAnsweringScore];
    for threads in [1, 2] {
        let mut session = batch.session_after(&model, &outputs, |options| {
            (options.lowering, options.residency, options.threads) =
                (kernels(), Residency::Streamed, threads);
        });
        let expected = session.output(outputs[0]).unwrap().data.to_vec();
        let mut failures = 0;
        for nth in (0..).step_by(7) {
            *fails_at.lock().unwrap() = Some(nth);
            let result = session.run(&batch.inputs());
            *fails_at.lock().unwrap() = None;
            match result {
                // There are not so many reads in a run.
                Ok(()) => break,
                Err(Error::Read { source, .. }) => assert!(source.to_string().contains("flash")),
                Err(error) => panic!("{error}"),
            }
            failures += 1;
            assert!(matches!(session.output(outputs[0]), Err(Error::NotRequested { .. })));
            session.run(&batch.inputs()).unwrap();
            assert_eq!(session.output(outputs[0]).unwrap().data, expected);
        }
        assert!(failures > 5, "{failures} reads failed");
    }
    // The first session of all reads the weights to keep.
    *fails_at.lock().unwrap() = Some(3);
    let mut options = SessionOptions::new(&model);
    options.lowering = kernels();
    assert!(matches!(Session::new(&model, options.clone()), Err(Error::Read { .. })));
    *fails_at.lock().unwrap() = None;
    assert!(Session::new(&model, options).is_ok());
}

#[test]
fn a_session_lives_in_memory_of_the_callers_own() {
    let directory = TempDir::new().unwrap();
    let model = Model::open(synthetic(config(), TensorType::Q8_0, directory.path())).unwrap();
    let batch = Batch::of(1);
    for lowering in [kernels(), Lowering::Ggml] {
        let mut options = SessionOptions::new(&model);
        (options.max_tokens, options.max_regions, options.lowering) = (9, 7, lowering);
        let plan = model.plan(&options).unwrap();
        let block = |len: usize| {
            let memory = vec![0xffu8; len + ForeignMemory::ALIGNMENT].leak();
            let first = memory.as_ptr().align_offset(ForeignMemory::ALIGNMENT);
            NonNull::from(&mut memory[first]).cast::<u8>()
        };
        let released = Arc::new(AtomicUsize::new(0));
        let memory = |start, len| {
            let released = Arc::clone(&released);
            let release = move |_, len| released.store(len, Ordering::Relaxed);
            // SAFETY: the memory was leaked for this session alone.
            unsafe { ForeignMemory::new(start, len, Some(Box::new(release))) }
        };
        let short = Session::new_in(&model, options.clone(), memory(block(plan.session), plan.session - 1));
        assert!(matches!(short, Err(Error::Memory { .. })));
        assert_eq!(released.swap(0, Ordering::Relaxed), plan.session - 1);

        let mut session =
            Session::new_in(&model, options.clone(), memory(block(plan.session), plan.session)).unwrap();
        session.run(&batch.inputs()).unwrap();
        let found = session.output(Output::QuestionAnsweringScore).unwrap().data.to_vec();
        let expected = batch.run(&model, &options.outputs, |options| options.lowering = lowering);
        assert_eq!(found, expected[0]);
        assert_eq!(released.load(Ordering::Relaxed), 0);
        drop(session);
        assert_eq!(released.load(Ordering::Relaxed), plan.session);
    }
}

/// Sessions that are made at once take what they share once, on kernels and on ggml's operations, which want the whole file.
#[test]
fn sessions_made_at_once_read_the_model_once() {
    let directory = TempDir::new().unwrap();
    let file = synthetic(config(), TensorType::Q8_0, directory.path());
    let len = std::fs::metadata(&file).unwrap().len() as usize;
    for lowering in [kernels(), Lowering::Ggml] {
        let bytes = Bytes::of(&file);
        let read = Arc::clone(&bytes.read);
        let model = Model::from_loader(Box::new(bytes)).unwrap();
        let mut options = SessionOptions::new(&model);
        (options.lowering, options.threads) = (lowering, 1);
        let before = read.load(Ordering::Relaxed);
        let plan = model.plan(&options).unwrap();
        assert_eq!(read.load(Ordering::Relaxed), before, "a plan takes nothing");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| drop(Session::new(&model, options.clone()).unwrap()));
            }
        });
        // Each reads the vectors of its own; matrices and tables are read once.
        let all = read.load(Ordering::Relaxed) - before;
        assert!(all < len + len / 4, "{lowering}: {all} of {len} bytes");
        assert_eq!(model.plan(&options).unwrap(), plan, "what is taken was told");
    }
}

#[test]
fn a_plan_counts_what_the_model_already_holds() {
    let directory = TempDir::new().unwrap();
    let file = synthetic(config(), TensorType::Q8_0, directory.path());
    for model in [Model::open(&file).unwrap(), Model::from_bytes(&std::fs::read(&file).unwrap()).unwrap()] {
        let plan = |residency| {
            let mut options = SessionOptions::new(&model);
            (options.lowering, options.residency, options.threads) = (kernels(), residency, 1);
            (model.plan(&options).unwrap(), options)
        };
        let (streamed, _) = plan(Residency::Streamed);
        let (resident, options) = plan(Residency::Resident);
        let _session = Session::new(&model, options).unwrap();
        assert_eq!(resident.weights_private, streamed.weights_private + model.packed_bytes());
        assert_eq!(plan(Residency::Resident).0, resident);
        assert_eq!(plan(Residency::Streamed).0.weights_private, resident.weights_private);
    }
}
