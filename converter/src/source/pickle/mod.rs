//! Reads the pickles of `torch.save`, as far as a state dict goes.
//!
//! A pickle is a program for a stack machine that may call any function of Python, which is how such files
//! take over the machines of those who load them. Here nothing is called: the [`machine`](self) builds
//! dictionaries, lists, tuples, numbers and texts, and of all functions and classes it knows the few
//! that tensors are made of, each as a case of its own. Everything else is an error that names what the file
//! asked for.
//!
//! Objects lie in one list and refer to each other by number, so a pickle that nests without end or contains
//! itself costs neither recursion nor more memory than [`Limits::pickle_objects`](lxmert::Limits) allows.

mod globals;
mod machine;

use std::collections::HashMap;
use std::fmt;

pub(super) use globals::{Dtype, StorageType};
pub(super) use machine::load;

/// The most axes of a tensor.
const MAX_RANK: usize = 8;

/// An object's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(u32);

/// What a pickle can hold here. Texts are those of the file.
#[derive(Clone, Debug)]
pub(super) enum Object<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than eight bytes, little endian.
    Long(&'a [u8]),
    /// A float, whose value nobody needs.
    Float,
    Str(&'a str),
    /// Bytes, which nobody needs.
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// A dictionary, ordered or not, with its entries in the file's order.
    Dict(Vec<(Id, Id)>),
    /// A known function or class.
    Global(globals::Global),
    Storage(Storage<'a>),
    Tensor(Tensor<'a>),
}

/// The numbers that tensors are views of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Storage<'a> {
    /// By which the file finds them.
    pub key: &'a str,
    pub storage_type: StorageType,
    /// Elements; bytes of an untyped storage.
    pub len: u64,
}

/// A view of a storage. Offset and strides count elements.
#[derive(Clone, Debug)]
pub(super) struct Tensor<'a> {
    pub storage: Storage<'a>,
    pub dtype: Dtype,
    pub offset: u64,
    pub shape: Vec<u64>,
    pub strides: Vec<u64>,
}

/// A pickle that was run.
pub(super) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Id,
    /// How many bytes it took up.
    pub len: usize,
}

impl<'a> Pickle<'a> {
    /// The object that the pickle is of.
    pub fn root(&self) -> &Object<'a> {
        self.get(self.root)
    }

    pub fn get(&self, id: Id) -> &Object<'a> {
        &self.objects[id.0 as usize]
    }

    /// Every storage by its key.
    pub fn storages(&self) -> Result<HashMap<&'a str, Storage<'a>>, String> {
        let mut storages = HashMap::new();
        for object in &self.objects {
            if let Object::Storage(storage) = object
                && storages.insert(storage.key, *storage).is_some_and(|other| other != *storage)
            {
                return Err(format!("storage {:?} has several types or sizes", storage.key));
            }
        }
        Ok(storages)
    }

    /// The value of a text key in a dictionary.
    pub fn entry(&self, dict: &[(Id, Id)], key: &str) -> Option<&Object<'a>> {
        let is_key = |id| matches!(self.get(id), Object::Str(text) if *text == key);
        dict.iter().find(|(id, _)| is_key(*id)).map(|(_, value)| self.get(*value))
    }
}

impl Object<'_> {
    /// The kind in words.
    fn kind(&self) -> &'static str {
        match self {
            Object::None => "None",
            Object::Bool(_) => "a bool",
            Object::Int(_) | Object::Long(_) => "an integer",
            Object::Float => "a float",
            Object::Str(_) => "a text",
            Object::Bytes => "bytes",
            Object::Tuple(_) => "a tuple",
            Object::List(_) => "a list",
            Object::Dict(_) => "a dictionary",
            Object::Global(_) => "a function or class",
            Object::Storage(_) => "a storage",
            Object::Tensor(_) => "a tensor",
        }
    }
}

/// Why a pickle was refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(String);

impl Refusal {
    fn new(reason: impl Into<String>) -> Self {
        Refusal(reason.into())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
