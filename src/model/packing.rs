//! Files whose matrices are packed already.
//!
//! In such a file the tensor of a packed matrix is a row of bytes, in the order in which the kernels read them; its shape follows
//! from the configuration as that of any tensor does. The metadata says which tensors are packed, and of what elements.

use std::collections::BTreeMap;

use super::fused::element_of;
use super::{Config, Role, Tensor, tensors};
use crate::Error;
use crate::gguf::{self, Metadata, TensorInfo, TensorType};
use crate::kernels::{self, Element, InstructionSet, LAYOUT, Layout};

const LAYOUT_KEY: &str = "lxmert.pack.layout";
const TENSORS_KEY: &str = "lxmert.pack.tensors";
const ELEMENTS_KEY: &str = "lxmert.pack.elements";
const TYPES_KEY: &str = "lxmert.pack.types";
const ALIGNMENT_KEY: &str = "general.alignment";

/// Where packed tensors may start: at a cache line, since whole lines of them are read.
const ALIGNMENT: u32 = crate::ggml::ALIGNMENT as u32;

/// Which matrices of a file are packed, and how.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Packing {
    matrices: BTreeMap<String, PackedTensor>,
}

/// A packed matrix in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PackedTensor {
    layout: Layout,
    /// What its numbers were before.
    tensor_type: TensorType,
}

impl Packing {
    /// The name of the layout that files are packed in.
    pub const LAYOUT: &str = LAYOUT;

    /// Packs all matrices among these tensors, each with the type that it has, as a CPU with that instruction set would when it loads
    /// them.
    pub fn new<'t>(
        tensors: impl Iterator<Item = (&'t str, &'t [u64], Role, TensorType)>,
        set: InstructionSet,
    ) -> Self {
        let packed = |(name, dims, _, tensor_type): (&str, &[u64], _, _)| {
            let (inputs, outputs) = (dims[0] as usize, dims[1] as usize);
            let element = element_of(name, inputs, outputs, tensor_type, set.packs_bf16());
            (name.to_owned(), PackedTensor { layout: Layout { element, inputs, outputs }, tensor_type })
        };
        Packing { matrices: tensors.filter(|(_, _, role, _)| *role == Role::Matrix).map(packed).collect() }
    }

    /// Reads how a file is packed; `None` if it is not.
    ///
    /// # Errors
    /// [`Error::Packed`] for a layout that this build does not read; [`Error::Gguf`] and [`Error::Hyperparameter`] for what makes
    /// no sense.
    pub fn read(metadata: &Metadata, config: &Config) -> Result<Option<Self>, Error> {
        let Some(layout) = metadata.opt_str(LAYOUT_KEY)? else { return Ok(None) };
        if layout != LAYOUT {
            return Err(Error::Packed {
                layout: layout.to_owned(),
                problem: "which this build does not read",
                remedy: "with this version's lxmert-quantize",
            });
        }
        let names = metadata.strings(TENSORS_KEY)?;
        let (elements, types) = (metadata.strings(ELEMENTS_KEY)?, metadata.strings(TYPES_KEY)?);
        for (key, found) in [(ELEMENTS_KEY, elements.len()), (TYPES_KEY, types.len())] {
            if found != names.len() {
                return Err(wrong(
                    key,
                    format!("one for each of {} tensors", names.len()),
                    found.to_string(),
                ));
            }
        }
        let known: BTreeMap<String, Tensor> =
            tensors(config).into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
        let mut matrices = BTreeMap::new();
        for ((name, element), tensor_type) in names.iter().zip(elements).zip(types) {
            let matrix = known.get(name).filter(|tensor| tensor.role == Role::Matrix);
            let Some(Tensor { dims, .. }) = matrix else {
                return Err(wrong(TENSORS_KEY, "names of matrices".to_owned(), format!("{name:?}")));
            };
            let (inputs, outputs) = (dims[0] as usize, dims[1] as usize);
            let fitting = |known: &Element| known.name() == element && known.fits(inputs);
            let Some(element) = Element::ALL.into_iter().find(fitting) else {
                return Err(wrong(
                    ELEMENTS_KEY,
                    format!("elements for {inputs} inputs"),
                    format!("{element:?}"),
                ));
            };
            let numbers = |known: &TensorType| known.name() == tensor_type && !known.is_integer();
            let Some(tensor_type) = TensorType::ALL.into_iter().find(numbers) else {
                return Err(wrong(TYPES_KEY, "types of numbers".to_owned(), format!("{tensor_type:?}")));
            };
            let packed = PackedTensor { layout: Layout { element, inputs, outputs }, tensor_type };
            if matrices.insert(name.clone(), packed).is_some() {
                return Err(wrong(TENSORS_KEY, "each name once".to_owned(), format!("{name:?} twice")));
            }
        }
        Ok(Some(Packing { matrices }))
    }

    /// Writes what [`Packing::read`] reads, and has the tensors aligned.
    ///
    /// # Errors
    /// As [`Metadata::set`].
    pub fn write_metadata(&self, metadata: &mut Metadata) -> Result<(), gguf::Error> {
        let strings = |name: fn((&String, &PackedTensor)) -> String| {
            self.matrices.iter().map(name).collect::<Vec<String>>()
        };
        metadata.set(ALIGNMENT_KEY, ALIGNMENT)?;
        metadata.set(LAYOUT_KEY, LAYOUT)?;
        metadata.set(TENSORS_KEY, strings(|(name, _)| name.clone()))?;
        metadata.set(ELEMENTS_KEY, strings(|(_, packed)| packed.layout.element.name().to_owned()))?;
        metadata.set(TYPES_KEY, strings(|(_, packed)| packed.tensor_type.name().to_owned()))
    }

    /// Whether a file says that it is packed, in whatever way.
    pub fn is_in(metadata: &Metadata) -> bool {
        metadata.get(LAYOUT_KEY).is_some()
    }

    /// Whether what the metadata says of a key follows from this.
    pub fn decides(key: &str) -> bool {
        key == ALIGNMENT_KEY || key.starts_with("lxmert.pack.")
    }

    /// How many matrices are packed.
    pub fn len(&self) -> usize {
        self.matrices.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.matrices.is_empty()
    }

    /// Bytes of a tensor that is packed; `None` if it is not.
    pub fn bytes(&self, name: &str) -> Option<u64> {
        Some(self.layout(name)?.bytes() as u64)
    }

    /// The name of a packed tensor's elements.
    pub fn element(&self, name: &str) -> Option<&'static str> {
        Some(self.layout(name)?.element.name())
    }

    /// A packed tensor's shape, `[inputs, outputs]`, and the type of its numbers before.
    pub fn original(&self, name: &str) -> Option<([u64; 2], TensorType)> {
        let PackedTensor { layout, tensor_type } = self.matrices.get(name)?;
        Some(([layout.inputs as u64, layout.outputs as u64], *tensor_type))
    }

    /// Packs a tensor, its rows in its type coming piece by piece; `None` if it stays as it is.
    pub fn packer(&self, name: &str) -> Option<Packer> {
        let PackedTensor { layout, tensor_type } = self.matrices.get(name)?;
        Some(Packer(kernels::Packer::new(*layout, *tensor_type)))
    }

    /// How a matrix is packed, if it is.
    pub(crate) fn layout(&self, name: &str) -> Option<Layout> {
        Some(self.matrices.get(name)?.layout)
    }

    /// Checks that tensors begin with a cache line.
    pub(super) fn check_alignment(alignment: u64) -> Result<(), Error> {
        if alignment.is_multiple_of(u64::from(ALIGNMENT)) {
            return Ok(());
        }
        Err(wrong(
            ALIGNMENT_KEY,
            format!("a multiple of {ALIGNMENT} in a packed file"),
            alignment.to_string(),
        ))
    }

    /// Checks that a packed tensor is what it has to be.
    pub(super) fn check(&self, tensor: &TensorInfo) -> Result<(), Error> {
        let Some(bytes) = self.bytes(tensor.name()) else { return Ok(()) };
        let mismatch =
            |expected, found| Err(Error::Tensor { name: tensor.name().to_owned(), expected, found });
        if tensor.tensor_type() != TensorType::I8 || tensor.dims() != [bytes] {
            let (tensor_type, dims) = (tensor.tensor_type(), tensor.dims());
            return mismatch(
                format!("{bytes} packed bytes, type i8"),
                format!("shape {dims:?}, type {tensor_type}"),
            );
        }
        Ok(())
    }

    /// Whether some matrix is packed in these elements.
    pub(super) fn has(&self, element: Element) -> bool {
        self.matrices.values().any(|packed| packed.layout.element == element)
    }

    /// What stands in the way of those who do not read this layout.
    pub(crate) fn refusal(problem: &'static str, remedy: &'static str) -> Error {
        Error::Packed { layout: LAYOUT.to_owned(), problem, remedy }
    }
}

/// Packs one matrix.
pub struct Packer(kernels::Packer);

impl Packer {
    /// Takes some rows, and appends what of the packed tensor is complete.
    pub fn add(&mut self, rows: &[u8], packed: &mut Vec<u8>) {
        self.0.add(rows, packed);
    }

    /// Appends what comes after the last row.
    pub fn finish(self, packed: &mut Vec<u8>) {
        self.0.finish(packed);
    }
}

fn wrong(key: &str, expected: String, found: String) -> Error {
    Error::Hyperparameter { key: key.to_owned(), expected, found }
}
