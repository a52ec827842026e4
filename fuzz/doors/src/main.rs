//! The corpus of the fuzzing targets: `corpus` writes it, `replay [--time]` lets all of it in, `slowest [COUNT]` tells which files take
//! longest to refuse.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use lxmert_doors::{DOORS, corpus, specimens};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["corpus"] => write(),
        ["replay"] => replay(false),
        ["replay", "--time"] => replay(true),
        ["slowest"] => slowest(10),
        ["slowest", count] => count.parse().map_err(|_| format!("{count} is no number")).and_then(slowest),
        _ => Err("usage: lxmert-doors corpus | replay [--time] | slowest [COUNT]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Writes what [`specimens`] makes; what was found by fuzzing stays.
fn write() -> Result<(), String> {
    for door in DOORS {
        let folder = corpus().join(door.name);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for path in files(&folder)? {
            if !specimens::is_found(&path) {
                std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            }
        }
    }
    let all = specimens::all();
    for specimen in &all {
        let path = corpus().join(specimen.door).join(&specimen.name);
        std::fs::write(&path, &specimen.bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let bytes: usize = all.iter().map(|specimen| specimen.bytes.len()).sum();
    println!("{} files, {bytes} bytes", all.len());
    Ok(())
}

fn replay(time: bool) -> Result<(), String> {
    for door in DOORS {
        for path in files(&corpus().join(door.name))? {
            let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let started = Instant::now();
            let verdict = (door.open)(&bytes);
            let took = started.elapsed().as_secs_f64() * 1e3;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let verdict =
                verdict.map_or_else(|error| format!("refused: {error}"), |()| "accepted".to_owned());
            if time {
                println!("{}/{name}: {took:.1} ms, {verdict}", door.name);
            } else {
                println!("{}/{name}: {verdict}", door.name);
            }
        }
    }
    Ok(())
}

/// How often each file is let in: the fastest of these is what it takes, and the rest what else the machine had to do.
const ROUNDS: usize = 5;

/// Tells which hostile files take longest to refuse.
fn slowest(count: usize) -> Result<(), String> {
    let mut refused = Vec::new();
    for door in DOORS {
        for path in files(&corpus().join(door.name))? {
            let bytes = std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let mut fastest = f64::INFINITY;
            let mut refusal = None;
            for _ in 0..ROUNDS {
                let started = Instant::now();
                refusal = (door.open)(&bytes).err();
                fastest = fastest.min(started.elapsed().as_secs_f64() * 1e3);
            }
            if let Some(refusal) = refusal {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                refused.push((fastest, format!("{}/{name}", door.name), bytes.len(), refusal));
            }
        }
    }
    refused.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    println!("{} files are refused; the slowest, each the fastest of {ROUNDS} times:", refused.len());
    for (took, name, bytes, refusal) in refused.iter().take(count) {
        println!("{took:>8.2} ms  {name} ({bytes} bytes): {refusal}");
    }
    Ok(())
}

fn files(folder: &std::path::Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}
