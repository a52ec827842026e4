//! A session's life: making it, what it was made for, stopping it.

use std::cell::UnsafeCell;
use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::arguments::{Out, Versioned, place, places};
use super::device::kept;
use super::errors::{Line, caught, clear_last, last, status};
use super::handles::{Handle, Kind};
use super::model::{LoadedModel, lxmert_model};
use super::options::{Given, lxmert_residency, lxmert_session_options};
use super::strings::{CStrings, lowering_name};
use super::{Failure, lxmert_status};
use crate::{Canceller, OperationTime, Session};

/// What runs a model: the memory of a run, and the state between an image and its questions. One thread uses it at a time;
/// only lxmert_session_cancel, lxmert_session_last_error and lxmert_session_get_info may be called meanwhile.
pub struct lxmert_session {
    _opaque: (),
}

/// What a session was made for, and what it takes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_session_info {
    /// sizeof(lxmert_session_info): LXMERT_SESSION_INFO_INIT sets it.
    pub struct_size: usize,
    /// Where the weights are: one of lxmert_residency, never LXMERT_RESIDENCY_AUTO.
    pub residency: i32,
    /// How the model is computed, such as "avx2". Valid for as long as the library is loaded.
    pub lowering: *const c_char,
    /// Where the model is computed: "cpu", or as lxmert_device_info has it. Valid for as long as the library is loaded.
    pub device: *const c_char,
    /// The longest question in tokens, [CLS] and [SEP] included.
    pub max_tokens: usize,
    /// The most regions of an image.
    pub max_regions: usize,
    /// The most pairs of image and question in one lxmert_run.
    pub max_batch: usize,
    /// The threads that compute, the calling one included.
    pub threads: usize,
    /// Bytes of memory that the session holds, beside the model's weights.
    pub session_bytes: usize,
    /// Answers that the model tells apart, and so the most that lxmert_ask gives; 0 without an answer head.
    pub label_count: usize,
}

// SAFETY: `repr(C)` with the size first; numbers and a pointer.
unsafe impl Versioned for lxmert_session_info {
    const NAME: &'static str = "lxmert_session_info";
    const FIRST: usize = std::mem::offset_of!(lxmert_session_info, device);
}

/// Behind a session's handle.
pub(super) struct OpenSession {
    /// Whether a call is using `session`.
    busy: AtomicBool,
    session: UnsafeCell<Session>,
    canceller: Canceller,
    labels: Option<Arc<CStrings>>,
    info: lxmert_session_info,
    last_error: Mutex<Line>,
}

// SAFETY: threads share of it what is shared anyway, and `session`, which is `Send`, one at a time: `Claim` sees to that. The pointer in
// `info` is to a text that lives as long as the library.
unsafe impl Sync for OpenSession {}
// SAFETY: as for `Sync`.
unsafe impl Send for OpenSession {}

const _: () = {
    const fn sent<T: Send>() {}
    sent::<Session>();
};

impl Kind for OpenSession {
    const MARK: u64 = u64::from_le_bytes(*b"\x91lxsessn");
    const NAME: &'static str = "session";
    type Opaque = lxmert_session;
}

/// The right to use a session, until it is dropped.
struct Claim<'h>(&'h OpenSession);

impl<'h> Claim<'h> {
    fn of(open: &'h OpenSession) -> Result<Self, Failure> {
        if open.busy.swap(true, Ordering::Acquire) {
            return Err(Failure::new(
                lxmert_status::LXMERT_BUSY,
                format_args!(
                    "another call is using the session: wait for it, or make a session for every thread"
                ),
            ));
        }
        Ok(Claim(open))
    }

    fn session(&mut self) -> &mut Session {
        // SAFETY: `busy` lets one claim live at a time.
        unsafe { &mut *self.0.session.get() }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

/// Runs the body of a function that uses a session, and keeps the text of its failure there too.
///
/// # Safety
/// The handle is a live one or NULL, by the header's rules.
pub(super) unsafe fn with_session(
    handle: *const lxmert_session,
    body: impl FnOnce(&mut Session, Option<&CStrings>) -> Result<(), Failure>,
) -> lxmert_status {
    status(|| {
        // SAFETY: this function's contract.
        let open = unsafe { Handle::<OpenSession>::get(handle) }?;
        let mut claim = Claim::of(open)?;
        caught(|| body(claim.session(), open.labels.as_deref())).inspect_err(|_| {
            *open.last_error.lock().unwrap_or_else(PoisonError::into_inner) = last();
        })
    })
}

/// Makes a session and takes all its memory, so that its runs take none. options may be NULL for the defaults: one question at
/// a time, of any length up to 512 tokens, about an image of up to 100 regions or of the model's patch grid. The struct and
/// what it points to, memory and callbacks' data apart, are read during the call only.
///
/// On success out is a new handle, to be freed with lxmert_session_free; on failure NULL. The model's handle may be freed
/// before the session.
///
/// | allocates   | all that the session takes, from allocator or in memory where they are given; with the first session |
/// |-------------|------------------------------------------------------------------------------------------------------|
/// |             | of a model, its weights in the order of the kernels                                                  |
/// | thread-safe | yes                                                                                                  |
/// | blocks      | while weights are made ready, also by another thread                                                 |
/// | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_LIMIT, LXMERT_UNSUPPORTED, LXMERT_INVALID_MODEL for a lowering that  |
/// |             | does not read a packed file, LXMERT_OUT_OF_MEMORY, LXMERT_BUDGET, LXMERT_CANCELLED by progress,      |
/// |             | LXMERT_IO, LXMERT_SYSTEM, LXMERT_DEVICE; then nothing is left behind but what later sessions of the model share     |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_session_create(
    model: *const lxmert_model,
    options: *const lxmert_session_options,
    out: *mut *mut lxmert_session,
) -> lxmert_status {
    status(|| {
        // SAFETY: a place for a pointer or NULL, by the header's rules.
        let out = unsafe { place("out", out) }?;
        out.write(std::ptr::null_mut());
        // SAFETY: a live handle, or NULL, by the header's rules.
        let loaded = unsafe { Handle::<LoadedModel>::get(model) }?;
        let handle = Handle::new(|| {
            // SAFETY: options or NULL, by the header's rules.
            let given = unsafe { Given::read(&loaded.model, options) }?;
            let session = given.memory.session(&loaded.model, given.options)?;
            Ok(OpenSession {
                busy: AtomicBool::new(false),
                canceller: session.canceller(),
                labels: loaded.labels.clone(),
                info: about(&session)?,
                last_error: Mutex::new(Line::EMPTY),
                session: UnsafeCell::new(session),
            })
        })?;
        out.write(Handle::give_out(handle));
        Ok(())
    })
}

fn about(session: &Session) -> Result<lxmert_session_info, Failure> {
    let options = session.options();
    Ok(lxmert_session_info {
        struct_size: size_of::<lxmert_session_info>(),
        residency: lxmert_residency::of(session.plan().residency) as i32,
        lowering: lowering_name(session.lowering()),
        device: kept(&session.plan().device.to_string())?,
        max_tokens: options.max_tokens,
        max_regions: options.max_regions,
        max_batch: options.max_batch,
        threads: options.threads,
        session_bytes: session.plan().session,
        label_count: session.model().config().head.labels().unwrap_or(0),
    })
}

/// Frees a session; NULL is fine, and does nothing. Its outputs and the texts of its answers end with it.
///
/// What the options gave the session (memory, allocator, the callbacks and their data) must stay until a call that has freed it. So
/// before freeing a session that another thread may be using, cancel it, and wait for that thread's call to return.
///
/// | allocates   | only to report a profile                                                                   |
/// |-------------|--------------------------------------------------------------------------------------------|
/// | thread-safe | not while another call uses the same handle                                                |
/// | blocks      | until its threads have ended                                                               |
/// | fails       | a session that a call is using, and what is no live handle, are left alone; then           |
/// |             | lxmert_last_error says so, and the log for the former. Otherwise its text is empty by then |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_session_free(session: *mut lxmert_session) {
    if session.is_null() {
        return;
    }
    let _ = status(|| {
        // SAFETY: a live handle, by the header's rules.
        let open = unsafe { Handle::<OpenSession>::get(session) }?;
        let mut claim = Claim::of(open).inspect_err(|_| {
            log::error!("lxmert_session_free left a session alone that a call is using: it is not freed");
        })?;
        for OperationTime { kind, name, device, time, multiplications } in claim.session().profile() {
            let us = time.as_micros();
            log::info!("{kind} {name} on {device}: {us} us, {multiplications} multiplications");
        }
        // A call that comes too late finds the session busy.
        std::mem::forget(claim);
        // SAFETY: as above, and nothing else uses the handle any more.
        unsafe { Handle::<OpenSession>::free(session) }?;
        clear_last();
        Ok(())
    });
}

/// Copies the text of the session's last failed call, whichever thread made it, into buffer, which has room for size bytes: one
/// line of UTF-8, closed by a NUL and cut between characters where there is no room; empty if none has failed. Calls that
/// LXMERT_BUSY refused do not count, as the session knows nothing of them.
///
/// | allocates   | no                                              |
/// |-------------|-------------------------------------------------|
/// | thread-safe | yes, also while another thread uses the session |
/// | blocks      | while another thread copies or sets the text    |
/// | fails       | LXMERT_INVALID_ARGUMENT, also for a size of 0   |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_session_last_error(
    session: *const lxmert_session,
    buffer: *mut c_char,
    size: usize,
) -> lxmert_status {
    status(|| {
        // SAFETY: room for so many bytes or NULL, by the header's rules.
        let buffer = unsafe { places("buffer", buffer, size) }?;
        let Some(first) = buffer.first_mut() else {
            return Err(Failure::argument(format_args!(
                "size is 0: the text needs room for its closing NUL"
            )));
        };
        first.write(0);
        // SAFETY: a live handle, or NULL, by the header's rules.
        let open = unsafe { Handle::<OpenSession>::get(session) }?;
        let line = *open.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        let text = line.cut(size - 1);
        for (place, byte) in buffer.iter_mut().zip(text.iter().chain(&[0])) {
            place.write(*byte as c_char);
        }
        Ok(())
    })
}

/// Gives every call that runs the model from now on at most so many microseconds; 0 for no limit, as at first. A call that
/// reaches its limit returns LXMERT_TIME_LIMIT within one operation; while lxmert_ask makes or uses the tokenizer, or a picture is
/// scaled, that comes first.
///
/// | allocates   | no                                                         |
/// |-------------|------------------------------------------------------------|
/// | thread-safe | one call on a session at a time; others return LXMERT_BUSY |
/// | blocks      | no                                                         |
/// | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_BUSY                       |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_session_set_time_limit(
    session: *mut lxmert_session,
    microseconds: u64,
) -> lxmert_status {
    let body = |session: &mut Session, _: Option<&CStrings>| {
        session.set_time_limit((microseconds > 0).then(|| Duration::from_micros(microseconds)));
        Ok(())
    };
    // SAFETY: a live handle, or NULL, by the header's rules.
    unsafe { with_session(session, body) }
}

/// Makes the call that is using the session return LXMERT_CANCELLED within one operation; does nothing if none is. While lxmert_ask
/// makes or uses the tokenizer, or a picture is scaled, that comes first.
///
/// | allocates   | no                                                                 |
/// |-------------|--------------------------------------------------------------------|
/// | thread-safe | yes: it is made to be called while another thread uses the session |
/// | blocks      | no: it does not wait for that call                                 |
/// | fails       | LXMERT_INVALID_ARGUMENT                                            |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_session_cancel(session: *mut lxmert_session) -> lxmert_status {
    status(|| {
        // SAFETY: a live handle, or NULL, by the header's rules.
        unsafe { Handle::<OpenSession>::get(session) }?.canceller.cancel();
        Ok(())
    })
}

/// Tells what a session was made for, with the defaults filled in, and what it takes. Only as much of info is written as its
/// struct_size says.
///
/// | allocates   | no                                              |
/// |-------------|-------------------------------------------------|
/// | thread-safe | yes, also while another thread uses the session |
/// | blocks      | no                                              |
/// | fails       | LXMERT_INVALID_ARGUMENT                         |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_session_get_info(
    session: *const lxmert_session,
    info: *mut lxmert_session_info,
) -> lxmert_status {
    status(|| {
        // SAFETY: a struct of the size that it begins with or NULL, by the header's rules.
        let info = unsafe { Out::new("info", info) }?;
        // SAFETY: a live handle, or NULL, by the header's rules.
        let open = unsafe { Handle::<OpenSession>::get(session) }?;
        info.write(&open.info);
        Ok(())
    })
}
