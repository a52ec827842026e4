//! A model's file read through functions of the caller's.

use std::ffi::{c_int, c_void};
use std::io::{Error, ErrorKind, Result};

use super::Failure;
use super::arguments::{UserData, Versioned};
use crate::Loader;

/// A source of the caller's own for a model's file: an archive, flash memory, a network. The library never calls two of its
/// functions at once, but may call them from any thread. They must not call functions with the model or its sessions, which may
/// wait for them.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_loader {
    /// sizeof(lxmert_loader): LXMERT_LOADER_INIT sets it.
    pub struct_size: usize,
    /// Reads up to size bytes from the current place, which moves on by as many, into buffer. Returns how many it has read, which
    /// may be fewer; 0 at the end; a negative number if it fails.
    pub read: Option<unsafe extern "C" fn(user_data: *mut c_void, buffer: *mut c_void, size: usize) -> i64>,
    /// Makes offset, in bytes from the start of the file, the current place. Returns 0 unless it fails. It is called before the first
    /// read.
    pub seek: Option<unsafe extern "C" fn(user_data: *mut c_void, offset: u64) -> c_int>,
    /// Size of the file in bytes.
    pub size: u64,
    /// Called once, when the library reads no more: when the model and all its sessions are freed, or when loading has failed. May be
    /// NULL. The one exception: a call that returns LXMERT_INVALID_ARGUMENT has not taken the loader, and does not close it.
    pub close: Option<unsafe extern "C" fn(user_data: *mut c_void)>,
    /// Given to every function.
    pub user_data: *mut c_void,
}

// SAFETY: `repr(C)` with the size first; pointers, optional functions and numbers, all valid as zeros.
unsafe impl Versioned for lxmert_loader {
    const NAME: &'static str = "lxmert_loader";
    const FIRST: usize = std::mem::offset_of!(lxmert_loader, close);
}

/// A loader that the library has taken, to be closed when this is dropped.
pub(super) struct CallerFile {
    read: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> i64,
    seek: unsafe extern "C" fn(*mut c_void, u64) -> c_int,
    close: Option<unsafe extern "C" fn(*mut c_void)>,
    user_data: UserData,
    size: u64,
    /// Where the caller's file stands; `None` before the first seek and after a failure.
    place: Option<u64>,
}

impl CallerFile {
    pub fn new(loader: &lxmert_loader) -> std::result::Result<Self, Failure> {
        let missing = |field| {
            Failure::argument(format_args!("loader->{field} is NULL: a loader needs a function for it"))
        };
        Ok(CallerFile {
            read: loader.read.ok_or_else(|| missing("read"))?,
            seek: loader.seek.ok_or_else(|| missing("seek"))?,
            close: loader.close,
            user_data: UserData::new(loader.user_data),
            size: loader.size,
            place: None,
        })
    }
}

impl Loader for CallerFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&mut self, offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        if self.place != Some(offset) {
            self.place = None;
            // SAFETY: the caller's function takes the caller's data, by the header's rules.
            let outcome = unsafe { (self.seek)(self.user_data.get(), offset) };
            if outcome != 0 {
                return Err(Error::other(format!("the loader's seek to byte {offset} returned {outcome}")));
            }
        }
        let mut at = offset;
        self.place = None;
        while !buffer.is_empty() {
            let room = buffer.len();
            // SAFETY: as above, and the buffer has room for that many bytes.
            let read = unsafe { (self.read)(self.user_data.get(), buffer.as_mut_ptr().cast(), room) };
            match usize::try_from(read) {
                Err(_) => {
                    return Err(Error::other(format!("the loader's read at byte {at} returned {read}")));
                }
                Ok(0) => {
                    let reason =
                        format!("the loader's file ends at byte {at}, before the size that it tells");
                    return Err(Error::new(ErrorKind::UnexpectedEof, reason));
                }
                Ok(bytes) if bytes > room => {
                    let reason = format!("the loader's read at byte {at} returned {bytes} of {room} bytes");
                    return Err(Error::other(reason));
                }
                Ok(bytes) => {
                    buffer = &mut buffer[bytes..];
                    at += bytes as u64;
                }
            }
        }
        self.place = Some(at);
        Ok(())
    }
}

impl Drop for CallerFile {
    fn drop(&mut self) {
        if let Some(close) = self.close {
            // SAFETY: the caller's function takes the caller's data, and this is the last call with it.
            unsafe { close(self.user_data.get()) };
        }
    }
}
