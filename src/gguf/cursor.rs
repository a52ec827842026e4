//! Reading little-endian values from bytes that may end anywhere.

use super::error::{Error, Rule};
use super::metadata::{check_text, try_string};
use crate::Limits;
use crate::limits::raise;

/// Reads fields one after the other, and keeps count of what the header may still hold.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    header_left: usize,
    vocabulary_left: usize,
    in_vocabulary: bool,
    limits: &'a Limits,
}

impl<'a> Cursor<'a> {
    pub fn new(bytes: &'a [u8], limits: &'a Limits) -> Self {
        Self {
            bytes,
            position: 0,
            header_left: limits.header_bytes,
            vocabulary_left: limits.vocabulary_bytes,
            in_vocabulary: false,
            limits,
        }
    }

    /// How many bytes from the start of the file the next field is.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Chooses which of the two bounds the next fields count against.
    pub fn set_vocabulary(&mut self, in_vocabulary: bool) {
        self.in_vocabulary = in_vocabulary;
    }

    /// The most items of at least `item_bytes` each that can follow in the file.
    pub fn room_for(&self, item_bytes: usize) -> u64 {
        (self.remaining() / item_bytes) as u64
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let start = self.position;
        let taken = start.checked_add(count).and_then(|end| self.bytes.get(start..end)).ok_or_else(|| {
            Error::new(
                Rule::HeaderTruncated,
                format_args!("{count} more bytes"),
                format_args!("{}", self.remaining()),
            )
            .at(start)
        })?;
        let left = self.left().checked_sub(count).ok_or_else(|| self.over_budget(start))?;
        if self.in_vocabulary {
            self.vocabulary_left = left;
        } else {
            self.header_left = left;
        }
        self.position += count;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub fn bool(&mut self) -> Result<bool, Error> {
        let start = self.position;
        let [byte] = self.array()?;
        truth(byte).map_err(|error| error.at(start))
    }

    pub fn string(&mut self) -> Result<String, Error> {
        let start = self.position;
        let announced = self.u64()?;
        let len = self.fitting(announced, 1, Rule::StringLength, start)?;
        let most = self.limits.string_bytes;
        if len > most {
            return Err(Error::new(
                Rule::StringTooLong,
                format_args!("at most {most} bytes (or {})", raise!(string_bytes)),
                format_args!("{len}"),
            )
            .at(start));
        }
        check_text(self.take(len)?, Rule::StringNotUtf8, Rule::StringNul)
            .and_then(try_string)
            .map_err(|error| error.at(start))
    }

    /// An array's length and its elements, each of `N` bytes.
    pub fn scalars<const N: usize, T>(&mut self, decode: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Error> {
        let start = self.position;
        let announced = self.u64()?;
        let len = self.fitting(announced, N, Rule::ArrayLength, start)?;
        // Cannot wrap: this many bytes are there.
        let (items, _) = self.take(len * N)?.as_chunks::<N>();
        let mut decoded = Vec::new();
        decoded.try_reserve_exact(len)?;
        decoded.extend(items.iter().map(|item| decode(*item)));
        Ok(decoded)
    }

    pub fn bools(&mut self) -> Result<Vec<bool>, Error> {
        let start = self.position;
        let announced = self.u64()?;
        let len = self.fitting(announced, 1, Rule::ArrayLength, start)?;
        let mut decoded = Vec::new();
        decoded.try_reserve_exact(len)?;
        for _ in 0..len {
            decoded.push(self.bool()?);
        }
        Ok(decoded)
    }

    pub fn strings(&mut self) -> Result<Vec<String>, Error> {
        let start = self.position;
        let announced = self.u64()?;
        // Each string has a length of 8 bytes, if nothing else.
        let len = self.fitting(announced, 8, Rule::ArrayLength, start)?;
        let mut decoded = Vec::new();
        decoded.try_reserve_exact(len)?;
        for _ in 0..len {
            decoded.push(self.string()?);
        }
        Ok(decoded)
    }

    /// The number of items as a `usize`, once it is known that the file and the header's bound
    /// have room for them.
    fn fitting(&self, count: u64, item_bytes: usize, rule: Rule, start: usize) -> Result<usize, Error> {
        let most = self.remaining() / item_bytes;
        let fitting = usize::try_from(count).ok().filter(|count| *count <= most).ok_or_else(|| {
            Error::new(rule, format_args!("a length of at most {most}"), format_args!("{count}")).at(start)
        })?;
        if fitting > self.left() / item_bytes {
            return Err(self.over_budget(start));
        }
        Ok(fitting)
    }

    fn remaining(&self) -> usize {
        self.bytes.len() - self.position
    }

    fn left(&self) -> usize {
        if self.in_vocabulary { self.vocabulary_left } else { self.header_left }
    }

    fn over_budget(&self, start: usize) -> Error {
        let (rule, most, raise) = if self.in_vocabulary {
            (Rule::VocabularyTooLarge, self.limits.vocabulary_bytes, raise!(vocabulary_bytes))
        } else {
            (Rule::HeaderTooLarge, self.limits.header_bytes, raise!(header_bytes))
        };
        Error::new(rule, format_args!("at most {most} bytes (or {raise})"), format_args!("more")).at(start)
    }
}

fn truth(byte: u8) -> Result<bool, Error> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::new(Rule::BoolValue, format_args!("0 or 1"), format_args!("{byte}"))),
    }
}
