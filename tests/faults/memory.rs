//! The k-th request for memory fails, for every k: once, and for good. The shim refuses requests of Rust, of C and of C++ alike, those of
//! ggml among them. All on one thread: for the handle of another the standard library asks past every allocator, and ends the process if it
//! gets none. `programs.rs` has two, each time in a process of its own.

use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::path::Path;
use std::process::Command;
use std::ptr::{null, null_mut};

use lxmert::capi::lxmert_status::{LXMERT_OK, LXMERT_OUT_OF_MEMORY, LXMERT_SYSTEM};
use lxmert::capi::*;
use lxmert::text::{BertOptions, Tokenizer};
use lxmert::vision::Pixels;
use lxmert::{InstructionSet, Lowering, Model, Residency, Session, SessionOptions, reserve};
use lxmert_doors::tiny;
use tempfile::TempDir;

use crate::faults::shim;
use crate::vocabulary::{self, ANSWERS, BERT_PIECES, Form, pieces};

/// What the shim has for this process.
struct Shim {
    arm: extern "C" fn(c_long, c_int),
    disarm: extern "C" fn() -> c_long,
    live: extern "C" fn() -> c_long,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
}

impl Shim {
    fn loaded() -> Self {
        let function = |name: &CStr| {
            // SAFETY: a name that ends with a NUL; no handle stands for all that is loaded.
            let function = unsafe { dlsym(null_mut(), name.as_ptr()) };
            assert!(!function.is_null(), "{name:?}");
            function
        };
        // SAFETY: the shim's functions have these types.
        unsafe {
            Shim {
                arm: std::mem::transmute::<*mut c_void, extern "C" fn(c_long, c_int)>(function(c"fault_arm")),
                disarm: std::mem::transmute::<*mut c_void, extern "C" fn() -> c_long>(function(
                    c"fault_disarm",
                )),
                live: std::mem::transmute::<*mut c_void, extern "C" fn() -> c_long>(function(c"fault_live")),
            }
        }
    }

    /// Does `work` with each of its requests refused, then with each and all later ones; `after` each time, when there is memory again.
    /// Whatever `work` made is gone by then.
    fn refuse_each(&self, name: &str, work: &dyn Fn() -> Result<(), String>, after: &dyn Fn()) {
        self.refuse(name, usize::MAX, work, after);
    }

    /// The same, with `most` of its requests, evenly spread, where there are more.
    fn refuse(&self, name: &str, most: usize, work: &dyn Fn() -> Result<(), String>, after: &dyn Fn()) {
        for _ in 0..2 {
            // Whatever is made once and stays is there from here on.
            work().unwrap();
            after();
        }
        (self.arm)(0, 0);
        work().unwrap();
        let requests = (self.disarm)() as usize;
        after();
        let (mut refused, mut failed) = (0, 0);
        for for_good in [0, 1] {
            for k in (1..).step_by(requests.div_ceil(most)) {
                let refusal = || {
                    let before = (self.live)();
                    (self.arm)(k, for_good);
                    let result = work();
                    let count = (self.disarm)();
                    let place = format!(
                        "{name}: request {k} of {count}, {}",
                        ["once", "for good"][for_good as usize]
                    );
                    let is_done = result.is_ok();
                    if let Err(problem) = result {
                        assert!(is_lack_of_memory(&problem) && k <= count, "{place}: {problem}");
                    }
                    // What a session still holds of a run that failed, the next run gives back.
                    after();
                    assert_eq!(reserve::in_use(), 0, "{place}");
                    drop(place);
                    (is_done, count, (self.live)() - before)
                };
                let (is_done, count, mut more) = refusal();
                if more != 0 {
                    // What the C library makes once, to tell of an error, it does not make again; what is lost is lost each time.
                    more = refusal().2;
                }
                assert_eq!(more, 0, "{name}: request {k} of {count}: bytes are lost");
                if is_done && k > count {
                    break;
                }
                refused += 1;
                failed += usize::from(!is_done);
            }
        }
        let used = reserve::most_in_use();
        println!(
            "{name}: {requests} requests, {refused} times refused, {failed} errors; up to {used} bytes of the reserve so far"
        );
        assert!(failed > 0, "{name}");
    }
}

/// A thread that cannot be started lacks memory too: the C library needs some for it.
fn is_lack_of_memory(problem: &str) -> bool {
    problem.contains("OutOfMemory") || problem.contains("Threads {") || problem.contains("out of memory")
}

fn told(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

/// In a process of its own, to which the shim is loaded first.
#[test]
fn every_request_for_memory_may_fail() {
    let Some(shim) = shim() else { return };
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "memory::in_this_process", "--test-threads=1", "--nocapture"]);
    let output = child.env("LD_PRELOAD", shim).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{}\n{text}", output.status);
    println!("{text}");
}

#[test]
#[ignore = "every_request_for_memory_may_fail starts it"]
fn in_this_process() {
    let shim = Shim::loaded();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tiny.gguf");
    std::fs::write(&path, tiny::model().encode()).unwrap();
    loading(&shim, &path);
    for (lowering, residency) in [
        (Lowering::Ggml, Residency::Auto),
        (Lowering::Kernels(InstructionSet::Portable), Residency::Streamed),
        (Lowering::Fastest, Residency::Auto),
    ] {
        sessions(&shim, &path, lowering, residency);
    }
    c_interface(&shim, &path);
    large_vocabulary(&shim);
}

fn loading(shim: &Shim, path: &Path) {
    let open = || Model::open(path).map(drop).map_err(told);
    shim.refuse_each("open", &open, &|| open().unwrap());
    let bytes = std::fs::read(path).unwrap();
    let copy = || Model::from_bytes(&bytes).map(drop).map_err(told);
    shim.refuse_each("from_bytes", &copy, &|| copy().unwrap());
    // The tokenizer is made once, so of a new model each time.
    let tokenizer = || {
        let model = Model::open(path).map_err(told)?;
        let first = model.tokenizer().and_then(|tokenizer| Ok(tokenizer.encode("what is red?")?));
        // A tokenizer that could not be made can be when there is memory.
        first.map(drop).map_err(told)
    };
    shim.refuse_each("tokenizer", &tokenizer, &|| {});
}

fn pixels() -> Vec<u8> {
    (0..4 * 4 * 3).map(|n| n * 5).collect()
}

/// What a session says, to the bit.
fn answer(session: &mut Session) -> Result<Vec<u32>, lxmert::Error> {
    session.encode_pixels(&Pixels::new(&pixels(), 4, 4, 12)?)?;
    let answers = session.ask("what is red?")?;
    Ok(answers.logits().iter().map(|logit| logit.to_bits()).collect())
}

fn sessions(shim: &Shim, path: &Path, lowering: Lowering, residency: Residency) {
    let name = format!("{lowering} {residency}");
    let model = Model::open(path).unwrap();
    let options = |model: &Model| {
        let mut options = SessionOptions::new(model);
        (options.lowering, options.residency, options.threads) = (lowering, residency, 1);
        options
    };
    let expected = answer(&mut Session::new(&model, options(&model)).unwrap()).unwrap();

    // A session that could not be made leaves a model that others can be made of.
    let new = || Session::new(&model, options(&model)).map(drop).map_err(told);
    let usable =
        || assert_eq!(answer(&mut Session::new(&model, options(&model)).unwrap()).unwrap(), expected);
    shim.refuse_each(&format!("{name}: session"), &new, &usable);
    // The first one of a model makes what all of them share.
    let first = || {
        let model = Model::open(path).map_err(told)?;
        Session::new(&model, options(&model)).map(drop).map_err(told)
    };
    shim.refuse_each(&format!("{name}: first session"), &first, &|| {});

    // A run that failed leaves a session that runs.
    let session = std::cell::RefCell::new(Session::new(&model, options(&model)).unwrap());
    let run = || match answer(&mut session.borrow_mut()) {
        Ok(answers) if answers == expected => Ok(()),
        Ok(answers) => Err(format!("other answers: {answers:?}")),
        Err(error) => Err(told(error)),
    };
    shim.refuse_each(&format!("{name}: run"), &run, &|| run().unwrap());
}

fn c_interface(shim: &Shim, path: &Path) {
    let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    let outcome = |status: lxmert_status| match status {
        LXMERT_OK => Ok(()),
        LXMERT_OUT_OF_MEMORY | LXMERT_SYSTEM => Err("out of memory".to_owned()),
        other => Err(format!("{other:?}")),
    };
    let pixels = pixels();
    let all = || {
        let (mut model, mut session) = (null_mut(), null_mut());
        // SAFETY: handles are live or NULL, texts end with a NUL, and places are large enough.
        let result = unsafe {
            outcome(lxmert_model_open(path.as_ptr(), &mut model))
                .and_then(|()| outcome(lxmert_session_create(model, null(), &mut session)))
                .and_then(|()| {
                    outcome(lxmert_encode_pixels(session, pixels.as_ptr(), 4, 4, 12))?;
                    let mut answers = [std::mem::zeroed::<lxmert_answer>(); 1];
                    let mut count = 0;
                    outcome(lxmert_ask(
                        session,
                        c"what is red?".as_ptr(),
                        answers.as_mut_ptr(),
                        1,
                        &mut count,
                    ))
                })
        };
        assert!(result.is_err() || !session.is_null());
        // What was made can be freed, whatever failed, and what was not is NULL.
        // SAFETY: live handles or NULL, which nothing uses any more.
        unsafe {
            lxmert_session_free(session);
            lxmert_model_free(model);
        }
        result
    };
    shim.refuse_each("C", &all, &|| all().unwrap());
    c_results(shim, &path);
}

/// What a call of C writes is there when it returns LXMERT_OK, and is not when it lacked memory.
fn c_results(shim: &Shim, path: &CStr) {
    let mut model = null_mut();
    // SAFETY: a text that ends with a NUL, and a place for a handle.
    assert_eq!(unsafe { lxmert_model_open(path.as_ptr(), &mut model) }, LXMERT_OK);
    let outcome = |status: lxmert_status, is_written: bool| match status {
        LXMERT_OK if is_written => Ok(()),
        LXMERT_OUT_OF_MEMORY if !is_written => Err("out of memory".to_owned()),
        other => Err(format!("{other:?}, written: {is_written}")),
    };
    let tokens = || {
        let (mut ids, mut count) = ([u32::MAX; 16], usize::MAX);
        let question = c"what is red?".as_ptr();
        // SAFETY: a live handle, a text that ends with a NUL, and places as large as they are said to be.
        let status =
            unsafe { lxmert_model_tokenize(model, question, ids.as_mut_ptr(), ids.len(), &mut count) };
        assert!(count > 0 || ids == [u32::MAX; 16]);
        outcome(status, count > 0)
    };
    shim.refuse_each("C: tokens", &tokens, &|| tokens().unwrap());
    let plan = || {
        // SAFETY: numbers and pointers, for which zeros are values.
        let mut plan = unsafe { std::mem::zeroed::<lxmert_memory_plan>() };
        plan.struct_size = size_of::<lxmert_memory_plan>();
        // SAFETY: a live handle, and a struct of the size that it begins with.
        let status = unsafe { lxmert_plan(model, null(), &mut plan) };
        outcome(status, plan.total > 0)
    };
    shim.refuse_each("C: plan", &plan, &|| plan().unwrap());
    // SAFETY: a live handle that nothing uses any more.
    unsafe { lxmert_model_free(model) };
}

/// The largest steps, of which most is in small blocks, fit into the reserve.
fn large_vocabulary(shim: &Shim) {
    let tokenizer = Tokenizer::from_vocab(&pieces(BERT_PIECES), &BertOptions::default()).unwrap();
    for form in [Form::Json, Form::Pieces] {
        let file = vocabulary::model(&tokenizer, form, ANSWERS);
        let open = || Model::open(file.path()).map(drop).map_err(told);
        shim.refuse(&format!("{form:?}: open"), 40, &open, &|| {});
        let tokenizer =
            || Model::open(file.path()).and_then(|model| model.tokenizer().map(drop)).map_err(told);
        shim.refuse(&format!("{form:?}: tokenizer"), 40, &tokenizer, &|| {});
    }
}
