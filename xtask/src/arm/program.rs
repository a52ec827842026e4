//! Programs built for the target, to look into, or to run on one CPU.

use std::path::PathBuf;
use std::process::Stdio;

use super::toolchain::{Cpu, TARGET, Toolchain};
use crate::Result;
use crate::tools::output_of;

/// What a new user runs first.
pub const VQA: [&str; 4] = ["--package", "lxmert", "--bin", "lxmert-vqa"];

/// Builds one program, which Cargo's arguments name, and returns its path. ggml's code is compiled for the CPU that is named as for
/// `LXMERT_CPU`, or else for any.
pub fn build(toolchain: &Toolchain, ggml_cpu: Option<&str>, what: &[&str]) -> Result<PathBuf> {
    // Which CPU qemu is means nothing for a build.
    let mut cargo = toolchain.cargo(Cpu::ALL[0]);
    cargo.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    cargo.args(what).stderr(Stdio::inherit());
    match ggml_cpu {
        None => cargo.env_remove("LXMERT_CPU"),
        // In a folder of its own, so that the other builds stay as they are.
        Some(cpu) => {
            let folder = toolchain.builds()?.join("arm").join(cpu);
            cargo.env("LXMERT_CPU", cpu).env("CARGO_TARGET_DIR", folder)
        }
    };
    let messages = output_of(&mut cargo)?;
    let mut executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executables.next_back().ok_or_else(|| "cargo build names no program".to_owned())
}
