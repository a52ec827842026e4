//! Hands what the library reports to the program's own log.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::sync::{OnceLock, PoisonError, RwLock};

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::arguments::UserData;
use super::errors::{Line, status};
use super::{Failure, lxmert_status};

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum lxmert_log_level {
    /// Something failed that no status tells.
    LXMERT_LOG_ERROR = 1,
    /// Something is not as it should be, and works all the same.
    LXMERT_LOG_WARN = 2,
    /// What was loaded and made, and how it runs.
    LXMERT_LOG_INFO = 3,
    /// What helps to find a fault.
    LXMERT_LOG_DEBUG = 4,
}

/// Takes one message: its level, one of lxmert_log_level; one line of UTF-8 that is valid during the call; and the pointer given
/// to lxmert_set_log. It is called from any thread, also from several at once. It must not call lxmert_set_log, nor functions with
/// the model or session that the message is about.
pub type lxmert_log_callback =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, user_data: *mut c_void)>;

#[derive(Clone, Copy)]
struct Sink {
    callback: unsafe extern "C" fn(i32, *const c_char, *mut c_void),
    user_data: UserData,
}

static SINK: RwLock<Option<Sink>> = RwLock::new(None);

thread_local! {
    /// Whether this thread is in the callback, where another message would wait for itself.
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

struct Forward;

impl Log for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("lxmert")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || REPORTING.replace(true) {
            return;
        }
        let message = Line::of(*record.args());
        // Held during the call: after lxmert_set_log has returned, the old callback is not called any more.
        let sink = SINK.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(Sink { callback, user_data }) = *sink {
            let level = match record.level() {
                Level::Error => lxmert_log_level::LXMERT_LOG_ERROR,
                Level::Warn => lxmert_log_level::LXMERT_LOG_WARN,
                Level::Info => lxmert_log_level::LXMERT_LOG_INFO,
                Level::Debug | Level::Trace => lxmert_log_level::LXMERT_LOG_DEBUG,
            };
            // SAFETY: the caller of lxmert_set_log gave a function of this type, and the data that it takes.
            unsafe { callback(level as i32, message.as_ptr(), user_data.get()) };
        }
        drop(sink);
        REPORTING.set(false);
    }

    fn flush(&self) {}
}

/// Sets the function that the library's messages go to, up to max_level (one of lxmert_log_level). A NULL callback makes it
/// silent again, as it is at first; max_level then does not matter. When the call returns, the previous callback runs no more
/// and its user_data may be freed.
///
/// | allocates   | no                                                                                                  |
/// |-------------|-----------------------------------------------------------------------------------------------------|
/// | thread-safe | yes, but not from within the callback                                                               |
/// | blocks      | until messages under way are delivered                                                              |
/// | fails       | LXMERT_INVALID_ARGUMENT for another level; LXMERT_BUSY from within the callback; LXMERT_UNSUPPORTED |
/// |             | in a Rust program that has set a logger of its own                                                  |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_set_log(
    callback: lxmert_log_callback,
    user_data: *mut c_void,
    max_level: i32,
) -> lxmert_status {
    status(|| {
        if REPORTING.get() {
            return Err(Failure::new(
                lxmert_status::LXMERT_BUSY,
                format_args!("lxmert_set_log was called by the log callback: call it from elsewhere"),
            ));
        }
        let filter = match max_level {
            _ if callback.is_none() => LevelFilter::Off,
            1 => LevelFilter::Error,
            2 => LevelFilter::Warn,
            3 => LevelFilter::Info,
            4 => LevelFilter::Debug,
            level => {
                return Err(Failure::argument(format_args!(
                    "max_level is {level}: give one of lxmert_log_level, 1 to 4"
                )));
            }
        };
        static OURS: OnceLock<bool> = OnceLock::new();
        if !OURS.get_or_init(|| log::set_logger(&Forward).is_ok()) {
            return Err(Failure::new(
                lxmert_status::LXMERT_UNSUPPORTED,
                format_args!("the program has set a Rust logger of its own: the library's messages go there"),
            ));
        }
        let sink = callback.map(|callback| Sink { callback, user_data: UserData::new(user_data) });
        // Held until the level is set too: of two calls at once, both are the later one's.
        let mut place = SINK.write().unwrap_or_else(PoisonError::into_inner);
        *place = sink;
        log::set_max_level(filter);
        Ok(())
    })
}
