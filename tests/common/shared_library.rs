//! The shared library, as C programs link it.

use std::path::PathBuf;
use std::process::Command;

use lxmert::Lowering;

/// The name that programs ask for.
pub const SONAME: &str = "liblxmert.so.0";

/// Builds it beside this test, in the same profile, where most of it lies compiled already.
pub fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let outputs = test.ancestors().nth(2).unwrap();
    let profile = outputs.file_name().unwrap().to_str().unwrap();
    let status = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["rustc", "--package", "lxmert", "--lib", "--crate-type", "cdylib", "--no-default-features"])
        .args(["--profile", if profile == "debug" { "dev" } else { profile }, "--target-dir"])
        .arg(outputs.parent().unwrap())
        .args(["--", "-C", &format!("link-arg=-Wl,-soname,{SONAME}")])
        .status()
        .unwrap();
    assert!(status.success());
    outputs.join("liblxmert.so")
}

/// Whether sessions run on ggml's operations here unless told otherwise.
pub fn computes_with_ggml() -> bool {
    Lowering::Fastest.resolve().unwrap() == Lowering::Ggml
}
