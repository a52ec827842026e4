//! How a call fails: a status, and a line of text that is kept without an allocation.

use std::any::Any;
use std::cell::Cell;
use std::ffi::c_char;
use std::fmt::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::lxmert_status;
use crate::Error;
use crate::reserve::{Threads, watched};

/// Room for a text and its closing NUL. The longest texts name a path and what is wrong behind it.
const LINE_BYTES: usize = 1024;

/// One line of UTF-8, closed by a NUL and cut where the buffer ends.
#[derive(Clone, Copy)]
#[repr(C)] // so that a pointer to it points to the text
pub(super) struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    pub const EMPTY: Line = Line { bytes: [0; LINE_BYTES], len: 0 };

    pub fn of(text: fmt::Arguments<'_>) -> Self {
        let mut line = Line::EMPTY;
        // An error only says that the buffer is full, and the text is cut there.
        let _ = line.write_fmt(text);
        line
    }

    pub fn as_ptr(&self) -> *const c_char {
        self.bytes.as_ptr().cast()
    }

    /// The text, cut to a whole number of characters in at most `limit` bytes.
    pub fn cut(&self, limit: usize) -> &[u8] {
        let mut end = self.len.min(limit);
        while end < self.len && self.bytes[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        &self.bytes[..end]
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for char in text.chars() {
            // A file's strings may hold anything, and a NUL would end the text.
            let char = if char.is_control() { ' ' } else { char };
            let end = self.len + char.len_utf8();
            if end >= LINE_BYTES {
                return Err(fmt::Error);
            }
            char.encode_utf8(&mut self.bytes[self.len..end]);
            self.len = end;
        }
        Ok(())
    }
}

thread_local! {
    static LAST: Cell<Line> = const { Cell::new(Line::EMPTY) };
}

/// The text of this thread's last failure.
pub(super) fn last() -> Line {
    LAST.get()
}

/// Forgets that text.
pub(super) fn clear_last() {
    LAST.set(Line::EMPTY);
}

/// A failed call, whose text is this thread's last error by now.
#[derive(Debug)]
pub(super) struct Failure(lxmert_status);

impl Failure {
    pub fn new(status: lxmert_status, text: fmt::Arguments<'_>) -> Self {
        LAST.set(Line::of(text));
        Failure(status)
    }

    /// An argument that the function cannot take.
    pub fn argument(text: fmt::Arguments<'_>) -> Self {
        Self::new(lxmert_status::LXMERT_INVALID_ARGUMENT, text)
    }

    fn panic(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text");
        log::error!("a panic was caught: {text}");
        Self::new(
            lxmert_status::LXMERT_INTERNAL,
            format_args!("the library failed: {text}; this is a fault of the library, please report it"),
        )
    }

    pub fn status(&self) -> lxmert_status {
        self.0
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(lxmert_status::of(&error), format_args!("{error}"))
    }
}

/// Makes what a function has to tell, before it writes any of that: lack of memory is an error of the call, and its results stay as they are.
pub(super) fn made<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    watched(Threads::This, "a result of the call", body)
}

/// Runs the body of a function so that no panic leaves it.
pub(super) fn caught(body: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    // What a panic leaves behind half done is scratch memory, which every run overwrites.
    let body = || watched(Threads::This, "a part of the call", body);
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::panic(&*payload)))
}

/// The same, with the outcome as C sees it.
pub(super) fn status(body: impl FnOnce() -> Result<(), Failure>) -> lxmert_status {
    caught(body).map_or_else(|failure| failure.status(), |()| lxmert_status::LXMERT_OK)
}

/// The text of the calling thread's last failed call: one line of UTF-8 that names what is wrong and what to do, cut to 1023
/// bytes; an empty string if none has failed. A call that succeeds leaves it as it is, but for lxmert_session_free, which empties
/// it. Never NULL; valid until it changes so, or with the next failure on the same thread.
///
/// | allocates   | no                                 |
/// |-------------|------------------------------------|
/// | thread-safe | yes: every thread has its own text |
/// | blocks      | no                                 |
/// | fails       | never                              |
#[unsafe(no_mangle)]
pub extern "C" fn lxmert_last_error() -> *const c_char {
    LAST.with(|line| line.as_ptr().cast_const().cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_text() -> String {
        String::from_utf8(last().cut(usize::MAX).to_vec()).unwrap()
    }

    #[test]
    fn a_panic_becomes_a_status_with_its_text() {
        let found = status(|| panic!("the {}th wheel came off", 5));
        assert_eq!(found, lxmert_status::LXMERT_INTERNAL);
        assert!(last_text().contains("the 5th wheel came off"), "{}", last_text());
        assert_eq!(status(|| panic!("plain")), lxmert_status::LXMERT_INTERNAL);
        assert!(last_text().contains("plain"));
        let found = status(|| std::panic::panic_any(7));
        assert_eq!(found, lxmert_status::LXMERT_INTERNAL);
        assert!(last_text().contains("no text"));
    }

    #[test]
    fn success_leaves_the_last_text() {
        let failed = status(|| Err(Failure::argument(format_args!("first"))));
        assert_eq!(failed, lxmert_status::LXMERT_INVALID_ARGUMENT);
        assert_eq!(status(|| Ok(())), lxmert_status::LXMERT_OK);
        assert_eq!(last_text(), "first");
    }

    #[test]
    fn a_line_is_cut_between_characters_and_stays_one_line() {
        let line = Line::of(format_args!("{}", "ä".repeat(LINE_BYTES)));
        assert_eq!(line.len, LINE_BYTES - 2);
        assert_eq!(line.bytes[line.len..], [0, 0]);
        assert_eq!(line.cut(5), "ää".as_bytes());
        assert_eq!(line.cut(0), b"");
        assert_eq!(Line::of(format_args!("a\nb\0c\td")).cut(99), b"a b c d");
    }
}
