//! Programs built for the target, to look into or to count instructions of.

use std::path::PathBuf;
use std::process::Stdio;

use super::toolchain::{Cpu, TARGET, Toolchain};
use crate::Result;
use crate::tools::{output_of, target_directory};

/// What the tests are built with too, so that nothing is compiled twice.
const BENCH: [&str; 5] = ["--workspace", "--exclude", "xtask", "--bin", "lxmert-bench"];

/// A product by ggml alone.
const PRODUCT: [&str; 4] = ["--package", "ggml-sys-bindings", "--example", "product"];

/// Builds `lxmert-bench` as the tests are built.
pub fn bench(toolchain: &Toolchain) -> Result<PathBuf> {
    build(toolchain, None, &BENCH)
}

/// Builds `lxmert-bench` with ggml's code compiled for a CPU that is named as for `LXMERT_CPU`.
pub fn bench_for(toolchain: &Toolchain, cpu: &str) -> Result<PathBuf> {
    build(toolchain, Some(cpu), &BENCH)
}

/// Builds the product likewise.
pub fn product_for(toolchain: &Toolchain, cpu: &str) -> Result<PathBuf> {
    build(toolchain, Some(cpu), &PRODUCT)
}

/// Each CPU of ggml's has a folder of builds, since ggml is compiled anew for each.
fn build(toolchain: &Toolchain, ggml_cpu: Option<&str>, what: &[&str]) -> Result<PathBuf> {
    // Of no meaning for what is built.
    let mut cargo = toolchain.cargo(Cpu::ALL[0]);
    cargo.args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
    cargo.args(what).stderr(Stdio::inherit());
    match ggml_cpu {
        None => cargo.env_remove("LXMERT_CPU"),
        Some(cpu) => {
            let folder = target_directory()?.join("arm-count").join(cpu);
            cargo.env("LXMERT_CPU", cpu).env("CARGO_TARGET_DIR", folder)
        }
    };
    let messages = output_of(&mut cargo)?;
    let executables = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        message["executable"].as_str().map(PathBuf::from)
    });
    executables.last().ok_or_else(|| "cargo build names no program".to_owned())
}
