//! The form since PyTorch 1.6: a zip archive with the pickle as `data.pkl` and each storage as a member of its own, stored
//! without compression, `data/KEY`.

use std::fs::File;
use std::io::{BufReader, Read};

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

struct Archive<'a> {
    file: &'a DataFile,
    zip: ZipArchive<BufReader<File>>,
    /// What stands before the name of every member.
    prefix: String,
}

impl<'a> Archive<'a> {
    fn open(file: &'a DataFile) -> Result<Self, Error> {
        let zip = ZipArchive::new(BufReader::new(file.handle()?)).map_err(|error| unreadable(file, error))?;
        let (members, limit) = (zip.len(), file.limits.archive_members);
        if members > limit {
            let raise = "raise the limit archive_members: --limit archive_members=N, Limits::archive_members";
            return Err(broken(file, format_args!("it has {members} members, more than {limit}: {raise}")));
        }
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
