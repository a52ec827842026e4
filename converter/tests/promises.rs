//! What a conversion promises whatever happens to it: the output is there whole or not at all, an error is one
//! line and exit status 1, and no input is ever overwritten.

#![cfg(unix)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::program::program;
use common::{golden, root};
use tempfile::TempDir;

fn quantize() -> Command {
    program(env!("CARGO_BIN_EXE_lxmert-quantize"))
}

/// Long enough to be interrupted, and short enough to be run fifty times.
fn conversion(out: &Path) -> Command {
    let mut command = quantize();
    command.args(["q4_K", "--synthetic", "tiny", "--threads", "1"]).arg(out);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Runs a command that has to fail with one line and status 1, and returns the line.
fn complaint(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!((status.code(), &stdout[..]), (Some(1), &b""[..]), "{text}");
    assert!(text.starts_with("error: ") && text.lines().count() == 1, "{text}");
    text
}

/// A killed process cannot clean up. What it leaves is a hidden file of another name, which no later run minds.
#[test]
fn a_killed_run_leaves_a_whole_file_or_none() {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("out.gguf");
    let started = Instant::now();
    assert!(conversion(&out).status().unwrap().success());
    let time = started.elapsed();
    let whole = std::fs::read(&out).unwrap();
    std::fs::remove_file(&out).unwrap();

    // Evenly spread from the start to a little after the end, in an order without pattern.
    let mut outcomes = [0, 0];
    for number in 0..50 {
        let after = Duration::from_secs_f64(time.as_secs_f64() * 1.1 * f64::from(number * 37 % 50) / 50.0);
        let mut run = conversion(&out).spawn().unwrap();
        std::thread::sleep(after);
        run.kill().unwrap();
        run.wait().unwrap();
        let there = out.exists();
        outcomes[usize::from(there)] += 1;
        if there {
            assert!(std::fs::read(&out).unwrap() == whole, "killed after {after:?}");
            std::fs::remove_file(&out).unwrap();
        }
        let left = names(directory.path());
        assert!(left.iter().all(|name| name.starts_with(".lxmert-")), "{left:?}");
    }
    assert!(outcomes[0] > 0, "no run was killed in time");
    assert!(conversion(&out).status().unwrap().success());
    assert!(std::fs::read(&out).unwrap() == whole);
}

/// A limit on the size of files stands in for a full disk: both make a write fail half-way.
#[test]
fn a_full_disk_leaves_the_older_file_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("out.gguf");
    std::fs::write(&out, "older").unwrap();
    // With the signal ignored, the write itself fails.
    let script = r#"trap "" XFSZ; ulimit -f 100; exec "$0" "$@""#;
    let mut limited = Command::new("sh");
    limited.args(["-c", script]).arg(quantize().get_program()).args(quantize().get_args());
    let error = complaint(limited.args(["f32", "--synthetic", "tiny"]).arg(&out));
    assert!(error.contains("cannot write") && error.contains("out.gguf"), "{error}");
    assert_eq!(names(directory.path()), ["out.gguf"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"older");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = TempDir::new().unwrap();
    let locked = directory.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).unwrap();
    let mut places = vec![directory.path().join("nowhere")];
    // Nothing is locked for root.
    if std::fs::write(locked.join("probe"), "").is_err() {
        places.push(locked.clone());
    }
    if cfg!(target_os = "linux") {
        // Not even root makes files here.
        places.push(PathBuf::from("/proc/self"));
    }
    for place in places {
        let error = complaint(&mut conversion(&place.join("out.gguf")));
        assert!(error.contains("cannot write") && error.contains("out.gguf"), "{error}");
    }
    assert_eq!(names(directory.path()), ["locked"]);
}

#[test]
fn an_output_that_is_no_ordinary_file_is_left_alone() {
    let directory = TempDir::new().unwrap();
    let link = directory.path().join("link.gguf");
    std::os::unix::fs::symlink("elsewhere.gguf", &link).unwrap();
    for (out, reason) in
        [(directory.path(), "directory"), (&link, "symbolic link"), (Path::new("/dev/null"), "no ordinary")]
    {
        let error = complaint(&mut conversion(out));
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(names(directory.path()), ["link.gguf"]);
}

/// By its name, by another path, and by links of either kind; as a checkpoint's weights and as a GGUF file.
#[test]
fn an_input_is_never_the_output() {
    let directory = TempDir::new().unwrap();
    let model = directory.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("qa-small").join(name), model.join(name)).unwrap();
    }
    let gguf = directory.path().join("model.gguf");
    let made = quantize().arg("f16").args([&model, &gguf]).output().unwrap();
    assert!(made.status.success());
    let torch = directory.path().join("BEST.pth");
    let fixtures = root().join("converter/tests/fixtures");
    std::fs::copy(fixtures.join("BEST.pth"), &torch).unwrap();

    for (input, file) in
        [(&model, model.join("model.safetensors")), (&gguf, gguf.clone()), (&torch, torch.clone())]
    {
        let before = std::fs::read(&file).unwrap();
        let (hard, soft) = (directory.path().join("hard"), directory.path().join("soft"));
        std::fs::hard_link(&file, &hard).unwrap();
        std::os::unix::fs::symlink(&file, &soft).unwrap();
        let twisted = model.join("..").join(file.strip_prefix(directory.path()).unwrap());
        for out in [&file, &twisted, &hard, &soft] {
            let mut command = quantize();
            command.arg("f16").arg(input).arg(out).arg("--config").arg(fixtures.join("bin/config.json"));
            if input == &gguf || input == &model {
                command = quantize();
                command.arg("f16").arg(input).arg(out);
            }
            assert!(complaint(&mut command).contains("the output is one of the input files"));
        }
        for link in [hard, soft] {
            std::fs::remove_file(link).unwrap();
        }
        assert!(std::fs::read(&file).unwrap() == before);
    }
    assert_eq!(names(&model), ["config.json", "model.safetensors"]);
    assert_eq!(names(directory.path()), ["BEST.pth", "model", "model.gguf"]);
}

#[test]
fn hostile_and_damaged_files_are_told_in_one_line() {
    let directory = TempDir::new().unwrap();
    let fixtures = root().join("converter/tests/fixtures");
    for name in ["hostile/zip-2.bin", "hostile/legacy-4.bin", "hostile/deflated.bin", "ambiguous.pt"] {
        let mut command = quantize();
        command.current_dir(&directory).arg("f16").arg(fixtures.join(name)).arg("out.gguf");
        complaint(&mut command);
    }
    let whole = std::fs::read(fixtures.join("bin/pytorch_model.bin")).unwrap();
    std::fs::write(directory.path().join("cut.bin"), &whole[..whole.len() - 1000]).unwrap();
    let mut command = quantize();
    let error = complaint(command.current_dir(&directory).args(["f16", "cut.bin", "out.gguf"]));
    assert!(error.contains("cut short"), "{error}");
    assert_eq!(names(directory.path()), ["cut.bin"]);
}
