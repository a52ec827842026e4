//! Every way into lxmert for bytes of strangers, each as one function of bytes.
//!
//! A [`Door`] takes any bytes and comes back with a verdict: accepted, or refused with the text of a typed error. Whatever else
//! happens (a panic, an abort, a hang, a fault that the library calls its own) is a finding. The same functions are what
//! `cargo xtask fuzz` runs with random bytes and what `tests/corpus.rs` runs with the committed files of `fuzz/corpus`.

mod c_abi;
mod checkpoints;
mod inputs;
mod models;
pub mod mutate;
pub mod parts;
pub mod raw;
mod scratch;
pub mod specimens;
pub mod tiny;

pub use c_abi::FUNCTIONS as C_FUNCTIONS;

use std::path::PathBuf;

/// What became of some bytes: accepted, or refused for the reason that a user would read.
pub type Verdict = Result<(), String>;

/// A way in.
#[derive(Clone, Copy)]
pub struct Door {
    /// Its name, and that of its folder in the corpus.
    pub name: &'static str,
    /// Lets bytes in. It returns for any.
    pub open: fn(&[u8]) -> Verdict,
}

/// All of them.
pub const DOORS: [Door; 11] = [
    Door { name: "gguf", open: models::gguf },
    Door { name: "session", open: models::session },
    Door { name: "requantize", open: models::requantize },
    Door { name: "safetensors", open: checkpoints::safetensors },
    Door { name: "torch", open: checkpoints::torch },
    Door { name: "directory", open: checkpoints::directory },
    Door { name: "tokenizer", open: inputs::tokenizer },
    Door { name: "question", open: inputs::question },
    Door { name: "features", open: inputs::features },
    Door { name: "picture", open: inputs::picture },
    Door { name: "c_abi", open: c_abi::calls },
];

/// The door of that name.
pub fn door(name: &str) -> Option<Door> {
    DOORS.into_iter().find(|door| door.name == name)
}

/// Lets bytes in through the door of that name, whatever becomes of them: what the fuzzing targets call.
///
/// # Panics
/// If there is no such door, and for every finding.
pub fn enter(name: &str, bytes: &[u8]) {
    let door = door(name).unwrap_or_else(|| panic!("no door is called {name}"));
    let _ = (door.open)(bytes);
}

/// The root of the repository.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The committed files, one folder for each door.
pub fn corpus() -> PathBuf {
    root().join("fuzz/corpus")
}

/// The most characters that an error may have: room for two paths and a few names, not for a file's own text.
const LONGEST: usize = 1000;

/// An error as a verdict. One that blames the library itself is a finding, whatever the bytes were, and so is one that is not a line
/// for a terminal: some file's text in full, or characters of it that a terminal obeys.
fn refused(error: impl std::fmt::Display) -> String {
    let text = error.to_string();
    assert!(!text.contains("fault of the program"), "{text}");
    assert!(!text.contains(char::is_control), "an error with control characters: {text:?}");
    let length = text.chars().count();
    assert!(
        length <= LONGEST,
        "an error of {length} characters: {}",
        text.chars().take(LONGEST).collect::<String>()
    );
    text
}
