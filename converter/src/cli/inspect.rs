//! What a GGUF file holds.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lxmert::gguf::{Array, File, Metadata, TensorInfo, TensorType, Value};
use lxmert::model::{Config, Packing};
use serde_json::json;

use super::Failure;

/// Lists a GGUF file's metadata and tensors, whatever model it is of
#[derive(Parser)]
pub struct Arguments {
    /// File to list
    #[arg(value_name = "FILE.gguf")]
    file: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the listing.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let file = File::open(&arguments.file)?;
    Ok(super::print(&if arguments.json { super::json(&as_json(&file)) } else { as_text(&file) }))
}

fn as_text(file: &File) -> String {
    let mut text = String::new();
    let metadata = file.header().metadata();
    for (key, value) in metadata.iter() {
        let key = lxmert::shown(key).to_string();
        text += &format!("{key:<40} {:<16} {}\n", value.type_name(), shown(value));
    }
    text += &format!("\n{:<32} {:<14} {:<6} {:>12} {:>12}\n", "tensor", "shape", "type", "bytes", "offset");
    let tensors = file.header().tensors();
    let packing = packing(file);
    for tensor in tensors {
        let (bytes, offset) = (tensor.bytes(), tensor.offset());
        let packed = packing.as_ref().and_then(|packing| Packed::of(packing, tensor));
        let (dims, type_name, note) = match packed {
            Some(Packed { element, dims, tensor_type }) => {
                (format!("{dims:?}"), tensor_type, format!("  packed as {element}"))
            }
            None => (format!("{:?}", tensor.dims()), tensor.tensor_type(), String::new()),
        };
        let name = lxmert::shown(tensor.name()).to_string();
        text += &format!("{name:<32} {dims:<14} {type_name:<6} {bytes:>12} {offset:>12}{note}\n");
    }
    let (weights, bits) = weights(file, packing.as_ref());
    let keys = metadata.len();
    text += &format!(
        "\n{keys} keys, {} tensors, {weights} weights, {} bytes, {bits:.2} bits per weight\n",
        tensors.len(),
        file.bytes()
    );
    for tensor_type in TensorType::ALL {
        let found = tensors.iter().filter(|tensor| tensor.tensor_type() == tensor_type);
        let (count, bytes) = (found.clone().count(), found.map(|tensor| tensor.bytes()).sum::<u64>());
        if count > 0 {
            text += &format!("{tensor_type:<6} {count} tensors, {bytes} bytes\n");
        }
    }
    if let Some(packing) = packing {
        text += &format!("packed {} tensors as {}\n", packing.len(), Packing::LAYOUT);
    }
    text
}

fn as_json(file: &File) -> serde_json::Value {
    let packing = packing(file);
    let tensors: Vec<_> = file
        .header()
        .tensors()
        .iter()
        .map(|tensor| {
            let packed = packing.as_ref().and_then(|packing| Packed::of(packing, tensor));
            json!({
                "name": tensor.name(),
                "dims": tensor.dims(),
                "tensor_type": tensor.tensor_type().name(),
                "bytes": tensor.bytes(),
                "offset": tensor.offset(),
                "packed": packed.map(|Packed { element, dims, tensor_type }| {
                    json!({ "element": element, "dims": dims, "tensor_type": tensor_type.name() })
                }),
            })
        })
        .collect();
    let (weights, bits_per_weight) = weights(file, packing.as_ref());
    json!({
        "metadata": metadata_json(file.header().metadata()),
        "tensors": tensors,
        "weights": weights,
        "bits_per_weight": bits_per_weight,
        "file_bytes": file.bytes(),
        "alignment": file.header().alignment(),
    })
}

/// How the file is packed, if it is a packed file of this project.
fn packing(file: &File) -> Option<Packing> {
    let metadata = file.header().metadata();
    Packing::read(metadata, &Config::from_metadata(metadata).ok()?).ok()?
}

/// What a tensor was before it was packed, and what it holds now.
struct Packed {
    element: &'static str,
    dims: [u64; 2],
    tensor_type: TensorType,
}

impl Packed {
    fn of(packing: &Packing, tensor: &TensorInfo) -> Option<Self> {
        let (dims, tensor_type) = packing.original(tensor.name())?;
        Some(Packed { element: packing.element(tensor.name())?, dims, tensor_type })
    }
}

/// How many weights there are, and how many bits of data each takes.
fn weights(file: &File, packing: Option<&Packing>) -> (u64, f64) {
    let weights_of = |tensor: &TensorInfo| match packing.and_then(|packing| packing.original(tensor.name())) {
        Some((dims, _)) => dims.iter().product(),
        None => tensor.elements(),
    };
    let weights: u64 = file.header().tensors().iter().map(weights_of).sum();
    let bytes: u64 = file.header().tensors().iter().map(|tensor| tensor.bytes()).sum();
    (weights, bytes as f64 * 8.0 / weights.max(1) as f64)
}

/// A list of keys, in the file's order, which an object would lose.
fn metadata_json(metadata: &Metadata) -> Vec<serde_json::Value> {
    metadata
        .iter()
        .map(|(key, value)| {
            let mut entry = json!({ "key": key, "type": value.type_name(), "value": value_json(value) });
            if let Value::Array(array) = value {
                entry["len"] = array.len().into();
            }
            entry
        })
        .collect()
}

/// Items of an array, and characters of a string, that are shown.
const SHOWN: usize = 6;
const SHOWN_CHARS: usize = 72;

/// A value in one line, shortened.
pub(super) fn shown(value: &Value) -> String {
    let shortened = |text: &str| {
        let mut chars = text.chars();
        let start: String = chars.by_ref().take(SHOWN_CHARS).collect();
        let rest = chars.count();
        if rest > 0 { format!("{start:?} … {rest} characters more") } else { format!("{start:?}") }
    };
    match value {
        Value::String(text) => shortened(text),
        Value::Array(array) => {
            let items = items(array);
            let more = array.len() - items.len();
            let items: Vec<_> = items.iter().map(ToString::to_string).collect();
            let rest = if more > 0 { format!(", … {more} more") } else { String::new() };
            format!("[{}{rest}]", items.join(", "))
        }
        scalar => value_json(scalar).to_string(),
    }
}

/// A value as JSON; of an array the first items, its length standing beside it.
fn value_json(value: &Value) -> serde_json::Value {
    match value {
        Value::U8(number) => json!(number),
        Value::I8(number) => json!(number),
        Value::U16(number) => json!(number),
        Value::I16(number) => json!(number),
        Value::U32(number) => json!(number),
        Value::I32(number) => json!(number),
        Value::U64(number) => json!(number),
        Value::I64(number) => json!(number),
        Value::F32(number) => json!(number),
        Value::F64(number) => json!(number),
        Value::Bool(truth) => json!(truth),
        Value::String(text) => json!(text),
        Value::Array(array) => json!(items(array)),
    }
}

/// The first items of an array.
fn items(array: &Array) -> Vec<serde_json::Value> {
    fn first<T: serde::Serialize>(items: &[T]) -> Vec<serde_json::Value> {
        items.iter().take(SHOWN).map(|item| json!(item)).collect()
    }
    match array {
        Array::U8(items) => first(items),
        Array::I8(items) => first(items),
        Array::U16(items) => first(items),
        Array::I16(items) => first(items),
        Array::U32(items) => first(items),
        Array::I32(items) => first(items),
        Array::U64(items) => first(items),
        Array::I64(items) => first(items),
        Array::F32(items) => first(items),
        Array::F64(items) => first(items),
        Array::Bool(items) => first(items),
        Array::String(items) => first(items),
    }
}
