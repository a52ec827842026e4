//! Where the blocks of the reserve lie.

use std::alloc::Layout;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::BYTES;

/// Blocks begin at multiples of it, and take whole ones.
const UNIT: usize = 64;

const UNITS: usize = BYTES / UNIT;

/// The largest alignment that is served.
const PAGE: usize = 4096;

/// How long to wait for another thread, which holds the lock for less.
const NAP: Duration = Duration::from_micros(20);

/// [`BYTES`] bytes, cut into blocks as they are asked for. Until it is used it takes no memory, and it
/// asks for none itself.
pub(super) struct Room {
    bytes: UnsafeCell<Bytes>,
    map: UnsafeCell<Map>,
    is_locked: AtomicBool,
}

#[repr(align(4096))]
struct Bytes(#[expect(dead_code, reason = "reached by addresses")] [u8; BYTES]);

const _: () = assert!(align_of::<Bytes>() == PAGE && BYTES.is_multiple_of(64 * UNIT));

/// Which units are in use.
struct Map {
    /// A bit for each.
    used: [u64; UNITS / 64],
    count: usize,
    /// The largest `count` so far.
    most: usize,
    /// Where the block that was taken last ends.
    next: usize,
    /// No unit before this one is free.
    first_free: usize,
}

// SAFETY: the map is only reached by whoever has set `is_locked`, and the bytes of a block only by whom it was given to.
unsafe impl Sync for Room {}

impl Room {
    pub const fn new() -> Self {
        Room {
            bytes: UnsafeCell::new(Bytes([0; BYTES])),
            map: UnsafeCell::new(Map { used: [0; UNITS / 64], count: 0, most: 0, next: 0, first_free: 0 }),
            is_locked: AtomicBool::new(false),
        }
    }

    fn start(&self) -> *mut u8 {
        self.bytes.get().cast()
    }

    /// Whether a block is one of these.
    pub fn holds(&self, pointer: *const u8) -> bool {
        pointer.addr().wrapping_sub(self.start().addr()) < BYTES
    }

    /// A block, or null if there is no gap for it.
    pub fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > PAGE {
            return std::ptr::null_mut();
        }
        let (units, step) = (units(layout), layout.align().div_ceil(UNIT));
        match self.locked(|map| map.take(units, step)) {
            // SAFETY: the units lie within the room.
            Some(unit) => unsafe { self.start().add(unit * UNIT) },
            None => std::ptr::null_mut(),
        }
    }

    /// Takes a block back.
    ///
    /// # Safety
    /// It comes from [`Room::alloc`] with that layout, and nobody uses it any more.
    pub unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let unit = (pointer.addr() - self.start().addr()) / UNIT;
        self.locked(|map| map.give_back(unit, units(layout)));
    }

    /// Takes back what of a block is beyond its first `size` bytes.
    ///
    /// # Safety
    /// It comes from [`Room::alloc`] with that layout, is no shorter, and is given back as a block of that size.
    pub unsafe fn shrink(&self, pointer: *mut u8, layout: Layout, size: usize) {
        let unit = (pointer.addr() - self.start().addr()) / UNIT;
        let (before, after) = (units(layout), units_of(size));
        self.locked(|map| map.give_back(unit + after, before - after));
    }

    /// Bytes in use.
    pub fn in_use(&self) -> usize {
        self.locked(|map| map.count) * UNIT
    }

    /// The most bytes that ever were.
    pub fn most_in_use(&self) -> usize {
        self.locked(|map| map.most) * UNIT
    }

    /// A mutex of the standard library may ask for memory itself. Whoever waits sleeps, as a thread of real time that only yielded would
    /// keep others off its core. (A child of `fork` in a process of several threads may find it locked, and must not allocate anyway.)
    fn locked<T>(&self, body: impl FnOnce(&mut Map) -> T) -> T {
        let mut tries = 0;
        while self.is_locked.swap(true, Ordering::Acquire) {
            if tries < 100 {
                tries += 1;
                std::thread::yield_now();
            } else {
                std::thread::sleep(NAP);
            }
        }
        // SAFETY: nobody else has set `is_locked`.
        let result = body(unsafe { &mut *self.map.get() });
        self.is_locked.store(false, Ordering::Release);
        result
    }
}

fn units(layout: Layout) -> usize {
    units_of(layout.size())
}

fn units_of(size: usize) -> usize {
    size.div_ceil(UNIT).max(1)
}

impl Map {
    /// Takes so many units that begin at a multiple of `step`.
    fn take(&mut self, units: usize, step: usize) -> Option<usize> {
        // Among thousands of small blocks the gaps in front are tried again only when there are none behind. A large block steps over many
        // at once.
        let behind = if units < 64 { self.take_from(self.next, units, step) } else { None };
        behind.or_else(|| self.take_from(self.first_free, units, step))
    }

    fn take_from(&mut self, first: usize, units: usize, step: usize) -> Option<usize> {
        let mut at = first.next_multiple_of(step);
        while at + units <= UNITS {
            match self.last_used(at, at + units) {
                Some(used) => at = (used + 1).next_multiple_of(step),
                None => {
                    self.set(at, at + units, true);
                    self.count += units;
                    self.most = self.most.max(self.count);
                    self.next = at + units;
                    if at == self.first_free {
                        self.first_free += units;
                    }
                    return Some(at);
                }
            }
        }
        None
    }

    fn give_back(&mut self, unit: usize, units: usize) {
        self.set(unit, unit + units, false);
        self.count -= units;
        self.first_free = self.first_free.min(unit);
        // What was taken last is often given back first.
        if self.count == 0 {
            self.next = 0;
        } else if self.next == unit + units {
            self.next = unit;
        }
    }

    /// The last unit of these that is in use.
    fn last_used(&self, from: usize, to: usize) -> Option<usize> {
        let mut end = to;
        while end > from {
            let word = (end - 1) / 64;
            // The bits of this word that lie in the range, moved to its top.
            let bits = self.used[word] << (63 - (end - 1) % 64);
            if bits != 0 {
                let unit = end - 1 - bits.leading_zeros() as usize;
                if unit >= from {
                    return Some(unit);
                }
            }
            end = word * 64;
        }
        None
    }

    fn set(&mut self, from: usize, to: usize, is_used: bool) {
        for unit in from..to {
            let bit = 1 << (unit % 64);
            match is_used {
                true => self.used[unit / 64] |= bit,
                false => self.used[unit / 64] &= !bit,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> Box<Room> {
        // Too large for a thread's stack, so made where it lies. All zeros are a room in which nothing is in use.
        // SAFETY: the layout has a size, and any room is freed as a box is.
        unsafe { Box::from_raw(std::alloc::alloc_zeroed(Layout::new::<Room>()).cast()) }
    }

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    #[test]
    fn blocks_are_aligned_and_apart() {
        let room = room();
        let mut blocks: Vec<(usize, Layout)> = Vec::new();
        for n in 0..2000 {
            let wanted = layout(n * 37 % 500, 1 << (n % 13));
            let block = room.alloc(wanted);
            assert!(room.holds(block) && block.addr().is_multiple_of(wanted.align()));
            blocks.push((block.addr(), wanted));
            if n % 3 == 0 {
                let (gone, wanted) = blocks.swap_remove(n * 7 % blocks.len());
                // SAFETY: taken out of the list, so given back once.
                unsafe { room.dealloc(room.start().with_addr(gone), wanted) };
            }
        }
        blocks.sort_unstable_by_key(|(start, _)| *start);
        assert!(blocks.windows(2).all(|pair| pair[0].0 + pair[0].1.size().max(1) <= pair[1].0));
        for (start, wanted) in blocks {
            // SAFETY: each is in the list once.
            unsafe { room.dealloc(room.start().with_addr(start), wanted) };
        }
        assert_eq!(room.in_use(), 0);
    }

    #[test]
    fn a_block_that_shrinks_stays_where_it_is() {
        let room = room();
        let block = room.alloc(layout(BYTES, 8));
        // SAFETY: from `alloc` with that layout; given back below with the size that is left.
        unsafe { room.shrink(block, layout(BYTES, 8), 3 * UNIT + 1) };
        assert_eq!(room.in_use(), 4 * UNIT);
        let behind = room.alloc(layout(BYTES - 4 * UNIT, 8));
        assert_eq!(behind.addr(), block.addr() + 4 * UNIT);
        // SAFETY: each is given back once, with the layout that it has.
        unsafe {
            room.dealloc(behind, layout(BYTES - 4 * UNIT, 8));
            room.dealloc(block, layout(3 * UNIT + 1, 8));
        }
        assert_eq!(room.in_use(), 0);
    }

    #[test]
    fn all_of_it_can_be_used_again_and_again_and_no_more() {
        let room = room();
        for size in [1, UNIT, 5000, BYTES / 4, BYTES] {
            let wanted = layout(size, 8);
            let blocks: Vec<*mut u8> =
                std::iter::repeat_with(|| room.alloc(wanted)).take_while(|block| !block.is_null()).collect();
            assert_eq!(blocks.len(), UNITS / size.div_ceil(UNIT), "{size}");
            for block in blocks {
                // SAFETY: from `alloc` with that layout, each once.
                unsafe { room.dealloc(block, wanted) };
            }
        }
        assert!(room.alloc(layout(BYTES + 1, 8)).is_null());
        assert!(room.alloc(layout(8, 2 * PAGE)).is_null());
    }
}
