//! The types of metadata values.

/// The numbers by which a file tells the types of values apart.
pub(super) mod id {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // Each variant is what its name says.
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// A metadata array. Its elements have one type and are no arrays themselves: the format would
/// allow it, but no file has them, and readers that followed them have run out of stack.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)] // Each variant is what its name says.
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

impl Value {
    /// The type in words, such as `u32` or `array of string`.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "u8",
            Self::I8(_) => "i8",
            Self::U16(_) => "u16",
            Self::I16(_) => "i16",
            Self::U32(_) => "u32",
            Self::I32(_) => "i32",
            Self::F32(_) => "f32",
            Self::Bool(_) => "bool",
            Self::String(_) => "string",
            Self::Array(array) => array.type_name(),
            Self::U64(_) => "u64",
            Self::I64(_) => "i64",
            Self::F64(_) => "f64",
        }
    }

    /// The value of an integer of any width; `None` for everything else.
    pub(super) const fn integer(&self) -> Option<i128> {
        match self {
            Self::U8(value) => Some(*value as i128),
            Self::I8(value) => Some(*value as i128),
            Self::U16(value) => Some(*value as i128),
            Self::I16(value) => Some(*value as i128),
            Self::U32(value) => Some(*value as i128),
            Self::I32(value) => Some(*value as i128),
            Self::U64(value) => Some(*value as i128),
            Self::I64(value) => Some(*value as i128),
            _ => None,
        }
    }
}

impl Array {
    /// How many elements there are.
    pub const fn len(&self) -> usize {
        match self {
            Self::U8(items) => items.len(),
            Self::I8(items) => items.len(),
            Self::U16(items) => items.len(),
            Self::I16(items) => items.len(),
            Self::U32(items) => items.len(),
            Self::I32(items) => items.len(),
            Self::F32(items) => items.len(),
            Self::Bool(items) => items.len(),
            Self::String(items) => items.len(),
            Self::U64(items) => items.len(),
            Self::I64(items) => items.len(),
            Self::F64(items) => items.len(),
        }
    }

    /// Whether there is no element.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type in words, such as `array of u32`.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::U8(_) => "array of u8",
            Self::I8(_) => "array of i8",
            Self::U16(_) => "array of u16",
            Self::I16(_) => "array of i16",
            Self::U32(_) => "array of u32",
            Self::I32(_) => "array of i32",
            Self::F32(_) => "array of f32",
            Self::Bool(_) => "array of bool",
            Self::String(_) => "array of string",
            Self::U64(_) => "array of u64",
            Self::I64(_) => "array of i64",
            Self::F64(_) => "array of f64",
        }
    }

    /// One element of an array of integers of any width; `None` for other arrays and past the end.
    pub(super) fn integer(&self, position: usize) -> Option<i128> {
        match self {
            Self::U8(items) => items.get(position).map(|item| i128::from(*item)),
            Self::I8(items) => items.get(position).map(|item| i128::from(*item)),
            Self::U16(items) => items.get(position).map(|item| i128::from(*item)),
            Self::I16(items) => items.get(position).map(|item| i128::from(*item)),
            Self::U32(items) => items.get(position).map(|item| i128::from(*item)),
            Self::I32(items) => items.get(position).map(|item| i128::from(*item)),
            Self::U64(items) => items.get(position).map(|item| i128::from(*item)),
            Self::I64(items) => items.get(position).map(|item| i128::from(*item)),
            Self::F32(_) | Self::Bool(_) | Self::String(_) | Self::F64(_) => None,
        }
    }
}

macro_rules! from {
    ($($variant:ident: $type:ty),* $(,)?) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Self::$variant(value)
            }
        }

        impl From<Vec<$type>> for Value {
            fn from(items: Vec<$type>) -> Self {
                Self::Array(Array::$variant(items))
            }
        }
    )*};
}

from!(
    U8: u8, I8: i8, U16: u16, I16: i16, U32: u32, I32: i32, U64: u64, I64: i64,
    F32: f32, F64: f64, Bool: bool, String: String,
);

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::String(value.to_string())
    }
}

impl From<Array> for Value {
    fn from(items: Array) -> Self {
        Self::Array(items)
    }
}
