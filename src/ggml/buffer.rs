//! Memory that ggml and the kernels work in.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use super::ALIGNMENT;
use crate::Error;

/// Has the alignment of a buffer, so that one without bytes is aligned too.
#[repr(align(64))]
struct Aligned;

const _: () = assert!(align_of::<Aligned>() == ALIGNMENT);

/// A block of zeroed bytes at the start of a cache line, whose size never changes.
pub(crate) struct AlignedBuffer {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer owns its bytes alone; nothing in it is tied to a thread.
unsafe impl Send for AlignedBuffer {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Allocates `len` bytes for the given purpose.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(len: usize, what: &'static str) -> Result<Self, Error> {
        let out_of_memory = Error::OutOfMemory { what, bytes: len };
        if len == 0 {
            return Ok(AlignedBuffer { start: NonNull::<Aligned>::dangling().cast(), len });
        }
        let Ok(layout) = Layout::from_size_align(len, ALIGNMENT) else { return Err(out_of_memory) };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        NonNull::new(start).map(|start| AlignedBuffer { start, len }).ok_or(out_of_memory)
    }

    /// A copy of `bytes` that is aligned.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn copy_of(bytes: &[u8], what: &'static str) -> Result<Self, Error> {
        let mut buffer = Self::new(bytes.len(), what)?;
        buffer.as_mut_slice().copy_from_slice(bytes);
        Ok(buffer)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes, or `len` is 0.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_slice`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The bytes from `offset` as `len` numbers.
    ///
    /// # Panics
    /// If they do not lie within the buffer or are not aligned: offsets come from a plan made for it.
    pub fn f32s(&self, offset: usize, len: usize) -> &[f32] {
        self.check_numbers(offset, len);
        // SAFETY: in bounds and aligned as just checked; any bits are an f32.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset).cast(), len) }
    }

    /// The same, to write.
    ///
    /// # Panics
    /// As [`AlignedBuffer::f32s`].
    pub fn f32s_mut(&mut self, offset: usize, len: usize) -> &mut [f32] {
        self.check_numbers(offset, len);
        // SAFETY: in bounds and aligned as just checked, exclusive by `&mut self`; any bits are an f32.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().add(offset).cast(), len) }
    }

    fn check_numbers(&self, offset: usize, len: usize) {
        let end = len.checked_mul(4).and_then(|bytes| bytes.checked_add(offset));
        let within = end.is_some_and(|end| end <= self.len);
        assert!(offset.is_multiple_of(4) && within, "numbers outside of the buffer");
    }

    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `new` with this very layout, which was valid there.
            unsafe { dealloc(self.start.as_ptr(), Layout::from_size_align_unchecked(self.len, ALIGNMENT)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_aligned_and_zeroed() {
        let buffer = AlignedBuffer::new(100, "a test").unwrap();
        assert!(buffer.as_slice().as_ptr().addr().is_multiple_of(ALIGNMENT));
        assert_eq!(buffer.as_slice(), [0; 100]);
        assert!(AlignedBuffer::new(0, "a test").unwrap().as_slice().is_empty());
    }

    #[test]
    fn reports_a_size_that_cannot_be_had() {
        assert!(matches!(AlignedBuffer::new(usize::MAX / 2, "a test"), Err(Error::OutOfMemory { .. })));
    }

    #[test]
    fn holds_numbers_where_they_were_written() {
        let mut buffer = AlignedBuffer::copy_of(&[0xff; 12], "a test").unwrap();
        buffer.f32s_mut(4, 1)[0] = 1.5;
        assert_eq!(buffer.f32s(4, 1), [1.5]);
        assert_eq!(buffer.as_slice()[..4], [0xff; 4]);
    }
}
