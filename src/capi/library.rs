//! What the library says about itself.

use std::ffi::{CStr, c_char};

/// The version of this interface. A program is compiled for the header's; the library tells its own by lxmert_abi_version.
pub const LXMERT_ABI_VERSION: u32 = 1;

const fn c_str(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("one NUL, at the end"),
    }
}

const VERSION: &CStr = c_str(concat!(env!("CARGO_PKG_VERSION"), "\0"));
const BUILD: &CStr = c_str(concat!(env!("LXMERT_BUILD"), "\0"));

/// The library's version, such as "0.1.0". Never NULL; valid for as long as the library is loaded.
///
/// | allocates   | no    |
/// |-------------|-------|
/// | thread-safe | yes   |
/// | blocks      | no    |
/// | fails       | never |
#[unsafe(no_mangle)]
pub extern "C" fn lxmert_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the library's interface: a program runs with it if this equals the LXMERT_ABI_VERSION that it was compiled
/// with.
///
/// | allocates   | no    |
/// |-------------|-------|
/// | thread-safe | yes   |
/// | blocks      | no    |
/// | fails       | never |
#[unsafe(no_mangle)]
pub extern "C" fn lxmert_abi_version() -> u32 {
    LXMERT_ABI_VERSION
}

/// Version, target and backends of this build, in one line. Never NULL; valid for as long as the library is loaded.
///
/// | allocates   | no    |
/// |-------------|-------|
/// | thread-safe | yes   |
/// | blocks      | no    |
/// | fails       | never |
#[unsafe(no_mangle)]
pub extern "C" fn lxmert_build_info() -> *const c_char {
    BUILD.as_ptr()
}
