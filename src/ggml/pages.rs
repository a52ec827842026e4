//! Pages of memory: touched, locked, and let go.

use memmap2::Mmap;

use crate::Error;

/// The smallest page of a common system, in bytes.
const PAGE: usize = 4096;

/// Touches every page of some bytes, so that none has to be found later.
pub(crate) fn touch(bytes: &[u8]) {
    // The last byte's page may begin after the last whole step from the first byte.
    for byte in bytes.iter().step_by(PAGE).chain(bytes.last()) {
        std::hint::black_box(*byte);
    }
}

/// As [`touch`], for pages that are to be written to.
pub(crate) fn touch_mut(bytes: &mut [u8]) {
    for page in bytes.chunks_mut(PAGE) {
        for at in [0, page.len() - 1] {
            page[at] = std::hint::black_box(page[at]);
        }
    }
}

/// Keeps some bytes from being swapped out or evicted until their pages are unmapped (Linux).
///
/// # Errors
/// [`Error::Lock`].
pub(crate) fn lock(bytes: &[u8]) -> Result<(), Error> {
    #[cfg(target_os = "linux")]
    if !bytes.is_empty() {
        let start = bytes.as_ptr().cast_mut().cast();
        // SAFETY: the bytes are mapped, and locking changes nothing that can be read.
        let locked = unsafe { rustix::mm::mlock(start, bytes.len()) };
        return locked.map_err(|errno| Error::Lock { bytes: bytes.len(), source: errno.into() });
    }
    let _ = bytes;
    Ok(())
}

/// Takes the pages of a file's map out of this process's memory; they come back when they are touched.
pub(crate) fn release(map: &Mmap) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: the map is of a file and never written, so that every page that is dropped can be read again.
        let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = map;
}
