//! The rules of the format, and how a file broke one.

use std::collections::TryReserveError;
use std::fmt::{self, Write};

/// A rule that a file, or the parts of a file to be written, can break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Rule {
    /// A file holds at least the fixed fields: magic, version and two counts.
    TooShort,
    /// A file starts with `GGUF`.
    Magic,
    /// Numbers are little endian.
    ByteOrder,
    /// The version is 3.
    Version,
    /// As many tensors as announced fit into the rest of the file.
    TensorCount,
    /// There are at most [`Limits::tensors`](crate::Limits::tensors).
    TooManyTensors,
    /// As many keys as announced fit into the rest of the file.
    KeyCount,
    /// There are at most [`Limits::metadata_keys`](crate::Limits::metadata_keys).
    TooManyKeys,
    /// No field of the header lies beyond the end of the file.
    HeaderTruncated,
    /// The header stays within [`Limits::header_bytes`](crate::Limits::header_bytes).
    HeaderTooLarge,
    /// The vocabulary stays within [`Limits::vocabulary_bytes`](crate::Limits::vocabulary_bytes).
    VocabularyTooLarge,
    /// A key is not empty.
    KeyEmpty,
    /// A key has at most [`Limits::key_bytes`](crate::Limits::key_bytes).
    KeyTooLong,
    /// A key is UTF-8.
    KeyNotUtf8,
    /// A key holds no NUL.
    KeyNul,
    /// No key comes twice.
    KeyDuplicate,
    /// A value's type is one of the format's 13.
    ValueType,
    /// A bool is stored as 0 or 1.
    BoolValue,
    /// A string ends before the file does.
    StringLength,
    /// A string has at most [`Limits::string_bytes`](crate::Limits::string_bytes).
    StringTooLong,
    /// A string is UTF-8.
    StringNotUtf8,
    /// A string holds no NUL.
    StringNul,
    /// The type of an array's elements is one of the format's.
    ArrayType,
    /// Arrays hold no arrays.
    ArrayNested,
    /// An array ends before the file does.
    ArrayLength,
    /// The alignment is a `u32`, a power of two and in
    /// [`limits::ALIGNMENTS`](super::limits::ALIGNMENTS).
    Alignment,
    /// A tensor's name is not empty.
    TensorNameEmpty,
    /// A tensor's name has at most
    /// [`limits::TENSOR_NAME_BYTES`](super::limits::TENSOR_NAME_BYTES).
    TensorNameTooLong,
    /// A tensor's name is UTF-8.
    TensorNameNotUtf8,
    /// A tensor's name holds no NUL.
    TensorNameNul,
    /// No tensor's name comes twice.
    TensorNameDuplicate,
    /// A tensor has one to four dimensions.
    DimensionCount,
    /// No dimension is zero.
    DimensionZero,
    /// A tensor's type is a [`TensorType`](super::TensorType).
    TensorType,
    /// The product of a tensor's dimensions, and the bytes of its data, are within
    /// [`limits::TENSOR_SIZE`](super::limits::TENSOR_SIZE).
    TensorTooLarge,
    /// A row is a whole number of the type's blocks.
    RowLength,
    /// A tensor's data starts at a multiple of the alignment.
    OffsetAlignment,
    /// A tensor's data starts no earlier than the one before ends.
    Overlap,
    /// A tensor's data starts no later than the one before ends, padding included.
    Hole,
    /// All tensors' data lies inside the file.
    DataTruncated,
    /// The file ends with the last tensor's padding.
    TrailingBytes,
    /// Padding is zero.
    Padding,
    /// The checksums of a file are numbers, one for each tensor.
    Checksums,
    /// The header is what it was when its checksum was made.
    HeaderChecksum,
    /// A key that is asked for exists.
    KeyMissing,
    /// A key's value has the type that is asked for.
    WrongType,
    /// A number fits the type that is asked for.
    ValueRange,
    /// There is memory enough for the header.
    OutOfMemory,
}

impl Rule {
    /// What is wrong where the rule is broken, in a few words.
    pub const fn description(self) -> &'static str {
        match self {
            Self::TooShort => "file too short",
            Self::Magic => "not a GGUF file",
            Self::ByteOrder => "big-endian file",
            Self::Version => "unsupported version",
            Self::TensorCount => "impossible number of tensors",
            Self::TooManyTensors => "too many tensors",
            Self::KeyCount => "impossible number of keys",
            Self::TooManyKeys => "too many keys",
            Self::HeaderTruncated => "header cut short",
            Self::HeaderTooLarge => "header too large",
            Self::VocabularyTooLarge => "vocabulary too large",
            Self::KeyEmpty => "empty key",
            Self::KeyTooLong => "key too long",
            Self::KeyNotUtf8 => "key not UTF-8",
            Self::KeyNul => "NUL in a key",
            Self::KeyDuplicate => "duplicate key",
            Self::ValueType => "unknown value type",
            Self::BoolValue => "malformed bool",
            Self::StringLength => "string beyond the end of the file",
            Self::StringTooLong => "string too long",
            Self::StringNotUtf8 => "string not UTF-8",
            Self::StringNul => "NUL in a string",
            Self::ArrayType => "unknown type of array elements",
            Self::ArrayNested => "nested array",
            Self::ArrayLength => "array beyond the end of the file",
            Self::Alignment => "unusable alignment",
            Self::TensorNameEmpty => "empty tensor name",
            Self::TensorNameTooLong => "tensor name too long",
            Self::TensorNameNotUtf8 => "tensor name not UTF-8",
            Self::TensorNameNul => "NUL in a tensor name",
            Self::TensorNameDuplicate => "duplicate tensor name",
            Self::DimensionCount => "unsupported number of dimensions",
            Self::DimensionZero => "zero dimension",
            Self::TensorType => "unknown tensor type",
            Self::TensorTooLarge => "tensor too large",
            Self::RowLength => "row is no whole number of blocks",
            Self::OffsetAlignment => "misaligned data",
            Self::Overlap => "overlapping data",
            Self::Hole => "hole before the data",
            Self::DataTruncated => "data cut short",
            Self::TrailingBytes => "trailing bytes",
            Self::Padding => "padding not zero",
            Self::Checksums => "unusable checksums",
            Self::HeaderChecksum => "damaged header",
            Self::KeyMissing => "missing key",
            Self::WrongType => "wrong type",
            Self::ValueRange => "value out of range",
            Self::OutOfMemory => "out of memory",
        }
    }

    /// What [`Error::name`] is the name of; nothing where the rule alone does not tell.
    const fn subject(self) -> &'static str {
        match self {
            Self::VocabularyTooLarge
            | Self::KeyEmpty
            | Self::KeyTooLong
            | Self::KeyNotUtf8
            | Self::KeyNul
            | Self::KeyDuplicate
            | Self::ValueType
            | Self::BoolValue
            | Self::StringLength
            | Self::StringTooLong
            | Self::StringNotUtf8
            | Self::StringNul
            | Self::ArrayType
            | Self::ArrayNested
            | Self::ArrayLength
            | Self::Alignment
            | Self::Checksums
            | Self::KeyMissing
            | Self::WrongType
            | Self::ValueRange => "key ",
            Self::TensorNameEmpty
            | Self::TensorNameTooLong
            | Self::TensorNameNotUtf8
            | Self::TensorNameNul
            | Self::TensorNameDuplicate
            | Self::DimensionCount
            | Self::DimensionZero
            | Self::TensorType
            | Self::TensorTooLarge
            | Self::RowLength
            | Self::OffsetAlignment
            | Self::Overlap
            | Self::Hole
            | Self::DataTruncated
            | Self::Padding => "tensor ",
            Self::TooShort
            | Self::Magic
            | Self::ByteOrder
            | Self::Version
            | Self::TensorCount
            | Self::TooManyTensors
            | Self::KeyCount
            | Self::TooManyKeys
            | Self::HeaderTruncated
            | Self::HeaderTooLarge
            | Self::TrailingBytes
            | Self::HeaderChecksum
            | Self::OutOfMemory => "",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.description())
    }
}

/// A broken rule, and where.
///
/// Displays as one line, with whatever the file calls its parts escaped, so that it is safe to
/// print: `tensor "a.weight" at byte 311: overlapping data: expected offset 1024, found 512`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The rule that is broken.
    pub rule: Rule,
    /// The tensor's name or the key, where one could be read.
    pub name: Option<String>,
    /// The byte of the file, counted from its start, at which the offending field begins. Absent
    /// where no file is involved, as when a key is asked for that is not there.
    pub offset: Option<u64>,
    /// What the rule asks for. Empty for [`Rule::OutOfMemory`].
    pub expected: String,
    /// What is there instead. Empty for [`Rule::OutOfMemory`].
    pub found: String,
}

impl Error {
    pub(super) fn new(rule: Rule, expected: fmt::Arguments<'_>, found: fmt::Arguments<'_>) -> Self {
        Self { rule, name: None, offset: None, expected: text(expected), found: text(found) }
    }

    /// Says where the field begins, unless something closer to it has said so already.
    pub(super) fn at(mut self, offset: usize) -> Self {
        self.offset.get_or_insert(offset as u64);
        self
    }

    /// Says which key or tensor it is about.
    pub(super) fn named(mut self, name: &str) -> Self {
        if self.name.is_none() {
            self.name = Some(text(format_args!("{name}")));
        }
        self
    }

    fn out_of_memory() -> Self {
        Self {
            rule: Rule::OutOfMemory,
            name: None,
            offset: None,
            expected: String::new(),
            found: String::new(),
        }
    }
}

/// Formats like `format!`, but leaves out what there is no memory for: a report of a broken file
/// must not end the process.
fn text(arguments: fmt::Arguments<'_>) -> String {
    struct Fallible(String);

    impl Write for Fallible {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            self.0.try_reserve(part.len()).map_err(|_| fmt::Error)?;
            self.0.push_str(part);
            Ok(())
        }
    }

    let mut written = Fallible(String::new());
    // An error leaves a shorter text, which is all that can be done about it.
    let _ = written.write_fmt(arguments);
    written.0
}

impl From<TryReserveError> for Error {
    fn from(_: TryReserveError) -> Self {
        Self::out_of_memory()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{}{}", self.rule.subject(), crate::shown(format_args!("{name:?}")))?;
        }
        if let Some(offset) = self.offset {
            let separator = if self.name.is_some() { " " } else { "" };
            write!(f, "{separator}at byte {offset}")?;
        }
        if self.name.is_some() || self.offset.is_some() {
            f.write_str(": ")?;
        }
        write!(f, "{}", self.rule)?;
        if !(self.expected.is_empty() && self.found.is_empty()) {
            write!(f, ": expected {}, found {}", self.expected, self.found)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
