//! A header as bytes.

use super::error::Error;
use super::header::{Header, alignment};
use super::metadata::Metadata;
use super::tensor::{Size, TensorSpec};
use super::value::{Array, Value, id};
use super::{MAGIC, VERSION};
use crate::Limits;

/// A header as bytes, padded to where the data starts, and what the reader makes of it.
///
/// The reader itself checks what was encoded, so there is one set of rules, and nothing can be
/// written that would not be read.
pub(super) fn encode(metadata: &Metadata, tensors: &[TensorSpec]) -> Result<(Vec<u8>, Header), Error> {
    let alignment = alignment(metadata)?;
    let mut out = Encoder(Vec::new());
    out.put(&MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    out.count(tensors.len())?;
    out.count(metadata.len())?;
    for (key, value) in metadata.iter() {
        out.string(key)?;
        out.value(value)?;
    }
    let mut offset = 0u64;
    for tensor in tensors {
        let size = Size::of(tensor.tensor_type, &tensor.dims).map_err(|error| error.named(&tensor.name))?;
        out.string(&tensor.name)?;
        out.put(&(tensor.dims.len() as u32).to_le_bytes())?;
        for dim in &tensor.dims {
            out.put(&dim.to_le_bytes())?;
        }
        out.put(&tensor.tensor_type.id().to_le_bytes())?;
        out.put(&offset.to_le_bytes())?;
        // An end that no file can have is found by the reader below.
        offset = offset.saturating_add(size.bytes).checked_next_multiple_of(alignment).unwrap_or(u64::MAX);
    }
    let mut bytes = out.0;
    let start = (bytes.len() as u64).next_multiple_of(alignment);
    let end = usize::try_from(start.saturating_add(offset)).unwrap_or(usize::MAX);
    let header = Header::lay_out(&bytes, end, &Limits::DEFAULT).map_err(|mut error| {
        // There is no file yet in which anybody could look at the place.
        error.offset = None;
        error
    })?;
    let padding = start as usize - bytes.len();
    bytes.try_reserve_exact(padding)?;
    bytes.resize(start as usize, 0);
    Ok((bytes, header))
}

struct Encoder(Vec<u8>);

impl Encoder {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.0.try_reserve(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn count(&mut self, count: usize) -> Result<(), Error> {
        self.put(&(count as u64).to_le_bytes())
    }

    fn string(&mut self, string: &str) -> Result<(), Error> {
        self.count(string.len())?;
        self.put(string.as_bytes())
    }

    /// A type, followed by a scalar's bytes.
    fn scalar(&mut self, type_id: u32, bytes: &[u8]) -> Result<(), Error> {
        self.put(&type_id.to_le_bytes())?;
        self.put(bytes)
    }

    /// The type `array`, the elements' type and number, and the elements.
    fn array<const N: usize, T: Copy>(
        &mut self,
        type_id: u32,
        items: &[T],
        encode: impl Fn(T) -> [u8; N],
    ) -> Result<(), Error> {
        self.scalar(id::ARRAY, &type_id.to_le_bytes())?;
        self.count(items.len())?;
        for item in items {
            self.put(&encode(*item))?;
        }
        Ok(())
    }

    fn value(&mut self, value: &Value) -> Result<(), Error> {
        match value {
            Value::U8(number) => self.scalar(id::U8, &number.to_le_bytes()),
            Value::I8(number) => self.scalar(id::I8, &number.to_le_bytes()),
            Value::U16(number) => self.scalar(id::U16, &number.to_le_bytes()),
            Value::I16(number) => self.scalar(id::I16, &number.to_le_bytes()),
            Value::U32(number) => self.scalar(id::U32, &number.to_le_bytes()),
            Value::I32(number) => self.scalar(id::I32, &number.to_le_bytes()),
            Value::U64(number) => self.scalar(id::U64, &number.to_le_bytes()),
            Value::I64(number) => self.scalar(id::I64, &number.to_le_bytes()),
            Value::F32(number) => self.scalar(id::F32, &number.to_le_bytes()),
            Value::F64(number) => self.scalar(id::F64, &number.to_le_bytes()),
            Value::Bool(truth) => self.scalar(id::BOOL, &[u8::from(*truth)]),
            Value::String(string) => {
                self.put(&id::STRING.to_le_bytes())?;
                self.string(string)
            }
            Value::Array(array) => self.array_value(array),
        }
    }

    fn array_value(&mut self, array: &Array) -> Result<(), Error> {
        match array {
            Array::U8(items) => self.array(id::U8, items, u8::to_le_bytes),
            Array::I8(items) => self.array(id::I8, items, i8::to_le_bytes),
            Array::U16(items) => self.array(id::U16, items, u16::to_le_bytes),
            Array::I16(items) => self.array(id::I16, items, i16::to_le_bytes),
            Array::U32(items) => self.array(id::U32, items, u32::to_le_bytes),
            Array::I32(items) => self.array(id::I32, items, i32::to_le_bytes),
            Array::U64(items) => self.array(id::U64, items, u64::to_le_bytes),
            Array::I64(items) => self.array(id::I64, items, i64::to_le_bytes),
            Array::F32(items) => self.array(id::F32, items, f32::to_le_bytes),
            Array::F64(items) => self.array(id::F64, items, f64::to_le_bytes),
            Array::Bool(items) => self.array(id::BOOL, items, |truth| [u8::from(truth)]),
            Array::String(items) => {
                self.scalar(id::ARRAY, &id::STRING.to_le_bytes())?;
                self.count(items.len())?;
                items.iter().try_for_each(|item| self.string(item))
            }
        }
    }
}
