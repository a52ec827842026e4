//! What ggml's CPU code asks the compiler for is what Rust asks the CPU for.

use std::collections::BTreeSet;
use std::path::Path;

use ggml_sys_bindings::features::{ARM, X86};

/// Macros that need no feature in the lists.
const EXCEPTIONS: [(&str, &str); 6] = [
    ("__SSE__", "every 64-bit x86 CPU has it"),
    ("__SSE2__", "every 64-bit x86 CPU has it"),
    ("__AMX_INT8__", "entered only for buffers of a kind of its own"),
    ("__ARM_FEATURE_FMA", "every 64-bit ARM CPU has it"),
    ("__ARM_FEATURE_SME", "no code is compiled for it: a function tells that it could be"),
    ("__ARM_FEATURE_SME2", "as above"),
];

/// The folders of `ggml-cpu` that are compiled for x86 or ARM.
const FOLDERS: [&str; 6] = ["", "amx", "llamafile", "tiled", "arch/x86", "arch/arm"];

#[test]
fn every_instruction_that_ggml_asks_for_is_listed() {
    let sources = Path::new(env!("GGML_INCLUDE")).parent().unwrap().join("src/ggml-cpu");
    let asked: BTreeSet<String> = FOLDERS.iter().flat_map(|folder| macros(&sources.join(folder))).collect();
    let listed = X86.iter().chain(&ARM).map(|(name, _)| *name);
    let excepted = EXCEPTIONS.map(|(name, _)| name);
    let known: Vec<&str> = listed.chain(excepted).collect();

    let unknown: Vec<&String> = asked.iter().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "neither listed nor excepted: {unknown:?}");
    let stale: Vec<&str> = excepted.into_iter().filter(|name| !asked.contains(*name)).collect();
    assert!(stale.is_empty(), "excepted, but not asked for: {stale:?}");
    for name in ["__AVX512VNNI__", "__ARM_FEATURE_DOTPROD"] {
        assert!(asked.contains(name), "no {name} in {}: are these the sources?", sources.display());
    }
}

/// The names of instruction sets in the C and C++ files of a folder.
fn macros(folder: &Path) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources =
        files.filter(|path| path.extension().is_some_and(|end| end == "c" || end == "cpp" || end == "h"));
    sources
        .flat_map(|path| {
            let text = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            words.filter(|word| names_instructions(word)).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

fn names_instructions(word: &str) -> bool {
    const X86_STARTS: [&str; 8] = ["__SSE", "__SSSE", "__AVX", "__AMX", "__FMA", "__F16C", "__BMI", "__GFNI"];
    let of_x86 = word.ends_with("__") && X86_STARTS.into_iter().any(|start| word.starts_with(start));
    of_x86 || word.starts_with("__ARM_FEATURE_")
}
