//! Checksums of a file's parts, in the file itself.
//!
//! They find what disks, copies and downloads do to a file, not what people do: whoever changes a file on purpose can change them
//! too. Both are XXH3, 64 bits, with the seed 0; the algorithm is part of the keys' names, so that another one would have others.
//!
//! | key | value |
//! |---|---|
//! | `lxmert.checksum.xxh3.tensors` | one `u64` for each tensor, in the order of the list: of its data, without padding |
//! | `lxmert.checksum.xxh3.header` | a `u64`: of all bytes before the first tensor's data, padding included, with this value's own taken as 0 |
//!
//! That of the header is compared whenever a file is opened: what it covers is read then anyway. Those of the tensors are compared by
//! whoever wants to know, since that reads the whole file.

use std::ops::Range;

use twox_hash::xxhash3_64::{DEFAULT_SECRET_LENGTH, RawHasher, SecretBuffer};

use super::error::{Error, Rule};
use super::metadata::Metadata;
use super::value::{Array, Value};

pub(super) const TENSORS_KEY: &str = "lxmert.checksum.xxh3.tensors";
pub(super) const HEADER_KEY: &str = "lxmert.checksum.xxh3.header";

/// Bytes of a checksum in a file.
pub(super) const BYTES: usize = size_of::<u64>();

/// The keys of a file's checksums.
pub const CHECKSUM_KEYS: [&str; 2] = [TENSORS_KEY, HEADER_KEY];

/// A checksum of bytes that come in pieces. Takes no memory of its own.
pub(crate) struct Checksum(RawHasher<&'static [u8; DEFAULT_SECRET_LENGTH]>);

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Checksum({:016x})", self.value())
    }
}

impl Checksum {
    pub fn new() -> Self {
        Checksum(RawHasher::new(SecretBuffer::default()))
    }

    pub fn add(&mut self, bytes: &[u8]) {
        std::hash::Hasher::write(&mut self.0, bytes);
    }

    pub fn value(&self) -> u64 {
        std::hash::Hasher::finish(&self.0)
    }
}

/// Where in a file its checksums stand, for those that it has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Places {
    pub tensors: Option<usize>,
    pub header: Option<usize>,
}

/// Makes room for the checksums of so many tensors, which the [`Writer`](super::Writer) fills in when it has seen all data.
///
/// # Errors
/// [`Rule::KeyDuplicate`] if there is room already, [`Rule::OutOfMemory`].
pub fn reserve_checksums(metadata: &mut Metadata, tensors: usize) -> Result<(), Error> {
    let mut room: Vec<u64> = Vec::new();
    room.try_reserve_exact(tensors)?;
    room.resize(tensors, 0);
    metadata.insert(TENSORS_KEY, room)?;
    metadata.insert(HEADER_KEY, 0u64)
}

/// The checksums of the tensors; `None` if there are none.
pub(super) fn of_tensors(metadata: &Metadata) -> Option<&[u64]> {
    match metadata.get(TENSORS_KEY) {
        Some(Value::Array(Array::U64(checksums))) => Some(checksums),
        _ => None,
    }
}

/// The checksum of the header; `None` if there is none.
pub(super) fn of_header(metadata: &Metadata) -> Option<u64> {
    match metadata.get(HEADER_KEY) {
        Some(Value::U64(checksum)) => Some(*checksum),
        _ => None,
    }
}

/// Checks that the keys are of their types, and that no tensor lacks a checksum.
pub(super) fn check(metadata: &Metadata, tensors: usize) -> Result<(), Error> {
    let unusable = |key: &str, expected: std::fmt::Arguments<'_>, found: std::fmt::Arguments<'_>| {
        Err(Error::new(Rule::Checksums, expected, found).named(key))
    };
    if let Some(value) = metadata.get(TENSORS_KEY) {
        let count = of_tensors(metadata).map(<[u64]>::len);
        if count != Some(tensors) {
            let found = count.unwrap_or(0);
            return unusable(
                TENSORS_KEY,
                format_args!("array of u64, one for each of {tensors} tensors"),
                format_args!("{} with {found}", value.type_name()),
            );
        }
    }
    match metadata.get(HEADER_KEY) {
        Some(value) if of_header(metadata).is_none() => {
            unusable(HEADER_KEY, format_args!("u64"), format_args!("{}", value.type_name()))
        }
        _ => Ok(()),
    }
}

/// The checksum of a header and its padding, whose own value stands at `place` in the header, if it is there.
///
/// # Panics
/// If the place is not within the header.
pub(super) fn of_bytes([header, padding]: [&[u8]; 2], place: Option<usize>) -> u64 {
    let mut checksum = Checksum::new();
    let pieces = match place {
        Some(place) => [&header[..place], &[0; BYTES], &header[place + BYTES..]],
        None => [header, &[], &[]],
    };
    for piece in pieces.into_iter().chain([padding]) {
        checksum.add(piece);
    }
    checksum.value()
}

/// Fills checksums into a header and its padding. Returns where they stand.
///
/// # Panics
/// If the places are not within the header.
pub(super) fn fill(
    header: &mut [u8],
    places: Places,
    tensors: &[u64],
) -> impl Iterator<Item = Range<usize>> + use<> {
    let of_tensors = places.tensors.map(|place| place..place + tensors.len() * BYTES);
    if let Some(place) = of_tensors.clone() {
        for (room, checksum) in header[place].as_chunks_mut().0.iter_mut().zip(tensors) {
            *room = checksum.to_le_bytes();
        }
    }
    let of_header = places.header.map(|place| place..place + BYTES);
    if let Some(place) = of_header.clone() {
        let checksum = of_bytes([header, &[]], Some(place.start));
        header[place].copy_from_slice(&checksum.to_le_bytes());
    }
    of_tensors.into_iter().chain(of_header)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the reference implementation in C.
    #[test]
    fn is_xxh3() {
        assert_eq!(Checksum::new().value(), 0x2d06_8005_38d3_94c2);
        let mut checksum = Checksum::new();
        checksum.add(b"x");
        checksum.add(b"xhash");
        assert_eq!(checksum.value(), 0xaa4c_2b42_ae6b_13de);
        let bytes: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
        let mut checksum = Checksum::new();
        bytes.chunks(333).for_each(|piece| checksum.add(piece));
        assert_eq!(checksum.value(), 0x33ef_703f_b2b2_0ed1);
    }
}
