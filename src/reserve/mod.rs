//! Memory for the moment when there is none: how a failed allocation becomes an error.
//!
//! A vector that cannot grow ends a Rust program, unless the one line that lets it grow asks first. Most lines, and all those of other
//! crates, do not. So the programs and the C library have [`Reserve`] for their allocator. A small request that the system refuses is
//! served from a part of the program that is kept for this, and noted. The work at hand goes on, to the end of the step that somebody
//! [`watched`]; there its result is dropped, which gives the memory back, and [`Error::OutOfMemory`] returned in its place.
//!
//! A request of more than [`MOST`] bytes is refused as ever: who asks for that much in this project takes no for an answer, or has asked
//! with [`probe`] before. Where another crate does not, or the reserve itself is used up, the program ends with the standard library's
//! line, such as `memory allocation of 48 bytes failed`.

mod room;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Error;
use room::Room;

/// Bytes of the reserve: nothing but addresses until it is used, and of a system that promises no more memory than it has, bytes that were
/// promised when the program was loaded. Twice what the tokenizer of 30522 pieces takes beside 9500 answers, in small blocks of which each takes
/// whole units.
pub const BYTES: usize = 16 << 20;

/// The largest request that is served from the reserve, in bytes.
pub const MOST: usize = BYTES / 4;

static ROOM: Room = Room::new();

/// How often the reserve has served a request of any thread.
static SERVED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The same for this thread, and the size of its last such request. Taken at any time, even while a thread ends.
    static SERVED_HERE: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// The size of the last request of any thread that the reserve has served.
static LAST_SIZE: AtomicUsize = AtomicUsize::new(0);

/// An allocator for a whole program, which makes the library's functions return [`Error::OutOfMemory`] where Rust would end the process
/// because a small block could not be had:
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: lxmert::Reserve = lxmert::Reserve::system();
/// # fn main() {}
/// ```
///
/// `A` is the allocator that is asked first. What it refuses is served from 16 MiB that belong to the program, as long as they last: blocks
/// of up to 4 MiB, aligned to 4096 bytes at most. A function of the library then returns the error when it ends, or earlier.
/// [`Session::new`](crate::Session::new) looks at the requests of all threads, and may take another's lack of memory for its own; all others
/// look at the calling thread's. Of the program's own requests those that are refused are served too, silently.
///
/// The process still ends, with a line that says so, where the reserve is used up, and where memory runs out in the moment in which a
/// thread starts: for that the standard library asks the system past every allocator.
#[derive(Debug, Default)]
pub struct Reserve<A = System>(A);

impl Reserve {
    /// Asks the system's allocator.
    pub const fn system() -> Self {
        Reserve(System)
    }
}

impl<A> Reserve<A> {
    /// Asks that allocator first.
    pub const fn behind(first: A) -> Self {
        Reserve(first)
    }
}

/// Bytes of the reserve that are in use: 0 unless memory ran out, and what was made then still lives.
pub fn in_use() -> usize {
    ROOM.in_use()
}

/// The most bytes of it that were in use at any time.
pub fn most_in_use() -> usize {
    ROOM.most_in_use()
}

fn serve(layout: Layout) -> *mut u8 {
    if layout.size() > MOST {
        return std::ptr::null_mut();
    }
    let served = ROOM.alloc(layout);
    if !served.is_null() {
        let (times, _) = SERVED_HERE.get();
        SERVED_HERE.set((times.wrapping_add(1), layout.size()));
        LAST_SIZE.store(layout.size(), Ordering::Relaxed);
        SERVED.fetch_add(1, Ordering::Relaxed);
    }
    served
}

// SAFETY: every block comes from the allocator behind or from the reserve, and goes back to the one whose it is, which its address tells.
// Nothing here unwinds.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Reserve<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout`.
        let first = unsafe { self.0.alloc(layout) };
        if first.is_null() { serve(layout) } else { first }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout`.
        let first = unsafe { self.0.alloc_zeroed(layout) };
        if !first.is_null() {
            return first;
        }
        let served = serve(layout);
        if !served.is_null() {
            // SAFETY: a block of that size.
            unsafe { served.write_bytes(0, layout.size()) };
        }
        served
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if ROOM.holds(pointer) {
            // SAFETY: one of the reserve's blocks, with the layout that it was asked with.
            unsafe { ROOM.dealloc(pointer, layout) }
        } else {
            // SAFETY: not the reserve's, so the other allocator's; the rest is the caller's promise.
            unsafe { self.0.dealloc(pointer, layout) }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let in_reserve = ROOM.holds(pointer);
        if in_reserve && size <= layout.size() {
            // SAFETY: the reserve's, with that layout, and no larger from now on.
            unsafe { ROOM.shrink(pointer, layout, size) };
            return pointer;
        }
        if !in_reserve {
            // SAFETY: as in `dealloc`.
            let moved = unsafe { self.0.realloc(pointer, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is no more than the largest block's.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let moved = match in_reserve {
            // SAFETY: not of zero bytes, as the caller promises.
            true => unsafe { self.alloc(wanted) },
            false => serve(wanted),
        };
        if !moved.is_null() {
            // SAFETY: both blocks are as long as the shorter of them; the old one is given back once, to where it came from.
            unsafe {
                moved.copy_from_nonoverlapping(pointer, layout.size().min(size));
                self.dealloc(pointer, layout);
            }
        }
        moved
    }
}

/// Asks for so many bytes, and gives them back: for work that takes them in its middle, where a refusal would end the program. Only what
/// others take meanwhile can still do that.
///
/// # Errors
/// [`Error::OutOfMemory`] for `what`.
pub fn probe(bytes: usize, what: &'static str) -> Result<(), Error> {
    let mut block = Vec::<u8>::new();
    block.try_reserve_exact(bytes).map_err(|_| Error::OutOfMemory { what, bytes })?;
    // Else the compiler would see that nothing needs it, and not ask.
    std::hint::black_box(&block);
    Ok(())
}

/// What a program does first, while there is memory: its main thread gets the handle that it would else get when something asks for it.
pub fn begin() {
    let _ = std::thread::current();
}

/// To be asked before a thread is started. A thread's handle is one of the few things that the standard library asks the system for itself,
/// past the program's allocator, and ends the program if it gets none.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] if the system has no small block to give.
pub fn before_thread() -> std::io::Result<()> {
    let watch = Watch::start(Threads::This, "a thread");
    let block = Vec::<u8>::with_capacity(HANDLE_BYTES);
    // Else the compiler would see that nothing needs it.
    std::hint::black_box(&block);
    watch.check().map_err(|_| ErrorKind::OutOfMemory.into())
}

/// More than a thread's handle, its name and its result take together.
const HANDLE_BYTES: usize = 4096;

/// Whose requests count.
#[derive(Clone, Copy, Debug)]
pub enum Threads {
    /// The calling thread's alone.
    This,
    /// Those of all threads, for work that is done by several. Another caller's lack of memory may then be taken for one's own.
    All,
}

impl Threads {
    fn served(self) -> (usize, usize) {
        match self {
            Threads::This => SERVED_HERE.get(),
            Threads::All => (SERVED.load(Ordering::Relaxed), LAST_SIZE.load(Ordering::Relaxed)),
        }
    }
}

/// Looks whether work had to be done in the reserve.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    threads: Threads,
    what: &'static str,
    before: usize,
}

impl Watch {
    /// Looks from here on, at what `what` takes.
    pub fn start(threads: Threads, what: &'static str) -> Self {
        Watch { threads, what, before: threads.served().0 }
    }

    /// For work to stop in the middle.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the reserve had to serve a request since.
    pub fn check(self) -> Result<(), Error> {
        let (after, bytes) = self.threads.served();
        if after == self.before { Ok(()) } else { Err(Error::OutOfMemory { what: self.what, bytes }) }
    }
}

/// Does some work, and drops what came of it if it had to be done in the reserve.
///
/// # Errors
/// [`Error::OutOfMemory`] for `what` then; and whatever the work returns.
pub fn watched<T, E: From<Error>>(
    threads: Threads,
    what: &'static str,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let watch = Watch::start(threads, what);
    let result = work()?;
    watch.check()?;
    Ok(result)
}
