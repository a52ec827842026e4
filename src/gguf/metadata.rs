//! The key-value pairs of a file, with getters that name the key they miss.

use std::collections::HashMap;

use super::error::{Error, Rule};
use super::limits;
use super::value::{Array, Value};

/// The keys and values of a file, in the file's order.
///
/// Two getters exist for each type: `u32(key)` for what has to be there, and `opt_u32(key)` for
/// what may be absent. Their errors name the key: [`Rule::KeyMissing`], [`Rule::WrongType`], and
/// [`Rule::ValueRange`] for an integer that does not fit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    /// Where in `entries` a key is. The default hasher is seeded at random, so that a file cannot
    /// be made to collide.
    index: HashMap<String, usize>,
}

impl Metadata {
    /// Metadata with no keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes room for as many keys as a file announces, all at once: growing step by step would
    /// take twice the memory.
    pub(super) fn try_reserve(&mut self, keys: usize) -> Result<(), Error> {
        self.entries.try_reserve_exact(keys)?;
        self.index.try_reserve(keys)?;
        Ok(())
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys and values in the order of the file, or of insertion.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key, of whatever type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let position = *self.index.get(key)?;
        self.entries.get(position).map(|(_, value)| value)
    }

    /// Adds a key at the end.
    ///
    /// # Errors
    /// [`Rule::KeyEmpty`], [`Rule::KeyTooLong`] or [`Rule::KeyNul`] for a key that no file can
    /// hold, [`Rule::KeyDuplicate`] for one that is there already, and [`Rule::OutOfMemory`].
    pub fn insert(&mut self, key: impl AsRef<str>, value: impl Into<Value>) -> Result<(), Error> {
        let key = check_key(key.as_ref().as_bytes())?;
        if self.index.contains_key(key) {
            let error = Error::new(
                Rule::KeyDuplicate,
                format_args!("each key once"),
                format_args!("it a second time"),
            );
            return Err(error.named(key));
        }
        self.entries.try_reserve(1)?;
        self.index.try_reserve(1)?;
        let (owned, indexed) = (try_string(key)?, try_string(key)?);
        self.index.insert(indexed, self.entries.len());
        self.entries.push((owned, value.into()));
        Ok(())
    }

    /// Gives a key a new value in its old place, or adds it at the end.
    ///
    /// # Errors
    /// Those of [`insert`](Self::insert), except for the duplicate.
    pub fn set(&mut self, key: impl AsRef<str>, value: impl Into<Value>) -> Result<(), Error> {
        let key = key.as_ref();
        let entry = self.index.get(key).and_then(|position| self.entries.get_mut(*position));
        match entry {
            Some((_, old)) => {
                *old = value.into();
                Ok(())
            }
            None => self.insert(key, value),
        }
    }

    /// Takes a key out, so that a large value need not be copied; `None` if the key is absent.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let position = self.index.remove(key)?;
        for later in self.index.values_mut().filter(|other| **other > position) {
            *later -= 1;
        }
        Some(self.entries.remove(position).1)
    }

    /// An integer of any width that fits.
    pub fn u32(&self, key: &str) -> Result<u32, Error> {
        required(key, "u32", self.opt_u32(key))
    }

    /// Like [`u32`](Self::u32); `None` if the key is absent.
    pub fn opt_u32(&self, key: &str) -> Result<Option<u32>, Error> {
        self.get(key)
            .map(|value| {
                let number = value.integer().ok_or_else(|| wrong(key, "u32", value))?;
                u32::try_from(number).map_err(|_| out_of_range(key, number))
            })
            .transpose()
    }

    /// A 32-bit float; any, also NaN and the infinities.
    pub fn f32(&self, key: &str) -> Result<f32, Error> {
        required(key, "f32", self.opt_f32(key))
    }

    /// Like [`f32`](Self::f32); `None` if the key is absent.
    pub fn opt_f32(&self, key: &str) -> Result<Option<f32>, Error> {
        self.typed(key, "f32", |value| match value {
            Value::F32(number) => Some(*number),
            _ => None,
        })
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<bool, Error> {
        required(key, "bool", self.opt_bool(key))
    }

    /// Like [`bool`](Self::bool); `None` if the key is absent.
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "bool", |value| match value {
            Value::Bool(truth) => Some(*truth),
            _ => None,
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str, Error> {
        required(key, "string", self.opt_str(key))
    }

    /// Like [`str`](Self::str); `None` if the key is absent.
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>, Error> {
        self.typed(key, "string", |value| match value {
            Value::String(string) => Some(string.as_str()),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<&[String], Error> {
        required(key, "array of string", self.opt_strings(key))
    }

    /// Like [`strings`](Self::strings); `None` if the key is absent.
    pub fn opt_strings(&self, key: &str) -> Result<Option<&[String]>, Error> {
        self.typed(key, "array of string", |value| match value {
            Value::Array(Array::String(strings)) => Some(strings.as_slice()),
            _ => None,
        })
    }

    /// An array of 32-bit floats.
    pub fn f32s(&self, key: &str) -> Result<&[f32], Error> {
        required(key, "array of f32", self.opt_f32s(key))
    }

    /// Like [`f32s`](Self::f32s); `None` if the key is absent.
    pub fn opt_f32s(&self, key: &str) -> Result<Option<&[f32]>, Error> {
        self.typed(key, "array of f32", |value| match value {
            Value::Array(Array::F32(numbers)) => Some(numbers.as_slice()),
            _ => None,
        })
    }

    /// An array of integers of any width that all fit. They are copied, because the `gguf` Python
    /// package stores what is meant to be unsigned as `i32`.
    pub fn u32s(&self, key: &str) -> Result<Vec<u32>, Error> {
        required(key, "array of u32", self.opt_u32s(key))
    }

    /// Like [`u32s`](Self::u32s); `None` if the key is absent.
    pub fn opt_u32s(&self, key: &str) -> Result<Option<Vec<u32>>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let Value::Array(array) = value else {
            return Err(wrong(key, "array of u32", value));
        };
        let mut numbers = Vec::new();
        numbers.try_reserve_exact(array.len())?;
        for position in 0..array.len() {
            let number = array.integer(position).ok_or_else(|| wrong(key, "array of u32", value))?;
            numbers.push(u32::try_from(number).map_err(|_| out_of_range(key, number))?);
        }
        Ok(Some(numbers))
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        convert: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.get(key).map(|value| convert(value).ok_or_else(|| wrong(key, expected, value))).transpose()
    }
}

/// Checks what the format asks of a key.
pub(super) fn check_key(key: &[u8]) -> Result<&str, Error> {
    if key.is_empty() {
        return Err(Error::new(Rule::KeyEmpty, format_args!("at least 1 byte"), format_args!("none")));
    }
    if key.len() > limits::KEY_BYTES {
        return Err(Error::new(
            Rule::KeyTooLong,
            format_args!("at most {} bytes", limits::KEY_BYTES),
            format_args!("{}", key.len()),
        ));
    }
    check_text(key, Rule::KeyNotUtf8, Rule::KeyNul)
}

/// Checks what the format asks of any text: that it is UTF-8, and that C's end of a string does
/// not cut it in two.
pub(super) fn check_text(bytes: &[u8], not_utf8: Rule, nul: Rule) -> Result<&str, Error> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let valid = error.valid_up_to();
        Error::new(
            not_utf8,
            format_args!("UTF-8"),
            format_args!("byte {:#04x} at position {valid}", bytes.get(valid).unwrap_or(&0)),
        )
    })?;
    match bytes.iter().position(|byte| *byte == 0) {
        Some(position) => {
            Err(Error::new(nul, format_args!("no NUL"), format_args!("one at position {position}")))
        }
        None => Ok(text),
    }
}

/// Copies a string; an error, not an abort, when there is no memory for it.
pub(super) fn try_string(text: &str) -> Result<String, Error> {
    let mut copy = String::new();
    copy.try_reserve_exact(text.len())?;
    copy.push_str(text);
    Ok(copy)
}

fn required<T>(key: &str, expected: &str, value: Result<Option<T>, Error>) -> Result<T, Error> {
    value?.ok_or_else(|| {
        Error::new(Rule::KeyMissing, format_args!("{expected}"), format_args!("no such key")).named(key)
    })
}

fn wrong(key: &str, expected: &str, value: &Value) -> Error {
    Error::new(Rule::WrongType, format_args!("{expected}"), format_args!("{}", value.type_name())).named(key)
}

fn out_of_range(key: &str, number: i128) -> Error {
    Error::new(Rule::ValueRange, format_args!("0 to {}", u32::MAX), format_args!("{number}")).named(key)
}
