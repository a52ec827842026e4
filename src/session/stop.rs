//! How a call is given up before it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use crate::Error;

/// Gives up what a session is doing, from any thread.
#[derive(Clone, Debug)]
pub struct Canceller {
    cancelled: Arc<AtomicBool>,
}

impl Canceller {
    /// Has the call that is in progress return [`Error::Cancelled`] as soon as the operation at hand is done. Does nothing if none
    /// is in progress.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Asked between operations, by any thread of the session: whether to give up.
pub type Abort = Arc<dyn Fn() -> bool + Send + Sync>;

/// All reasons to give up a call.
pub(super) struct Stop {
    cancelled: Arc<AtomicBool>,
    abort: Option<Abort>,
    limit: Option<Duration>,
    /// When the call at hand has taken too long.
    deadline: Option<Instant>,
    /// Why the call at hand was given up.
    reason: AtomicU8,
}

const CANCELLED: u8 = 1;
const TOO_LATE: u8 = 2;

impl Stop {
    pub fn new(abort: Option<Abort>) -> Self {
        Stop { cancelled: Arc::default(), abort, limit: None, deadline: None, reason: AtomicU8::new(0) }
    }

    pub fn canceller(&self) -> Canceller {
        Canceller { cancelled: Arc::clone(&self.cancelled) }
    }

    pub fn set_limit(&mut self, limit: Option<Duration>) {
        self.limit = limit;
    }

    /// A call begins.
    pub fn begin(&mut self) {
        self.cancelled.store(false, Ordering::Relaxed);
        *self.reason.get_mut() = 0;
        // A limit beyond the end of time is none.
        self.deadline = self.limit.and_then(|limit| Instant::now().checked_add(limit));
    }

    /// Whether to give up the call at hand.
    pub fn is_wanted(&self) -> bool {
        let reason =
            if self.cancelled.load(Ordering::Relaxed) || self.abort.as_ref().is_some_and(|abort| abort()) {
                CANCELLED
            } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                TOO_LATE
            } else {
                return false;
            };
        self.reason.store(reason, Ordering::Relaxed);
        true
    }

    /// What to tell the caller of the call that was given up.
    pub fn error(&self) -> Error {
        match (self.reason.load(Ordering::Relaxed), self.limit) {
            (TOO_LATE, Some(limit)) => Error::TimeLimit { limit },
            _ => Error::Cancelled,
        }
    }
}
