//! Records what was built, for `--version`.

fn main() {
    let of = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".to_owned());
    // The -sys crate says what it compiled ggml's CPU code for.
    let cpu = of("DEP_GGML_CPU");
    println!(
        "cargo::rustc-env=LXMERT_BUILD={} ({}, backend cpu {cpu})",
        of("CARGO_PKG_VERSION"),
        of("TARGET")
    );
    println!("cargo::rerun-if-changed=build.rs");
}
