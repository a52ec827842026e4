//! Numbers in a file, read at any place and from several threads.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use lxmert::Limits;
use lxmert::numbers::Float;

use crate::Error;

/// Bytes that are decoded at a time, a multiple of every element's size.
const BLOCK: usize = 32 << 10;

/// An open file.
pub(super) struct DataFile {
    pub path: PathBuf,
    /// Its length when it was opened.
    pub len: u64,
    /// How much may be taken from it.
    pub limits: Limits,
    file: Mutex<File>,
}

impl DataFile {
    pub fn open(path: &Path, limits: &Limits) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io(path))?;
        let found = file.metadata().map_err(Error::io(path))?;
        if found.is_dir() {
            return Err(Error::io(path)(std::io::ErrorKind::IsADirectory.into()));
        }
        Ok(DataFile { path: path.to_owned(), len: found.len(), limits: *limits, file: Mutex::new(file) })
    }

    /// Fills `bytes` from the given place on.
    pub fn read_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        // A panic elsewhere cannot leave the file in a bad state: its position is set before each read.
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(bytes));
        read.map_err(Error::io(&self.path))
    }

    /// The first `limit` bytes, or all where there are fewer.
    pub fn start(&self, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; self.len.min(limit) as usize];
        self.read_at(0, &mut bytes)?;
        Ok(bytes)
    }

    /// The file for a reader of its own. Both share one position, so nobody else may read meanwhile.
    pub fn handle(&self) -> Result<File, Error> {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.try_clone().map_err(Error::io(&self.path))
    }

    /// Fills `out` with the elements that lie one after the other from `offset` on.
    pub fn read_elements(&self, float: Float, offset: u64, out: &mut [f32]) -> Result<(), Error> {
        let mut block = [0; BLOCK];
        let mut offset = offset;
        for values in out.chunks_mut(BLOCK / float.bytes()) {
            let bytes = &mut block[..values.len() * float.bytes()];
            self.read_at(offset, bytes)?;
            float.decode(bytes, values);
            offset += bytes.len() as u64;
        }
        Ok(())
    }
}
