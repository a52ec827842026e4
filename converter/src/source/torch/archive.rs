//! The form since PyTorch 1.6: a zip archive with the pickle as `data.pkl` and each storage as a member of its own, stored
//! without compression, `data/KEY`.

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use zip::result::ZipError;
use zip::{CompressionMethod, ZipArchive};

use super::super::data_file::DataFile;
use super::super::pickle::{self, Storage};
use super::super::stored::Listing;
use super::{Places, broken, listing, refused};
use crate::Error;
use crate::error::RAISE_DESCRIPTION;

/// What a zip archive starts with.
pub(super) const MAGIC: &[u8] = b"PK\x03\x04";

/// Reads the archive's directory and its pickle.
pub(super) fn list(file: &DataFile) -> Result<Listing, Error> {
    let mut archive = Archive::open(file)?;
    let bytes = archive.small_member("data.pkl", file.limits.description_bytes)?.unwrap_or_default();
    if let Some(order) = archive.small_member("byteorder", 16)?
        && order != b"little"
    {
        let order = String::from_utf8_lossy(&order).into_owned();
        return Err(broken(file, format_args!("its byte order is {order:?}, not \"little\"")));
    }
    let pickle = pickle::load(&bytes, &file.limits).map_err(|refusal| refused(file, &refusal))?;
    let (places, sizes) = archive.storages()?;
    listing(file, &pickle, |storage| place_of(storage, &places, &sizes))
}

fn place_of(storage: &Storage<'_>, places: &Places, sizes: &Places) -> Result<u64, String> {
    let Storage { key, storage_type, len } = *storage;
    let (Some(place), Some(size)) = (places.get(key), sizes.get(key)) else {
        return Err(format!("the archive has no storage {key:?}"));
    };
    let expected = len * storage_type.bytes();
    if *size != expected {
        return Err(format!("storage {key:?} has {size} bytes, expected {expected}"));
    }
    Ok(*place)
}

/// Bytes of an archive's own list that a member takes at most: a name of a hundred letters, and what else is known of it.
const LISTED_BYTES: u64 = 512;

/// Bytes that are read of an archive's end beside its list: a comment has 64 KiB at most, and is gone through in pieces more than once.
const END_BYTES: u64 = 1 << 20;

/// A file of which no more than so many bytes are read. The zip library lists all members when it opens an archive, and its list takes
/// ten times the memory of theirs.
struct Metered {
    file: File,
    meter: Rc<Meter>,
}

struct Meter {
    /// Bytes that may still be read.
    left: Cell<u64>,
    /// Whether more were wanted.
    is_spent: Cell<bool>,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read(buffer)?;
        match self.meter.left.get().checked_sub(read as u64) {
            Some(left) => self.meter.left.set(left),
            None => {
                self.meter.is_spent.set(true);
                return Err(std::io::Error::other("its list of members is longer than that of so many"));
            }
        }
        Ok(read)
    }
}

impl Seek for Metered {
    fn seek(&mut self, position: SeekFrom) -> std::io::Result<u64> {
        self.file.seek(position)
    }
}

struct Archive<'a> {
    file: &'a DataFile,
    zip: ZipArchive<BufReader<Metered>>,
    /// What stands before the name of every member.
    prefix: String,
}

impl<'a> Archive<'a> {
    fn open(file: &'a DataFile) -> Result<Self, Error> {
        let limit = file.limits.archive_members;
        let too_many = || {
            let raise = "raise the limit archive_members: --limit archive_members=N, Limits::archive_members";
            broken(file, format_args!("it has more than {limit} members: {raise}"))
        };
        let left = (limit as u64).saturating_mul(LISTED_BYTES).saturating_add(END_BYTES);
        let meter = Rc::new(Meter { left: Cell::new(left), is_spent: Cell::new(false) });
        let metered = Metered { file: file.handle()?, meter: meter.clone() };
        let zip = ZipArchive::new(BufReader::new(metered))
            .map_err(|error| if meter.is_spent.get() { too_many() } else { unreadable(file, error) })?;
        if zip.len() > limit {
            return Err(too_many());
        }
        meter.left.set(u64::MAX);
        let names = zip.file_names().filter_map(Result::ok);
        let prefixes: Vec<_> =
            names.filter_map(|name| name.strip_suffix("data.pkl").map(str::to_owned)).collect();
        let is_directory = |prefix: &str| prefix.is_empty() || prefix.ends_with('/');
        match &prefixes[..] {
            [prefix] if is_directory(prefix) => Ok(Archive { file, prefix: prefix.clone(), zip }),
            _ => Err(broken(file, "it is an archive without a data.pkl, or with several")),
        }
    }

    /// A whole member, where there is one of that name.
    fn small_member(&mut self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let (file, name) = (self.file, format!("{}{name}", self.prefix));
        let member = match self.zip.by_name(&name) {
            Ok(member) => member,
            Err(ZipError::FileNotFound) => return Ok(None),
            Err(error) => return Err(unreadable(file, error)),
        };
        let mut bytes = Vec::new();
        // One byte more than allowed tells a member that is too large, whatever size it claims.
        let read = member.take(limit as u64 + 1).read_to_end(&mut bytes);
        read.map_err(|error| broken(file, format_args!("its member {name:?} cannot be read: {error}")))?;
        if bytes.len() > limit {
            let problem =
                format_args!("its member {name:?} has more than {limit} bytes: {RAISE_DESCRIPTION}");
            return Err(broken(file, problem));
        }
        Ok(Some(bytes))
    }

    /// Where the storages start, and how many bytes they have.
    fn storages(&mut self) -> Result<(Places, Places), Error> {
        let file = self.file;
        let (mut places, mut sizes) = (Places::new(), Places::new());
        let start = format!("{}data/", self.prefix);
        for number in 0..self.zip.len() {
            let member = self.zip.by_index_raw(number).map_err(|error| unreadable(file, error))?;
            let Some(key) = member.name().ok().and_then(|name| name.strip_prefix(&start).map(str::to_owned))
            else {
                continue;
            };
            if member.encrypted() || member.compression() != CompressionMethod::Stored {
                let reason = "is compressed or encrypted, which torch.save never does: unpack the archive, and pack \
                              it again with zip -0";
                return Err(broken(file, format_args!("its storage {key:?} {reason}")));
            }
            let (begin, size) = (member.data_start().unwrap_or(u64::MAX), member.size());
            if begin.checked_add(size).is_none_or(|end| end > file.len) {
                return Err(broken(
                    file,
                    format_args!("its storage {key:?} reaches beyond the end of the file"),
                ));
            }
            places.insert(key.clone(), begin);
            sizes.insert(key, size);
        }
        Ok((places, sizes))
    }
}

fn unreadable(file: &DataFile, error: ZipError) -> Error {
    broken(file, format_args!("its archive is damaged or cut short: {error}"))
}
