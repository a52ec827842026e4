//! The bytes of a model file, wherever they lie.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use memmap2::Mmap;

use crate::Error;
use crate::ggml::AlignedBuffer;

/// The alignment of tensor data in a GGUF file, which its bytes must have in memory too: 32, or 64 if it is packed.
const ALIGNMENT: usize = 64;

/// Bytes that never change, aligned for ggml.
pub(crate) struct Storage(Kind);

enum Kind {
    /// A file's pages: the page cache is the weight store, shared by all processes that run the model.
    Mapped(Mmap),
    Static(&'static [u8]),
    Owned(AlignedBuffer),
}

impl Storage {
    /// Maps a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or mapped.
    pub fn map(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let metadata = file.metadata().map_err(Error::io(path))?;
        if metadata.is_dir() {
            let reason = "it is a directory: give the .gguf file that lxmert-quantize makes of it";
            return Err(Error::io(path)(std::io::Error::new(ErrorKind::IsADirectory, reason)));
        }
        if metadata.len() == 0 {
            return Ok(Storage(Kind::Static(&[])));
        }
        // SAFETY: the map is private to this process and read only. If another process shortens the file while it is
        // mapped, a read ends the process with SIGBUS; the documentation of `Model::open` says so, and
        // `Model::from_bytes` avoids it. If it writes into the file, only numbers change under us: all lengths, offsets and
        // indices are taken from the header once, when it is parsed. The tokenizer's texts are read later, and checked then.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Storage(Kind::Mapped(map)))
    }

    /// Wraps bytes of the program itself; copies them only if they are not aligned.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, Error> {
        if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Ok(Storage(Kind::Static(bytes)));
        }
        Self::copy_of(bytes)
    }

    /// Copies bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn copy_of(bytes: &[u8]) -> Result<Self, Error> {
        Ok(Storage(Kind::Owned(AlignedBuffer::copy_of(bytes, "a copy of the model")?)))
    }

    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Kind::Mapped(map) => map,
            Kind::Static(bytes) => bytes,
            Kind::Owned(buffer) => buffer.as_slice(),
        }
    }
}
