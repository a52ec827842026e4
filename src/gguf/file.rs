use std::path::Path;

use super::header::Header;
use super::tensor::TensorInfo;
use crate::Error;
use crate::weights::Storage;

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
        let path = path.as_ref();
        let storage = Storage::map(path)?;
        let header = storage.header().map_err(Error::in_file(path))?;
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

    /// The data of one of this file's tensors.
    ///
    /// # Panics
    /// If the tensor is another file's and lies beyond the end of this one.
    pub fn data(&self, tensor: &TensorInfo) -> &[u8] {
        self.storage.view().and_then(|bytes| bytes.get(tensor.range())).expect("a tensor of this file")
    }
}
