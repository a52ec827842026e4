//! The licences of everything that the library and the programs contain: they ask to be passed on with it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::tools::{self, cargo, output_of, rustc};
use crate::{Result, root};

/// What is passed on.
#[derive(Clone, Copy)]
pub enum Work {
    Library,
    Programs,
}

/// One text: each licence once, under the names of the packages that have it. `others` are names and folders of what is linked beside
/// Cargo's packages.
pub fn third_party(work: Work, target: Option<&str>, others: &[(&str, PathBuf)]) -> Result<String> {
    let mut packages_by_text: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |package: &str, folder: &Path| -> Result<()> {
        for file in licence_files(folder)? {
            let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            // Copies of one licence differ in their line ends.
            let text = text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n").trim().to_owned();
            packages_by_text.entry(text).or_default().push(package.to_owned());
        }
        Ok(())
    };
    for (package, folder) in packages(work, target)? {
        add(&package, &folder)?;
    }
    add("ggml", &ggml()?)?;
    for (name, folder) in others {
        add(name, folder)?;
    }
    let name = match work {
        Work::Library => "The library contains",
        Work::Programs => "The programs contain",
    };
    let mut text = format!("{name} code of these packages, under these licences.\n");
    for (licence, mut packages) in packages_by_text {
        packages.sort();
        packages.dedup();
        text += &format!("\n{}\n\n{licence}\n\n{}\n", packages.join(", "), "-".repeat(80));
    }
    Ok(text)
}

/// What Rust's standard library says of itself, where the toolchain brings that.
pub fn standard_library() -> Result<Option<PathBuf>> {
    let sysroot = output_of(rustc().args(["--print", "sysroot"]))?;
    let file = Path::new(sysroot.trim()).join("share/doc/rust/COPYRIGHT-library.html");
    Ok(file.is_file().then_some(file))
}

/// Names and folders of the packages that are linked into it, this project's own left out.
fn packages(work: Work, target: Option<&str>) -> Result<Vec<(String, PathBuf)>> {
    let host;
    let platform = match target {
        Some(target) => target,
        None => {
            host = tools::host()?;
            &host
        }
    };
    let mut command = cargo();
    command.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", platform]);
    let roots = match work {
        Work::Library => {
            command.arg("--no-default-features");
            &["lxmert"][..]
        }
        Work::Programs => &["lxmert", "lxmert-converter", "lxmert-bench"],
    };
    let metadata = json(&mut command)?;
    let id_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let packages: HashMap<String, &Value> =
        array(&metadata["packages"]).map(|package| (id_of(&package["id"]), package)).collect();
    let nodes: HashMap<String, &Value> =
        array(&metadata["resolve"]["nodes"]).map(|node| (id_of(&node["id"]), node)).collect();

    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut open: Vec<String> = packages
        .iter()
        .filter(|(_, package)| roots.iter().any(|root| package["name"] == *root))
        .map(|(id, _)| id.clone())
        .collect();
    while let Some(id) = open.pop() {
        let (Some(package), Some(node)) = (packages.get(&id), nodes.get(&id)) else { continue };
        // Macros run in the compiler and are not linked.
        let is_macro =
            array(&package["targets"]).any(|target| array(&target["kind"]).any(|k| k == "proc-macro"));
        if is_macro || !seen.insert(id) {
            continue;
        }
        let linked = |dependency: &&Value| array(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
        open.extend(array(&node["deps"]).filter(linked).map(|dependency| id_of(&dependency["pkg"])));
        if !package["source"].is_null() {
            let name = format!("{} {}", id_of(&package["name"]), id_of(&package["version"]));
            let manifest = PathBuf::from(id_of(&package["manifest_path"]));
            found.push((name, manifest.parent().unwrap_or(Path::new("")).to_owned()));
        }
    }
    Ok(found)
}

/// Where ggml's licence lies: in its folder, or in the one around it.
fn ggml() -> Result<PathBuf> {
    let folder = match std::env::var_os("GGML_SOURCE_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            let mut command = cargo();
            command.current_dir(root().join("vendor/ggml"));
            let metadata = json(command.args(["metadata", "--locked", "--format-version", "1"]))?;
            let package = array(&metadata["packages"]).find(|package| package["name"] == "llama-cpp-sys-2");
            let manifest = package.and_then(|package| package["manifest_path"].as_str());
            let manifest = Path::new(manifest.ok_or("vendor/ggml pins no package with ggml")?);
            manifest.with_file_name("llama.cpp/ggml")
        }
    };
    let around = folder.parent().map(Path::to_owned);
    for place in std::iter::once(folder.clone()).chain(around) {
        if !licence_files(&place)?.is_empty() {
            return Ok(place);
        }
    }
    Err(format!("no licence of ggml in {} or around it", folder.display()))
}

/// The licence files of a package, by their customary names.
fn licence_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error| format!("cannot list {}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().to_uppercase()).unwrap_or_default();
        let customary = ["LICENSE", "LICENCE", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];
        if path.is_file() && customary.iter().any(|start| name.starts_with(start)) {
            files.push(path);
        }
    }
    Ok(files)
}

fn json(command: &mut Command) -> Result<Value> {
    serde_json::from_str(&output_of(command)?).map_err(|error| format!("cargo metadata is no JSON: {error}"))
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
