//! The project's own tasks, run as `cargo xtask TASK`.

mod apt;
mod arm;
mod cuda;
mod fuzz;
mod install;
mod libraries;
mod licences;
mod package;
mod tools;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A failure, told in one line.
type Result<T> = std::result::Result<T, String>;

/// The project's own tasks.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the C library, shared and static, and install it with its headers, pkg-config file and CMake package.
    ///
    /// The variables LXMERT_CPU and GGML_SOURCE_DIR count as in any build. For another target than this machine, CROSS_COMPILE is the
    /// prefix of the binutils (aarch64-linux-gnu-); Cargo's own variables name its linker.
    Install(install::Arguments),
    /// Build Debian packages of the programs and of the C library, for systems from Ubuntu 18.04 on and any CPU of the target.
    ///
    /// The compiler is zig, from PyPI, in a folder of its own below Cargo's target folder. dpkg-deb and the target's binutils must be
    /// installed. DEBFULLNAME and DEBEMAIL say who the packages' maintainer is.
    Package(package::Arguments),
    /// Build for 64-bit ARM on another machine, and run the tests there under qemu.
    #[command(subcommand)]
    Arm(arm::Task),
    /// Build with the feature cuda, by NVIDIA's compiler from PyPI (1.1 GB, below Cargo's target folder), and see that the programs start.
    ///
    /// No GPU is needed. Where there is one, it multiplies matrices, provided that it is of the kind compiled for.
    Cuda(cuda::Arguments),
    /// Let random bytes in through every door of fuzz/doors, with sanitizers in Rust and ggml (needs cargo-fuzz and clang).
    ///
    /// The committed corpus is where it starts. New inputs and findings lie below Cargo's target folder; ggml's source is found as in any
    /// build.
    Fuzz(fuzz::Arguments),
    /// Write include/lxmert.h anew from the functions in src/capi. The list of functions, include/lxmert.symbols, is written by hand.
    Header,
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Install(arguments) => install::install(&arguments),
        Task::Package(arguments) => package::package(&arguments),
        Task::Arm(task) => arm::run(&task),
        Task::Cuda(arguments) => cuda::build(&arguments),
        Task::Fuzz(arguments) => fuzz::fuzz(&arguments),
        Task::Header => header(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// The test that compares the header with the functions writes it, too.
fn header() -> Result<()> {
    let mut cargo = tools::cargo();
    cargo.env("LXMERT_UPDATE", "1").args(["test", "--release", "--package", "lxmert", "--test", "header"]);
    tools::succeed(&mut cargo)
}

/// The workspace's folder.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}
