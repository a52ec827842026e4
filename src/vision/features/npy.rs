//! NumPy's array format, versions 1 to 3.

use std::io::Read;

use half::f16;

use super::{Matrix, matrix_shape, too_many};
use crate::Limits;
use crate::vision::Error;

/// Longest header that is read, in bytes. NumPy itself stops at 10000.
const MAX_HEADER_BYTES: usize = 16 << 10;

/// More axes than any array here has, and enough to say which.
const MAX_AXES: usize = 8;

/// What stands in front of an array's data.
pub(super) struct Header {
    number: Number,
    big_endian: bool,
    fortran_order: bool,
    shape: Vec<usize>,
    values: usize,
}

#[derive(Clone, Copy)]
enum Number {
    F2,
    F4,
    F8,
    I1,
    I2,
    I4,
    I8,
    U1,
    U2,
    U4,
    U8,
}

/// An array of any shape, row by row.
pub(super) struct Array {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

impl Header {
    /// Reads up to the end of the header, so that the data comes next.
    pub(super) fn read(name: &str, reader: &mut impl Read, limits: &Limits) -> Result<Self, Error> {
        let mut fixed = |buffer: &mut [u8]| {
            reader
                .read_exact(buffer)
                .map_err(|error| Error::array(name, format!("header cannot be read: {error}")))
        };
        let mut start = [0; 8];
        fixed(&mut start)?;
        if &start[..6] != b"\x93NUMPY" {
            return Err(Error::array(name, "is not in NumPy's .npy format"));
        }
        let len = match start[6] {
            1 => {
                let mut len = [0; 2];
                fixed(&mut len)?;
                usize::from(u16::from_le_bytes(len))
            }
            2 | 3 => {
                let mut len = [0; 4];
                fixed(&mut len)?;
                u32::from_le_bytes(len) as usize
            }
            version => {
                return Err(Error::array(
                    name,
                    format!("has .npy version {version}; 1, 2 and 3 can be read"),
                ));
            }
        };
        if len > MAX_HEADER_BYTES {
            return Err(Error::array(
                name,
                format!("has a header of {len} bytes; at most {MAX_HEADER_BYTES} are read"),
            ));
        }
        let mut text = vec![0; len];
        fixed(&mut text)?;
        Dictionary::parse(&text)
            .and_then(|dictionary| Header::from_dictionary(dictionary, limits))
            .map_err(|reason| Error::array(name, reason))
    }

    fn from_dictionary(dictionary: Dictionary, limits: &Limits) -> Result<Self, String> {
        let descr = dictionary.descr.ok_or("has no descr in its header")?;
        let shape = dictionary.shape.ok_or("has no shape in its header")?;
        let fortran_order = dictionary.fortran_order.ok_or("has no fortran_order in its header")?;
        let (order, kind) = match descr.split_at_checked(1) {
            Some(parts @ ("<" | ">" | "|" | "=", _)) => parts,
            _ => ("", descr.as_str()),
        };
        let number = match kind {
            "f2" => Number::F2,
            "f4" => Number::F4,
            "f8" => Number::F8,
            "i1" => Number::I1,
            "i2" => Number::I2,
            "i4" => Number::I4,
            "i8" => Number::I8,
            "u1" => Number::U1,
            "u2" => Number::U2,
            "u4" => Number::U4,
            "u8" => Number::U8,
            _ => {
                return Err(format!("is of type {descr:?}; expected numbers, such as \"<f4\""));
            }
        };
        let values = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
        match values {
            Some(values) if values <= limits.feature_values => {
                Ok(Self { number, big_endian: order == ">", fortran_order, shape, values })
            }
            _ => Err(too_many(&shape, limits)),
        }
    }

    /// Bytes of data that follow the header.
    pub(super) fn data_len(&self) -> usize {
        self.values * self.number.size()
    }
}

impl Number {
    fn size(self) -> usize {
        match self {
            Number::I1 | Number::U1 => 1,
            Number::F2 | Number::I2 | Number::U2 => 2,
            Number::F4 | Number::I4 | Number::U4 => 4,
            Number::F8 | Number::I8 | Number::U8 => 8,
        }
    }

    fn values(self, data: &[u8], big_endian: bool) -> Vec<f32> {
        match self {
            Number::F2 => each(data, big_endian, |b| f16::from_le_bytes(b).to_f32()),
            Number::F4 => each(data, big_endian, f32::from_le_bytes),
            Number::F8 => each(data, big_endian, |b| f64::from_le_bytes(b) as f32),
            Number::I1 => each(data, big_endian, |b| i8::from_le_bytes(b).into()),
            Number::I2 => each(data, big_endian, |b| i16::from_le_bytes(b).into()),
            Number::I4 => each(data, big_endian, |b| i32::from_le_bytes(b) as f32),
            Number::I8 => each(data, big_endian, |b| i64::from_le_bytes(b) as f32),
            Number::U1 => each(data, big_endian, |b| u8::from_le_bytes(b).into()),
            Number::U2 => each(data, big_endian, |b| u16::from_le_bytes(b).into()),
            Number::U4 => each(data, big_endian, |b| u32::from_le_bytes(b) as f32),
            Number::U8 => each(data, big_endian, |b| u64::from_le_bytes(b) as f32),
        }
    }
}

fn each<const N: usize>(data: &[u8], big_endian: bool, number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (chunks, _) = data.as_chunks::<N>();
    chunks
        .iter()
        .map(|&(mut bytes)| {
            if big_endian {
                bytes.reverse();
            }
            number(bytes)
        })
        .collect()
}

impl Array {
    /// Parses a whole `.npy` file.
    pub(super) fn parse(name: &str, mut bytes: &[u8], limits: &Limits) -> Result<Self, Error> {
        let header = Header::read(name, &mut bytes, limits)?;
        Self::new(name, header, bytes)
    }

    /// Takes the data that follows a header; it must be as long as the header says.
    pub(super) fn new(name: &str, header: Header, data: &[u8]) -> Result<Self, Error> {
        let wanted = header.data_len();
        if data.len() != wanted {
            let found = if data.len() < wanted {
                "is cut short; it has"
            } else {
                "has more data than its shape asks for:"
            };
            return Err(Error::array(
                name,
                format!("{found} {} bytes, and shape {:?} takes {wanted}", data.len(), header.shape),
            ));
        }
        let mut values = header.number.values(data, header.big_endian);
        if header.fortran_order {
            values = row_by_row(&values, &header.shape);
        }
        Ok(Self { name: name.into(), shape: header.shape, values })
    }

    pub(super) fn matrix(self, limits: &Limits) -> Result<Matrix, Error> {
        let (rows, columns) = matrix_shape(&self.name, &self.shape, limits)?;
        Ok(Matrix { name: self.name, rows, columns, values: self.values })
    }

    /// The one value of an array without axes, or with axes of length 1.
    pub(super) fn scalar(self) -> Result<f32, Error> {
        match self.values.as_slice() {
            [value] => Ok(*value),
            _ => Err(Error::array(self.name, format!("has shape {:?}; expected one number", self.shape))),
        }
    }
}

/// Reorders values that are stored with the first axis fastest.
fn row_by_row(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for axis in shape {
        strides.push(stride);
        stride *= axis;
    }
    let mut place = vec![0; shape.len()];
    let mut offset = 0;
    let mut ordered = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        ordered.push(values[offset]);
        for axis in (0..shape.len()).rev() {
            place[axis] += 1;
            offset += strides[axis];
            if place[axis] < shape[axis] {
                break;
            }
            offset -= strides[axis] * shape[axis];
            place[axis] = 0;
        }
    }
    ordered
}

/// The header's text: a dictionary as Python prints it, with these three keys.
#[derive(Default)]
struct Dictionary {
    descr: Option<String>,
    fortran_order: Option<bool>,
    shape: Option<Vec<usize>>,
}

impl Dictionary {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(text).map_err(|_| "has a header that is not UTF-8")?;
        let mut scanner = Scanner { rest: text.trim_end() };
        let mut dictionary = Self::default();
        scanner.expect('{')?;
        while !scanner.accept('}') {
            let key = scanner.string()?;
            scanner.expect(':')?;
            match key {
                "descr" => dictionary.descr = Some(scanner.string()?.into()),
                "fortran_order" => dictionary.fortran_order = Some(scanner.boolean()?),
                "shape" => dictionary.shape = Some(scanner.tuple()?),
                _ => return Err("has an unknown key in its header".into()),
            }
            if !scanner.accept(',') {
                scanner.expect('}')?;
                break;
            }
        }
        if scanner.rest.is_empty() {
            Ok(dictionary)
        } else {
            Err("has text after its header's dictionary".into())
        }
    }
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn accept(&mut self, wanted: char) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.accept(wanted) {
            Ok(())
        } else {
            let found: String = self.rest.chars().take(20).collect();
            Err(format!(
                "has {found:?} in its header where {wanted:?} is expected; only plain numbers can be read"
            ))
        }
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.accept('"') { '"' } else { '\'' };
        if quote == '\'' {
            self.expect(quote)?;
        }
        let (string, rest) = self.rest.split_once(quote).ok_or("has an unfinished string in its header")?;
        self.rest = rest;
        Ok(string)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.rest = self.rest.trim_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err("has neither True nor False as fortran_order".into())
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut axes = Vec::new();
        while !self.accept(')') {
            if axes.len() == MAX_AXES {
                return Err(format!("has more than {MAX_AXES} axes"));
            }
            axes.push(self.number()?);
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        Ok(axes)
    }

    fn number(&mut self) -> Result<usize, String> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        // Python 2 marks long numbers.
        self.rest = rest.strip_prefix('L').unwrap_or(rest);
        digits.parse().map_err(|_| "has a shape in its header that is no list of sizes".into())
    }
}
