//! Models from memory and through functions of the caller's.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::Mutex;

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;

use crate::support::*;

/// A file in memory that misbehaves on demand.
struct File {
    bytes: Vec<u8>,
    place: usize,
    /// The most bytes that a read gives.
    most: usize,
    /// What the n-th read returns in place of a count.
    read_returns: Option<(usize, i64)>,
    seek_fails: bool,
    reads: usize,
    closed: usize,
}

impl File {
    fn new() -> Self {
        let bytes = std::fs::read(file()).unwrap();
        File {
            bytes,
            place: usize::MAX,
            most: usize::MAX,
            read_returns: None,
            seek_fails: false,
            reads: 0,
            closed: 0,
        }
    }

    fn loader(&mut self) -> lxmert_loader {
        lxmert_loader {
            read: Some(read),
            seek: Some(seek),
            size: self.bytes.len() as u64,
            close: Some(close),
            user_data: (&raw mut *self).cast(),
            ..lxmert_loader::sized()
        }
    }
}

unsafe extern "C" fn read(data: *mut c_void, buffer: *mut c_void, size: usize) -> i64 {
    let file = unsafe { &mut *data.cast::<File>() };
    assert_eq!(file.closed, 0);
    file.reads += 1;
    if let Some((_, value)) = file.read_returns.filter(|(n, _)| file.reads > *n) {
        return value;
    }
    let count = size.min(file.most).min(file.bytes.len() - file.place);
    c!(std::ptr::copy_nonoverlapping(file.bytes[file.place..].as_ptr(), buffer.cast::<u8>(), count));
    file.place += count;
    count as i64
}

unsafe extern "C" fn seek(data: *mut c_void, offset: u64) -> c_int {
    let file = unsafe { &mut *data.cast::<File>() };
    file.place = offset as usize;
    if file.seek_fails { -7 } else { 0 }
}

unsafe extern "C" fn close(data: *mut c_void) {
    unsafe { &mut *data.cast::<File>() }.closed += 1;
}

fn load(loader: &lxmert_loader) -> Result<Model, lxmert_status> {
    let mut handle = std::ptr::dangling::<lxmert_model>().cast_mut();
    let status = c!(lxmert_model_from_loader(loader, &mut handle));
    assert_eq!(handle.is_null(), status != LXMERT_OK);
    if status == LXMERT_OK { Ok(Model(handle)) } else { Err(status) }
}

#[test]
fn short_reads_are_fine() {
    for most in [usize::MAX, 1 << 16, 4099] {
        let mut file = File { most, ..File::new() };
        let model = load(&file.loader()).unwrap_or_else(|_| panic!("{}", last_error()));
        let session = session(&model);
        still_answers(&session);
        drop(model);
        assert_eq!(file.closed, 0, "the session may still read");
        still_answers(&session);
        drop(session);
        assert_eq!(file.closed, 1);
    }
}

#[test]
fn a_loader_without_close_is_fine() {
    let mut file = File::new();
    let loader = lxmert_loader { close: None, ..file.loader() };
    still_answers(&session(&load(&loader).unwrap()));
    assert_eq!(file.closed, 0);
}

/// The same bytes for functions that get no data.
static ONLY_FILE: Mutex<Option<File>> = Mutex::new(None);

#[test]
fn the_smallest_loader_has_neither_close_nor_data() {
    unsafe extern "C" fn read_only(data: *mut c_void, buffer: *mut c_void, size: usize) -> i64 {
        assert!(data.is_null());
        let mut file = ONLY_FILE.lock().unwrap();
        c!(read((&raw mut *file.as_mut().unwrap()).cast(), buffer, size))
    }
    unsafe extern "C" fn seek_only(data: *mut c_void, offset: u64) -> c_int {
        assert!(data.is_null());
        let mut file = ONLY_FILE.lock().unwrap();
        c!(seek((&raw mut *file.as_mut().unwrap()).cast(), offset))
    }
    let mut file = File::new();
    let loader = lxmert_loader {
        struct_size: std::mem::offset_of!(lxmert_loader, close),
        read: Some(read_only),
        seek: Some(seek_only),
        // Not looked at: beyond the size.
        ..file.loader()
    };
    *ONLY_FILE.lock().unwrap() = Some(file);
    still_answers(&session(&load(&loader).unwrap()));
    assert_eq!(ONLY_FILE.lock().unwrap().as_ref().unwrap().closed, 0);
}

#[test]
fn failures_of_a_loader_are_told_and_close_it() {
    type Spoil = fn(&mut File);
    let cases: [(Spoil, lxmert_status, &str); 6] = [
        (|file| file.read_returns = Some((0, -5)), LXMERT_IO, "-5"),
        (|file| file.read_returns = Some((0, i64::MIN)), LXMERT_IO, "read"),
        (|file| file.read_returns = Some((0, 0)), LXMERT_IO, "ends at byte 0"),
        (|file| file.read_returns = Some((0, i64::MAX)), LXMERT_IO, "returned"),
        (|file| file.seek_fails = true, LXMERT_IO, "seek to byte 0 returned -7"),
        (|file| file.bytes[0] ^= 1, LXMERT_INVALID_MODEL, "GGUF"),
    ];
    for (spoil, status, words) in cases {
        let mut file = File::new();
        spoil(&mut file);
        refused(load(&file.loader()).err().unwrap(), status, words);
        assert_eq!(file.closed, 1);
    }
    let mut file = File::new();
    let loader = lxmert_loader { size: u64::MAX, ..file.loader() };
    assert_ne!(load(&loader).err().unwrap(), LXMERT_INVALID_ARGUMENT);
    assert_eq!(file.closed, 1);
}

/// The header was good, but not what a session reads of the rest. The model is none the worse.
#[test]
fn a_session_that_cannot_read_its_weights_is_refused() {
    let mut file = File::new();
    let file = &raw mut file;
    let model = load(&unsafe { &mut *file }.loader()).unwrap();
    unsafe { &mut *file }.read_returns = Some((0, -1));
    let mut handle = null_mut();
    let status = c!(lxmert_session_create(model.0, std::ptr::null(), &mut handle));
    refused(status, LXMERT_IO, "read");
    assert!(handle.is_null());
    unsafe { &mut *file }.read_returns = None;
    still_answers(&session(&model));
    drop(model);
    assert_eq!(unsafe { &*file }.closed, 1);
}

#[test]
fn a_loader_without_its_functions_is_not_taken() {
    let mut file = File::new();
    let good = file.loader();
    for (loader, words) in [
        (lxmert_loader { read: None, ..good }, "loader->read is NULL"),
        (lxmert_loader { seek: None, ..good }, "loader->seek is NULL"),
        (lxmert_loader { struct_size: 16, ..good }, "struct_size is 16"),
    ] {
        refused(load(&loader).err().unwrap(), LXMERT_INVALID_ARGUMENT, words);
        assert_eq!(file.closed, 0);
    }
}

#[test]
fn bytes_are_copied_or_borrowed() {
    let bytes = std::fs::read(file()).unwrap();
    let mut aligned = vec![[0u8; 64]; bytes.len().div_ceil(64) + 1];
    // What no vector promises by itself: a start at a cache line, and one beside.
    let start = aligned.as_mut_ptr().cast::<u8>();
    let start = start.wrapping_add(start.align_offset(64));
    for (offset, copy) in [(0, false), (0, true), (8, false)] {
        let place = start.wrapping_add(offset);
        c!(std::ptr::copy(bytes.as_ptr(), place, bytes.len()));
        let mut handle = null_mut();
        ok(c!(lxmert_model_from_memory(place.cast(), bytes.len(), copy.into(), &mut handle)));
        let model = Model(handle);
        if copy {
            c!(place.write_bytes(0xee, bytes.len()));
        }
        still_answers(&session(&model));
    }
}
