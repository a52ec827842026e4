//! What a program or shared library asks of the system that loads it.

use std::fs;
use std::path::Path;

use goblin::elf::Elf;

use crate::Result;

/// A version's numbers, as 2.27 has.
pub type Version = Vec<u32>;

/// The libraries that come with glibc.
const GLIBC_LIBRARIES: [&str; 8] = [
    "ld-linux-aarch64.so.1",
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libutil.so.1",
];

/// The oldest glibc that a file loads with. Refuses files that need more than glibc, or a newer one than `newest`.
pub fn needed_glibc(file: &Path, newest: &str) -> Result<Version> {
    let of_file = |problem: String| format!("{}: {problem}", file.display());
    let bytes = fs::read(file).map_err(|error| of_file(error.to_string()))?;
    let elf = Elf::parse(&bytes).map_err(|error| of_file(error.to_string()))?;
    let mut symbols = Vec::new();
    for library in elf.verneed.iter().flatten() {
        symbols
            .extend(library.iter().map(|symbol| elf.dynstrtab.get_at(symbol.vna_name).unwrap_or("no name")));
    }
    limit(&elf.libraries, &symbols, newest).map_err(of_file)
}

fn limit(libraries: &[&str], symbols: &[&str], newest: &str) -> Result<Version> {
    if let Some(other) = libraries.iter().find(|library| !GLIBC_LIBRARIES.contains(library)) {
        return Err(format!("needs {other}, which no package depends on"));
    }
    let newest = version(newest).expect("the limit is a version");
    let mut needed = Version::new();
    for symbol in symbols {
        let found = symbol.strip_prefix("GLIBC_").and_then(version);
        let found = found.filter(|found| *found <= newest);
        needed = needed.max(found.ok_or_else(|| format!("needs {symbol}, which the oldest system lacks"))?);
    }
    if needed.is_empty() { Err("names no version of glibc".to_owned()) } else { Ok(needed) }
}

fn version(text: &str) -> Option<Version> {
    text.split('.').map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(libraries: &[&str], symbols: &[&str]) -> Result<Version> {
        limit(libraries, symbols, "2.27")
    }

    #[test]
    fn the_newest_symbol_counts_by_its_numbers() {
        let libraries = ["libm.so.6", "libc.so.6"];
        assert_eq!(of(&libraries, &["GLIBC_2.17", "GLIBC_2.4", "GLIBC_2.2.5"]), Ok(vec![2, 17]));
        assert_eq!(of(&libraries, &["GLIBC_2.27"]), Ok(vec![2, 27]));
    }

    #[test]
    fn refuses_what_the_oldest_system_lacks() {
        for symbol in ["GLIBC_2.28", "GLIBC_2.27.1", "GLIBC_3", "GLIBCXX_3.4", "GLIBC_PRIVATE"] {
            let refused = of(&["libc.so.6"], &["GLIBC_2.17", symbol]).unwrap_err();
            assert!(refused.contains(symbol), "{refused}");
        }
        assert!(
            of(&["libc.so.6", "libstdc++.so.6"], &["GLIBC_2.17"]).unwrap_err().contains("libstdc++.so.6")
        );
        assert!(of(&["libc.so.6"], &[]).is_err());
    }

    #[test]
    fn reads_a_program_of_this_machine() {
        let program = std::env::current_exe().unwrap();
        // It also links gcc_s, so it is refused, by that name.
        assert!(needed_glibc(&program, "2.99").unwrap_err().contains("libgcc_s.so.1"));
        assert!(needed_glibc(Path::new(file!()), "2.27").is_err());
    }
}
