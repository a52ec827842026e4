use std::path::Path;

use super::header::Header;
use super::tensor::TensorInfo;
use crate::weights::Storage;
use crate::{Error, Limits};

/// A file of any architecture, opened: its header, and its tensors' data where it lies.
pub struct File {
    storage: Storage,
    header: Header,
}

impl File {
    /// Maps a file and checks its header. A file that is shortened while it is mapped ends the process, as with
    /// [`Model::open`](crate::Model::open).
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), and [`Error::File`](crate::Error::File) around an
    /// [`Error::Gguf`](crate::Error::Gguf).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_within(path, &Limits::DEFAULT)
    }

    /// As [`open`](Self::open), within other limits than the default ones.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_within(path: impl AsRef<Path>, limits: &Limits) -> Result<Self, Error> {
        let path = path.as_ref();
        let storage = Storage::map(path)?;
        let header = storage.header(&limits.in_range()).map_err(Error::in_file(path))?;
        Ok(Self { storage, header })
    }

    /// All that the file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The size of the file in bytes.
    pub fn bytes(&self) -> usize {
        self.storage.len()
    }

    /// Compares the data of every tensor with its checksum.
    ///
    /// # Errors
    /// [`Error::Checksum`](crate::Error::Checksum) for the first that differs, [`Error::Missing`](crate::Error::Missing) if the file
    /// holds no checksums, [`Error::Read`](crate::Error::Read), [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub fn verify(&self) -> Result<(), Error> {
        self.storage.verify(&self.header)
    }

    /// The data of one of this file's tensors.
    ///
    /// # Panics
    /// If the tensor is another file's and lies beyond the end of this one.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        self.storage.view().and_then(|bytes| bytes.get(tensor.range())).expect("a tensor of this file")
    }
}
