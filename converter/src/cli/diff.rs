//! Where two GGUF files differ.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lxmert::gguf::{CHECKSUM_KEYS, File, Metadata, TensorInfo};
use lxmert::model::Packing;
use lxmert_converter::{Difference, ErrorReport};
use serde::Serialize;

use super::Failure;
use super::inspect::shown;

/// Compares two GGUF files: their metadata, and the values of their tensors
///
/// Exits as diff does: 0 if both hold the same, 1 if they differ, 2 in trouble.
#[derive(Parser)]
pub struct Arguments {
    /// The original
    #[arg(value_name = "A.gguf")]
    a: PathBuf,

    /// What stands for it
    #[arg(value_name = "B.gguf")]
    b: PathBuf,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// All differences of two files.
#[derive(Serialize)]
struct Report {
    equal: bool,
    metadata: Vec<KeyReport>,
    /// Every tensor of either file.
    tensors: Vec<TensorReport>,
    /// All tensors that both have, taken together.
    total: ErrorReport,
}

/// A key with two values, or with one where the other file has none.
#[derive(Serialize)]
struct KeyReport {
    key: String,
    a: Option<String>,
    b: Option<String>,
}

#[derive(Serialize)]
struct TensorReport {
    name: String,
    /// Types; `None` where the file has no such tensor.
    a: Option<String>,
    b: Option<String>,
    /// Whether type, shape and data are the same.
    equal: bool,
    /// `None` where there is nothing to compare.
    error: Option<ErrorReport>,
}

/// Prints the differences.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let open = |path: &PathBuf| File::open(path);
    let (a, b) = (open(&arguments.a)?, open(&arguments.b)?);
    let is_packed = |file: &File| Packing::is_in(file.header().metadata());
    if is_packed(&a) != is_packed(&b) {
        let packed = if is_packed(&a) { &arguments.a } else { &arguments.b };
        let remedy = "compare files that are packed alike, or neither";
        return Err(format!(
            "{}: its matrices are packed, the other file's are not: {remedy}",
            packed.display()
        )
        .into());
    }
    let report = compare(&a, &b);
    let code = super::print(&if arguments.json { super::json(&report) } else { as_text(&report) });
    // A reader that has gone is trouble.
    let printed = code == ExitCode::SUCCESS;
    Ok(if printed { ExitCode::from(u8::from(!report.equal)) } else { ExitCode::from(2) })
}

fn compare(a: &File, b: &File) -> Report {
    let metadata = compare_metadata(a.header().metadata(), b.header().metadata());
    let mut total = Difference::default();
    let mut tensors: Vec<_> = a
        .header()
        .tensors()
        .iter()
        .map(|of_a| match b.header().tensor(of_a.name()) {
            Some(of_b) => compare_tensors((a, of_a), (b, of_b), &mut total),
            None => missing(of_a, true),
        })
        .collect();
    let only_b = b.header().tensors().iter().filter(|of_b| a.header().tensor(of_b.name()).is_none());
    tensors.extend(only_b.map(|of_b| missing(of_b, false)));
    let equal = metadata.is_empty() && tensors.iter().all(|tensor| tensor.equal);
    Report { equal, metadata, tensors, total: total.report() }
}

fn compare_metadata(a: &Metadata, b: &Metadata) -> Vec<KeyReport> {
    // That tensors differ is told of the tensors themselves.
    let is_checksum = |key: &str| CHECKSUM_KEYS.contains(&key);
    let keys = a.iter().chain(b.iter().filter(|(key, _)| a.get(key).is_none())).map(|(key, _)| key);
    let differing = keys.filter(|key| !is_checksum(key) && a.get(key) != b.get(key));
    differing
        .map(|key| KeyReport { key: key.to_owned(), a: a.get(key).map(shown), b: b.get(key).map(shown) })
        .collect()
}

fn missing(tensor: &TensorInfo, in_a: bool) -> TensorReport {
    let found = Some(tensor.tensor_type().to_string());
    let (a, b) = if in_a { (found, None) } else { (None, found) };
    TensorReport { name: tensor.name().to_owned(), a, b, equal: false, error: None }
}

fn compare_tensors(
    (a, of_a): (&File, &TensorInfo),
    (b, of_b): (&File, &TensorInfo),
    total: &mut Difference,
) -> TensorReport {
    let same_shape = of_a.dims() == of_b.dims();
    let same_type = of_a.tensor_type() == of_b.tensor_type();
    let numbers = [of_a, of_b].iter().all(|tensor| !tensor.tensor_type().is_integer());
    let difference = (same_shape && numbers).then(|| difference((a, of_a), (b, of_b)));
    if let Some(difference) = &difference {
        total.add(difference);
    }
    TensorReport {
        name: of_a.name().to_owned(),
        a: Some(of_a.tensor_type().to_string()),
        b: Some(of_b.tensor_type().to_string()),
        equal: same_shape && same_type && a.data(of_a) == b.data(of_b),
        error: difference.map(|difference| difference.report()),
    }
}

/// Unpacks both tensors, a part at a time, and compares their values.
fn difference((a, of_a): (&File, &TensorInfo), (b, of_b): (&File, &TensorInfo)) -> Difference {
    // Whole blocks of every type.
    const PART: usize = 1 << 16;
    let bytes =
        |tensor: &TensorInfo, values: u64| tensor.tensor_type().row_bytes(values).unwrap_or(0) as usize;
    let (mut values_a, mut values_b) = (vec![0.0; PART], vec![0.0; PART]);
    let mut difference = Difference::default();
    let parts_a = a.data(of_a).chunks(bytes(of_a, PART as u64));
    let parts_b = b.data(of_b).chunks(bytes(of_b, PART as u64));
    let mut left = of_a.elements() as usize;
    for (part_a, part_b) in parts_a.zip(parts_b) {
        let count = left.min(PART);
        lxmert::ggml::dequantize(of_a.tensor_type(), part_a, &mut values_a[..count]);
        lxmert::ggml::dequantize(of_b.tensor_type(), part_b, &mut values_b[..count]);
        difference.add(&Difference::of(&values_a[..count], &values_b[..count]));
        left -= count;
    }
    difference
}

fn as_text(report: &Report) -> String {
    let none = || "none".to_owned();
    let mut text = String::new();
    for KeyReport { key, a, b } in &report.metadata {
        let key = lxmert::shown(key);
        text += &format!(
            "{key}\n  a: {}\n  b: {}\n",
            a.clone().unwrap_or_else(none),
            b.clone().unwrap_or_else(none)
        );
    }
    for TensorReport { name, a, b, error, .. } in report.tensors.iter().filter(|tensor| !tensor.equal) {
        let (a, b) = (a.clone().unwrap_or_else(none), b.clone().unwrap_or_else(none));
        let measures = match error {
            Some(error) => error.to_string(),
            None => "no values to compare".to_owned(),
        };
        let name = lxmert::shown(name).to_string();
        text += &format!("{name:<32} {a:<6} {b:<6} {measures}\n");
    }
    let equal = report.tensors.iter().filter(|tensor| tensor.equal).count();
    let keys = report.metadata.len();
    text += &format!(
        "{keys} keys differ, {equal} of {} tensors are equal; {}\n",
        report.tensors.len(),
        report.total
    );
    text
}
