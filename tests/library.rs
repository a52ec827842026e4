//! The shared library: what it exports, and under which name programs ask for it.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds it beside this test, in the same profile, where most of it lies compiled already.
fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let outputs = test.ancestors().nth(2).unwrap();
    let profile = outputs.file_name().unwrap().to_str().unwrap();
    let status = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["rustc", "--package", "lxmert", "--lib", "--crate-type", "cdylib", "--no-default-features"])
        .args(["--profile", if profile == "debug" { "dev" } else { profile }, "--target-dir"])
        .arg(outputs.parent().unwrap())
        .args(["--", "-C", "link-arg=-Wl,-soname,liblxmert.so.0"])
        .status()
        .unwrap();
    assert!(status.success());
    outputs.join("liblxmert.so")
}

fn lines_of(program: &str, arguments: &[&str], library: &Path) -> Vec<String> {
    let output = Command::new(program).args(arguments).arg(library).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A robot's process may hold another ggml, or another Rust library: nothing but the interface may be visible.
#[test]
fn exports_the_interface_and_nothing_else() {
    let library = build();
    let defined = lines_of("nm", &["-D", "--defined-only", "--format=posix"], &library);
    let mut found: Vec<&str> = defined.iter().filter_map(|line| line.split(' ').next()).collect();
    found.sort_unstable();
    let listed = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/lxmert.symbols");
    let listed = std::fs::read_to_string(listed).unwrap();
    assert_eq!(found, listed.lines().collect::<Vec<_>>(), "include/lxmert.symbols lists what is exported");

    let dynamic = lines_of("readelf", &["-d", "-W"], &library);
    let name = dynamic.iter().find(|line| line.contains("SONAME")).expect("a name for the loader");
    assert!(name.contains("[liblxmert.so.0]"), "{name}");
}
