//! zig as C++ compiler and linker: it has the interfaces of every version of glibc, so that what it links starts on systems that are
//! older than the one that builds.
//!
//! Its C++ library is LLVM's and is linked statically: with GNU's, whose interfaces a compiler brings of one version only, programs
//! would not start on older systems. Static programs with musl were the other way; but a shared library must share its process's C
//! library, and the systems that load it have glibc.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{output_of, python_environment, target_directory};
use crate::{Result, root};

/// The oldest glibc that packages are for, that of Ubuntu 18.04: the original Jetson Nano has no newer system.
pub const GLIBC: &str = "2.27";

/// Python packages: the compiler, and what lets Cargo use it. They go together, so both are pinned.
const PACKAGES: [&str; 2] = ["ziglang==0.17.1", "cargo-zigbuild==0.24.0"];

pub struct Zig {
    /// A Python environment with the packages.
    environment: PathBuf,
    /// Builds have a folder of their own: Cargo does not tell objects of one compiler from those of another.
    builds: PathBuf,
    target: &'static str,
}

impl Zig {
    /// Uses what was installed before, or installs it below Cargo's target folder.
    pub fn set_up(target: &'static str) -> Result<Self> {
        let folder = target_directory()?;
        let environment = folder.join("zig");
        python_environment(&environment, &PACKAGES)?;
        Ok(Zig { environment, builds: folder.join("packages-build"), target })
    }

    /// A command of Cargo that builds for the target and the oldest glibc, for whatever CPU runs it.
    pub fn cargo(&self, task: &str) -> Command {
        let mut command = Command::new(self.environment.join("bin/cargo-zigbuild"));
        command.current_dir(root());
        command.env("CARGO_ZIGBUILD_ZIG_PATH", self.program()).env("LXMERT_CPU", "baseline");
        command.args([task, "--release", "--locked", "--target", &format!("{}.{GLIBC}", self.target)]);
        command.arg("--target-dir").arg(&self.builds);
        command
    }

    /// The target, as Cargo names it.
    pub fn target(&self) -> &str {
        self.target
    }

    /// Where programs are, once they are built.
    pub fn programs(&self) -> PathBuf {
        self.builds.join(self.target).join("release")
    }

    /// The static libraries that make up the C++ library. zig builds them when they are first needed, and tells where they are when it
    /// links.
    pub fn cpp_libraries(&self) -> Result<Vec<PathBuf>> {
        let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let source = folder.path().join("empty.cpp");
        fs::write(&source, "").map_err(|error| format!("{}: {error}", source.display()))?;
        let mut command = Command::new("sh");
        // It tells that in its errors' stream.
        command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(self.program());
        // The options are such that these are the libraries that Cargo's programs were linked with.
        command.args([
            "build-lib",
            "-dynamic",
            "--verbose-link",
            "-O",
            "ReleaseFast",
            "-fstrip",
            "-fPIC",
            "-lc++",
        ]);
        command.args(["-target", &format!("{}.{GLIBC}", self.target.replace("-unknown-", "-"))]);
        // Without a cache of its own it would not link a second time.
        command.env("ZIG_LOCAL_CACHE_DIR", folder.path()).current_dir(folder.path());
        let told = output_of(command.arg(&source))?;
        let path_of = |name: &str| {
            let is_library = |word: &&str| Path::new(word).file_name().is_some_and(|file| file == name);
            let path = told.split_whitespace().rfind(is_library);
            path.map(PathBuf::from).ok_or_else(|| format!("zig names no {name} when it links"))
        };
        ["libc++.a", "libc++abi.a", "libunwind.a"].into_iter().map(path_of).collect()
    }

    /// Folders with licences of what zig links.
    pub fn licences(&self) -> Result<Vec<(&'static str, PathBuf)>> {
        let mut python = Command::new(self.environment.join("bin/python"));
        let package = output_of(python.args(["-c", "import ziglang; print(ziglang.__path__[0])"]))?;
        let package = Path::new(package.trim());
        let parts = [
            ("zig's runtime", ""),
            ("libc++", "lib/libcxx"),
            ("libc++abi", "lib/libcxxabi"),
            ("libunwind", "lib/libunwind"),
        ];
        Ok(parts.map(|(name, folder)| (name, package.join(folder))).into())
    }

    fn program(&self) -> PathBuf {
        self.environment.join("bin/python-zig")
    }
}
