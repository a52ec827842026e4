//! The threads that compute a graph.

use std::ptr::NonNull;

use ggml_sys_bindings as sys;

use crate::Error;

/// The most threads that a session may use.
pub const MAX_THREADS: usize = 256;

/// What ggml asks of the system for each thread, about.
const POOL_BYTES: usize = 512;

/// Checks a number of threads.
///
/// # Errors
/// [`Error::Input`] if it is not in 1..=[`MAX_THREADS`].
pub(crate) fn check_threads(threads: usize) -> Result<(), Error> {
    if !(1..=MAX_THREADS).contains(&threads) {
        return Err(Error::Input {
            name: "threads".to_owned(),
            expected: format!("1 to {MAX_THREADS}"),
            found: threads.to_string(),
        });
    }
    Ok(())
}

/// ggml's worker threads, started once and kept for the life of a session. The calling thread is one of them.
pub(crate) struct ThreadPool {
    pool: NonNull<sys::ggml_threadpool>,
    threads: usize,
}

// SAFETY: ggml ties a pool to no thread, as long as one thread at a time uses it: `BoundGraph::compute` takes it by `&mut`.
unsafe impl Send for ThreadPool {}

impl ThreadPool {
    /// Starts `threads - 1` workers.
    ///
    /// # Errors
    /// [`Error::Input`] if `threads` is not in 1..=[`MAX_THREADS`], [`Error::Instructions`] if the CPU lacks some that ggml was
    /// compiled with, [`Error::Threads`] if the operating system does not give as many, [`Error::OutOfMemory`].
    pub fn new(threads: usize) -> Result<Self, Error> {
        check_threads(threads)?;
        super::check_cpu()?;
        try_threads(threads - 1).map_err(|source| Error::Threads { threads, source })?;
        let mut params = sys::ggml_threadpool_params {
            cpumask: [false; _],
            n_threads: threads as i32,
            prio: sys::ggml_sched_priority::GGML_SCHED_PRIO_NORMAL,
            poll: 50,
            strict_cpu: false,
            paused: false,
        };
        // SAFETY: the parameters are valid and are only read during the call; the closure owns nothing.
        let pool = unsafe { sys::guarded(|| sys::ggml_threadpool_new(&mut params)) };
        let refused = |problem: String| match problem == sys::OUT_OF_MEMORY {
            true => Error::OutOfMemory { what: "ggml's threads", bytes: POOL_BYTES * threads },
            // Those that did start wait for work that never comes.
            false => Error::Threads { threads, source: std::io::Error::other(problem) },
        };
        let pool = NonNull::new(pool.map_err(refused)?).ok_or(Error::Ggml("no thread pool"))?;
        Ok(ThreadPool { pool, threads })
    }

    pub fn threads(&self) -> usize {
        self.threads
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_threadpool {
        self.pool.as_ptr()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once; no graph is being computed, since that borrows the pool.
        unsafe { sys::ggml_threadpool_free(self.pool.as_ptr()) }
    }
}

/// Starts that many threads and lets them end. When ggml cannot start one, those that it did start are of no
/// use and stay, so it is tried before.
fn try_threads(count: usize) -> std::io::Result<()> {
    let gate = std::sync::Mutex::new(());
    if count == 0 {
        return Ok(());
    }
    crate::reserve::before_thread()?;
    std::thread::scope(|scope| {
        // All must exist at once, so none ends before the gate is opened.
        let _closed = gate.lock();
        for _ in 0..count {
            crate::reserve::before_thread()?;
            std::thread::Builder::new().spawn_scoped(scope, || drop(gate.lock()))?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guarded_call_may_make_any_number_of_pools() {
        let mut params = sys::ggml_threadpool_params {
            cpumask: [false; _],
            n_threads: 2,
            prio: sys::ggml_sched_priority::GGML_SCHED_PRIO_NORMAL,
            poll: 0,
            strict_cpu: false,
            paused: false,
        };
        let made = || {
            (0..20)
                .filter(|_| {
                    // SAFETY: the parameters are valid and only read during the call.
                    let pool = unsafe { sys::ggml_threadpool_new(&mut params) };
                    if !pool.is_null() {
                        // SAFETY: just made, used by nothing, freed once.
                        unsafe { sys::ggml_threadpool_free(pool) };
                    }
                    !pool.is_null()
                })
                .count()
        };
        // SAFETY: the closure owns nothing that an abort in its middle would lose.
        assert_eq!(unsafe { sys::guarded(made) }, Ok(20));
    }
}
