//! Who does which task.

use std::sync::atomic::{AtomicU64, Ordering};

use super::clock::Epoch;

/// The most tasks that can be shared out.
pub const MAX_TASKS: usize = u16::MAX as usize;

/// The tasks of the open phase that nobody has claimed.
///
/// Neighbouring tasks read neighbouring weights, and a task prefetches those of the next. So each worker has a contiguous
/// share, and takes it one by one from the front. A worker that has none left takes the rear half of another's, the part
/// that the owner is furthest from, and goes through that in order, too; others may in turn steal from it. Who gets
/// nothing done for a while thus loses half of its share, then half of the rest, down to the last task.
///
/// A share is one word, (epoch, next task, end). Within an epoch every unclaimed task is in exactly one share, but
/// for the moment in which a thief holds what it has taken. A share changes
/// - by compare-and-swap from a word of that epoch that is not empty, taking tasks out: anyone;
/// - by a store while it is empty: its owner, with what it has stolen, or whoever opens the next phase, when all tasks of
///   this one are done and so all shares are empty. Nobody else writes to an empty share.
///
/// Whoever swaps successfully therefore has tasks of the epoch that it asked for, however long it slept before: if the word is
/// what it was, the tasks in it are unclaimed, and the epoch is still open. The same number is never used for another
/// epoch while a thread can remember it ([`Clock::make_room`](super::clock::Clock::make_room)).
pub struct Claims {
    shares: Box<[Share]>,
}

/// On a cache line of its own, or a pair of them, which some CPUs fetch together.
#[repr(align(128))]
struct Share(AtomicU64);

/// What a [`Share`] holds.
#[derive(Clone, Copy)]
struct Tasks {
    epoch: u32,
    next: u16,
    end: u16,
}

impl Claims {
    pub fn new(workers: usize) -> Self {
        Claims { shares: (0..workers).map(|_| Share(AtomicU64::new(0))).collect() }
    }

    pub fn workers(&self) -> usize {
        self.shares.len()
    }

    /// Gives every worker its share of the tasks of an epoch. All tasks of the one before must be done.
    pub fn share_out(&self, epoch: Epoch, tasks: usize) {
        let bound = |worker| (tasks * worker / self.workers()) as u16;
        for (worker, share) in self.shares.iter().enumerate() {
            share.set(Tasks { epoch: epoch.number(), next: bound(worker), end: bound(worker + 1) });
        }
    }

    /// Claims a task for that worker; `None` if all are claimed or the epoch is over.
    pub fn claim(&self, epoch: Epoch, worker: usize) -> Option<usize> {
        let own = &self.shares[worker];
        if let Some(task) = own.take(epoch, |tasks| Tasks { next: tasks.next + 1, ..tasks }) {
            return Some(task.next.into());
        }
        let others = self.shares[worker + 1..].iter().chain(&self.shares[..worker]);
        let front = |tasks: Tasks| tasks.next + (tasks.end - tasks.next) / 2;
        let stolen =
            { others }.find_map(|other| other.take(epoch, |tasks| Tasks { end: front(tasks), ..tasks }))?;
        let task = front(stolen);
        if task + 1 < stolen.end {
            own.set(Tasks { next: task + 1, ..stolen });
        }
        Some(task.into())
    }
}

impl Share {
    /// If there are tasks of that epoch, replaces them by what `remaining` leaves of them. Returns what there was before.
    fn take(&self, epoch: Epoch, remaining: impl Fn(Tasks) -> Tasks) -> Option<Tasks> {
        let word = self.0.fetch_update(Ordering::Acquire, Ordering::Relaxed, |word| {
            let tasks = Tasks::from(word);
            (tasks.epoch == epoch.number() && tasks.next < tasks.end).then(|| remaining(tasks).into())
        });
        word.ok().map(Tasks::from)
    }

    /// Release: who takes one of these tasks sees all that was written before its epoch was opened.
    fn set(&self, tasks: Tasks) {
        self.0.store(tasks.into(), Ordering::Release);
    }
}

impl From<u64> for Tasks {
    fn from(word: u64) -> Self {
        Tasks { epoch: (word >> 32) as u32, next: (word >> 16) as u16, end: word as u16 }
    }
}

impl From<Tasks> for u64 {
    fn from(tasks: Tasks) -> Self {
        u64::from(tasks.epoch) << 32 | u64::from(tasks.next) << 16 | u64::from(tasks.end)
    }
}
