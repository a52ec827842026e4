//! A folder for the interfaces that take paths.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

thread_local! {
    static FOLDER: TempDir = {
        // Memory where there is a file system of it: a disk would be what fuzzing waits for.
        let memory = Path::new("/dev/shm");
        let made = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
        made.expect("there is room for temporary files")
    };
}

/// A path in this thread's own folder, which ends with the thread.
pub fn path(name: &str) -> PathBuf {
    FOLDER.with(|folder| folder.path().join(name))
}

/// Writes a file of that name there, instead of one from before.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = path(name);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).expect("the folder can be made");
    }
    std::fs::write(&path, bytes).expect("there is room for a temporary file");
    path
}

/// Removes a file of that name, if there is one.
pub fn remove(name: &str) {
    let _ = std::fs::remove_file(path(name));
}
