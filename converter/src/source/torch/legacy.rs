//! The form before PyTorch 1.6: five pickles one after the other (a magic number, a version, facts about the
//! machine, the object, the keys of its storages), then each storage as its length and its numbers.

use super::super::data_file::DataFile;
use super::super::pickle::{self, Object, Pickle, Storage};
use super::super::stored::Listing;
use super::{Places, broken, listing, refused};
use crate::Error;

/// What the first pickle holds, little endian.
const MAGIC_NUMBER: [u8; 10] = [0x6C, 0xFC, 0x9C, 0x46, 0xF9, 0x20, 0x6A, 0xA8, 0x50, 0x19];

/// What the second pickle holds.
const VERSION: i64 = 1001;

/// Reads the pickles, and the lengths of the storages behind them.
pub(super) fn list(file: &DataFile) -> Result<Listing, Error> {
    let bytes = file.start(file.limits.description_bytes as u64)?;
    let mut rest = Pickles { file, bytes: &bytes, position: 0 };

    let magic = rest.next()?;
    if !matches!(magic.root(), Object::Long(number) if *number == MAGIC_NUMBER) {
        return Err(broken(file, "it is a pickle, but not one of torch.save"));
    }
    let version = rest.next()?;
    if !matches!(version.root(), Object::Int(VERSION)) {
        return Err(broken(file, format_args!("its version is not {VERSION}")));
    }
    let machine = rest.next()?;
    let Object::Dict(facts) = machine.root() else {
        return Err(broken(file, "it does not say which machine it was made on"));
    };
    if !matches!(machine.entry(facts, "little_endian"), Some(Object::Bool(true))) {
        return Err(broken(file, "it was not made on a little-endian machine"));
    }
    let object = rest.next()?;
    let keys = rest.next()?;
    let Object::List(keys_list) = keys.root() else {
        return Err(broken(file, "it does not list its storages"));
    };
    let mut keys_in_order = Vec::new();
    for key in keys_list {
        match *keys.get(*key) {
            Object::Str(key) => keys_in_order.push(key),
            _ => return Err(broken(file, "the key of a storage is no text")),
        }
    }

    let places = storages(file, &object, &keys_in_order, rest.position as u64)?;
    listing(file, &object, |storage| {
        places.get(storage.key).copied().ok_or_else(|| format!("the file has no storage {:?}", storage.key))
    })
}

/// The pickles at the start of the file.
struct Pickles<'a> {
    file: &'a DataFile,
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Pickles<'a> {
    fn next(&mut self) -> Result<Pickle<'a>, Error> {
        let pickle = pickle::load(&self.bytes[self.position..], &self.file.limits)
            .map_err(|refusal| refused(self.file, &refusal))?;
        self.position += pickle.len;
        Ok(pickle)
    }
}

/// Where the numbers of each storage start. The storages fill the rest of the file.
fn storages(file: &DataFile, object: &Pickle<'_>, keys: &[&str], start: u64) -> Result<Places, Error> {
    let known = object.storages().map_err(|reason| broken(file, reason))?;
    let (mut places, mut position) = (Places::new(), start);
    for key in keys {
        let Some(Storage { storage_type, len, .. }) = known.get(key) else {
            return Err(broken(file, format_args!("it lists a storage {key:?} that no tensor has")));
        };
        let begin = position + size_of::<u64>() as u64;
        // Storages have fewer than 2^56 elements, and there are few of them: the sum does not wrap.
        let end = begin + len * storage_type.bytes();
        if end > file.len {
            return Err(broken(
                file,
                format_args!("it is cut short: storage {key:?} ends at byte {end} of {}", file.len),
            ));
        }
        let mut length = [0; size_of::<u64>()];
        file.read_at(position, &mut length)?;
        let found = u64::from_le_bytes(length);
        if found != *len {
            return Err(broken(file, format_args!("storage {key:?} has {found} elements, expected {len}")));
        }
        if places.insert((*key).to_owned(), begin).is_some() {
            return Err(broken(file, format_args!("it lists storage {key:?} twice")));
        }
        position = end;
    }
    if position != file.len {
        return Err(broken(
            file,
            format_args!("it is too long: its storages end at byte {position} of {}", file.len),
        ));
    }
    Ok(places)
}
