//! The bytes of a model file, wherever they lie.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use memmap2::Mmap;

use crate::ggml::{self, AlignedBuffer};
use crate::gguf::{self, Checksum, Header, Rule};
use crate::{Error, Limits};

/// The alignment of tensor data in a GGUF file, which its bytes must have in memory too: 32, or 64 if it is packed.
const ALIGNMENT: usize = 64;

/// Bytes that are read at a time to compare them with a checksum.
const VERIFIED_BYTES: usize = 1 << 18;

/// A source of a model file's bytes of the caller's own. Its calls never overlap, but come from any thread of any session; sessions whose
/// weights are streamed wait for each other there.
///
/// It may not use the model that it is read for. Of the file's padding, which [`Model::open`](crate::Model::open) checks, it is not
/// asked.
pub trait Loader: Send {
    /// Bytes of the file.
    fn size(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on; they lie within [`Loader::size`].
    ///
    /// # Errors
    /// Whatever kept it from reading, [`ErrorKind::UnexpectedEof`] if the file is shorter than it said.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

/// Bytes that never change, aligned for ggml where they are in memory.
pub(crate) struct Storage {
    kind: Kind,
    len: usize,
}

enum Kind {
    /// A file's pages: the page cache is the weight store, shared by all processes that run the model.
    Mapped {
        map: Mmap,
        file: File,
    },
    Static(&'static [u8]),
    Owned(AlignedBuffer),
    Loader {
        loader: Mutex<Box<dyn Loader>>,
        /// All of it, once somebody needs it in memory.
        copy: OnceLock<AlignedBuffer>,
    },
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
            return Ok(Storage { kind: Kind::Static(&[]), len: 0 });
        }
        // SAFETY: the map is private to this process and read only. If another process shortens the file while it is
        // mapped, a read ends the process with SIGBUS; the documentation of `Model::open` says so, and
        // `Model::from_bytes` avoids it. If it writes into the file, only numbers change under us: all lengths, offsets and
        // indices are taken from the header once, when it is parsed. The tokenizer's texts are read later, and checked then.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Storage { len: map.len(), kind: Kind::Mapped { map, file } })
    }

    /// Wraps bytes of the program itself; copies them only if they are not aligned.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, Error> {
        if bytes.as_ptr().addr().is_multiple_of(ALIGNMENT) {
            return Ok(Storage { kind: Kind::Static(bytes), len: bytes.len() });
        }
        Self::copy_of(bytes)
    }

    /// Copies bytes.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn copy_of(bytes: &[u8]) -> Result<Self, Error> {
        let copy = AlignedBuffer::copy_of(bytes, "a copy of the model")?;
        Ok(Storage { len: bytes.len(), kind: Kind::Owned(copy) })
    }

    /// Wraps a source of the caller's own.
    ///
    /// # Errors
    /// [`Error::Read`] if it claims more bytes than can be addressed.
    pub fn from_loader(loader: Box<dyn Loader>) -> Result<Self, Error> {
        let size = loader.size();
        let Ok(len) = usize::try_from(size) else {
            let source = std::io::Error::new(ErrorKind::FileTooLarge, "more bytes than can be addressed");
            return Err(Error::Read { offset: size, source });
        };
        Ok(Storage { kind: Kind::Loader { loader: Mutex::new(loader), copy: OnceLock::new() }, len })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Reads and checks the header. What it has touched of a map is let go again.
    ///
    /// # Errors
    /// [`Error::Gguf`], [`Error::Read`].
    pub fn header(&self, limits: &Limits) -> Result<Header, Error> {
        let header = match self.view() {
            Some(bytes) => Header::parse_within(bytes, limits)?,
            None => self.header_again(limits)?,
        };
        if let Kind::Mapped { map, .. } = &self.kind {
            ggml::release(map);
        }
        Ok(header)
    }

    /// Reads as much of the start as the header turns out to need, but not the padding behind it. Of a map nothing is touched.
    ///
    /// # Errors
    /// As [`Storage::header`].
    pub fn header_again(&self, limits: &Limits) -> Result<Header, Error> {
        let most = self.len.min(limits.start_bytes());
        let mut size = most.min(1 << 20);
        loop {
            let mut start = AlignedBuffer::new(size, "the model's header")?;
            self.read(0, start.as_mut_slice())?;
            match Header::parse_start_within(start.as_slice(), self.len as u64, limits) {
                Err(error) if size < most && ends_early(&error) => size = most.min(size * 4),
                header => return Ok(header?),
            }
        }
    }

    /// Compares every tensor with its checksum in that header of the file. A map is read as a file, so that its pages take no memory.
    ///
    /// # Errors
    /// [`Error::Checksum`] for the first that differs, [`Error::Missing`] if the file holds no checksums, [`Error::Read`],
    /// [`Error::OutOfMemory`].
    pub fn verify(&self, header: &Header) -> Result<(), Error> {
        let checksums = header.checksums().ok_or(Error::Missing {
            what: "checksums",
            remedy: "convert the checkpoint again with this version, or do not ask to verify the file",
        })?;
        let mut buffer = AlignedBuffer::new(VERIFIED_BYTES, "a part of the model to verify")?;
        for (tensor, expected) in header.tensors().iter().zip(checksums) {
            let mut checksum = Checksum::new();
            let range = tensor.range();
            for start in range.clone().step_by(VERIFIED_BYTES) {
                let piece = start..range.end.min(start + VERIFIED_BYTES);
                checksum.add(self.fetch(piece, buffer.as_mut_slice())?);
            }
            let (expected, found) = (*expected, checksum.value());
            if found != expected {
                return Err(Error::Checksum { tensor: tensor.name().to_owned(), expected, found });
            }
        }
        Ok(())
    }

    /// All bytes, if they are in memory or mapped.
    pub fn view(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Mapped { map, .. } => Some(map),
            Kind::Loader { copy, .. } => copy.get().map(AlignedBuffer::as_slice),
            Kind::Static(_) | Kind::Owned(_) => self.in_memory(),
        }
    }

    /// All bytes, if they are in memory that cannot be given back.
    fn in_memory(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Static(bytes) => Some(bytes),
            Kind::Owned(buffer) => Some(buffer.as_slice()),
            Kind::Mapped { .. } | Kind::Loader { .. } => None,
        }
    }

    /// Bytes of a private copy that stands already.
    pub fn own_bytes(&self) -> usize {
        match &self.kind {
            Kind::Owned(buffer) => buffer.len(),
            Kind::Loader { copy, .. } => copy.get().map_or(0, AlignedBuffer::len),
            Kind::Mapped { .. } | Kind::Static(_) => 0,
        }
    }

    /// All bytes, which are read into memory if they are not there.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Read`].
    pub fn load(&self) -> Result<&[u8], Error> {
        if let Some(bytes) = self.view() {
            return Ok(bytes);
        }
        let mut buffer = AlignedBuffer::pages(self.len, "a copy of the model")?;
        self.read(0, buffer.as_mut_slice())?;
        let Kind::Loader { copy, .. } = &self.kind else { unreachable!("all others can be viewed") };
        Ok(copy.get_or_init(|| buffer).as_slice())
    }

    /// Some bytes: where they lie, or read into `buffer`. A map is read as a file, so that its pages take no memory.
    ///
    /// # Errors
    /// [`Error::Read`].
    ///
    /// # Panics
    /// If `buffer` is shorter, or the range is not within the file.
    pub fn fetch<'b>(&'b self, range: Range<usize>, buffer: &'b mut [u8]) -> Result<&'b [u8], Error> {
        if let Some(bytes) = self.in_memory() {
            return Ok(&bytes[range]);
        }
        let buffer = &mut buffer[..range.len()];
        self.read(range.start, buffer)?;
        Ok(buffer)
    }

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), Error> {
        let failed = |source| Error::Read { offset: offset as u64, source };
        match &self.kind {
            Kind::Mapped { file, .. } => read_at(file, offset, buffer).map_err(failed),
            Kind::Loader { loader, .. } => {
                let mut loader = loader.lock().unwrap_or_else(PoisonError::into_inner);
                loader.read_at(offset as u64, buffer).map_err(failed)
            }
            Kind::Static(bytes) => {
                buffer.copy_from_slice(&bytes[offset..][..buffer.len()]);
                Ok(())
            }
            Kind::Owned(bytes) => {
                buffer.copy_from_slice(&bytes.as_slice()[offset..][..buffer.len()]);
                Ok(())
            }
        }
    }

    /// Lets the system read these bytes ahead, while something else is computed.
    pub fn will_need(&self, range: Range<usize>) {
        #[cfg(target_os = "linux")]
        if let Kind::Mapped { file, .. } = &self.kind {
            let len = std::num::NonZero::new(range.len() as u64);
            // A file system that does not read ahead is no error.
            let _ = rustix::fs::fadvise(file, range.start as u64, len, rustix::fs::Advice::WillNeed);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Whether the bytes are where a file is mapped, or part of the program.
    pub fn is_mapped(&self) -> bool {
        matches!(self.kind, Kind::Mapped { .. } | Kind::Static(_))
    }

    /// Whether the bytes are in memory to stay, or part of the program.
    pub fn is_in_memory(&self) -> bool {
        self.in_memory().is_some()
    }
}

/// Whether a header may be whole in a longer part of the file.
fn ends_early(error: &gguf::Error) -> bool {
    let rules =
        [Rule::HeaderTruncated, Rule::TensorCount, Rule::KeyCount, Rule::StringLength, Rule::ArrayLength];
    rules.contains(&error.rule)
}

#[cfg(not(unix))]
compile_error!("files are read at an offset as Unix does it");

fn read_at(file: &File, offset: usize, buffer: &mut [u8]) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset as u64)
}
