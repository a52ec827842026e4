//! Records what was built, for `--version`.

fn main() {
    let of = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    // The -sys crate says which backends of ggml it compiled, and for what.
    println!(
        "cargo::rustc-env=LXMERT_BUILD={} ({}, backends: {})",
        of("CARGO_PKG_VERSION"),
        of("TARGET"),
        of("DEP_GGML_BACKENDS")
    );
    println!("cargo::rerun-if-changed=build.rs");
}
