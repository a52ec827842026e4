//! Files that appear whole or not at all.

use std::fs;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that takes its name only when it is complete and durable. Dropped before [`commit`](Self::commit), it leaves
/// nothing behind, and an older file of that name untouched.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl AtomicFile {
    /// Starts a file in the directory of `path`.
    ///
    /// # Errors
    /// If the path is a symbolic link or anything else than an ordinary file or a free name, or if the directory
    /// cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        check_target(path)?;
        let file = temporary(path).map_err(without_name)?;
        Ok(AtomicFile { file: BufWriter::new(file), path: path.to_path_buf() })
    }

    /// The name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes over what stands at `offset`; what is written next still goes to the end.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn overwrite(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(bytes)?;
        self.file.seek(SeekFrom::End(0)).map(drop)
    }

    /// Makes the file durable and gives it its name.
    ///
    /// # Errors
    /// If it cannot be brought to the disk or renamed. Then the target is as it was, unless only the last step
    /// failed, the fsync of the directory: then the new file is in place.
    pub fn commit(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // Before the rename: a crash must not leave the new name with data that never arrived.
        file.as_file().sync_all()?;
        // Again, because much time may have passed.
        check_target(&self.path)?;
        file.persist(&self.path).map_err(|error| error.error)?;
        sync_directory(&self.path)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Refuses what a rename would not replace but destroy: a link would give way to a file beside
/// the one it points to, and a device or pipe would be gone.
fn check_target(path: &Path) -> io::Result<()> {
    if path.file_name().is_none() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path does not end in a file name"));
    }
    let refusal = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if found.is_file() => return Ok(()),
        Ok(found) if found.is_symlink() => "it is a symbolic link",
        Ok(found) if found.is_dir() => "it is a directory",
        Ok(_) => "it is no ordinary file",
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, refusal))
}

/// The operating system's reason alone: the temporary file's name, which tempfile adds, tells a person nothing.
fn without_name(error: io::Error) -> io::Error {
    let inner = error.get_ref().and_then(|error| error.source());
    let reason = inner.and_then(|error| error.downcast_ref::<io::Error>());
    reason.and_then(io::Error::raw_os_error).map_or(error, io::Error::from_raw_os_error)
}

/// A file beside the target, because a rename cannot cross file systems.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".lxmert-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // A temporary file would be its owner's alone; with this, the umask decides as for any
        // new file.
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(directory(path))
}

fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the rename durable. Where directories cannot be opened or synced, the file system decides
/// when it is.
fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    match fs::File::open(directory(path))?.sync_all() {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        result => result,
    }
    #[cfg(not(unix))]
    Ok(())
}

/// Whether two paths lead to one file, by links of either kind too.
pub fn is_same_file(a: &Path, b: &Path) -> bool {
    // What does not exist is no other file.
    let (Ok(found_a), Ok(found_b)) = (fs::metadata(a), fs::metadata(b)) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        (found_a.dev(), found_a.ino()) == (found_b.dev(), found_b.ino())
    }
    #[cfg(not(unix))]
    {
        let _ = (found_a, found_b);
        matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
    }
}
