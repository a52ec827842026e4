//! The outcomes of a call.

use std::ffi::{CStr, c_char};
use std::io::ErrorKind;

use crate::{Error, text, vision};

/// What became of a call. Numbers never change; later versions may add some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum lxmert_status {
    /// Done.
    LXMERT_OK = 0,
    /// An argument that the function cannot take: NULL, a wrong size or enumeration, a tensor of the wrong shape or with numbers
    /// out of range, a question without words.
    LXMERT_INVALID_ARGUMENT = 1,
    /// A file could not be opened or read, or a loader failed.
    LXMERT_IO = 2,
    /// The model's file breaks a rule, is of another architecture, or is packed for other kernels.
    LXMERT_INVALID_MODEL = 3,
    /// Memory could not be had. Everything that was there before still works.
    LXMERT_OUT_OF_MEMORY = 4,
    /// More tokens, regions or pairs than the session was made for, or than the model can take, or a session of more memory than any
    /// may take (16 GiB).
    LXMERT_LIMIT = 5,
    /// Something that the model does not have (a tokenizer, answers, a front end for pixels) or the machine cannot do.
    LXMERT_UNSUPPORTED = 6,
    /// A question was asked while no single image is encoded.
    LXMERT_NO_IMAGE = 7,
    /// An output that the session was not made to compute, or nothing has run yet.
    LXMERT_NOT_REQUESTED = 8,
    /// Given up, as lxmert_session_cancel, the abort callback or the progress callback asked.
    LXMERT_CANCELLED = 9,
    /// The session's time limit was reached.
    LXMERT_TIME_LIMIT = 10,
    /// No way to run fits the memory budget; the text names the smallest that would.
    LXMERT_BUDGET = 11,
    /// Another thread uses the session at the moment.
    LXMERT_BUSY = 12,
    /// Scores that are no numbers: an intermediate result left the range of the weights' type.
    LXMERT_NOT_FINITE = 13,
    /// The operating system gave no threads or did not lock memory.
    LXMERT_SYSTEM = 14,
    /// A fault of the library itself. Its objects stay usable.
    LXMERT_INTERNAL = 15,
    /// A device beside the CPU, or its driver, failed: free the session, and make one with device "cpu".
    LXMERT_DEVICE = 16,
}

use lxmert_status::*;

const NAMES: [(lxmert_status, &CStr); 17] = [
    (LXMERT_OK, c"LXMERT_OK"),
    (LXMERT_INVALID_ARGUMENT, c"LXMERT_INVALID_ARGUMENT"),
    (LXMERT_IO, c"LXMERT_IO"),
    (LXMERT_INVALID_MODEL, c"LXMERT_INVALID_MODEL"),
    (LXMERT_OUT_OF_MEMORY, c"LXMERT_OUT_OF_MEMORY"),
    (LXMERT_LIMIT, c"LXMERT_LIMIT"),
    (LXMERT_UNSUPPORTED, c"LXMERT_UNSUPPORTED"),
    (LXMERT_NO_IMAGE, c"LXMERT_NO_IMAGE"),
    (LXMERT_NOT_REQUESTED, c"LXMERT_NOT_REQUESTED"),
    (LXMERT_CANCELLED, c"LXMERT_CANCELLED"),
    (LXMERT_TIME_LIMIT, c"LXMERT_TIME_LIMIT"),
    (LXMERT_BUDGET, c"LXMERT_BUDGET"),
    (LXMERT_BUSY, c"LXMERT_BUSY"),
    (LXMERT_NOT_FINITE, c"LXMERT_NOT_FINITE"),
    (LXMERT_SYSTEM, c"LXMERT_SYSTEM"),
    (LXMERT_INTERNAL, c"LXMERT_INTERNAL"),
    (LXMERT_DEVICE, c"LXMERT_DEVICE"),
];

/// The name of a status, such as "LXMERT_OK"; "unknown status" for any other number. Never NULL; valid for as long as the
/// library is loaded.
///
/// | allocates   | no    |
/// |-------------|-------|
/// | thread-safe | yes   |
/// | blocks      | no    |
/// | fails       | never |
#[unsafe(no_mangle)]
pub extern "C" fn lxmert_status_name(status: i32) -> *const c_char {
    let known = NAMES.iter().find(|(known, _)| *known as i32 == status);
    known.map_or(c"unknown status", |(_, name)| name).as_ptr()
}

impl lxmert_status {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::Io { source, .. } => of_io(source),
            Error::File { source, .. } => Self::of(source),
            Error::Read { source, .. } => of_io(source),
            Error::Gguf(_)
            | Error::Architecture { .. }
            | Error::Hyperparameter { .. }
            | Error::FrontEnd { .. }
            | Error::Tensor { .. }
            | Error::Checksum { .. }
            | Error::Replaced
            | Error::Packed { .. } => LXMERT_INVALID_MODEL,
            Error::Input { .. } | Error::Memory { .. } => LXMERT_INVALID_ARGUMENT,
            Error::Limit { .. } => LXMERT_LIMIT,
            Error::Missing { .. } | Error::Instructions { .. } => LXMERT_UNSUPPORTED,
            Error::NoImage => LXMERT_NO_IMAGE,
            Error::Text(text::Error::Invalid { .. }) => LXMERT_INVALID_MODEL,
            Error::Text(text::Error::Failed { .. }) => LXMERT_INTERNAL,
            Error::Text(_) => LXMERT_INVALID_ARGUMENT,
            Error::Vision(error) => of_vision(error),
            Error::OutOfMemory { .. } => LXMERT_OUT_OF_MEMORY,
            Error::NotRequested { .. } => LXMERT_NOT_REQUESTED,
            Error::NotFinite { .. } => LXMERT_NOT_FINITE,
            Error::Cancelled => LXMERT_CANCELLED,
            Error::TimeLimit { .. } => LXMERT_TIME_LIMIT,
            Error::Budget { .. } => LXMERT_BUDGET,
            Error::Threads { source, .. } if source.kind() == ErrorKind::OutOfMemory => LXMERT_OUT_OF_MEMORY,
            Error::Threads { .. } | Error::Lock { .. } => LXMERT_SYSTEM,
            Error::Ggml(_) => LXMERT_INTERNAL,
            Error::Device { .. } => LXMERT_DEVICE,
        }
    }
}

fn of_io(error: &std::io::Error) -> lxmert_status {
    if error.kind() == ErrorKind::OutOfMemory { LXMERT_OUT_OF_MEMORY } else { LXMERT_IO }
}

fn of_vision(error: &vision::Error) -> lxmert_status {
    match error {
        vision::Error::File { source, .. } => of_vision(source),
        vision::Error::Read(error) => of_io(error),
        _ => LXMERT_INVALID_ARGUMENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_name() {
        for (n, (status, name)) in NAMES.iter().enumerate() {
            assert_eq!(*status as usize, n);
            assert_eq!(name.to_str().unwrap(), format!("{status:?}"));
        }
    }

    #[test]
    fn looks_behind_the_file_that_an_error_names() {
        let inner = Error::io("b")(ErrorKind::OutOfMemory.into());
        assert_eq!(lxmert_status::of(&Error::in_file("a".as_ref())(inner)), LXMERT_OUT_OF_MEMORY);
        let unread = vision::Error::Read(ErrorKind::NotFound.into());
        assert_eq!(lxmert_status::of(&Error::Vision(unread)), LXMERT_IO);
        let threads = |kind: ErrorKind| Error::Threads { threads: 2, source: kind.into() };
        assert_eq!(lxmert_status::of(&threads(ErrorKind::OutOfMemory)), LXMERT_OUT_OF_MEMORY);
        assert_eq!(lxmert_status::of(&threads(ErrorKind::WouldBlock)), LXMERT_SYSTEM);
    }
}
