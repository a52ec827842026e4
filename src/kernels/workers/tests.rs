use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use super::*;

/// Checks that every task runs exactly once and in its phase, and no two at a time under one worker's number.
struct Checked<F> {
    /// Tasks of each phase; of each task how often it ran.
    runs: Vec<Vec<AtomicU32>>,
    /// Tasks done in this run.
    done: AtomicUsize,
    busy: Vec<AtomicBool>,
    /// What a task does beside.
    action: F,
}

impl<F: Fn(usize, usize, usize) + Sync> Checked<F> {
    fn new(threads: usize, tasks: &[usize], action: F) -> Self {
        Checked {
            runs: tasks.iter().map(|&tasks| (0..tasks).map(|_| AtomicU32::new(0)).collect()).collect(),
            done: AtomicUsize::new(0),
            busy: (0..threads).map(|_| AtomicBool::new(false)).collect(),
            action,
        }
    }

    fn check_run(&self, workers: &mut Workers) {
        self.done.store(0, Relaxed);
        workers.run(self);
        assert_eq!(self.done.load(Relaxed), self.runs.iter().map(Vec::len).sum::<usize>());
    }

    /// Runs that many times, and asserts that all tasks ran as often.
    fn check(&self, workers: &mut Workers, times: u32) {
        for _ in 0..times {
            self.check_run(workers);
        }
        assert!(self.runs.iter().flatten().all(|runs| runs.load(Relaxed) == times));
    }
}

impl<F: Fn(usize, usize, usize) + Sync> Phases for Checked<F> {
    fn phases(&self) -> usize {
        self.runs.len()
    }

    fn tasks(&self, phase: usize) -> usize {
        self.runs[phase].len()
    }

    fn run(&self, phase: usize, task: usize, worker: usize) {
        assert!(!self.busy[worker].swap(true, Relaxed), "worker {worker} does two tasks at a time");
        let before: usize = self.runs[..phase].iter().map(Vec::len).sum();
        let done = self.done.load(Relaxed);
        assert!((before..before + self.tasks(phase)).contains(&done), "{done} done in phase {phase}");
        // Relaxed, as all here: it is up to the workers to make one phase visible to the next.
        if phase > 0 {
            let runs = self.runs[phase][task].load(Relaxed);
            assert!(self.runs[phase - 1].iter().all(|before| before.load(Relaxed) > runs));
        }
        (self.action)(phase, task, worker);
        self.runs[phase][task].fetch_add(1, Relaxed);
        self.done.fetch_add(1, Relaxed);
        self.busy[worker].store(false, Relaxed);
    }
}

fn checked(threads: usize, tasks: &[usize], times: u32) {
    let mut workers = Workers::new(threads, None).unwrap();
    assert_eq!(workers.threads(), threads);
    Checked::new(threads, tasks, |_, _, _| ()).check(&mut workers, times);
}

fn all_asleep(workers: &Workers) {
    workers.shared.clock.until_asleep(workers.threads.len());
}

#[test]
fn runs_every_task_once_and_in_its_phase() {
    let shapes: [&[usize]; 9] =
        [&[], &[0], &[1], &[0, 0, 3, 0], &[1, 1, 1], &[5, 1, 7], &[40, 0, 40], &[2; 50], &[1000, 1]];
    for threads in [1, 2, 3, 4, 7, 16] {
        for tasks in shapes {
            checked(threads, tasks, 50);
        }
    }
}

#[test]
fn runs_thousands_of_times() {
    for threads in [2, 4] {
        checked(threads, &[3, 10, 1, 24, 0, 2], 5000);
    }
}

#[test]
fn runs_the_most_tasks_that_a_phase_may_have() {
    checked(3, &[claims::MAX_TASKS], 2);
    // More than can be shared out, by a little and by far.
    checked(3, &[claims::MAX_TASKS + 1, 5, 300_000], 2);
}

#[test]
fn a_worker_that_gets_stuck_loses_all_but_its_task() {
    for threads in [2, 3, 4] {
        let mut workers = Workers::new(threads, None).unwrap();
        let tasks = [20; 30];
        let done = AtomicUsize::new(0);
        // The first of each phase to begin, whoever has it, waits for all others.
        let begun: [AtomicBool; 30] = std::array::from_fn(|_| AtomicBool::new(false));
        let work = Checked::new(threads, &tasks, |phase, _, _| {
            if !begun[phase].swap(true, Relaxed) {
                while done.load(Relaxed) < 20 * phase + 19 {
                    std::thread::yield_now();
                }
            }
            done.fetch_add(1, Relaxed);
        });
        work.check(&mut workers, 1);
    }
}

#[test]
fn sleeps_between_runs_and_wakes_for_the_next() {
    let mut workers = Workers::new(4, None).unwrap();
    let work = Checked::new(4, &[8, 8], |_, _, _| std::thread::sleep(Duration::from_micros(100)));
    for _ in 0..20 {
        all_asleep(&workers);
        work.check_run(&mut workers);
    }
}

#[test]
fn ends_at_any_time() {
    for round in 0..200 {
        let mut workers = Workers::new(1 + round % 5, None).unwrap();
        if round % 3 > 0 {
            Checked::new(workers.threads(), &[round % 7, 4], |_, _, _| ()).check(&mut workers, 1);
        }
        if round % 3 > 1 {
            all_asleep(&workers);
        }
    }
}

#[test]
fn a_panic_reaches_the_caller_and_ends_the_run() {
    for threads in [1, 2, 4] {
        let mut workers = Workers::new(threads, None).unwrap();
        for (phase, task) in [(0, 0), (1, 3), (1, 9), (2, 5)] {
            let running = AtomicUsize::new(0);
            let work = Checked::new(threads, &[10, 10, 10, 10], |p, t, _| {
                assert!(p <= phase, "a phase began after one that failed");
                running.fetch_add(1, SeqCst);
                if (p, t) == (phase, task) {
                    running.fetch_sub(1, SeqCst);
                    // Not by `panic!`, which would print.
                    resume_unwind(Box::new((phase, task)));
                }
                std::thread::sleep(Duration::from_micros(50));
                running.fetch_sub(1, SeqCst);
            });
            let panic = catch_unwind(AssertUnwindSafe(|| workers.run(&work))).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&(phase, task)));
            assert_eq!(running.load(SeqCst), 0, "a task was still running");
            Checked::new(threads, &[6, 6], |_, _, _| ()).check(&mut workers, 20);
        }
    }
}

#[test]
fn many_panics_are_one() {
    let mut workers = Workers::new(4, None).unwrap();
    for _ in 0..100 {
        let work = Checked::new(4, &[8], |_, task, _| resume_unwind(Box::new(task)));
        let panic = catch_unwind(AssertUnwindSafe(|| workers.run(&work))).unwrap_err();
        assert!(panic.is::<usize>());
    }
}

#[test]
fn a_panic_between_phases_reaches_the_caller() {
    struct Uncountable(usize);
    impl Phases for Uncountable {
        fn phases(&self) -> usize {
            5
        }
        fn tasks(&self, phase: usize) -> usize {
            if phase == self.0 { resume_unwind(Box::new("uncountable")) } else { 4 }
        }
        fn run(&self, _: usize, _: usize, _: usize) {}
    }
    let mut workers = Workers::new(3, None).unwrap();
    for phase in 0..5 {
        let panic = catch_unwind(AssertUnwindSafe(|| workers.run(&Uncountable(phase)))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"uncountable"));
        Checked::new(3, &[6, 6], |_, _, _| ()).check(&mut workers, 20);
    }
}

#[test]
fn runs_on_when_the_epochs_are_used_up() {
    let mut workers = Workers::new(3, None).unwrap();
    for left in (1..40).step_by(2) {
        all_asleep(&workers);
        workers.shared.clock.set_idle(u32::MAX - 1 - left);
        Checked::new(3, &[4; 9], |_, _, _| ()).check(&mut workers, 4);
        assert!(workers.shared.clock.now().number() < 80, "has begun again");
    }
}

#[test]
fn runs_under_heavy_load() {
    // 24 threads that want a core, in runs of all lengths, some of which outlast a time slice.
    std::thread::scope(|scope| {
        for pool in 0..6 {
            scope.spawn(move || {
                let mut workers = Workers::new(4, None).unwrap();
                let work = Checked::new(4, &[13, 1, 30, 2, 5], |phase, task, _| {
                    for i in 0..(phase * 131 + task * 17 + pool * 71) % 500 {
                        std::hint::black_box(i);
                    }
                });
                work.check(&mut workers, 1500);
            });
        }
    });
}

#[test]
fn rejects_a_number_of_threads() {
    for threads in [0, crate::ggml::MAX_THREADS + 1] {
        assert!(matches!(Workers::new(threads, None), Err(Error::Input { name, .. }) if name == "threads"));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn binds_all_threads_but_the_callers() {
    use rustix::thread::sched_getaffinity;
    let cpus = |set: rustix::thread::CpuSet| (0..1024).filter(|&cpu| set.is_set(cpu)).collect::<Vec<_>>();
    let before = sched_getaffinity(None).unwrap();
    let last = cpus(before).pop().unwrap();
    let mut workers = Workers::new(3, Some(&[last])).unwrap();
    let bound = AtomicUsize::new(0);
    let work = Checked::new(3, &[3], |_, _, worker| {
        let here = sched_getaffinity(None).unwrap();
        assert_eq!(cpus(here), if worker == 0 { cpus(before) } else { vec![last] });
        bound.fetch_add(1, Relaxed);
        // All three have to take part.
        while bound.load(Relaxed) < 3 {
            std::thread::yield_now();
        }
    });
    work.check(&mut workers, 1);
}

#[cfg(target_os = "linux")]
#[test]
fn rejects_cpus_that_do_not_exist() {
    for (threads, cpus, expected) in [
        (2, &[][..], "none"),
        (2, &[0, 1023], "1023"),
        (1, &[1023], "1023"),
        (2, &[1 << 40, 0], "1099511627776"),
    ] {
        match Workers::new(threads, Some(cpus)) {
            Err(Error::Input { name, found, .. }) => assert_eq!((&*name, &*found), ("cpus", expected)),
            _ => panic!("{cpus:?} was taken"),
        }
    }
}

mod claims_alone {
    use super::*;

    #[test]
    fn one_worker_can_take_all() {
        for workers in 1..6 {
            let claims = Claims::new(workers);
            let epoch = Epoch::START.next();
            claims.share_out(epoch, 23);
            for worker in 0..workers {
                // Half of the first two's shares, so that what is left is uneven.
                if worker < 2 {
                    claims.claim(epoch, worker).unwrap();
                }
            }
            let mut taken: Vec<_> = std::iter::from_fn(|| claims.claim(epoch, workers - 1)).collect();
            taken.sort_unstable();
            taken.dedup();
            assert_eq!(taken.len(), 23 - workers.min(2));
        }
    }

    #[test]
    fn shares_are_taken_from_the_front_and_stolen_from_the_rear() {
        let claims = Claims::new(2);
        let epoch = Epoch::START.next();
        claims.share_out(epoch, 12);
        let taken: Vec<_> = std::iter::from_fn(|| claims.claim(epoch, 1)).collect();
        assert_eq!(taken, [6, 7, 8, 9, 10, 11, 3, 4, 5, 1, 2, 0]);
    }

    #[test]
    fn a_late_worker_gets_nothing() {
        let claims = Claims::new(2);
        let old = Epoch::START.next();
        claims.share_out(old, 1);
        assert!(claims.claim(old, 1).is_some());
        claims.share_out(old.next(), 2);
        assert_eq!(claims.claim(old, 0), None);
        assert_eq!(claims.claim(old, 1), None);
        assert!(claims.claim(old.next(), 0).is_some());
    }
}
