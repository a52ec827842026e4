//! Which instructions the CPU kernels may use.
//!
//! `LXMERT_CPU` is
//! - `native`: what this machine has. The default, unless the build is a cross build;
//! - `baseline`: what any machine of the target has. The default of a cross build;
//! - any name that the compiler takes for `-march=`: `x86-64-v3`, `armv8.2-a+dotprod+fp16`, ...
//!
//! A binary built with more than the machine has cannot use ggml's operations there: what is
//! built on one machine for others, a release or a shared build cache, should name its CPU. Which
//! instructions the compiler may use for it is passed on, so that the CPU can be asked.

use crate::features::{self, Feature};
use crate::{cargo_env, user_env};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    X86,
    Arm,
}

impl Arch {
    /// The name of the folder in `ggml-cpu/arch`.
    pub fn folder(self) -> &'static str {
        match self {
            Arch::X86 => "x86",
            Arch::Arm => "arm",
        }
    }

    /// Instructions that not every CPU of the architecture has.
    pub fn features(self) -> &'static [Feature] {
        match self {
            Arch::X86 => &features::X86,
            Arch::Arm => &features::ARM,
        }
    }
}

pub struct Cpu {
    pub arch: Arch,
    /// `native`, or the name given to `-march=`.
    pub name: String,
    /// The compiler's flag, for the files of the CPU backend only.
    pub flag: String,
}

impl Cpu {
    pub fn from_env() -> Result<Self, String> {
        let target = cargo_env("TARGET");
        let cross = target != cargo_env("HOST");
        let os = cargo_env("CARGO_CFG_TARGET_OS");
        let arch = match (cargo_env("CARGO_CFG_TARGET_ARCH").as_str(), os.as_str()) {
            ("x86_64", "linux" | "macos") => Arch::X86,
            ("aarch64", "linux" | "macos") => Arch::Arm,
            _ => {
                return Err(format!(
                    "ggml is built for x86_64 and aarch64, Linux and macOS, not for {target}"
                ));
            }
        };

        let wanted = user_env("LXMERT_CPU");
        let name = match wanted.as_deref() {
            None if cross => baseline(arch, &os),
            None => "native",
            Some("baseline") => baseline(arch, &os),
            Some("native") if cross => {
                return Err(format!(
                    "LXMERT_CPU=native means this machine, but the build is for {target}: name a CPU"
                ));
            }
            Some(name) => checked(name)?,
        };
        Ok(Self { arch, name: name.to_owned(), flag: flag(arch, name) })
    }
}

/// On x86 SSE4.2, for the Atom-class boards without AVX; on ARM plain NEON, for the Cortex-A53
/// and A72. Every Apple processor is newer than that.
fn baseline(arch: Arch, os: &str) -> &'static str {
    match (arch, os) {
        (Arch::X86, _) => "x86-64-v2",
        (Arch::Arm, "macos") => "armv8.2-a+dotprod+fp16",
        (Arch::Arm, _) => "armv8-a",
    }
}

fn checked(name: &str) -> Result<&str, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".+_-".contains(c);
    if name.chars().all(allowed) {
        Ok(name)
    } else {
        Err(format!("LXMERT_CPU={name:?} is no CPU's name: letters, digits and .+_- make one"))
    }
}

fn flag(arch: Arch, name: &str) -> String {
    match (arch, name) {
        // Not every compiler for ARM takes -march=native.
        (Arch::Arm, "native") => "-mcpu=native".to_owned(),
        _ => format!("-march={name}"),
    }
}
