//! The functions and classes that a state dict's pickle may name, and what calling them makes.

use super::machine::Machine;
use super::{Id, MAX_RANK, Object, Refusal, Storage, Tensor};

/// A known function or class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    StorageType(StorageType),
    Dtype(Dtype),
}

/// Element types, named as in safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) enum Dtype {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

/// What a storage's class tells about its elements: nothing, if it is untyped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::source) struct StorageType(pub Option<Dtype>);

/// Each element type with the name of its storage class and the names of the type itself in `torch`.
const DTYPES: [(Dtype, &str, &[&str]); 10] = [
    (Dtype::F64, "DoubleStorage", &["float64", "double"]),
    (Dtype::F32, "FloatStorage", &["float32", "float"]),
    (Dtype::F16, "HalfStorage", &["float16", "half"]),
    (Dtype::BF16, "BFloat16Storage", &["bfloat16"]),
    (Dtype::I64, "LongStorage", &["int64", "long"]),
    (Dtype::I32, "IntStorage", &["int32", "int"]),
    (Dtype::I16, "ShortStorage", &["int16", "short"]),
    (Dtype::I8, "CharStorage", &["int8"]),
    (Dtype::U8, "ByteStorage", &["uint8"]),
    (Dtype::Bool, "BoolStorage", &["bool"]),
];

impl Dtype {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::F64 | Dtype::I64 => 8,
            Dtype::F32 | Dtype::I32 => 4,
            Dtype::F16 | Dtype::BF16 | Dtype::I16 => 2,
            Dtype::I8 | Dtype::U8 | Dtype::Bool => 1,
        }
    }
}

impl StorageType {
    /// Bytes of an element.
    pub fn bytes(self) -> u64 {
        self.0.map_or(1, Dtype::bytes)
    }
}

impl Global {
    /// The function or class of that name.
    pub fn find(module: &str, name: &str) -> Result<Self, Refusal> {
        let dtype = |names: fn(&(Dtype, &'static str, &'static [&'static str]), &str) -> bool| {
            DTYPES.iter().find(|entry| names(entry, name)).map(|(dtype, ..)| *dtype)
        };
        let storage = || dtype(|(_, class, _), name| *class == name).map(|dtype| StorageType(Some(dtype)));
        let found = match (module, name) {
            ("collections", "OrderedDict") => Some(Global::OrderedDict),
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3") => {
                Some(Global::RebuildTensor)
            }
            ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
            ("torch.storage", "UntypedStorage" | "_UntypedStorage") => {
                Some(Global::StorageType(StorageType(None)))
            }
            ("torch" | "torch.cuda", _) => storage()
                .map(Global::StorageType)
                .or_else(|| dtype(|(.., names), name| names.contains(&name)).map(Global::Dtype)),
            _ => None,
        };
        found.ok_or_else(|| {
            let asked = format!("{module}.{name}");
            Refusal::new(format!("it asks for {asked:?}, which no state dict needs; nothing was run"))
        })
    }

    /// What calling it with these arguments makes.
    pub(super) fn call(self, machine: &mut Machine<'_>, arguments: &[Id]) -> Result<Id, Refusal> {
        match self {
            Global::OrderedDict => ordered_dict(machine, arguments),
            Global::RebuildTensor => {
                let tensor = rebuild_tensor(machine, arguments)?;
                machine.add(Object::Tensor(tensor))
            }
            // A parameter is its tensor, and whether it is trained.
            Global::RebuildParameter => match arguments {
                [tensor, ..] if matches!(machine.get(*tensor), Object::Tensor(_)) => Ok(*tensor),
                _ => Err(Refusal::new("a parameter is made of no tensor")),
            },
            Global::StorageType(_) | Global::Dtype(_) => Err(Refusal::new("it calls a type")),
        }
    }
}

/// Empty, or made of a list of pairs as Python 2 writes it.
fn ordered_dict(machine: &mut Machine<'_>, arguments: &[Id]) -> Result<Id, Refusal> {
    let entries = match arguments {
        [] => Vec::new(),
        [list] => match machine.get(*list) {
            Object::List(pairs) => pairs.iter().map(|pair| machine.pair(*pair)).collect::<Result<_, _>>()?,
            other => return Err(Refusal::new(format!("an OrderedDict is made of {}", other.kind()))),
        },
        _ => return Err(Refusal::new("an OrderedDict is made of several things")),
    };
    machine.count(entries.len())?;
    machine.add(Object::Dict(entries))
}

/// The arguments are storage, offset, shape, strides, and then what only matters in training; in the third
/// version the element type is the seventh.
fn rebuild_tensor<'a>(machine: &Machine<'a>, arguments: &[Id]) -> Result<Tensor<'a>, Refusal> {
    let [storage, offset, shape, strides, rest @ ..] = arguments else {
        return Err(Refusal::new("a tensor lacks storage, offset, shape or strides"));
    };
    let Object::Storage(storage) = *machine.get(*storage) else {
        return Err(Refusal::new("a tensor is made of no storage"));
    };
    let stated = rest.get(2).map(|id| machine.get(*id));
    let dtype = match (storage.storage_type, stated) {
        (StorageType(Some(dtype)), _) => dtype,
        (_, Some(Object::Global(Global::Dtype(dtype)))) => *dtype,
        _ => return Err(Refusal::new("a tensor of an untyped storage has no type")),
    };
    let tensor = Tensor {
        storage,
        dtype,
        offset: machine.size(*offset)?,
        shape: machine.sizes(*shape)?,
        strides: machine.sizes(*strides)?,
    };
    check(&tensor)?;
    Ok(tensor)
}

/// Demands that every element lies inside the storage.
fn check(tensor: &Tensor<'_>) -> Result<(), Refusal> {
    let Tensor { storage, dtype, offset, shape, strides } = tensor;
    if shape.len() != strides.len() || shape.len() > MAX_RANK {
        return Err(Refusal::new(format!("a tensor has {} axes and {} strides", shape.len(), strides.len())));
    }
    let elements = shape.iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let elements = elements.filter(|elements| *elements <= i64::MAX as u64);
    let last = shape.iter().zip(strides).try_fold(*offset, |last, (size, stride)| {
        last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
    });
    let held = storage.len * storage.storage_type.bytes() / dtype.bytes();
    match (elements, last) {
        (Some(0), _) => Ok(()),
        (Some(_), Some(last)) if last < held => Ok(()),
        _ => Err(Refusal::new(format!(
            "a tensor of shape {shape:?} with strides {strides:?} from {offset} on reaches beyond its storage of {held}"
        ))),
    }
}

/// The storage that a persistent id stands for: `("storage", class, key, device, elements[, view])`. The device is
/// where the tensor was when it was saved, and of no interest.
pub(super) fn storage<'a>(machine: &Machine<'a>, id: Id) -> Result<Storage<'a>, Refusal> {
    let broken = || Refusal::new("a persistent id stands for no storage");
    let Object::Tuple(parts) = machine.get(id) else { return Err(broken()) };
    let parts: Vec<_> = parts.iter().map(|part| machine.get(*part)).collect();
    let (Object::Str("storage"), rest) = parts.split_first().ok_or_else(broken)? else {
        return Err(broken());
    };
    match rest {
        [
            Object::Global(Global::StorageType(storage_type)),
            Object::Str(key),
            Object::Str(_),
            Object::Int(len),
            view @ ..,
        ] => {
            if !matches!(view, [] | [Object::None]) {
                return Err(Refusal::new(
                    "a storage is a view of another, as only old versions of PyTorch write",
                ));
            }
            // Far below where bytes would overflow.
            let len = u64::try_from(*len).ok().filter(|len| *len < 1 << 56);
            let len = len.ok_or_else(|| Refusal::new("a storage has an impossible size"))?;
            Ok(Storage { key, storage_type: *storage_type, len })
        }
        _ => Err(broken()),
    }
}
