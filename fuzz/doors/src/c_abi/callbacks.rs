//! What the library calls back: a loader of the tiny model, an allocator, and functions that say go on.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::OnceLock;

use lxmert::capi::*;

use crate::tiny;

/// The file that models are made of.
pub fn file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| tiny::model().encode())
}

/// A loader's own data.
pub struct Source {
    /// Where it reads next.
    pub place: usize,
    /// How it reads: well, in small pieces, not at all, more than it was asked.
    pub manner: u8,
}

pub unsafe extern "C" fn read(data: *mut c_void, buffer: *mut c_void, size: usize) -> i64 {
    // SAFETY: the library gives back what `load_from_loader` gave it, from one thread at a time.
    let source = unsafe { &mut *data.cast::<Source>() };
    let rest = file().get(source.place..).unwrap_or_default();
    let count = match source.manner % 8 {
        5 => return -1,
        6 => return i64::MAX,
        7 => return 0,
        1 => size.min(100),
        _ => size,
    };
    let count = count.min(rest.len());
    // SAFETY: the buffer has room for `size` bytes, and the file has that many left.
    unsafe { std::ptr::copy_nonoverlapping(rest.as_ptr(), buffer.cast(), count) };
    source.place += count;
    count as i64
}

pub unsafe extern "C" fn seek(data: *mut c_void, offset: u64) -> c_int {
    // SAFETY: as in `read`.
    let source = unsafe { &mut *data.cast::<Source>() };
    source.place = usize::try_from(offset).unwrap_or(usize::MAX);
    c_int::from(source.manner % 16 == 8)
}

pub unsafe extern "C" fn close(data: *mut c_void) {
    // SAFETY: the box of `load_from_loader`, once, as the header promises.
    drop(unsafe { Box::from_raw(data.cast::<Source>()) });
}

pub unsafe extern "C" fn log(_: i32, message: *const c_char, _: *mut c_void) {
    assert!(!message.is_null());
}

pub unsafe extern "C" fn abort(_: *mut c_void) -> Bool {
    false.into()
}

pub unsafe extern "C" fn progress(fraction: f32, _: *mut c_void) -> Bool {
    (fraction < 0.9).into()
}

pub unsafe extern "C" fn allocate(_: *mut c_void, size: usize, alignment: usize) -> *mut c_void {
    match Layout::from_size_align(size, alignment) {
        // SAFETY: the layout has a size.
        Ok(layout) if size > 0 && size <= 1 << 24 => unsafe { alloc(layout) }.cast(),
        _ => null_mut(),
    }
}

pub unsafe extern "C" fn release(_: *mut c_void, memory: *mut c_void, size: usize) {
    if let Ok(layout) = Layout::from_size_align(size, LXMERT_MEMORY_ALIGNMENT) {
        // SAFETY: from `allocate`, of that size and with the only alignment that the library asks for.
        unsafe { dealloc(memory.cast(), layout) };
    }
}
