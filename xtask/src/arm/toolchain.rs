//! What builds for 64-bit ARM on another machine and runs the result: a C++ cross compiler with its binutils, Rust's standard library
//! for the target, and qemu's user mode.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian::Rust;
use crate::Result;
use crate::tools::{
    Binutils, cargo, cross_compile, host, is_there, name, output_of, rustc, succeed_aside, target_directory,
};

/// The target, as Cargo names it.
pub const TARGET: &str = "aarch64-unknown-linux-gnu";

/// CPUs that qemu can be, by its names.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Cpu {
    /// ARMv8.0, as in the Jetson Nano; the Raspberry Pi 4's has the same instructions
    CortexA57,
    /// Products of bytes (dotprod) and arithmetic in 16 bits, as in the Raspberry Pi 5 and the Jetson Orin
    CortexA76,
    /// All that qemu knows, with products of matrices of bytes (i8mm) and bf16
    Max,
}

impl Cpu {
    pub const ALL: [Cpu; 3] = [Cpu::CortexA57, Cpu::CortexA76, Cpu::Max];

    pub fn name(self) -> &'static str {
        match self {
            Cpu::CortexA57 => "cortex-a57",
            Cpu::CortexA76 => "cortex-a76",
            Cpu::Max => "max",
        }
    }
}

/// Where Rust's standard library for the target is from.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum RustFrom {
    /// The toolchain in use; rustup adds the target where it is missing
    Rustup,
    /// Debian's packages of a newer Rust, in a folder of their own
    Debian,
}

/// A toolchain that is complete: nothing that it names is missing.
pub struct Toolchain {
    compilers: Binutils,
    qemu: &'static str,
    /// Where the target's loader and libraries are.
    libraries: PathBuf,
    /// In place of the toolchain in use.
    rust: Option<Rust>,
}

impl Toolchain {
    /// Finds the parts and gets what is missing: the compiler and qemu by apt where that may install, Rust's library from where it is
    /// said, or by default from Debian where rustup does not have it.
    pub fn set_up(from: Option<RustFrom>) -> Result<Self> {
        if host()? == TARGET {
            return Err("this machine is 64-bit ARM itself: cargo test --release runs the tests".to_owned());
        }
        let compilers = Binutils::of(Some(TARGET));
        let qemu = programs(&compilers)?;
        let rust = match from {
            None if rustup_has_target() => None,
            Some(RustFrom::Rustup) if rustup_has_target() => None,
            Some(RustFrom::Rustup) => {
                return Err(format!("no standard library of Rust for it: rustup target add {TARGET}"));
            }
            None | Some(RustFrom::Debian) => Some(Rust::set_up()?),
        };
        let libraries = libraries(&compilers)?;
        Ok(Self { compilers, qemu, libraries, rust })
    }

    /// A Cargo that can be told `--target`, whose programs and tests run on that CPU.
    pub fn cargo(&self, cpu: Cpu) -> Command {
        let mut cargo = cargo();
        self.environment(&mut cargo, cpu);
        cargo
    }

    /// What a program needs that builds for the target, by Cargo or by `cargo xtask`, and runs what was built. Nothing is built anew
    /// for another CPU.
    pub fn environment(&self, command: &mut Command, cpu: Cpu) {
        let compiler = |name| self.compilers.tool(name).get_program().to_owned();
        let cargo_target = format!("CARGO_TARGET_{}", TARGET.to_uppercase().replace('-', "_"));
        let cc_target = TARGET.replace('-', "_");
        command.env(format!("{cargo_target}_LINKER"), compiler("gcc"));
        command.env(format!("{cargo_target}_RUNNER"), self.qemu);
        command.env(format!("CC_{cc_target}"), compiler("gcc"));
        command.env(format!("CXX_{cc_target}"), compiler("g++"));
        command.env(format!("AR_{cc_target}"), compiler("ar"));
        // Symbols tell which tile of the kernels they are: `loops` reads them.
        command.env(format!("{cargo_target}_RUSTFLAGS"), "-Csymbol-mangling-version=v0");
        // For tests that start programs of this project: the kernel does not know qemu's part.
        command.env("LXMERT_RUNNER_AARCH64", self.qemu);
        self.emulate(command, cpu);
        if let Some(rust) = &self.rust {
            rust.environment(command);
        }
    }

    /// A program that was built for the target, on that CPU.
    pub fn run(&self, cpu: Cpu, program: &Path) -> Command {
        let mut command = Command::new(self.qemu);
        command.arg(program);
        self.emulate(&mut command, cpu);
        command
    }

    /// The compiler, as it names itself.
    pub fn rustc_version(&self) -> Result<String> {
        let mut compiler = self.rust.as_ref().map_or_else(rustc, Rust::compiler);
        output_of(compiler.arg("--version")).map(|version| version.trim().to_owned())
    }

    /// Where Cargo builds: each Rust has a folder of its own.
    pub fn builds(&self) -> Result<PathBuf> {
        self.rust.as_ref().map_or_else(target_directory, |rust| Ok(rust.builds().to_owned()))
    }

    /// `objdump`, `nm` and the others for the target's files.
    pub fn binutils(&self) -> &Binutils {
        &self.compilers
    }

    /// qemu takes by variables what its options would say, so that one name without arguments starts it.
    pub fn emulate(&self, command: &mut Command, cpu: Cpu) {
        command.env("QEMU_CPU", cpu.name()).env("QEMU_LD_PREFIX", &self.libraries);
    }
}

/// Sees to it that the cross compiler and qemu are there. Returns qemu's name.
fn programs(compilers: &Binutils) -> Result<&'static str> {
    let qemu = || ["qemu-aarch64-static", "qemu-aarch64"].into_iter().find(|name| is_there(name));
    let compiler = compilers.tool("g++").get_program().to_owned();
    let mut packages = Vec::new();
    if !is_there(&compiler) {
        if cross_compile().is_some() {
            return Err(format!("no {}, though CROSS_COMPILE names it", compiler.display()));
        }
        packages.push("g++-aarch64-linux-gnu");
    }
    if qemu().is_none() {
        packages.push("qemu-user-static");
    }
    if !packages.is_empty() {
        apt_install(&packages)?;
    }
    if !is_there(&compiler) {
        return Err(format!("no {}, though its package is installed", compiler.display()));
    }
    qemu().ok_or_else(|| "no qemu-aarch64-static, though its package is installed".to_owned())
}

/// Sees to it that programs are there, each with the package that has it.
pub fn need(programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package);
    let packages: Vec<&str> = missing.collect();
    if packages.is_empty() { Ok(()) } else { apt_install(&packages) }
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let needed =
        format!("{} must be installed, on Debian and Ubuntu by: apt-get install {0}", packages.join(" "));
    let user = output_of(Command::new("id").arg("-u")).unwrap_or_default();
    if user.trim() != "0" || !is_there("apt-get") {
        return Err(needed);
    }
    eprintln!("arm: apt-get install {}", packages.join(" "));
    let apt = |arguments: &[&str]| succeed_aside(Command::new("apt-get").arg("-qq").args(arguments));
    apt(&["update"])
        .and_then(|()| apt(&[&["install", "-y", "--no-install-recommends"], packages].concat()))
        .map_err(|error| format!("{needed} ({error})"))
}

/// Whether the toolchain in use has the target's library, now that rustup was asked for it.
fn rustup_has_target() -> bool {
    let has = || {
        let folder = output_of(rustc().args(["--print", "target-libdir", "--target", TARGET]));
        folder.is_ok_and(|folder| Path::new(folder.trim()).is_dir())
    };
    has() || {
        eprintln!("arm: rustup target add {TARGET}");
        succeed_aside(Command::new("rustup").args(["target", "add", TARGET])).is_ok() && has()
    }
}

/// The folder that stands for `/` where programs of the target look for their loader.
fn libraries(compilers: &Binutils) -> Result<PathBuf> {
    const LOADER: &str = "ld-linux-aarch64.so.1";
    let mut gcc = compilers.tool("gcc");
    let path = output_of(gcc.arg(format!("-print-file-name={LOADER}")))?;
    // /usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1
    let path = Path::new(path.trim()).canonicalize();
    path.ok()
        .and_then(|path| Some(path.parent()?.parent()?.to_owned()))
        .filter(|folder| folder.join("lib").join(LOADER).is_file())
        .ok_or_else(|| format!("{} knows no {LOADER}: is the target's C library installed?", name(&gcc)))
}
