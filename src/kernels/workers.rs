//! The threads that run a model, phase by phase.
//!
//! A forward pass is some 200 phases of 10 to 300 µs, so what lies between two phases must cost less than a
//! microsecond, and it must not wait for anything but work. An ordinary barrier counts the threads that have arrived:
//! one thread that the operating system has taken off its core then stops all others, for milliseconds, in every phase
//! again. Here nobody counts threads:
//!
//! - A phase is over when its *tasks* are done. Whoever finishes the last one opens the next phase; a thread that has
//!   not even woken up is not missed, the others do its share ([`Claims`]).
//! - A thread that loses its core delays the phase by the one task that it holds, and by nothing after that.
//! - Who finds no task spins for a few microseconds and then sleeps ([`Clock`]), leaving the core to those who have work,
//!   in this process or in another.
//!
//! # Why a thread that lags is harmless
//!
//! Every phase of every run has a number of its own, its epoch. A task can only be claimed by its epoch, and a claimed task
//! keeps its phase open until it is counted as done. So *between a claim and its count*, and only there, a thread may
//! look at the work: the phase is open, hence the run has not ended, hence the borrow in [`Workers::run`] is alive.
//! A thread that comes late finds the epoch gone, gets no task and touches nothing.

mod affinity;
mod claims;
mod clock;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use claims::Claims;
use clock::{Clock, Epoch};

use crate::Error;

/// Work in phases: every task of a phase is done before one of the next begins.
pub(crate) trait Phases: Sync {
    /// How many phases there are: fewer than 2³⁰.
    fn phases(&self) -> usize;

    /// How many tasks a phase has.
    fn tasks(&self, phase: usize) -> usize;

    /// Does one task.
    ///
    /// Called exactly once for each task, by any thread. No two calls that overlap in time have the same `worker`, a number
    /// below [`Workers::threads`], so it can name a scratch buffer. A worker mostly takes tasks in ascending order, one
    /// after the other: the data of `task + 1` are worth prefetching.
    fn run(&self, phase: usize, task: usize, worker: usize);
}

/// Threads that wait, asleep, for work in phases. The thread that calls [`run`](Self::run) is worker 0.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    /// Workers 1, 2, …
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `threads - 1` threads.
    ///
    /// With `affinity`, these run on that set of CPUs only (Linux). Each may run on any of them, so that the system can move
    /// a worker off a CPU that others want. The calling thread belongs to the caller and stays as it is; to bind it
    /// too is up to the caller.
    ///
    /// # Errors
    /// [`Error::Input`] if `threads` is not in 1..=[`MAX_THREADS`](crate::ggml::MAX_THREADS), or if `affinity` is empty or
    /// names a CPU that this process cannot use; [`Error::Threads`] if the operating system gives no more threads.
    pub fn new(threads: usize, affinity: Option<&[usize]>) -> Result<Self, Error> {
        crate::ggml::check_threads(threads)?;
        let shared = Arc::new(Shared::new(threads));
        // Dropped on an error, it ends the threads that did start.
        let mut workers = Workers { shared, threads: Vec::with_capacity(threads - 1) };
        match affinity {
            None => workers.start(threads),
            Some(cpus) => affinity::with(cpus, || workers.start(threads))?,
        }
        .map_err(|source| Error::Threads { threads, source })?;
        Ok(workers)
    }

    fn start(&mut self, threads: usize) -> std::io::Result<()> {
        for worker in 1..threads {
            let shared = Arc::clone(&self.shared);
            let name = format!("lxmert-{worker}");
            crate::reserve::before_thread()?;
            self.threads.push(Builder::new().name(name).spawn(move || shared.serve(worker))?);
        }
        Ok(())
    }

    /// How many workers there are, with the calling thread.
    pub fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Does all tasks of all phases, and returns when they are done. Allocates nothing.
    ///
    /// # Panics
    /// If a task panics: the tasks that no worker has begun are then left out, and the panic goes on here as soon as
    /// all others have ended. The workers stay usable.
    pub fn run(&mut self, work: &dyn Phases) {
        if self.threads.is_empty() {
            for phase in 0..work.phases() {
                for task in 0..work.tasks(phase) {
                    work.run(phase, task, 0);
                }
            }
        } else {
            self.shared.run(work);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.clock.publish(Epoch::STOP);
        for thread in self.threads.drain(..) {
            // A worker catches every panic, so there is none to report.
            let _ = thread.join();
        }
    }
}

/// What the workers share.
struct Shared {
    clock: Clock,
    claims: Claims,
    /// The lots of tasks of the open phase that are not counted as done. Who brings it to 0 is alone in the phase, and opens the next.
    left: Left,
    /// The open phase, how many tasks it has, and how many of them are claimed together.
    phase: AtomicUsize,
    tasks: AtomicUsize,
    lot: AtomicUsize,
    /// The work of the present run: a variable of [`Shared::run`], which is a reference that lives as long as the run.
    work: AtomicPtr<&'static dyn Phases>,
    /// A task has panicked: the rest of the run is skipped.
    abandoned: AtomicBool,
    /// What the first task to panic said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// On a cache line of its own: it changes while everything else is only read.
#[repr(align(128))]
struct Left(AtomicUsize);

impl Shared {
    fn new(threads: usize) -> Self {
        Shared {
            clock: Clock::new(),
            claims: Claims::new(threads),
            left: Left(AtomicUsize::new(0)),
            phase: AtomicUsize::new(0),
            tasks: AtomicUsize::new(0),
            lot: AtomicUsize::new(1),
            work: AtomicPtr::default(),
            abandoned: AtomicBool::new(false),
            panic: Mutex::new(None),
        }
    }

    /// The life of a thread.
    fn serve(&self, worker: usize) {
        let mut epoch = Epoch::START;
        while epoch != Epoch::STOP {
            if epoch.is_open() {
                self.help(epoch, worker);
            }
            epoch = self.clock.wait_past(epoch);
        }
    }

    /// One run, by the calling thread and all that come to help.
    fn run(&self, work: &dyn Phases) {
        let idle = self.clock.make_room(work.phases(), self.claims.workers() - 1);
        self.work.store((&raw const work).cast_mut().cast(), Ordering::Relaxed);
        let mut epoch = self.prepare(work, 0, idle);
        // Others use `work` from here to the end of the loop, and nothing in it unwinds: `attempt` catches every panic.
        self.clock.publish(epoch);
        while epoch.is_open() {
            self.help(epoch, 0);
            epoch = self.clock.wait_past(epoch);
        }
        if self.abandoned.swap(false, Ordering::Relaxed) {
            let panic = self.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
            resume_unwind(panic.expect("stored by the one who abandoned the run"));
        }
    }

    /// Does tasks of that epoch until none is left to claim, and moves on if they were the last to be done.
    fn help(&self, epoch: Epoch, worker: usize) {
        // Counted all at once: the phase has to wait for the last of them in any case.
        let mut done = 0;
        while let Some(claim) = self.claims.claim(epoch, worker) {
            let phase = self.phase.load(Ordering::Relaxed);
            let (tasks, lot) = (self.tasks.load(Ordering::Relaxed), self.lot.load(Ordering::Relaxed));
            for task in claim * lot..tasks.min((claim + 1) * lot) {
                // SAFETY: the task is claimed and not counted.
                unsafe { self.attempt(|work| work.run(phase, task, worker)) };
            }
            done += 1;
        }
        // Release hands on what the tasks wrote; acquire takes over what those wrote who counted before.
        if done > 0 && self.left.0.fetch_sub(done, Ordering::AcqRel) == done {
            let phase = self.phase.load(Ordering::Relaxed) + 1;
            // SAFETY: the last task was counted right here, and the run goes on until the next epoch is published.
            let next = unsafe { self.attempt(|work| self.prepare(work, phase, epoch)) };
            self.clock.publish(next.unwrap_or(epoch.idle()));
        }
    }

    /// Makes everything ready for the first phase that has tasks, from `phase` on, and returns the epoch to publish.
    fn prepare(&self, work: &dyn Phases, phase: usize, before: Epoch) -> Epoch {
        let phases = (phase..work.phases()).map(|phase| (phase, work.tasks(phase)));
        let Some((phase, tasks)) = { phases }.find(|&(_, tasks)| tasks > 0) else {
            return before.idle();
        };
        // More tasks than can be shared out are claimed several at a time.
        let lot = tasks.div_ceil(claims::MAX_TASKS);
        let lots = tasks.div_ceil(lot);
        self.phase.store(phase, Ordering::Relaxed);
        self.tasks.store(tasks, Ordering::Relaxed);
        self.lot.store(lot, Ordering::Relaxed);
        self.left.0.store(lots, Ordering::Relaxed);
        // Last, since it shows all of the above to those who claim.
        self.claims.share_out(before.next(), lots);
        before.next()
    }

    /// Does something with the work. A panic is kept for the caller's thread, and the run abandoned: then this does
    /// nothing and returns `None`.
    ///
    /// # Safety
    /// The present run must be unable to end before this returns: see the module's comment.
    unsafe fn attempt<T>(&self, action: impl FnOnce(&dyn Phases) -> T) -> Option<T> {
        if self.abandoned.load(Ordering::Relaxed) {
            return None;
        }
        // SAFETY: points to a variable of `Shared::run`, and to the work behind it; that function has not returned, as the
        // caller guarantees.
        let work = unsafe { *self.work.load(Ordering::Relaxed) };
        // After a panic the work may be in any state: whoever called `Workers::run` gets the panic, as if there were one thread.
        match catch_unwind(AssertUnwindSafe(|| action(work))) {
            Ok(value) => Some(value),
            Err(panic) => {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                match *first {
                    None => *first = Some(panic),
                    // Its destructor might panic, too.
                    Some(_) => std::mem::forget(panic),
                }
                self.abandoned.store(true, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
