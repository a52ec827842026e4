//! Where ggml's source is, and that it is the version the bindings were generated from.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{cargo_env, user_env};

/// The version that the bindings belong to: layouts of structs change between versions.
const VERSION: &str = "0.26.0";

/// The package whose archive carries ggml, and ggml's folder in it.
const PACKAGE: &str = "llama-cpp-sys-2";
const FOLDER: &str = "llama.cpp/ggml";

pub struct Source {
    /// ggml's folder: it has `include/` and `src/`.
    pub dir: PathBuf,
    pub version: String,
}

impl Source {
    /// `GGML_SOURCE_DIR`, or else the package pinned by `vendor/ggml/Cargo.lock`, which Cargo
    /// downloads when it is not there yet.
    pub fn find() -> Result<Self, String> {
        let dir = match user_env("GGML_SOURCE_DIR") {
            Some(dir) => given_dir(PathBuf::from(dir))?,
            None => pinned_dir()?,
        };
        let version = version(&dir)?;
        if version != VERSION {
            return Err(format!(
                "ggml in {} is version {version}, the bindings are for {VERSION}",
                dir.display()
            ));
        }
        Ok(Self { dir, version })
    }

    pub fn include(&self) -> PathBuf {
        self.dir.join("include")
    }

    pub fn src(&self) -> PathBuf {
        self.dir.join("src")
    }
}

fn given_dir(dir: PathBuf) -> Result<PathBuf, String> {
    // A build script runs in its package's folder, where a relative path would be a surprise.
    if !dir.is_absolute() {
        return Err(format!("GGML_SOURCE_DIR must be absolute, not {}", dir.display()));
    }
    if !looks_like_ggml(&dir) {
        return Err(format!("GGML_SOURCE_DIR={} has no include/ggml.h and src/ggml.c", dir.display()));
    }
    // Sources of packages do not change, a folder of the user's may.
    for part in ["CMakeLists.txt", "include", "src"] {
        println!("cargo::rerun-if-changed={}", dir.join(part).display());
    }
    Ok(dir)
}

fn pinned_dir() -> Result<PathBuf, String> {
    let pin = Path::new(&cargo_env("CARGO_MANIFEST_DIR")).with_file_name("ggml");
    for file in ["Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", pin.join(file).display());
    }
    // Offline first: it is quick, and all that an air-gapped build with vendored packages allows.
    let dir = package_dir(&pin, &["--offline"])
        .or_else(|_| package_dir(&pin, &[]))
        .map_err(|reason| {
            format!(
                "ggml's source is not here: {reason}\n\
                 either build once with network access, so that Cargo downloads {PACKAGE}\n\
                 or set GGML_SOURCE_DIR to the folder of ggml {VERSION} that has include/ and src/"
            )
        })?
        .join(FOLDER);
    if !looks_like_ggml(&dir) {
        return Err(format!("package {PACKAGE} has no ggml in {}", dir.display()));
    }
    Ok(dir)
}

/// Asks Cargo where the pinned package lies. Fails with the last line of Cargo's complaint.
fn package_dir(pin: &Path, network: &[&str]) -> Result<PathBuf, String> {
    let output = Command::new(cargo_env("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(network)
        .current_dir(pin)
        .output()
        .map_err(|error| format!("cargo does not start: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let reason = stderr.lines().map(str::trim).rfind(|line| !line.is_empty());
        return Err(reason.unwrap_or("cargo metadata failed").to_owned());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("cargo metadata is no JSON: {error}"))?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == PACKAGE)
        .and_then(|package| package["manifest_path"].as_str())
        .and_then(|manifest| Path::new(manifest).parent())
        .map(Path::to_owned)
        .ok_or_else(|| format!("{} does not pin {PACKAGE}", pin.display()))
}

fn looks_like_ggml(dir: &Path) -> bool {
    dir.join("include/ggml.h").is_file() && dir.join("src/ggml.c").is_file()
}

/// The version lives in `CMakeLists.txt` alone: `set(GGML_VERSION_MAJOR 0)` and so on.
fn version(dir: &Path) -> Result<String, String> {
    let path = dir.join("CMakeLists.txt");
    let text =
        std::fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let part = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.trim().strip_prefix(&format!("set(GGML_VERSION_{name} "))?.strip_suffix(')')
            })
            .ok_or_else(|| format!("{} sets no GGML_VERSION_{name}", path.display()))
    };
    Ok(format!("{}.{}.{}", part("MAJOR")?, part("MINOR")?, part("PATCH")?))
}
