//! Faults that happen to the converter: memory that runs out at every request, calls of the system that go wrong one by one, and an end
//! at any of them. After each the output is whole and right, or as it was.
#![cfg(unix)]

#[path = "../../tests/common/faults.rs"]
mod faults;
#[path = "../../tests/common/program.rs"]
mod program;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use faults::{Counts, Fault, ended_for_a_thread, refused, run, shim, success_or_one_line};
use lxmert_doors::tiny;
use program::program;
use tempfile::TempDir;

/// A directory with a checkpoint of each kind, and an older file in the output's place.
struct Place {
    directory: TempDir,
}

const OLDER: &[u8] = b"older";

impl Place {
    fn new() -> Self {
        // In memory, where there is such a place: every run brings its output to the disk, thousands of times.
        let memory = Path::new("/dev/shm");
        let directory = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap();
        let model = directory.path().join("checkpoint");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("model.safetensors"), tiny::safetensors()).unwrap();
        std::fs::write(model.join("config.json"), tiny::CONFIG_JSON).unwrap();
        std::fs::write(model.join("tokenizer.json"), tiny::tokenizer_json()).unwrap();
        std::fs::write(model.join("answers.json"), r#"["yes", "no", "red"]"#).unwrap();
        std::fs::write(directory.path().join("tiny.gguf"), tiny::model().encode()).unwrap();
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bin");
        std::fs::create_dir(directory.path().join("bin")).unwrap();
        for name in ["config.json", "pytorch_model.bin"] {
            std::fs::copy(fixtures.join(name), directory.path().join("bin").join(name)).unwrap();
        }
        let place = Place { directory };
        place.reset();
        place
    }

    fn out(&self) -> PathBuf {
        self.directory.path().join("out.gguf")
    }

    fn reset(&self) {
        std::fs::write(self.out(), OLDER).unwrap();
    }

    /// A conversion of one of the inputs.
    fn convert(&self, input: &str, arguments: &[&str]) -> Command {
        let mut command = program(env!("CARGO_BIN_EXE_lxmert-quantize"));
        command.current_dir(&self.directory).args(["f16", input, "out.gguf"]).args(arguments);
        command
    }

    /// The right output.
    fn expected(&self, input: &str, arguments: &[&str]) -> Vec<u8> {
        let output = self.convert(input, arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let expected = std::fs::read(self.out()).unwrap();
        self.reset();
        expected
    }

    /// Files that do not belong here.
    fn left(&self) -> Vec<String> {
        let known = ["checkpoint", "tiny.gguf", "bin", "out.gguf"];
        let entries = std::fs::read_dir(&self.directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !known.contains(&&**name)).collect()
    }

    /// Whether the output is whole; if not, it must be as it was. No other file may be there.
    fn is_done(&self, expected: &[u8], what: &Fault) -> bool {
        let found = std::fs::read(self.out()).unwrap();
        let is_whole = found == expected;
        assert!(is_whole || found == OLDER, "{what:?}: neither the old file nor the new one");
        if is_whole {
            self.reset();
        }
        is_whole
    }
}

const INPUTS: [&str; 3] = ["checkpoint", "bin", "tiny.gguf"];

#[test]
fn a_call_that_fails_leaves_the_older_file_and_an_interrupted_one_is_made_again() {
    let Some(shim) = shim() else { return };
    let place = Place::new();
    for input in INPUTS {
        let arguments = &["--threads", "2", "--allow-requantize"];
        let expected = place.expected(input, arguments);
        let counts = Counts::of(shim, &mut place.convert(input, arguments), place.directory.path());
        place.reset();
        let mut failed = [0; 4];
        for (number, (call, kinds)) in [
            ("read", &["short", "EINTR", "EIO"][..]),
            ("pread", &["short", "EINTR", "EIO"]),
            ("write", &["short", "EINTR", "EIO", "ENOSPC"]),
            ("fsync", &["EINTR", "EIO", "ENOSPC"]),
            ("open", &["EINTR", "EIO", "ENOSPC"]),
            ("mmap", &["ENOMEM"]),
        ]
        .into_iter()
        .enumerate()
        {
            for kind in kinds {
                for k in 1..=counts.get(call) {
                    let fault = Fault::Files(call, kind, k);
                    let output = run(shim, &mut place.convert(input, arguments), fault);
                    let line = success_or_one_line(&output, &(input, fault));
                    let is_done = place.is_done(&expected, &fault);
                    assert_eq!(place.left(), [""; 0], "{input} {fault:?}");
                    match line {
                        None => assert!(is_done, "{input} {fault:?}"),
                        Some(line) => {
                            assert!(!["short", "EINTR"].contains(kind), "{input} {fault:?}: {line}");
                            // Only what comes behind the rename fails beside a whole file: the directory's fsync, and the report.
                            assert!(
                                !is_done || call == "fsync" || call == "open" || call == "write",
                                "{input} {fault:?}: {line}"
                            );
                            failed[number.min(3)] += 1;
                        }
                    }
                }
            }
        }
        println!("{input}: {failed:?} calls of read, pread, write and the others ended in an error");
        assert!(failed[0] + failed[1] > 0 && failed[2] > 0 && failed[3] > 0, "{failed:?}");
    }
}

#[test]
fn a_rename_that_fails_leaves_the_older_file_and_nothing_else() {
    let Some(shim) = shim() else { return };
    let place = Place::new();
    let expected = place.expected("checkpoint", &[]);
    let fault = Fault::Files("rename", "EIO", 1);
    let output = run(shim, &mut place.convert("checkpoint", &[]), fault);
    if output.status.success() {
        eprintln!("skipped: the kernel takes no filter of system calls");
        return;
    }
    let line = success_or_one_line(&output, &fault).unwrap();
    assert!(line.contains("out.gguf") && line.contains("cannot write"), "{line}");
    assert!(!place.is_done(&expected, &fault));
    assert_eq!(place.left(), [""; 0]);
}

/// A process that is killed cannot clean up, but what it leaves tells by its name what it is.
#[test]
fn a_run_that_is_killed_at_any_call_leaves_the_old_file_or_the_new_one() {
    let Some(shim) = shim() else { return };
    let place = Place::new();
    let expected = place.expected("checkpoint", &[]);
    let counts = Counts::of(shim, &mut place.convert("checkpoint", &[]), place.directory.path());
    place.reset();
    let mut outcomes = [0, 0, 0];
    for call in ["read", "pread", "write", "fsync", "open", "mmap"] {
        for k in 1..=counts.get(call) {
            let fault = Fault::Files(call, "kill", k);
            let output = run(shim, &mut place.convert("checkpoint", &[]), fault);
            assert_eq!(output.status.signal(), Some(9), "{fault:?}");
            outcomes[usize::from(place.is_done(&expected, &fault))] += 1;
            for name in place.left() {
                assert!(name.starts_with(".lxmert-"), "{fault:?} leaves {name}");
                std::fs::remove_file(place.directory.path().join(name)).unwrap();
                outcomes[2] += 1;
            }
        }
    }
    println!(
        "killed with the old file in place, with the new one, and a temporary file beside it: {outcomes:?}"
    );
    assert!(outcomes.iter().all(|times| *times > 0), "{outcomes:?}");
}

#[test]
fn a_conversion_without_memory_says_so_and_leaves_the_older_file() {
    let Some(shim) = shim() else { return };
    let place = Place::new();
    for (input, arguments) in [
        ("checkpoint", &["--threads", "1"][..]),
        ("bin", &["--threads", "1"]),
        ("tiny.gguf", &["--allow-requantize", "--threads", "1"]),
    ] {
        let expected = place.expected(input, arguments);
        let counts = Counts::of(shim, &mut place.convert(input, arguments), place.directory.path());
        place.reset();
        let requests = counts.get("memory");
        assert!(requests > 1000, "{requests}");
        let (mut failed, mut ended) = (0, 0);
        for fault in [Fault::MemoryOnce, Fault::MemoryFrom] {
            for k in refused(requests, 120) {
                let output = run(shim, &mut place.convert(input, arguments), fault(k));
                if ended_for_a_thread(&output) {
                    ended += 1;
                    assert!(!place.is_done(&expected, &fault(k)));
                    place
                        .left()
                        .iter()
                        .for_each(|name| std::fs::remove_file(place.directory.path().join(name)).unwrap());
                    continue;
                }
                let line = success_or_one_line(&output, &(input, fault(k)));
                assert_eq!(
                    place.is_done(&expected, &fault(k)),
                    line.is_none(),
                    "{input} {:?}: {line:?}",
                    fault(k)
                );
                assert_eq!(place.left(), [""; 0], "{input} {:?}", fault(k));
                failed += usize::from(line.is_some());
            }
        }
        println!(
            "{input}: {requests} requests, {failed} of those refused end in an error, {ended} end the program"
        );
        assert!(failed > 10 && ended <= 24.max(requests / 50), "{failed} {ended}");
    }
}
