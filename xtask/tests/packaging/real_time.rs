//! What a session's runs take from the system, once the first ones are over: nothing.

use std::collections::BTreeMap;
use std::path::Path;

use lxmert::Lowering;

use super::{build_c, has, model, succeed, with_installation};

/// Runs the program that counts, and returns its counts by name.
fn counts(program: &Path, arguments: [&str; 4]) -> BTreeMap<String, i64> {
    let text = succeed(with_installation(program).arg(model()).args(arguments));
    let count = |line: &str| {
        let (name, number) = line.split_once(' ').unwrap();
        (name.to_owned(), number.parse().unwrap())
    };
    text.lines().map(count).collect()
}

#[test]
fn ten_thousand_runs_take_nothing_from_the_system() {
    if !has("pkg-config") {
        return;
    }
    if Lowering::Fastest.resolve().unwrap() == Lowering::Ggml {
        eprintln!("skipped: ggml allocates in every run, and this CPU has no kernels of the project's own");
        return;
    }
    let program = build_c("real_time", false);
    for arguments in [
        ["10000", "1", "unlocked", "resident"],
        ["1000", "2", "locked", "resident"],
        ["1000", "2", "unlocked", "streamed"],
    ] {
        let [runs, _, lock, residency] = arguments;
        let mut counts = counts(&program, arguments);
        let mut take = |name: &str| counts.remove(name).unwrap();
        assert!(take("control") > 0, "the counter is blind");
        // Streamed weights are what is read.
        let read = take("bytes_read");
        assert_eq!(read == 0, residency == "resident", "{read} bytes were read");
        // Code that is reached for the first time, or memory that the kernel has moved, may be found again once in a thousand runs, and
        // once more where a thread had no task of a kind before. What grew would be missing in each of them.
        let faults = take("minor_faults");
        assert!(faults <= 1 + runs.parse::<i64>().unwrap() / 1000, "{faults} page faults in {runs} runs");
        // All that the plan tells of, and no more than whole pages of it.
        let unlocked = take("unlocked");
        assert_eq!(unlocked <= 0, lock == "locked", "{unlocked} bytes are not locked");
        assert_eq!(counts.len(), 4);
        assert!(counts.values().all(|count| *count == 0), "{arguments:?}: {counts:?}");
    }
}
