//! The library's messages in the program's log. There is one log, so the tests take turns.

use std::ffi::{c_char, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;

use crate::support::*;

static TURN: Mutex<()> = Mutex::new(());

static MESSAGES: Mutex<Vec<(i32, String)>> = Mutex::new(Vec::new());

unsafe extern "C" fn keep(level: i32, message: *const c_char, data: *mut c_void) {
    assert_eq!(data, (&raw const MESSAGES).cast_mut().cast());
    // Refused here, where it would wait for itself.
    refused(c!(lxmert_set_log(None, null_mut(), 0)), LXMERT_BUSY, "log callback");
    MESSAGES.lock().unwrap().push((level, string(message)));
}

#[test]
fn messages_go_to_the_callback_up_to_the_level() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let data = (&raw const MESSAGES).cast_mut().cast();
    for level in [0, 5, -1, i32::MIN, i32::MAX] {
        refused(c!(lxmert_set_log(Some(keep), data, level)), LXMERT_INVALID_ARGUMENT, "max_level");
    }
    ok(c!(lxmert_set_log(Some(keep), data, lxmert_log_level::LXMERT_LOG_INFO as i32)));
    log::info!(target: "lxmert::test", "first\nline");
    log::debug!(target: "lxmert::test", "beyond the level");
    log::warn!(target: "another", "of another library");
    log::error!(target: "lxmert", "second");
    // The sums of a profile.
    let profiled = session_with(&easy_vqa(), |options| options.profile = true.into());
    still_answers(&profiled);
    drop(profiled);
    ok(c!(lxmert_set_log(None, null_mut(), 77)));
    log::error!(target: "lxmert", "after the end");

    let messages = MESSAGES.lock().unwrap();
    let of = |text: &str| messages.iter().filter(|(_, message)| message.contains(text)).collect::<Vec<_>>();
    assert_eq!(of("first line"), [&(3, "first line".to_owned())]);
    assert_eq!(of("second"), [&(1, "second".to_owned())]);
    assert!(!of("loaded ").is_empty() && !of("made a session").is_empty());
    assert!(of("beyond").is_empty() && of("another library").is_empty() && of("after").is_empty());
    assert!(messages.iter().all(|(level, _)| (1..=3).contains(level)));
}

/// What a callback is given: whether it may still be used, and how often it was.
#[derive(Default)]
struct Data {
    taken_back: AtomicBool,
    used: AtomicUsize,
    used_late: AtomicBool,
}

unsafe extern "C" fn use_data(_: i32, _: *const c_char, data: *mut c_void) {
    let data = unsafe { &*data.cast::<Data>() };
    std::thread::yield_now();
    data.used.fetch_add(1, SeqCst);
    if data.taken_back.load(SeqCst) {
        data.used_late.store(true, SeqCst);
    }
}

#[test]
fn a_callback_that_was_replaced_is_not_called_any_more() {
    const FLIPS: usize = 200;
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let all: Vec<Data> = (0..FLIPS).map(|_| Data::default()).collect();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    log::error!(target: "lxmert::test", "a message");
                }
            });
        }
        for data in &all {
            let pointer = (&raw const *data).cast_mut().cast();
            ok(c!(lxmert_set_log(Some(use_data), pointer, lxmert_log_level::LXMERT_LOG_ERROR as i32)));
            for _ in 0..1000 {
                if data.used.load(SeqCst) > 0 {
                    break;
                }
                std::thread::yield_now();
            }
            ok(c!(lxmert_set_log(None, null_mut(), 0)));
            data.taken_back.store(true, SeqCst);
        }
        done.store(true, SeqCst);
    });
    assert!(all.iter().any(|data| data.used.load(SeqCst) > 0));
    assert!(all.iter().all(|data| !data.used_late.load(SeqCst)));
}
