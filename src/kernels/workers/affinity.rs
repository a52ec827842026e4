//! On which CPUs threads may run.

use crate::Error;

/// Does something on a thread that may run on these CPUs only, as may every thread that it starts. The calling
/// thread keeps what it has.
///
/// # Errors
/// [`Error::Input`] if there is no CPU, or one that this process cannot use; [`Error::Threads`] if the thread does not start.
#[cfg(target_os = "linux")]
pub fn with<T: Send>(cpus: &[usize], action: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let bound = || {
        // One by one: of several, the system ignores those that do not exist.
        let unusable = cpus.iter().find(|&&cpu| bind(&[cpu]).is_err());
        if unusable.is_some() || bind(cpus).is_err() {
            let expected = "CPUs that exist and that this process may use".to_owned();
            let found = unusable.map_or("none".to_owned(), usize::to_string);
            return Err(Error::Input { name: "cpus".to_owned(), expected, found });
        }
        Ok(action())
    };
    std::thread::scope(|scope| {
        let started = || std::thread::Builder::new().spawn_scoped(scope, bound);
        let thread = crate::reserve::before_thread().and_then(|()| started());
        let thread = thread.map_err(|source| Error::Threads { threads: 1, source })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(target_os = "linux")]
fn bind(cpus: &[usize]) -> rustix::io::Result<()> {
    use rustix::thread::CpuSet;
    let mut set = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(rustix::io::Errno::INVAL);
        }
        set.set(cpu);
    }
    rustix::thread::sched_setaffinity(None, &set)
}

/// Elsewhere threads cannot be bound.
///
/// # Errors
/// [`Error::Input`].
#[cfg(not(target_os = "linux"))]
pub fn with<T>(cpus: &[usize], _: impl FnOnce() -> T) -> Result<T, Error> {
    let expected = "none, since threads can be bound to CPUs under Linux only".to_owned();
    Err(Error::Input { name: "cpus".to_owned(), expected, found: format!("{cpus:?}") })
}
