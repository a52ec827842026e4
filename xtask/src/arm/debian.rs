//! Debian's Rust, for machines whose own has no standard library for the target and cannot get one.
//!
//! The packages are unpacked into a folder and installed nowhere. That does not need root.

use std::fs;
use std::io::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::Result;
use crate::apt::Apt;
use crate::tools::{output_of, succeed_aside, target_directory};

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
            command.env(variable, self.program(program));
        }
        command.env("CARGO_TARGET_DIR", &self.builds);
    }

    pub fn compiler(&self) -> Command {
        Command::new(self.program("rustc"))
    }

    pub fn builds(&self) -> &Path {
        &self.builds
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    fn fetch(&self, target: &Path) -> Result<()> {
        eprintln!("arm: unpacking Debian's {COMPILER} and {LIBRARY} into {}", self.folder.display());
        // In place of its name only when complete.
        fs::create_dir_all(target).map_err(|error| failed(target, &error))?;
        let work = TempDir::new_in(target).map_err(|error| failed(target, &error))?;
        let root = work.path().join("root");
        for package in download(work.path())? {
            succeed_aside(Command::new("dpkg").arg("-x").arg(package).arg(&root))?;
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
    let native = output_of(Command::new("dpkg").arg("--print-architecture"))?;
    let apt = Apt::new(work, &[native.trim(), "arm64"], None).map_err(|error| failed(work, &error))?;
    succeed_aside(&mut apt.get(&["update"]))?;
    // Again even if it is installed: what is unpacked must be one compiler with its own libraries.
    let again = ["install", "--download-only", "--reinstall", "--no-install-recommends", "-y", COMPILER];
    succeed_aside(&mut apt.get(&again))?;
    succeed_aside(&mut apt.get(&["download", LIBRARY]))?;
    apt.packages().map_err(|error| failed(work, &error))
}

fn failed(path: &Path, error: &Error) -> String {
    format!("{}: {error}", path.display())
}
