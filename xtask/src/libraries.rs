//! Builds the C library in both forms, with nothing visible but its own functions.
//!
//! `rustc` sees to that in the shared library. A static library is another matter: it is an archive in which every function of ggml,
//! of the C++ templates and of Rust's library is a global symbol, and a program that holds another ggml would not link, or would mix
//! the two. So the members that the library needs are linked into one object, in which all other symbols are made local.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::package::zig::Zig;
use crate::tools::{Binutils, cargo, output_of, succeed};
use crate::{Result, root};

/// The built libraries, in a folder that lives as long as this.
pub struct Libraries {
    pub shared: PathBuf,
    pub archive: PathBuf,
    /// What a program that links the archive must link too, as `-l` options.
    pub system: Vec<String>,
    _folder: TempDir,
}

/// The shared library's name for programs: it carries the version's first number, with which the interface may change.
pub fn soname() -> String {
    format!("liblxmert.so.{}", major())
}

/// The first number of the version.
pub fn major() -> &'static str {
    let version = env!("CARGO_PKG_VERSION");
    version.split_once('.').map_or(version, |(major, _)| major)
}

/// Builds for a target, or for this machine.
pub fn build(target: Option<&str>) -> Result<Libraries> {
    let mut command = cargo();
    command.args(["rustc", "--release", "--locked"]);
    if let Some(target) = target {
        command.args(["--target", target]);
    }
    finish(target, compile(command)?, &[])
}

/// Builds with zig. Its C++ library becomes a part of both: other compilers have another.
pub fn build_with(zig: &Zig) -> Result<Libraries> {
    let mut built = compile(zig.cargo("rustc"))?;
    built.system.retain(|library| library != "-lc++");
    finish(Some(zig.target()), built, &zig.cpp_libraries()?)
}

/// Hides all but the listed functions, and looks whether that was done. `parts` are static libraries that belong into the archive.
fn finish(target: Option<&str>, built: Built, parts: &[PathBuf]) -> Result<Libraries> {
    let exported = exported_symbols()?;
    let binutils = Binutils::of(target);
    let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;

    let shared = folder.path().join("liblxmert.so");
    succeed(binutils.tool("objcopy").arg("--strip-unneeded").arg(&built.shared).arg(&shared))?;
    check(&exported, &defined(&binutils, &shared, &["--dynamic"])?, "the shared library")?;

    let object = folder.path().join("lxmert.o");
    one_object(&binutils, &built.archive, parts, &exported, &object)?;
    check(&exported, &defined(&binutils, &object, &["--extern-only"])?, "the static library")?;
    let archive = folder.path().join("liblxmert.a");
    succeed(binutils.tool("ar").arg("rcsD").arg(&archive).arg(&object))?;

    Ok(Libraries { shared, archive, system: built.system, _folder: folder })
}

/// The checked-in list of functions.
fn exported_symbols() -> Result<BTreeSet<String>> {
    let path = root().join("include/lxmert.symbols");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.lines().map(str::to_owned).collect())
}

struct Built {
    shared: PathBuf,
    archive: PathBuf,
    system: Vec<String>,
}

/// Lets `cargo rustc` build both forms at once. The package itself is only an `rlib`, so that no other build waits for these.
fn compile(mut command: Command) -> Result<Built> {
    command.args(["--package", "lxmert", "--lib", "--no-default-features", "--features", "c-library"]);
    command.args(["--crate-type", "cdylib,staticlib", "--message-format", "json"]);
    command.args(["--", "--print", "native-static-libs"]);
    // The name that programs ask the loader for. Here and not in build.rs, where Cargo takes it only for a package whose manifest has a
    // cdylib.
    command.args(["-C", &format!("link-arg=-Wl,-soname,{}", soname())]);
    let output = output_of(command.stderr(Stdio::inherit()))?;
    let messages: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();

    let artifact = messages.iter().rfind(|message| {
        message["reason"] == "compiler-artifact"
            && message["target"]["name"] == "lxmert"
            && message["target"]["crate_types"]
                .as_array()
                .is_some_and(|types| types.contains(&"cdylib".into()))
    });
    let file = |extension: &str| {
        let files = artifact.and_then(|artifact| artifact["filenames"].as_array()).into_iter().flatten();
        files
            .filter_map(Value::as_str)
            .map(PathBuf::from)
            .find(|file| file.extension().is_some_and(|found| found == extension))
            .ok_or_else(|| {
                format!("Cargo built no .{extension}: only Linux with a shared C library is installed for")
            })
    };
    let libraries = messages
        .iter()
        .find_map(|message| message["message"]["message"].as_str()?.strip_prefix("native-static-libs: "))
        .unwrap_or_default();
    Ok(Built { shared: file("so")?, archive: file("a")?, system: system_libraries(libraries)? })
}

/// What is left to name of the libraries that rustc lists: each once, and without those that every C compiler links by itself. One
/// of these, `gcc_s`, exists as a shared library alone and would be in the way of programs that are static as a whole.
fn system_libraries(listed: &str) -> Result<Vec<String>> {
    let mut libraries: Vec<String> = Vec::new();
    for library in listed.split_whitespace() {
        if library != "-lc" && library != "-lgcc_s" && !libraries.iter().any(|known| known == library) {
            libraries.push(library.to_owned());
        }
    }
    if libraries.is_empty() {
        return Err(
            "rustc does not say what the archive needs of the system: expected a note native-static-libs"
                .into(),
        );
    }
    Ok(libraries)
}

/// Links what the exported functions need of the archive into one object, where these alone are global.
fn one_object(
    binutils: &Binutils,
    archive: &Path,
    parts: &[PathBuf],
    exported: &BTreeSet<String>,
    object: &Path,
) -> Result<()> {
    let mut ld = binutils.tool("ld");
    ld.args(["--relocatable", "--strip-debug", "--gc-sections"]);
    // Sections of a C++ template are dropped from all objects but one when a program is linked. These would then refer to another
    // object's symbols, which local ones cannot.
    ld.arg("--force-group-allocation");
    ld.args(exported.iter().map(|symbol| format!("--undefined={symbol}")));
    // The parts need each other.
    ld.arg(archive).arg("--start-group").args(parts).arg("--end-group");
    succeed(ld.arg("-o").arg(object))?;

    let mut objcopy = binutils.tool("objcopy");
    objcopy.args(exported.iter().map(|symbol| format!("--keep-global-symbol={symbol}")));
    objcopy.arg("--strip-unneeded");
    // Rust's library carries bitcode of a newer LLVM than a system's `ar` may have a plugin for.
    objcopy.args(["--remove-section=.llvmbc", "--remove-section=.llvmcmd"]);
    succeed(objcopy.arg(object))
}

/// The symbols that a file defines for others.
fn defined(binutils: &Binutils, file: &Path, options: &[&str]) -> Result<BTreeSet<String>> {
    let names =
        output_of(binutils.tool("nm").args(["--defined-only", "--format=posix"]).args(options).arg(file))?;
    Ok(names.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

fn check(expected: &BTreeSet<String>, found: &BTreeSet<String>, library: &str) -> Result<()> {
    let names = |of: &BTreeSet<String>, without: &BTreeSet<String>| {
        of.difference(without).take(5).cloned().collect::<Vec<_>>().join(", ")
    };
    let (missing, surplus) = (names(expected, found), names(found, expected));
    match (missing.is_empty(), surplus.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("{library} lacks {missing}, which include/lxmert.symbols lists")),
        (_, false) => {
            Err(format!("{library} also shows {surplus}, which include/lxmert.symbols does not list"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_each_system_library_once() {
        let listed = "-lstdc++ -lpthread -ldl -lm -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc";
        let found = system_libraries(listed).unwrap();
        assert_eq!(found, ["-lstdc++", "-lpthread", "-ldl", "-lm", "-lutil", "-lrt"]);
    }

    #[test]
    fn refuses_a_build_that_names_no_system_library() {
        assert!(system_libraries("").unwrap_err().contains("native-static-libs"));
    }

    #[test]
    fn finds_missing_and_surplus_symbols() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let listed = set(&["lxmert_ask", "lxmert_run"]);
        assert_eq!(check(&listed, &listed, "it"), Ok(()));
        assert!(check(&listed, &set(&["lxmert_ask"]), "it").unwrap_err().contains("lacks lxmert_run"));
        let more = set(&["lxmert_ask", "lxmert_run", "ggml_init"]);
        assert!(check(&listed, &more, "it").unwrap_err().contains("shows ggml_init"));
    }
}
