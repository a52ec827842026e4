//! Debian's Rust, for machines whose own has no standard library for the target and cannot get one.
//!
//! The packages are unpacked into a folder and installed nowhere, with a state of apt's of its own, so that this machine's list of
//! packages and architectures stays as it is. Neither needs root.

use std::fs;
use std::io::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Result;
use crate::tools::{output_of, succeed, target_directory};

/// A newer Rust than the distribution's own, which web browsers are built with.
const COMPILER: &str = "rustc-web";
const LIBRARY: &str = "libstd-rust-web-dev:arm64";

pub struct Rust {
    /// Holds `bin`, with what starts the compiler.
    folder: PathBuf,
    /// Builds have a folder of their own: two compilers in one would undo each other's work.
    builds: PathBuf,
}

impl Rust {
    /// Uses what was unpacked before, or fetches it.
    pub fn set_up() -> Result<Self> {
        let target = target_directory()?;
        let rust = Rust { folder: target.join("debian-rust"), builds: target.join("debian") };
        if !rust.folder.is_dir() {
            rust.fetch(&target).map_err(|error| {
                format!(
                    "rustup has no standard library for the target, and Debian's packages neither: {error}"
                )
            })?;
        }
        Ok(rust)
    }

    pub fn environment(&self, command: &mut Command) {
        for (variable, program) in [("RUSTC", "rustc"), ("RUSTDOC", "rustdoc")] {
            command.env(variable, self.folder.join("bin").join(program));
        }
        command.env("CARGO_TARGET_DIR", &self.builds);
    }

    fn fetch(&self, target: &Path) -> Result<()> {
        eprintln!("arm: unpacking Debian's {COMPILER} and {LIBRARY} into {}", self.folder.display());
        // In place of its name only when complete.
        fs::create_dir_all(target).map_err(|error| failed(target, &error))?;
        let work = TempDir::new_in(target).map_err(|error| failed(target, &error))?;
        let root = work.path().join("root");
        for package in download(work.path())? {
            succeed(Command::new("dpkg").arg("-x").arg(package).arg(&root))?;
        }
        self.write_programs(&root)?;
        fs::rename(&root, &self.folder).map_err(|error| failed(&self.folder, &error))
    }

    /// The compiler finds its libraries by a variable, for it is not where it was made for.
    fn write_programs(&self, root: &Path) -> Result<()> {
        let bin = root.join("bin");
        fs::create_dir_all(&bin).map_err(|error| failed(&bin, &error))?;
        let folder = self.folder.display();
        let libraries = format!("{folder}/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
        for program in ["rustc", "rustdoc"] {
            let path = bin.join(program);
            let script = format!(
                "#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{folder}/usr/bin/{program}' \"$@\"\n"
            );
            fs::write(&path, script)
                .and_then(|()| fs::set_permissions(&path, PermissionsExt::from_mode(0o755)))
                .map_err(|error| failed(&path, &error))?;
        }
        Ok(())
    }
}

/// Downloads the compiler with what it needs and this machine lacks, and the library. Returns the packages.
fn download(work: &Path) -> Result<Vec<PathBuf>> {
    let (lists, archives) = (work.join("lists"), work.join("archives"));
    for folder in [&lists, &archives] {
        let partial = folder.join("partial");
        fs::create_dir_all(&partial).map_err(|error| failed(&partial, &error))?;
    }
    let native = output_of(Command::new("dpkg").arg("--print-architecture"))?;
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.current_dir(&archives).arg("-qq");
        for architecture in [native.trim(), "arm64"] {
            apt.args(["-o", &format!("APT::Architectures::={architecture}")]);
        }
        apt.args(["-o", &format!("Dir::State::Lists={}", lists.display())]);
        apt.args(["-o", &format!("Dir::Cache={}", work.display())]);
        // Another user than the one that runs this could not write there; and nothing is installed that others must wait for.
        apt.args(["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]);
        succeed(apt.args(arguments))
    };
    apt(&["update"])?;
    // Again even if it is installed: what is unpacked must be one compiler with its own libraries.
    apt(&["install", "--download-only", "--reinstall", "--no-install-recommends", "-y", COMPILER])?;
    apt(&["download", LIBRARY])?;

    let entries = fs::read_dir(&archives).map_err(|error| failed(&archives, &error))?;
    let files =
        entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| failed(&archives, &error)));
    let is_package = |path: &PathBuf| path.extension().is_some_and(|found| found == "deb");
    files.filter(|file| file.as_ref().map_or(true, is_package)).collect()
}

fn failed(path: &Path, error: &Error) -> String {
    format!("{}: {error}", path.display())
}
