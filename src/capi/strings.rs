//! Strings that C reads for as long as their owner lives.

use std::ffi::{CString, c_char};

use crate::{InstructionSet, Lowering};

/// Many strings, each closed by a NUL, in one block of memory.
pub(super) struct CStrings {
    bytes: Box<[u8]>,
    starts: Box<[usize]>,
}

impl CStrings {
    pub fn new(texts: &[String]) -> Self {
        let mut bytes = Vec::with_capacity(texts.iter().map(|text| text.len() + 1).sum());
        let start = |text: &String| {
            let start = bytes.len();
            bytes.extend_from_slice(c_string(text).as_bytes_with_nul());
            start
        };
        let starts = texts.iter().map(start).collect();
        CStrings { bytes: bytes.into(), starts }
    }

    pub fn len(&self) -> usize {
        self.starts.len()
    }

    pub fn get(&self, index: usize) -> Option<*const c_char> {
        self.starts.get(index).map(|start| self.bytes[*start..].as_ptr().cast())
    }
}

/// A string of a file's, which may hold NULs; they stand as replacement characters.
pub(super) fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).expect("NULs were replaced")
}

/// A lowering's name, valid for as long as the library is loaded.
pub(super) fn lowering_name(lowering: Lowering) -> *const c_char {
    let name = match lowering {
        Lowering::Fastest => c"fastest",
        Lowering::Ggml => c"ggml",
        Lowering::Kernels(set) => match set {
            InstructionSet::Portable => c"portable",
            InstructionSet::Avx2 => c"avx2",
            InstructionSet::AvxVnni => c"avxvnni",
            InstructionSet::Avx512Vnni => c"avx512vnni",
            InstructionSet::Amx => c"amx",
            InstructionSet::Neon => c"neon",
            InstructionSet::DotProd => c"dotprod",
            InstructionSet::I8mm => c"i8mm",
        },
    };
    name.as_ptr()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn text(pointer: *const c_char) -> String {
        // SAFETY: every string here is closed and lives.
        unsafe { CStr::from_ptr(pointer) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn gives_back_every_string() {
        let texts = ["yes", "", "two words", "a\0b"].map(str::to_owned);
        let strings = CStrings::new(&texts);
        let found: Vec<_> = (0..4).map(|n| text(strings.get(n).unwrap())).collect();
        assert_eq!(found, ["yes", "", "two words", "a\u{fffd}b"]);
        assert_eq!(strings.get(4), None);
    }

    #[test]
    fn knows_every_lowering() {
        let sets = InstructionSet::ALL.map(Lowering::Kernels);
        for lowering in [Lowering::Fastest, Lowering::Ggml].into_iter().chain(sets) {
            assert_eq!(text(lowering_name(lowering)), lowering.to_string());
        }
    }
}
