//! Faults that happen to whole programs, from their first instruction to their last: what they end in is the right answer, or exit status 1
//! and one line.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use lxmert::vision::Pixels;
use lxmert::{Lowering, Model, Residency, Session, SessionOptions};
use lxmert_doors::tiny;
use tempfile::TempDir;

use crate::faults::{Counts, Fault, ended_for_a_thread, refused, run, shim, success_or_one_line};
use crate::program::program;

/// A model and a picture for it.
fn files(directory: &Path) {
    std::fs::write(directory.join("tiny.gguf"), tiny::model().encode()).unwrap();
    let pixels = image::RgbImage::from_fn(4, 4, |x, y| image::Rgb([x as u8 * 60, y as u8 * 60, 99]));
    pixels.save(directory.join("picture.png")).unwrap();
}

/// `lxmert-vqa` in a directory of these files.
fn vqa(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_lxmert-vqa"));
    command.args(["--model", "tiny.gguf", "--image", "picture.png", "--question", "what is red?"]);
    command.args(arguments).current_dir(directory);
    command
}

/// Runs `test` for each number, on two threads.
fn in_parallel(numbers: impl Iterator<Item = usize>, test: impl Fn(usize) + Sync) {
    let numbers = std::sync::Mutex::new(numbers.collect::<Vec<_>>().into_iter());
    let next = || numbers.lock().unwrap().next();
    let work = || {
        while let Some(number) = next() {
            test(number);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
}

#[test]
fn a_program_without_memory_says_so() {
    let Some(shim) = shim() else { return };
    let directory = TempDir::new().unwrap();
    files(directory.path());
    for (arguments, most) in [(&["--lowering", "ggml", "--threads", "2"][..], 160), (&[], 80)] {
        let expected = vqa(directory.path(), arguments).output().unwrap();
        assert!(expected.status.success() && !expected.stdout.is_empty());
        let counts = Counts::of(shim, &mut vqa(directory.path(), arguments), directory.path());
        let requests = counts.get("memory");
        assert!(requests > 1000, "{requests}");
        let (failed, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
        for fault in [Fault::MemoryOnce, Fault::MemoryFrom] {
            in_parallel(refused(requests, most), |k| {
                let output = run(shim, &mut vqa(directory.path(), arguments), fault(k));
                if ended_for_a_thread(&output) {
                    ended.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                match success_or_one_line(&output, &fault(k)) {
                    None => assert!(output.stdout == expected.stdout, "{:?}", fault(k)),
                    Some(_) => drop(failed.fetch_add(1, Ordering::Relaxed)),
                }
            });
        }
        println!(
            "{requests} requests, {failed:?} of those refused end in an error, {ended:?} end the program"
        );
        // Those around the start of a thread, of which there are two: one to try, and one to compute.
        let ended = ended.into_inner();
        assert!(failed.into_inner() > 20 && ended <= 24.max(requests / 50), "{ended}");
    }
}

/// Interruptions and short reads are no failures; all others are told.
#[test]
fn a_call_that_fails_is_told_and_an_interrupted_one_is_made_again() {
    let Some(shim) = shim() else { return };
    let directory = TempDir::new().unwrap();
    files(directory.path());
    for residency in ["auto", "streamed"] {
        let arguments = &["--residency", residency, "--lowering", "portable"];
        let expected = vqa(directory.path(), arguments).output().unwrap();
        assert!(expected.status.success(), "{expected:?}");
        let counts = Counts::of(shim, &mut vqa(directory.path(), arguments), directory.path());
        let mut failed = 0;
        for (call, kinds) in [
            ("read", &["short", "EINTR", "EIO"][..]),
            ("pread", &["short", "EINTR", "EIO"]),
            ("write", &["short", "EINTR", "EIO", "ENOSPC"]),
            ("open", &["EINTR", "EIO"]),
            ("mmap", &["ENOMEM"]),
        ] {
            let last = counts.get(call);
            assert!(last > 0 || call == "pread", "{call}");
            for kind in kinds {
                for k in 1..=last {
                    let fault = Fault::Files(call, kind, k);
                    let output = run(shim, &mut vqa(directory.path(), arguments), fault);
                    let line = success_or_one_line(&output, &fault);
                    match line {
                        None => assert!(output.stdout == expected.stdout, "{fault:?}"),
                        Some(line) => {
                            assert!(!["short", "EINTR"].contains(kind), "{fault:?}: {line}");
                            failed += 1;
                        }
                    }
                }
            }
        }
        assert!(failed > 5, "{failed}");
    }
}

fn answers(session: &mut Session) -> Result<Vec<f32>, lxmert::Error> {
    let pixels: Vec<u8> = (0..4 * 4 * 3).map(|n| n * 5).collect();
    session.encode_pixels(&Pixels::new(&pixels, 4, 4, 12)?)?;
    Ok(session.ask("what is red?")?.logits().to_vec())
}

/// A session of a model whose file is changed by `change` once the session has answered; what it says then.
fn after(
    change: impl Fn(&Path),
    open: impl Fn(&Path) -> Model,
    (lowering, residency): (Lowering, Residency),
) -> (Vec<f32>, Result<Vec<f32>, lxmert::Error>) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tiny.gguf");
    std::fs::write(&path, tiny::model().encode()).unwrap();
    let model = open(&path);
    let mut options = SessionOptions::new(&model);
    (options.residency, options.lowering) = (residency, lowering);
    let mut session = Session::new(&model, options).unwrap();
    let before = answers(&mut session).unwrap();
    change(&path);
    let changed = answers(&mut session);
    // A session that could not read lives on, and ends as any.
    assert_eq!(changed.is_ok(), answers(&mut session).is_ok());
    (before, changed)
}

/// How weights are used: out of a copy, out of the file in every run, or where the file is mapped.
const KERNELS: Lowering = Lowering::Kernels(lxmert::InstructionSet::Portable);
const COPIED: (Lowering, Residency) = (KERNELS, Residency::Resident);
const STREAMED: (Lowering, Residency) = (KERNELS, Residency::Streamed);
const MAPPED: (Lowering, Residency) = (Lowering::Ggml, Residency::Mapped);

fn mapped(path: &Path) -> Model {
    Model::open(path).unwrap()
}

fn read(path: &Path) -> Model {
    Model::from_bytes(&std::fs::read(path).unwrap()).unwrap()
}

fn cut(path: &Path) {
    File::options().write(true).open(path).unwrap().set_len(100).unwrap();
}

fn replace(path: &Path) {
    let other = path.with_extension("other");
    std::fs::write(&other, "another file").unwrap();
    std::fs::rename(other, path).unwrap();
}

fn remove(path: &Path) {
    std::fs::remove_file(path).unwrap();
}

fn write_over(path: &Path) {
    let len = std::fs::metadata(path).unwrap().len();
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.write_all(&vec![0; len as usize]).unwrap();
}

/// The way to replace a model: whoever has the old file open keeps it, whole.
#[test]
fn a_replaced_or_removed_file_does_not_matter_to_who_has_it_open() {
    for how in [COPIED, STREAMED, MAPPED] {
        for change in [replace, remove] {
            let (before, after) = after(change, mapped, how);
            assert_eq!(after.unwrap(), before, "{how:?}");
        }
    }
}

#[test]
fn a_file_that_is_cut_short_is_an_error_where_it_is_streamed() {
    let (_, after) = after(cut, mapped, STREAMED);
    let error = after.unwrap_err();
    assert!(matches!(error, lxmert::Error::Read { .. }), "{error:?}");
    assert!(error.to_string().contains("could not be read at byte"), "{error}");
}

#[test]
fn no_change_of_the_file_reaches_a_model_that_was_read() {
    for how in [COPIED, (Lowering::Ggml, Residency::Resident)] {
        for change in [cut, replace, remove, write_over] {
            let (before, after) = after(change, read, how);
            assert_eq!(after.unwrap(), before, "{how:?}");
        }
    }
}

/// Other numbers, but neither an error nor worse.
#[test]
fn a_file_that_is_written_over_gives_other_answers_where_it_is_not_copied() {
    for how in [STREAMED, MAPPED] {
        let (before, after) = after(write_over, mapped, how);
        match after {
            Ok(after) => assert!(after.len() == before.len() && after != before, "{how:?}"),
            Err(error) => assert!(matches!(error, lxmert::Error::NotFinite { .. }), "{how:?}: {error}"),
        }
    }
}

/// The tokenizer is made when it is first needed, and not of another file than the one that was opened.
#[test]
fn a_file_that_is_written_over_makes_no_tokenizer() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tiny.gguf");
    let file = lxmert_doors::tiny::model().encode();
    let pieces = file.windows(4).position(|word| word == b"what").expect("a piece of its vocabulary");
    for place in [pieces, 24] {
        std::fs::write(&path, &file).unwrap();
        let model = Model::open(&path).unwrap();
        let mut other = file.clone();
        other[place..place + 4].copy_from_slice(b"when");
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.seek(SeekFrom::Start(0)).unwrap();
        writer.write_all(&other).unwrap();
        let error = model.tokenizer().unwrap_err();
        assert!(matches!(error, lxmert::Error::Replaced | lxmert::Error::Gguf(_)), "{error}");
    }
}

/// A map of a file that was cut short ends the process, as the documentation says. Whoever cannot rule that out reads the file instead.
#[cfg(target_os = "linux")]
#[test]
fn a_mapped_file_that_is_cut_short_ends_the_process_with_sigbus() {
    use std::os::unix::process::ExitStatusExt;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "programs::with_a_map_cut_short", "--test-threads=1"]);
    let status = child.output().unwrap().status;
    // Where an emulator stands between, it may end by its own.
    assert!(!status.success() && [Some(SIGBUS), None].contains(&status.signal()), "{status}");
}

/// The signal's number under Linux on x86 and ARM.
#[cfg(target_os = "linux")]
const SIGBUS: i32 = 7;

#[test]
#[ignore = "a_mapped_file_that_is_cut_short_ends_the_process_with_sigbus starts it"]
fn with_a_map_cut_short() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("tiny.gguf");
    std::fs::write(&path, tiny::model().encode()).unwrap();
    let model = Model::open(&path).unwrap();
    let mut options = SessionOptions::new(&model);
    (options.lowering, options.residency) = MAPPED;
    let mut session = Session::new(&model, options).unwrap();
    answers(&mut session).unwrap();
    File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    let _ = answers(&mut session);
}
