//! The devices beside the CPU, as C sees them.

use std::ffi::{CString, c_char};
use std::sync::{Mutex, PoisonError};

use super::arguments::{Bool, Out, Versioned, count};
use super::errors::{made, status};
use super::strings::c_string;
use super::{Failure, lxmert_status};

/// What is known of a device beside the CPU.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_device_info {
    /// sizeof(lxmert_device_info): LXMERT_DEVICE_INFO_INIT sets it.
    pub struct_size: usize,
    /// What the device of lxmert_session_options calls it by, such as "cuda:0". Valid for as long as the library is loaded.
    pub name: *const c_char,
    /// What its driver calls it. Valid for as long as the library is loaded.
    pub description: *const c_char,
    /// Bytes of its memory.
    pub memory: usize,
    /// Bytes of them that nobody uses, as its driver counts.
    pub free_memory: usize,
    /// Whether it shares the CPU's memory.
    pub integrated: Bool,
}

// SAFETY: `repr(C)` with the size first; numbers and pointers.
unsafe impl Versioned for lxmert_device_info {
    const NAME: &'static str = "lxmert_device_info";
    const FIRST: usize = size_of::<lxmert_device_info>();
}

/// A text that stays for as long as the library is loaded: there are as many as the machine has devices.
///
/// # Errors
/// Lack of memory. Nothing is kept then, least of all in the reserve.
pub(super) fn kept(text: &str) -> Result<*const c_char, Failure> {
    static TEXTS: Mutex<Vec<CString>> = Mutex::new(Vec::new());
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = texts.iter().find(|known| known.as_bytes() == text.as_bytes()) {
        return Ok(known.as_ptr());
    }
    let mut longer = made(|| {
        let mut longer = Vec::with_capacity(texts.len() + 1);
        longer.push(c_string(text));
        Ok(longer)
    })?;
    let new = longer[0].as_ptr();
    // What a string points to stays where it is when its list does not.
    longer.append(&mut texts);
    *texts = longer;
    Ok(new)
}

/// Counts the devices beside the CPU that this build drives and that are here.
///
/// | allocates   | while it asks the drivers                     |
/// |-------------|-----------------------------------------------|
/// | thread-safe | yes                                           |
/// | blocks      | while drivers start, in the first call        |
/// | fails       | LXMERT_DEVICE if one does; count is then zero |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_device_count(count: *mut usize) -> lxmert_status {
    status(|| {
        // SAFETY: a place for a number or NULL, by the header's rules.
        let count = unsafe { self::count("count", count) }?;
        *count = made(|| Ok(crate::devices()?.len()))?;
        Ok(())
    })
}

/// Tells of the device of that number, below lxmert_device_count. Only as much of info is written as its struct_size says.
///
/// | allocates   | while it asks the drivers; for a device's first time its texts |
/// |-------------|----------------------------------------------------------------|
/// | thread-safe | yes                                                            |
/// | blocks      | while drivers start, in the first call                         |
/// | fails       | LXMERT_INVALID_ARGUMENT, LXMERT_DEVICE                         |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_device_get_info(
    index: usize,
    info: *mut lxmert_device_info,
) -> lxmert_status {
    status(|| {
        // SAFETY: a struct of the size that it begins with or NULL, by the header's rules.
        let out = unsafe { Out::new("info", info) }?;
        let devices = made(|| Ok(crate::devices()?))?;
        let found = devices.get(index).ok_or_else(|| {
            Failure::argument(format_args!("index is {index}, and there are {} devices", devices.len()))
        })?;
        let info = made(|| {
            Ok(lxmert_device_info {
                struct_size: size_of::<lxmert_device_info>(),
                name: kept(&found.device.to_string())?,
                description: kept(&found.description)?,
                memory: found.memory,
                free_memory: found.free_memory,
                integrated: found.integrated.into(),
            })
        })?;
        out.write(&info);
        Ok(())
    })
}
