//! Metal's compiler gets each library of kernels as one text, in which there is no file to include.

use std::fs;
use std::path::{Path, PathBuf};

/// In ggml's headers, the place of `ggml-common.h` in such a text.
const COMMON: &str = "__embed_ggml-common.h__";

/// A source with the files that it includes by name in their places, each once. They are looked for in the folders in turn. What is
/// included in `<>` is the system's, and stays.
pub fn merged(source: &Path, folders: &[PathBuf]) -> Result<String, String> {
    let mut text = String::new();
    append(source, folders, &mut vec![source.to_owned()], &mut text)?;
    Ok(text)
}

fn append(
    source: &Path,
    folders: &[PathBuf],
    seen: &mut Vec<PathBuf>,
    text: &mut String,
) -> Result<(), String> {
    let content =
        fs::read_to_string(source).map_err(|error| format!("cannot read {}: {error}", source.display()))?;
    for line in content.lines() {
        let trimmed = line.trim();
        let included = match trimmed {
            COMMON => Some("ggml-common.h"),
            _ => trimmed.strip_prefix("#include \"").and_then(|rest| rest.strip_suffix('"')),
        };
        match included {
            Some(name) => {
                let file = folders
                    .iter()
                    .map(|folder| folder.join(name))
                    .find(|file| file.is_file())
                    .ok_or_else(|| format!("{} includes {name}, which is nowhere", source.display()))?;
                if !seen.contains(&file) {
                    seen.push(file.clone());
                    append(&file, folders, seen, text)?;
                }
            }
            None if trimmed == "#pragma once" => {}
            None => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    Ok(())
}
