//! Compiles ggml as one static library with the `cc` crate alone: a Rust toolchain and a C++
//! compiler are all it takes, and for the features `cuda`, `vulkan` and `metal` what `build/cuda.rs`, `build/vulkan.rs` and
//! `build/metal.rs` name.
//!
//! Environment:
//! - `GGML_SOURCE_DIR`: ggml's folder, instead of the pinned package
//! - `LXMERT_CPU`: the instruction set, see `build/cpu.rs`
//! - `LXMERT_SANITIZE`: sanitizers to compile in, see `build/compile.rs`
//!
//! Dependent build scripts receive `DEP_GGML_VERSION`, `DEP_GGML_CPU`, `DEP_GGML_BACKENDS`,
//! `DEP_GGML_INCLUDE` and `DEP_GGML_SOURCE`.

#[path = "src/features.rs"]
mod features;

mod build {
    pub mod backend;
    pub mod compile;
    pub mod cpu;
    pub mod cuda;
    pub mod metal;
    pub mod metal_source;
    pub mod program;
    pub mod source;
    pub mod vulkan;
}

use build::{backend, compile::Compiler, cpu::Cpu, source::Source};

/// Reports a failure as errors of this package, one line each. Cargo fails the build by itself
/// then, without a dump of what the build script printed.
fn main() {
    if let Err(message) = run() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn run() -> Result<(), String> {
    // Without these two lines an edit of any file of this crate, a test for one, would compile
    // ggml again.
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/features.rs");
    println!("cargo::rerun-if-changed=src/guard.cpp");

    let cpu = Cpu::from_env()?;
    let source = Source::find()?;
    let compiler = Compiler::new(&source, &cpu)?;
    let mut backends = vec![format!("cpu {}", cpu.name)];
    let features = if linted() {
        backends.extend(backend::features().map(str::to_owned));
        Vec::new()
    } else {
        let others = backend::all(&compiler)?;
        backends.extend(others.iter().map(|backend| backend.name.clone()));
        compiler.build(others)?;
        compiler.features()?
    };
    let backends = backends.join(", ");

    println!("cargo::metadata=VERSION={}", source.version);
    println!("cargo::metadata=CPU={}", cpu.name);
    println!("cargo::metadata=BACKENDS={backends}");
    println!("cargo::metadata=INCLUDE={}", source.include().display());
    println!("cargo::metadata=SOURCE={}", source.dir.display());
    println!("cargo::rustc-env=GGML_CPU={}", cpu.name);
    println!("cargo::rustc-env=GGML_BACKENDS={backends}");
    println!("cargo::rustc-env=GGML_CPU_FEATURES={}", features.join(" "));
    // For tests/bindings.rs.
    println!("cargo::rustc-env=GGML_INCLUDE={}", source.include().display());
    Ok(())
}

/// Clippy links nothing and has a build folder of its own, which it throws away with every other
/// set of lints: it need not wait for ggml each time.
fn linted() -> bool {
    std::env::var("RUSTC_WORKSPACE_WRAPPER").is_ok_and(|wrapper| wrapper.contains("clippy-driver"))
}

/// A variable of the user's, where empty means unset.
fn user_env(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A variable that Cargo sets for every build script.
fn cargo_env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("Cargo sets {name} for build scripts"))
}
