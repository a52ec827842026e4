//! Everything before the tensor data, read and checked.

use std::collections::HashMap;

use super::checksums::{self, HEADER_KEY, TENSORS_KEY};
use super::cursor::Cursor;
use super::error::{Error, Rule};
use super::metadata::{Metadata, check_key, try_string};
use super::tensor::{Size, TensorInfo, check_tensor_name, dimension_count, tensor_name_too_long};
use super::tensor_type::TensorType;
use super::value::{Array, Value, id};
use super::{ALIGNMENT_KEY, MAGIC, VERSION, limits};
use crate::Limits;
use crate::limits::raise;

/// Magic, version, number of tensors, number of keys.
const FIXED_BYTES: usize = 4 + 4 + 8 + 8;

/// The least that a key takes up: the length of its name, one byte of it, and the value's type.
const LEAST_KEY_BYTES: usize = 8 + 1 + 4;

/// The least that a tensor takes up in the list: the length of its name, one byte of it, the
/// number of dimensions, one dimension, type and offset.
const LEAST_TENSOR_BYTES: usize = 8 + 1 + 4 + 8 + 4 + 8;

/// All that a file says about itself, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    index: HashMap<String, usize>,
    alignment: u64,
    /// Where the list of tensors ends, from the start of the file.
    end: usize,
    /// Where the checksums stand.
    places: checksums::Places,
    /// The checksum of the bytes that it was read from, which a file need not hold.
    digest: u64,
}

impl Header {
    /// Reads and checks the header of a whole file.
    ///
    /// Takes time and memory in proportion to the header, not to the data; of the data only the
    /// padding is looked at. Strings and arrays are copied, so the header outlives `bytes`.
    ///
    /// # Errors
    /// The first [`Rule`] that the file breaks.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        Self::parse_within(bytes, &Limits::DEFAULT)
    }

    /// As [`parse`](Self::parse), within other limits than the default ones.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_within(bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let mut header = Self::lay_out(bytes, bytes.len(), &limits.in_range())?;
        header.check_padding(bytes)?;
        header.check_checksum(bytes)?;
        Ok(header)
    }

    /// Reads and checks a header whose file is not in memory: `start` is the file's first
    /// [`start_bytes`](Limits::start_bytes), or all of it, and `file_bytes` its length. Unlike
    /// [`parse`](Self::parse), it does not see the padding between the tensors.
    ///
    /// # Errors
    /// The first [`Rule`] that the file breaks.
    pub fn parse_start(start: &[u8], file_bytes: u64) -> Result<Self, Error> {
        Self::parse_start_within(start, file_bytes, &Limits::DEFAULT)
    }

    /// As [`parse_start`](Self::parse_start), within other limits than the default ones.
    ///
    /// # Errors
    /// As [`parse_start`](Self::parse_start).
    pub fn parse_start_within(start: &[u8], file_bytes: u64, limits: &Limits) -> Result<Self, Error> {
        let mut header =
            Self::lay_out(start, usize::try_from(file_bytes).unwrap_or(usize::MAX), &limits.in_range())?;
        header.check_checksum(start)?;
        Ok(header)
    }

    /// The keys and values.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The keys and values without the rest.
    pub fn into_metadata(self) -> Metadata {
        self.metadata
    }

    /// The tensors in the order of the list, which is the order of their data too.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(*self.index.get(name)?)
    }

    /// The checksums of the tensors, in the order of the list; `None` if the file holds none.
    pub fn checksums(&self) -> Option<&[u64]> {
        checksums::of_tensors(&self.metadata)
    }

    /// Tells a header from another one, whether its file holds a checksum or not.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// What every tensor's offset is a multiple of, in bytes; a power of two.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Reads a header and checks everything but the padding. `bytes` may end anywhere after the
    /// list of tensors, so that a file can be checked before its data is written; `file_bytes` is
    /// the length of the whole.
    pub(super) fn lay_out(bytes: &[u8], file_bytes: usize, limits: &Limits) -> Result<Self, Error> {
        check_start(bytes)?;
        let mut cursor = Cursor::new(bytes, limits);
        cursor.take(MAGIC.len() + size_of_val(&VERSION))?;
        let most = |rule, most, raise| Most { rule, most, raise };
        let most_tensors = most(Rule::TooManyTensors, limits.tensors, raise!(tensors));
        let tensor_count = count(&mut cursor, LEAST_TENSOR_BYTES, Rule::TensorCount, most_tensors)?;
        let most_keys = most(Rule::TooManyKeys, limits.metadata_keys, raise!(metadata_keys));
        let key_count = count(&mut cursor, LEAST_KEY_BYTES, Rule::KeyCount, most_keys)?;

        let (metadata, places) = read_metadata(&mut cursor, key_count, limits)?;
        let alignment = alignment(&metadata)?;
        checksums::check(&metadata, tensor_count)?;
        let (tensors, index) = (Vec::new(), HashMap::new());
        let mut header = Self { metadata, tensors, index, alignment, end: 0, places, digest: 0 };
        header.tensors.try_reserve_exact(tensor_count)?;
        header.index.try_reserve(tensor_count)?;
        let data_bytes = header.read_tensors(&mut cursor, tensor_count)?;
        header.end = cursor.position();
        header.place(data_bytes, file_bytes)?;
        Ok(header)
    }

    /// Where the checksums stand.
    pub(super) fn places(&self) -> checksums::Places {
        self.places
    }

    /// The length of the header, the padding before the first tensor's data included.
    pub(super) fn padded_end(&self) -> usize {
        self.end.next_multiple_of(self.alignment as usize)
    }

    /// The length of the whole file, the last tensor's padding included.
    pub(super) fn file_bytes(&self) -> u64 {
        let data_end = match self.tensors.last() {
            Some(tensor) => tensor.offset + tensor.size.bytes,
            None => self.end as u64,
        };
        // Cannot wrap: this is what the file's length was compared with.
        data_end.next_multiple_of(self.alignment)
    }

    /// Reads the list of tensors, with offsets that count from the start of the data section as in
    /// the file. Returns the section's length.
    fn read_tensors(&mut self, cursor: &mut Cursor<'_>, count: usize) -> Result<u64, Error> {
        let mut next = 0u64;
        for _ in 0..count {
            let start = cursor.position();
            let name = read_tensor_name(cursor).map_err(|error| error.at(start))?;
            if self.index.contains_key(name) {
                let error = Error::new(
                    Rule::TensorNameDuplicate,
                    format_args!("each name once"),
                    format_args!("it a second time"),
                );
                return Err(error.named(name).at(start));
            }
            let tensor = read_tensor(cursor, name, next, self.alignment)
                .map_err(|error| error.named(name).at(start))?;
            next = next
                .checked_add(tensor.size.bytes)
                .and_then(|end| end.checked_next_multiple_of(self.alignment))
                .ok_or_else(|| too_large(tensor.size.bytes, next).named(name).at(start))?;
            self.index.insert(try_string(name)?, self.tensors.len());
            self.tensors.push(tensor);
        }
        Ok(next)
    }

    /// Moves the tensors' offsets to where the data section turned out to start, and checks that
    /// the file ends where the section does.
    fn place(&mut self, data_bytes: u64, file_bytes: usize) -> Result<(), Error> {
        let file_bytes = file_bytes as u64;
        // The section is aligned even where it is empty.
        let bounds = (self.end as u64)
            .checked_next_multiple_of(self.alignment)
            .and_then(|start| Some((start, start.checked_add(data_bytes)?)));
        let Some((start, end)) = bounds else {
            return Err(too_large(data_bytes, self.end as u64));
        };
        for tensor in &mut self.tensors {
            // Neither sum can wrap: no tensor reaches beyond `end`.
            tensor.offset += start;
            if tensor.offset + tensor.size.bytes > file_bytes {
                let error = truncated(end, file_bytes);
                return Err(error.named(&tensor.name).at(tensor.offset as usize));
            }
        }
        if end > file_bytes {
            // All that is missing is padding.
            let error = truncated(end, file_bytes).at(file_bytes as usize);
            return Err(match self.tensors.last() {
                Some(tensor) => error.named(&tensor.name),
                None => error,
            });
        }
        if end < file_bytes {
            return Err(Error::new(
                Rule::TrailingBytes,
                format_args!("the end of the file"),
                format_args!("{} more bytes", file_bytes - end),
            )
            .at(end as usize));
        }
        Ok(())
    }

    /// Compares the header with its checksum, if it has one, and keeps its own. Padding that `bytes` do not reach is taken for zero.
    fn check_checksum(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let own = self.places.header.zip(checksums::of_header(&self.metadata));
        static PADDING: [u8; *limits::ALIGNMENTS.end() as usize] = [0; *limits::ALIGNMENTS.end() as usize];
        let header = bytes.get(..self.end).unwrap_or(bytes);
        let padding = &PADDING[..self.padded_end() - self.end];
        let found = checksums::of_bytes([header, padding], own.map(|(place, _)| place));
        self.digest = found;
        let Some((_, expected)) = own.filter(|(_, expected)| *expected != found) else { return Ok(()) };
        Err(Error::new(
            Rule::HeaderChecksum,
            format_args!("checksum {expected:016x}"),
            format_args!(
                "{found:016x}: get the file again, or convert the checkpoint again; whoever edited its keys on purpose leaves out \
                 {HEADER_KEY}"
            ),
        ))
    }

    /// Checks that there is nothing between header, tensors and the end of the file.
    fn check_padding(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut from = self.end;
        let mut before = None;
        let tensors = self.tensors.iter().map(|tensor| (Some(tensor), tensor.range()));
        for (tensor, range) in tensors.chain([(None, bytes.len()..bytes.len())]) {
            let padding = bytes.get(from..range.start).unwrap_or(&[]);
            let stray = padding.iter().zip(from..).find(|(byte, _)| **byte != 0);
            if let Some((byte, position)) = stray {
                let error =
                    Error::new(Rule::Padding, format_args!("0"), format_args!("{byte:#04x}")).at(position);
                // Padding belongs to what it follows.
                return Err(match before {
                    Some(name) => error.named(name),
                    None => error,
                });
            }
            from = range.end;
            before = tensor.map(TensorInfo::name);
        }
        Ok(())
    }
}

/// The alignment that a file's keys ask for, in bytes.
pub(super) fn alignment(metadata: &Metadata) -> Result<u64, Error> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(limits::DEFAULT_ALIGNMENT),
        Some(Value::U32(bytes))
            if bytes.is_power_of_two() && limits::ALIGNMENTS.contains(&u64::from(*bytes)) =>
        {
            Ok(u64::from(*bytes))
        }
        Some(other) => {
            let (least, most) = (limits::ALIGNMENTS.start(), limits::ALIGNMENTS.end());
            let expected = format_args!("a power of two from {least} to {most}, as u32");
            let error = match other.integer() {
                Some(number) => {
                    Error::new(Rule::Alignment, expected, format_args!("{number} as {}", other.type_name()))
                }
                None => Error::new(Rule::Alignment, expected, format_args!("{}", other.type_name())),
            };
            Err(error.named(ALIGNMENT_KEY))
        }
    }
}

/// Checks what tells a GGUF v3 file from anything else. Comes before the length, because a short
/// text file is better called no GGUF file than a short one.
fn check_start(bytes: &[u8]) -> Result<(), Error> {
    let magic = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if !MAGIC.starts_with(magic) {
        return Err(Error::new(
            Rule::Magic,
            format_args!("\"{}\"", MAGIC.escape_ascii()),
            format_args!("\"{}\"", magic.escape_ascii()),
        )
        .at(0));
    }
    if bytes.len() < FIXED_BYTES {
        return Err(Error::new(
            Rule::TooShort,
            format_args!("at least {FIXED_BYTES} bytes"),
            format_args!("{}", bytes.len()),
        )
        .at(0));
    }
    let mut cursor = Cursor::new(bytes, &Limits::DEFAULT);
    cursor.take(MAGIC.len())?;
    let start = cursor.position();
    let version = cursor.u32()?;
    if version == VERSION {
        return Ok(());
    }
    let error = if (1..=VERSION).contains(&version.swap_bytes()) {
        Error::new(
            Rule::ByteOrder,
            format_args!("a little-endian file (gguf-convert-endian makes one)"),
            format_args!("version {} in big-endian order", version.swap_bytes()),
        )
    } else {
        Error::new(Rule::Version, format_args!("{VERSION}"), format_args!("{version}"))
    };
    Err(error.at(start))
}

/// A limit on a number of items.
struct Most {
    rule: Rule,
    most: usize,
    raise: &'static str,
}

/// Reads a number of items, and bounds it by what could follow before anything is allocated.
fn count(cursor: &mut Cursor<'_>, item_bytes: usize, rule: Rule, limit: Most) -> Result<usize, Error> {
    let start = cursor.position();
    let count = cursor.u64()?;
    let room = cursor.room_for(item_bytes);
    let fitting = usize::try_from(count)
        .ok()
        .filter(|_| count <= room)
        .ok_or_else(|| Error::new(rule, format_args!("at most {room}"), format_args!("{count}")).at(start))?;
    if fitting > limit.most {
        let expected = format_args!("at most {} (or {})", limit.most, limit.raise);
        return Err(Error::new(limit.rule, expected, format_args!("{count}")).at(start));
    }
    Ok(fitting)
}

fn read_metadata(
    cursor: &mut Cursor<'_>,
    count: usize,
    limits: &Limits,
) -> Result<(Metadata, checksums::Places), Error> {
    let mut metadata = Metadata::new();
    let mut places = checksums::Places::default();
    metadata.try_reserve(count)?;
    for _ in 0..count {
        let start = cursor.position();
        let key = read_key(cursor, limits.key_bytes).map_err(|error| error.at(start))?;
        read_value(cursor, key)
            .and_then(|value| metadata.insert(key, value))
            .map_err(|error| error.named(key).at(start))?;
        // Both end with the numbers themselves, if they are of their types, which is checked later.
        let before = |numbers: usize| cursor.position().checked_sub(numbers * checksums::BYTES);
        match key {
            HEADER_KEY => places.header = before(1),
            TENSORS_KEY => places.tensors = before(checksums::of_tensors(&metadata).map_or(0, <[u64]>::len)),
            _ => {}
        }
    }
    Ok((metadata, places))
}

fn read_key<'a>(cursor: &mut Cursor<'a>, most: usize) -> Result<&'a str, Error> {
    let announced = cursor.u64()?;
    let len = usize::try_from(announced)
        .ok()
        .filter(|len| *len <= most)
        .ok_or_else(|| key_too_long(announced, most))?;
    check_key(cursor.take(len)?)
}

fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, Error> {
    let start = cursor.position();
    let type_id = cursor.u32()?;
    cursor.set_vocabulary(limits::is_vocabulary(key));
    let value = match type_id {
        id::U8 => cursor.array().map(u8::from_le_bytes).map(Value::U8),
        id::I8 => cursor.array().map(i8::from_le_bytes).map(Value::I8),
        id::U16 => cursor.array().map(u16::from_le_bytes).map(Value::U16),
        id::I16 => cursor.array().map(i16::from_le_bytes).map(Value::I16),
        id::U32 => cursor.array().map(u32::from_le_bytes).map(Value::U32),
        id::I32 => cursor.array().map(i32::from_le_bytes).map(Value::I32),
        id::U64 => cursor.array().map(u64::from_le_bytes).map(Value::U64),
        id::I64 => cursor.array().map(i64::from_le_bytes).map(Value::I64),
        id::F32 => cursor.array().map(f32::from_le_bytes).map(Value::F32),
        id::F64 => cursor.array().map(f64::from_le_bytes).map(Value::F64),
        id::BOOL => cursor.bool().map(Value::Bool),
        id::STRING => cursor.string().map(Value::String),
        id::ARRAY => read_array(cursor).map(Value::Array),
        _ => Err(Error::new(
            Rule::ValueType,
            format_args!("a type from {} to {}", id::U8, id::F64),
            format_args!("{type_id}"),
        )
        .at(start)),
    };
    cursor.set_vocabulary(false);
    value
}

fn read_array(cursor: &mut Cursor<'_>) -> Result<Array, Error> {
    let start = cursor.position();
    let type_id = cursor.u32()?;
    match type_id {
        id::U8 => cursor.scalars(u8::from_le_bytes).map(Array::U8),
        id::I8 => cursor.scalars(i8::from_le_bytes).map(Array::I8),
        id::U16 => cursor.scalars(u16::from_le_bytes).map(Array::U16),
        id::I16 => cursor.scalars(i16::from_le_bytes).map(Array::I16),
        id::U32 => cursor.scalars(u32::from_le_bytes).map(Array::U32),
        id::I32 => cursor.scalars(i32::from_le_bytes).map(Array::I32),
        id::U64 => cursor.scalars(u64::from_le_bytes).map(Array::U64),
        id::I64 => cursor.scalars(i64::from_le_bytes).map(Array::I64),
        id::F32 => cursor.scalars(f32::from_le_bytes).map(Array::F32),
        id::F64 => cursor.scalars(f64::from_le_bytes).map(Array::F64),
        id::BOOL => cursor.bools().map(Array::Bool),
        id::STRING => cursor.strings().map(Array::String),
        id::ARRAY => Err(Error::new(
            Rule::ArrayNested,
            format_args!("elements that are no arrays"),
            format_args!("arrays"),
        )
        .at(start)),
        _ => Err(Error::new(
            Rule::ArrayType,
            format_args!("a type from {} to {}", id::U8, id::F64),
            format_args!("{type_id}"),
        )
        .at(start)),
    }
}

fn read_tensor_name<'a>(cursor: &mut Cursor<'a>) -> Result<&'a str, Error> {
    let announced = cursor.u64()?;
    let len = usize::try_from(announced)
        .ok()
        .filter(|len| *len <= limits::TENSOR_NAME_BYTES)
        .ok_or_else(|| tensor_name_too_long(announced))?;
    check_tensor_name(cursor.take(len)?)
}

/// Reads what follows a tensor's name. `next` is the one offset at which its data can start
/// without an overlap or a hole.
fn read_tensor(cursor: &mut Cursor<'_>, name: &str, next: u64, alignment: u64) -> Result<TensorInfo, Error> {
    let start = cursor.position();
    let announced = cursor.u32()?;
    let dim_count = usize::try_from(announced).unwrap_or(usize::MAX);
    let mut dims = [1; limits::MAX_DIMENSIONS];
    let used = dims
        .get_mut(..dim_count)
        .filter(|used| !used.is_empty())
        .ok_or_else(|| dimension_count(u64::from(announced)).at(start))?;
    for dim in used.iter_mut() {
        *dim = cursor.u64()?;
    }
    let type_start = cursor.position();
    let type_id = cursor.u32()?;
    let tensor_type = TensorType::from_id(type_id).ok_or_else(|| {
        Error::new(Rule::TensorType, format_args!("a known type"), format_args!("{type_id}")).at(type_start)
    })?;
    let size = Size::of(tensor_type, used).map_err(|error| error.at(start))?;
    let offset_start = cursor.position();
    let offset = cursor.u64()?;
    let broken = if !offset.is_multiple_of(alignment) {
        Some(Error::new(
            Rule::OffsetAlignment,
            format_args!("a multiple of {alignment}"),
            format_args!("offset {offset}"),
        ))
    } else if offset != next {
        let rule = if offset < next { Rule::Overlap } else { Rule::Hole };
        Some(Error::new(rule, format_args!("offset {next}"), format_args!("{offset}")))
    } else {
        None
    };
    if let Some(error) = broken {
        return Err(error.at(offset_start));
    }
    Ok(TensorInfo { name: try_string(name)?, tensor_type, dims, dim_count, size, offset })
}

fn key_too_long(found: u64, most: usize) -> Error {
    let expected = format_args!("at most {most} bytes (or {})", raise!(key_bytes));
    Error::new(Rule::KeyTooLong, expected, format_args!("{found}"))
}

fn too_large(bytes: u64, start: u64) -> Error {
    Error::new(
        Rule::TensorTooLarge,
        format_args!("an end within {} bytes", u64::MAX),
        format_args!("{bytes} bytes from {start}"),
    )
}

fn truncated(end: u64, file_bytes: u64) -> Error {
    Error::new(
        Rule::DataTruncated,
        format_args!("a file of {end} bytes"),
        format_args!("{file_bytes}: {} bytes are missing", end - file_bytes),
    )
}
