//! The shared library: what it exports, and under which name programs ask for it.
#![cfg(target_os = "linux")]

mod common;

use std::path::Path;
use std::process::Command;

use common::shared_library;

fn lines_of(program: &str, arguments: &[&str], library: &Path) -> Vec<String> {
    let output = Command::new(program).args(arguments).arg(library).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// A robot's process may hold another ggml, or another Rust library: nothing but the interface may be visible.
#[test]
fn exports_the_interface_and_nothing_else() {
    let library = shared_library::build();
    let defined = lines_of("nm", &["-D", "--defined-only", "--format=posix"], &library);
    let mut found: Vec<&str> = defined.iter().filter_map(|line| line.split(' ').next()).collect();
    found.sort_unstable();
    let listed = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/lxmert.symbols");
    let listed = std::fs::read_to_string(listed).unwrap();
    assert_eq!(found, listed.lines().collect::<Vec<_>>(), "include/lxmert.symbols lists what is exported");

    let dynamic = lines_of("readelf", &["-d", "-W"], &library);
    let name = dynamic.iter().find(|line| line.contains("SONAME")).expect("a name for the loader");
    assert!(name.contains(&format!("[{}]", shared_library::SONAME)), "{name}");
}
