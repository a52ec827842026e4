//! Writing a file, its tensors as they come.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::checksums::{self, Checksum};
use super::encode::encode;
use super::error::Error;
use super::header::Header;
use super::metadata::Metadata;
use super::tensor::{TensorInfo, TensorSpec};
use crate::atomic_file::AtomicFile;

/// Why a file could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The metadata or the tensors break a rule of the format.
    #[error(transparent)]
    Invalid(#[from] Error),
    /// The operating system refused. The target is as it was, unless only the last step failed,
    /// the fsync of its directory: then the new file is in place.
    #[error("cannot write {path:?}: {source}")]
    Io {
        /// The target, not the temporary file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// More data came than the tensors have.
    #[error("{excess} bytes of data too many{}", after(.tensor))]
    TooMuchData {
        /// The tensor that they came with, or the last; `None` if the file has no tensors.
        tensor: Option<String>,
        /// Bytes too many.
        excess: u64,
    },
    /// The file was finished before all data came.
    #[error("tensor {tensor:?} lacks {missing} bytes of data")]
    TooLittleData {
        /// The first tensor that is incomplete.
        tensor: String,
        /// Bytes that it lacks.
        missing: u64,
    },
    /// A write failed before, so the file can no longer be completed.
    #[error("an earlier write failed")]
    Broken,
}

/// Writes a file whose data comes in pieces, so that a model need not fit in memory.
///
/// The file appears under its name whole or not at all: the data goes to a temporary file in the
/// same directory, which takes the name only in [`finish`](Self::finish). Dropping the writer
/// before that removes the temporary file and leaves an older file of the name untouched.
///
/// The same input gives the same bytes, and whatever is written, [`Header::parse`] accepts. Where the metadata has room for checksums
/// (see [`reserve_checksums`](super::reserve_checksums)), they are filled in.
#[derive(Debug)]
pub struct Writer {
    data: DataStream<AtomicFile>,
    /// The header with room for checksums, which are written over it when all data is there; empty without.
    encoded: Vec<u8>,
}

impl Writer {
    /// Starts a file with its header. The data section is aligned to
    /// [`DEFAULT_ALIGNMENT`](super::limits::DEFAULT_ALIGNMENT) unless the metadata has the key
    /// `general.alignment`.
    ///
    /// # Errors
    /// [`WriteError::Invalid`] if the metadata or tensors break a rule of the format, and
    /// [`WriteError::Io`] if the path is a symbolic link or anything else than an ordinary file or
    /// a free name, or if the directory cannot be written.
    pub fn create(path: &Path, metadata: &Metadata, tensors: &[TensorSpec]) -> Result<Self, WriteError> {
        let (encoded, header) = encode(metadata, tensors)?;
        let fail = |source| io_error(path, source);
        let mut out = AtomicFile::create(path).map_err(fail)?;
        out.write_all(&encoded).map_err(fail)?;
        let encoded = if header.places() == checksums::Places::default() { Vec::new() } else { encoded };
        Ok(Self { data: DataStream::new(out, header, path), encoded })
    }

    /// The size that a file of these will have.
    ///
    /// # Errors
    /// [`WriteError::Invalid`], as [`Writer::create`] would refuse them.
    pub fn file_bytes(metadata: &Metadata, tensors: &[TensorSpec]) -> Result<u64, WriteError> {
        Ok(encode(metadata, tensors)?.1.file_bytes())
    }

    /// Appends to the current tensor's data. Tensors come in the order of the list, in pieces of
    /// any size; a piece may reach from one tensor into the next. Padding is added by the writer.
    ///
    /// # Errors
    /// [`WriteError::TooMuchData`] before anything of the piece is written, or [`WriteError::Io`]
    /// and then [`WriteError::Broken`].
    pub fn write(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        self.data.write(piece)
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// [`WriteError::TooLittleData`] if a tensor's data is incomplete, [`WriteError::Io`] if the
    /// file cannot be brought to the disk or renamed, and [`WriteError::Broken`] if a write failed
    /// before.
    pub fn finish(mut self) -> Result<(), WriteError> {
        let places = self.data.header.places();
        let Finished { mut out, path, checksums } = self.data.finish()?;
        for place in checksums::fill(&mut self.encoded, places, &checksums) {
            out.overwrite(place.start as u64, &self.encoded[place])
                .map_err(|source| io_error(&path, source))?;
        }
        out.commit().map_err(|source| io_error(&path, source))
    }

    /// The whole file in memory, with one slice of data for each tensor.
    ///
    /// # Errors
    /// [`WriteError::Invalid`], [`WriteError::TooMuchData`] or [`WriteError::TooLittleData`].
    pub fn to_vec(
        metadata: &Metadata,
        tensors: &[TensorSpec],
        data: &[&[u8]],
    ) -> Result<Vec<u8>, WriteError> {
        let (mut encoded, header) = encode(metadata, tensors)?;
        let start = encoded.len();
        let padded = usize::try_from(header.file_bytes()).unwrap_or(usize::MAX);
        encoded.try_reserve_exact(padded - encoded.len()).map_err(Error::from)?;
        let mut stream = DataStream::new(encoded, header, Path::new(""));
        for piece in data {
            if stream.written > 0 {
                // The slice before was too short, which is what `finish` reports.
                break;
            }
            stream.expect_room(piece.len(), stream.missing())?;
            stream.write(piece)?;
        }
        let places = stream.header.places();
        let Finished { mut out, checksums, .. } = stream.finish()?;
        checksums::fill(&mut out[..start], places, &checksums).for_each(drop);
        Ok(out)
    }
}

/// The data section: divides what comes among the tensors and pads each.
#[derive(Debug)]
pub(super) struct DataStream<W> {
    out: W,
    header: Header,
    /// The tensor whose data comes next, and how much of it has come.
    current: usize,
    written: u64,
    /// Bytes of data that are still to come for all tensors.
    wanted: u64,
    broken: bool,
    /// For error messages.
    path: PathBuf,
    /// Of the current tensor's data so far, and of the tensors before, if the file has room for them.
    checksum: Checksum,
    checksums: Vec<u64>,
}

/// A data section that is complete.
pub(super) struct Finished<W> {
    out: W,
    path: PathBuf,
    /// Of the tensors, if the file has room for them.
    checksums: Vec<u64>,
}

impl<W: Write> DataStream<W> {
    pub fn new(out: W, header: Header, path: &Path) -> Self {
        Self {
            out,
            current: 0,
            written: 0,
            wanted: header.tensors().iter().map(TensorInfo::bytes).sum(),
            broken: false,
            path: path.to_path_buf(),
            checksum: Checksum::new(),
            checksums: Vec::new(),
            header,
        }
    }

    pub fn write(&mut self, piece: &[u8]) -> Result<(), WriteError> {
        if self.broken {
            return Err(WriteError::Broken);
        }
        self.expect_room(piece.len(), self.wanted)?;
        self.write_parts(piece).map_err(|source| {
            self.broken = true;
            io_error(&self.path, source)
        })
    }

    /// Writes data that is known to be wanted.
    fn write_parts(&mut self, mut piece: &[u8]) -> io::Result<()> {
        while let Some(tensor) = self.header.tensors().get(self.current) {
            let missing = tensor.bytes() - self.written;
            let len = usize::try_from(missing).unwrap_or(usize::MAX).min(piece.len());
            let (part, rest) = piece.split_at(len);
            self.out.write_all(part)?;
            if self.header.places().tensors.is_some() {
                self.checksum.add(part);
            }
            self.written += len as u64;
            self.wanted -= len as u64;
            piece = rest;
            if self.written < tensor.bytes() {
                break;
            }
            let padded = tensor.bytes().next_multiple_of(self.header.alignment());
            let mut padding = io::repeat(0).take(padded - tensor.bytes());
            io::copy(&mut padding, &mut self.out)?;
            if self.header.places().tensors.is_some() {
                self.checksums.push(std::mem::replace(&mut self.checksum, Checksum::new()).value());
            }
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Bytes that the current tensor lacks; 0 after the last.
    fn missing(&self) -> u64 {
        let tensor = self.header.tensors().get(self.current);
        tensor.map_or(0, TensorInfo::bytes) - self.written
    }

    fn expect_room(&self, len: usize, room: u64) -> Result<(), WriteError> {
        match (len as u64).checked_sub(room) {
            None | Some(0) => Ok(()),
            Some(excess) => {
                let tensors = self.header.tensors();
                let tensor = tensors.get(self.current).or(tensors.last());
                Err(WriteError::TooMuchData {
                    tensor: tensor.map(|tensor| tensor.name().to_string()),
                    excess,
                })
            }
        }
    }

    pub fn finish(self) -> Result<Finished<W>, WriteError> {
        if self.broken {
            return Err(WriteError::Broken);
        }
        if let Some(tensor) = self.header.tensors().get(self.current) {
            return Err(WriteError::TooLittleData {
                tensor: tensor.name().to_string(),
                missing: self.missing(),
            });
        }
        Ok(Finished { out: self.out, path: self.path, checksums: self.checksums })
    }
}

fn after(tensor: &Option<String>) -> String {
    tensor.as_ref().map(|name| format!(" for tensor {name:?}")).unwrap_or_default()
}

fn io_error(path: &Path, source: io::Error) -> WriteError {
    WriteError::Io { path: path.to_path_buf(), source }
}
