//! Memory that ggml and the kernels work in.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::MmapMut;

use super::{ALIGNMENT, pages};
use crate::Error;

/// Has the alignment of a buffer, so that one without bytes is aligned too.
#[repr(align(64))]
struct Aligned;

const _: () = assert!(align_of::<Aligned>() == ALIGNMENT);

/// A block of zeroed bytes at the start of a cache line, whose size never changes.
pub(crate) struct AlignedBuffer {
    start: NonNull<u8>,
    len: usize,
    owner: Owner,
}

/// Who the bytes go back to.
enum Owner {
    Heap,
    Pages(#[expect(dead_code, reason = "keeps the bytes alive")] MmapMut),
    Foreign(Option<Release>),
    /// They are part of another buffer.
    Part(#[expect(dead_code, reason = "keeps the bytes alive")] Arc<AlignedBuffer>),
}

type Release = Box<dyn FnOnce(NonNull<u8>, usize) + Send + Sync>;

/// Memory of the caller's own, for a session to live in: see [`Session::new_in`](crate::Session::new_in).
pub struct ForeignMemory {
    start: NonNull<u8>,
    len: usize,
    release: Option<Release>,
}

// SAFETY: whoever made it has given the bytes away, as `ForeignMemory::new` demands.
unsafe impl Send for ForeignMemory {}

impl ForeignMemory {
    /// What the start of the memory must be a multiple of, in bytes.
    pub const ALIGNMENT: usize = ALIGNMENT;

    /// Wraps `len` bytes from `start` on; `release` is called with both when nothing uses them any more.
    ///
    /// # Safety
    /// The bytes must be valid for reads and writes, by any thread, until `release` is called or the process ends, and nobody
    /// else may touch them.
    pub unsafe fn new(start: NonNull<u8>, len: usize, release: Option<Release>) -> Self {
        ForeignMemory { start, len, release }
    }
}

impl Drop for ForeignMemory {
    fn drop(&mut self) {
        if let Some(release) = self.release.take() {
            release(self.start, self.len);
        }
    }
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
        let of_heap = |start| AlignedBuffer { start, len, owner: Owner::Heap };
        if len == 0 {
            return Ok(Self::empty());
        }
        let Ok(layout) = Layout::from_size_align(len, ALIGNMENT) else { return Err(out_of_memory) };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        NonNull::new(start).map(of_heap).ok_or(out_of_memory)
    }

    /// A buffer without bytes.
    pub fn empty() -> Self {
        let start = NonNull::<Aligned>::dangling().cast();
        AlignedBuffer { start, len: 0, owner: Owner::Heap }
    }

    /// Whole pages for the given purpose, which take memory only once they are touched.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn pages(len: usize, what: &'static str) -> Result<Self, Error> {
        let out_of_memory = |_| Error::OutOfMemory { what, bytes: len };
        let mut map = MmapMut::map_anon(len.max(1)).map_err(out_of_memory)?;
        let start = NonNull::from(&mut map[..]).cast();
        Ok(AlignedBuffer { start, len, owner: Owner::Pages(map) })
    }

    /// The first `len` bytes of memory of a caller's own, which are zeroed.
    ///
    /// # Errors
    /// [`Error::Memory`] if it is too small or not aligned.
    pub fn in_foreign(mut memory: ForeignMemory, len: usize) -> Result<Self, Error> {
        let expected = || format!("{len} bytes, aligned to {ALIGNMENT}");
        let start = memory.start;
        if memory.len < len {
            return Err(Error::Memory { expected: expected(), found: format!("{} bytes", memory.len) });
        }
        if !start.addr().get().is_multiple_of(ALIGNMENT) {
            return Err(Error::Memory { expected: expected(), found: format!("an address of {start:p}") });
        }
        // SAFETY: the bytes are ours, as whoever made `memory` guarantees.
        unsafe { start.write_bytes(0, len) };
        let whole = memory.len;
        let release = memory.release.take();
        let release = release.map(|release| Box::new(move |start, _| release(start, whole)) as Release);
        Ok(AlignedBuffer { start, len, owner: Owner::Foreign(release) })
    }

    /// Cuts the buffer into parts of these sizes, one after the other, each at the start of a cache line.
    ///
    /// # Panics
    /// If it is too small.
    pub fn cut<const N: usize>(self, sizes: [usize; N]) -> [Self; N] {
        let whole = Arc::new(self);
        let mut at = 0;
        sizes.map(|len| {
            assert!(at + len <= whole.len, "parts within the buffer");
            // SAFETY: within the buffer, or at its end.
            let start = unsafe { whole.start.add(at) };
            at = (at + len).next_multiple_of(ALIGNMENT).min(whole.len);
            AlignedBuffer { start, len, owner: Owner::Part(Arc::clone(&whole)) }
        })
    }

    /// Touches every page, so that none has to be found later.
    pub fn prefault(&mut self) {
        pages::touch_mut(self.as_mut_slice());
    }

    /// Keeps the bytes from being swapped out. What is unmapped is unlocked; pages of a caller's own stay locked, since part of them may be
    /// locked by others.
    ///
    /// # Errors
    /// [`Error::Lock`].
    pub fn lock(&self) -> Result<(), Error> {
        pages::lock(self.as_slice())
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
        match &mut self.owner {
            // SAFETY: allocated in `new` with this very layout, which was valid there.
            Owner::Heap if self.len > 0 => unsafe {
                dealloc(self.start.as_ptr(), Layout::from_size_align_unchecked(self.len, ALIGNMENT));
            },
            Owner::Heap | Owner::Pages(_) | Owner::Part(_) => {}
            Owner::Foreign(release) => {
                if let Some(release) = release.take() {
                    release(self.start, self.len);
                }
            }
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
    fn lives_in_memory_of_the_caller_and_gives_it_back() {
        let given = Box::leak(vec![[0xffu8; 64]; 9].into_boxed_slice()).as_flattened_mut();
        let (first, len) = (given.as_ptr().align_offset(ALIGNMENT), given.len());
        let start = NonNull::from(&mut given[first..]).cast::<u8>();
        let released = Arc::new(std::sync::Mutex::new(None));
        let memory = || {
            let released = Arc::clone(&released);
            let release = move |_, len| *released.lock().unwrap() = Some(len);
            // SAFETY: the bytes are leaked, and one buffer at a time uses them.
            unsafe { ForeignMemory::new(start, len - first, Some(Box::new(release))) }
        };
        assert!(matches!(AlignedBuffer::in_foreign(memory(), 1 << 20), Err(Error::Memory { .. })));
        assert_eq!(released.lock().unwrap().take(), Some(len - first));
        let buffer = AlignedBuffer::in_foreign(memory(), 300).unwrap();
        assert_eq!(buffer.as_slice(), [0; 300]);
        let [one, two] = buffer.cut([100, 172]);
        assert_eq!((one.len(), two.len()), (100, 172));
        assert_eq!(two.as_slice().as_ptr().addr() - one.as_slice().as_ptr().addr(), 128);
        drop(one);
        assert_eq!(*released.lock().unwrap(), None);
        drop(two);
        assert_eq!(released.lock().unwrap().take(), Some(len - first));
    }

    #[test]
    fn holds_numbers_where_they_were_written() {
        let mut buffer = AlignedBuffer::copy_of(&[0xff; 12], "a test").unwrap();
        buffer.f32s_mut(4, 1)[0] = 1.5;
        assert_eq!(buffer.f32s(4, 1), [1.5]);
        assert_eq!(buffer.as_slice()[..4], [0xff; 4]);
    }
}
