//! Which phase is open, and the waiting for the next.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a waiting thread keeps its core. About what the wait for a task in another's hands takes; a thread that
/// waits longer probably waits for one that has lost its core, and should not take it another. It then sleeps and does not
/// yield: under load that was slower, since Linux takes the yielded time from the thread's share.
const SPIN: Duration = Duration::from_micros(20);

/// A phase of a run, or the time between two runs: these have odd numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u32);

impl Epoch {
    /// Before the first run.
    pub const START: Epoch = Epoch(1);
    /// After the last.
    pub const STOP: Epoch = Epoch(u32::MAX);

    pub fn number(self) -> u32 {
        self.0
    }

    /// Whether it is a phase.
    pub fn is_open(self) -> bool {
        self.0.is_multiple_of(2)
    }

    /// The phase after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.idle().0 + 1)
    }

    /// The time after the run, if this was its last phase.
    pub fn idle(self) -> Epoch {
        Epoch(self.0 | 1)
    }
}

/// Tells what epoch it is.
#[repr(align(128))]
pub struct Clock {
    now: AtomicU32,
    /// How many threads sleep until `now` changes, or are about to.
    sleepers: AtomicU32,
}

impl Clock {
    pub fn new() -> Self {
        Clock { now: AtomicU32::new(Epoch::START.0), sleepers: AtomicU32::new(0) }
    }

    /// Begins an epoch. Makes no system call if nobody sleeps.
    pub fn publish(&self, epoch: Epoch) {
        // A sleeper counts itself, then looks at the time; this is the other way round, and all four are in one
        // order (SeqCst). So either the sleeper sees the new epoch, or it is seen here.
        self.now.store(epoch.0, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            atomic_wait::wake_all(&self.now);
        }
    }

    /// Waits until the epoch is another, and returns it. Sees what was written before it was published.
    pub fn wait_past(&self, epoch: Epoch) -> Epoch {
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                let now = Epoch(self.now.load(Ordering::Acquire));
                if now != epoch {
                    return now;
                }
                std::hint::spin_loop();
            }
            if start.elapsed() > SPIN {
                break;
            }
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        while self.now.load(Ordering::SeqCst) == epoch.0 {
            atomic_wait::wait(&self.now, epoch.0);
        }
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        // Read again, after the thread has ceased to be a sleeper: see `make_room`.
        Epoch(self.now.load(Ordering::Acquire))
    }

    /// Between two runs: sees to it that there are numbers for so many phases, and returns the present epoch.
    ///
    /// When the numbers run out, after 2³¹ phases, they begin again. No thread may then remember one from the last time round, and
    /// a thread that sleeps does not: it reads the clock when it has ceased to be counted. So this waits until all
    /// `others` sleep, which they soon do when there is nothing else to do.
    pub fn make_room(&self, phases: usize, others: usize) -> Epoch {
        let now = self.now.load(Ordering::Relaxed);
        let last = Epoch::STOP.0 as usize - 3;
        if phases <= (last - (now as usize).min(last)) / 2 {
            return Epoch(now);
        }
        assert!(phases <= last / 2, "{phases} phases");
        self.until_asleep(others);
        Epoch::START
    }

    /// Waits until so many threads sleep.
    pub fn until_asleep(&self, threads: usize) {
        while (self.sleepers.load(Ordering::SeqCst) as usize) < threads {
            std::thread::yield_now();
        }
    }

    /// The present epoch, for who knows that it does not change.
    #[cfg(test)]
    pub fn now(&self) -> Epoch {
        Epoch(self.now.load(Ordering::SeqCst))
    }

    /// Puts the clock forward, while all sleep.
    #[cfg(test)]
    pub fn set_idle(&self, number: u32) {
        assert!(!Epoch(number).is_open());
        self.now.store(number, Ordering::SeqCst);
    }
}
