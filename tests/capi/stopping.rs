//! Giving up: callbacks, cancelling, time limits; and one call at a time.

use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;

use crate::support::*;

/// Holds a run where it asks whether to give up.
#[derive(Default)]
struct Gate {
    closed: AtomicBool,
    waiting: AtomicBool,
    give_up: AtomicBool,
    asked: AtomicUsize,
}

unsafe extern "C" fn ask_gate(data: *mut c_void) -> Bool {
    let gate = unsafe { &*data.cast::<Gate>() };
    gate.asked.fetch_add(1, SeqCst);
    while gate.closed.load(SeqCst) {
        gate.waiting.store(true, SeqCst);
        std::thread::yield_now();
    }
    gate.give_up.load(SeqCst).into()
}

fn gated(model: &Model, gate: &Gate) -> Session {
    session_with(model, |options| {
        options.abort = Some(ask_gate);
        options.abort_user_data = (&raw const *gate).cast_mut().cast();
    })
}

/// Does something while another thread is in the middle of a run, and tells what became of that.
fn during_a_run(session: &Session, gate: &Gate, act: impl FnOnce()) -> lxmert_status {
    gate.closed.store(true, SeqCst);
    gate.waiting.store(false, SeqCst);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| encode(session, &picture("example_0.png")));
        while !gate.waiting.load(SeqCst) {
            std::thread::yield_now();
        }
        act();
        gate.closed.store(false, SeqCst);
        run.join().unwrap()
    })
}

#[test]
fn a_session_in_use_is_busy() {
    let model = easy_vqa();
    let gate = Gate::default();
    let session = gated(&model, &gate);
    assert_eq!(ask(&session, "what?", 1).unwrap_err(), LXMERT_NO_IMAGE);
    let text = session_error(&session);
    let outcome = during_a_run(&session, &gate, || {
        let (numbers, ids, mut answers, mut counts) = ([0.5f32; 4], [2u32, 3], [NO_ANSWER; 1], [7; 2]);
        let (start, room) = (numbers.as_ptr(), answers.as_mut_ptr());
        let (shown, mut tensor) = (picture("example_0.png"), lxmert_tensor::sized());
        let busy = |status| refused(status, LXMERT_BUSY, "another call is using the session");
        busy(c!(lxmert_encode_regions(session.0, start, start, 1)));
        busy(encode(&session, &shown));
        busy(c!(lxmert_ask(session.0, c"what?".as_ptr(), room, 1, &mut counts[0])));
        busy(c!(lxmert_ask_tokens(session.0, ids.as_ptr(), 2, room, 1, &mut counts[1])));
        assert_eq!(counts, [0; 2]);
        busy(c!(lxmert_run(session.0, &lxmert_inputs::sized())));
        busy(c!(lxmert_output(session.0, c"pooled_output".as_ptr(), &mut tensor)));
        busy(c!(lxmert_session_set_time_limit(session.0, 1)));
        // Left alone, and usable below.
        c!(lxmert_session_free(session.0));
        assert!(last_error().contains("another call is using the session"));
        // What any thread may do meanwhile.
        assert_eq!(session_error(&session), text);
        assert_eq!(session_info(&session).max_batch, 1);
    });
    ok(outcome);
    still_answers(&session);
}

/// Nothing else tells a program whether its session was freed.
#[test]
fn freeing_a_session_empties_the_last_error() {
    let model = easy_vqa();
    let session = session(&model);
    assert_eq!(ask(&session, "what?", 1).unwrap_err(), LXMERT_NO_IMAGE);
    c!(lxmert_session_free(null_mut()));
    assert!(last_error().contains("encode"));
    drop(session);
    assert_eq!(last_error(), "");
}

#[test]
fn cancelling_ends_the_call_at_hand_only() {
    let model = easy_vqa();
    let gate = Gate::default();
    let session = gated(&model, &gate);
    ok(c!(lxmert_session_cancel(session.0)));
    still_answers(&session);
    let outcome = during_a_run(&session, &gate, || {
        ok(c!(lxmert_session_cancel(session.0)));
        ok(c!(lxmert_session_cancel(session.0)));
    });
    assert_eq!(outcome, LXMERT_CANCELLED);
    assert!(session_error(&session).contains("cancelled"));
    // The image was given up.
    assert_eq!(ask(&session, "what?", 1).unwrap_err(), LXMERT_NO_IMAGE);
    still_answers(&session);
}

#[test]
fn the_abort_callback_gives_up_a_call() {
    let model = easy_vqa();
    let gate = Gate::default();
    let session = gated(&model, &gate);
    still_answers(&session);
    assert!(gate.asked.load(SeqCst) > 0);
    gate.give_up.store(true, SeqCst);
    refused(encode(&session, &picture("example_0.png")), LXMERT_CANCELLED, "cancelled");
    gate.give_up.store(false, SeqCst);
    still_answers(&session);
}

/// Whatever a callback of another language returns for true.
#[test]
fn any_byte_but_zero_is_true() {
    unsafe extern "C" fn two(_: *mut c_void) -> u8 {
        2
    }
    let model = easy_vqa();
    let session = session_with(&model, |options| {
        // A bool of C is a byte.
        options.abort = Some(unsafe {
            std::mem::transmute::<
                unsafe extern "C" fn(*mut c_void) -> u8,
                unsafe extern "C" fn(*mut c_void) -> Bool,
            >(two)
        });
    });
    refused(encode(&session, &picture("example_0.png")), LXMERT_CANCELLED, "cancelled");
}

#[test]
fn a_time_limit_holds_for_every_call_until_it_is_lifted() {
    let model = easy_vqa();
    let gate = Gate::default();
    let session = gated(&model, &gate);
    ok(c!(lxmert_session_set_time_limit(session.0, 1)));
    for _ in 0..2 {
        let outcome =
            during_a_run(&session, &gate, || std::thread::sleep(std::time::Duration::from_millis(2)));
        assert_eq!(outcome, LXMERT_TIME_LIMIT);
        assert!(session_error(&session).contains("time limit"));
    }
    ok(c!(lxmert_session_set_time_limit(session.0, u64::MAX)));
    still_answers(&session);
    ok(c!(lxmert_session_set_time_limit(session.0, 0)));
    still_answers(&session);
}

/// What a session told of its progress.
struct Shares {
    told: Vec<f32>,
    give_up_at: f32,
    inside: AtomicBool,
}

unsafe extern "C" fn tell(fraction: f32, data: *mut c_void) -> Bool {
    let shares = data.cast::<Shares>();
    assert!(!unsafe { &(*shares).inside }.swap(true, SeqCst), "two calls at once");
    std::thread::sleep(std::time::Duration::from_micros(200));
    let told = unsafe { &mut (*shares).told };
    told.push(fraction);
    let go_on = fraction < unsafe { (*shares).give_up_at };
    unsafe { &(*shares).inside }.store(false, SeqCst);
    go_on.into()
}

#[test]
fn progress_is_told_in_order_and_can_be_given_up() {
    if string(session_info(&session_with(&easy_vqa(), |_| ())).lowering) == "ggml" {
        eprintln!("skipped: this CPU has no kernels to make weights ready for");
        return;
    }
    for (threads, give_up_at) in [(1, 0.0), (4, 0.0), (4, 0.5), (1, f32::MAX), (4, f32::MAX)] {
        let mut shares = Shares { told: Vec::new(), give_up_at, inside: AtomicBool::new(false) };
        let options = lxmert_session_options {
            threads,
            progress: Some(tell),
            progress_user_data: (&raw mut shares).cast(),
            ..lxmert_session_options::sized()
        };
        // Every model makes its weights ready once.
        let model = easy_vqa();
        let mut handle = null_mut();
        let status = c!(lxmert_session_create(model.0, &options, &mut handle));
        if give_up_at < 1.0 {
            refused(status, LXMERT_CANCELLED, "cancelled");
            assert!(handle.is_null());
        } else {
            ok(status);
            still_answers(&Session(handle));
        }
        let told = &shares.told;
        assert!(!told.is_empty() && told.is_sorted_by(|one, next| one < next), "{told:?}");
        assert!(told.iter().all(|share| (0.0..=1.0).contains(share)), "{told:?}");
        // No call follows the one that gave up.
        let given_up = told.iter().position(|share| *share >= give_up_at);
        assert_eq!(given_up, (give_up_at < 1.0).then(|| told.len() - 1), "{told:?}");
    }
}
