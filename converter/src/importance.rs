//! How much each column of each matrix matters: the mean square of what it is multiplied with.
//!
//! Kept in a GGUF file with llama.cpp's names: for each matrix the sums of squares, `NAME.in_sum2`, and the number of
//! rows that they are of, `NAME.counts`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lxmert::gguf::{File, Metadata, TensorInfo, TensorSpec, TensorType, Value, Writer};

use crate::Error;
use crate::plan::Planned;

const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";
/// The value of `general.type`.
const TYPE: &str = "imatrix";
const DATASETS: &str = "imatrix.datasets";
const CHUNKS: &str = "imatrix.chunk_count";

/// The importance of the columns of a model's matrices, read from a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Importance {
    path: PathBuf,
    datasets: Vec<String>,
    chunks: u32,
    columns: BTreeMap<String, Vec<f32>>,
}

impl Importance {
    /// Reads a file that `lxmert-quantize imatrix` wrote.
    ///
    /// # Errors
    /// [`Error::Model`] if it is no GGUF file, [`Error::Importance`] for what such a file cannot hold.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Importance { path: path.to_owned(), reason };
        let file = File::open(path)?;
        let metadata = file.header().metadata();
        if metadata.opt_str("general.type")? != Some(TYPE) {
            return Err(wrong(format!(
                "general.type is not {TYPE:?}: make one with lxmert-quantize imatrix"
            )));
        }
        let mut columns = BTreeMap::new();
        for tensor in file.header().tensors() {
            let Some(name) = tensor.name().strip_suffix(SUMS) else { continue };
            let counts = file.header().tensor(&format!("{name}{COUNTS}"));
            let counts = counts.ok_or_else(|| wrong(format!("{name} has sums but no counts")))?;
            let (sums, counts) = (numbers(&file, tensor), numbers(&file, counts));
            let count = counts.as_deref().and_then(|counts| counts.first()).copied().unwrap_or(0.0);
            let sums =
                sums.filter(|sums| sums.iter().all(|sum| sum.is_finite() && *sum >= 0.0) && count > 0.0);
            let sums = sums.ok_or_else(|| wrong(format!("{name} has sums that are no sums of squares")))?;
            columns.extend(means(&sums, count).map(|means| (name.to_owned(), means)));
        }
        Ok(Importance {
            path: path.to_owned(),
            datasets: metadata.opt_strings(DATASETS)?.unwrap_or_default().to_vec(),
            chunks: metadata.opt_u32(CHUNKS)?.unwrap_or(0),
            columns,
        })
    }

    /// The importance of a matrix's columns; `None` if nothing is known of it.
    pub(crate) fn columns(&self, tensor: &str) -> Option<&[f32]> {
        self.columns.get(tensor).map(Vec::as_slice)
    }

    /// Refuses the importance of another model's matrices.
    pub(crate) fn check<'a>(&self, matrices: impl Iterator<Item = &'a Planned>) -> Result<(), Error> {
        let rows: BTreeMap<_, _> = matrices.map(|tensor| (tensor.name.as_str(), tensor.row_len())).collect();
        for (name, columns) in &self.columns {
            let reason = match rows.get(name.as_str()) {
                Some(row_len) if *row_len == columns.len() as u64 => continue,
                Some(row_len) => {
                    format!("{name} has {} columns there and {row_len} in the model", columns.len())
                }
                None => format!("the model has no matrix {name}"),
            };
            return Err(Error::Importance { path: self.path.clone(), reason });
        }
        Ok(())
    }

    /// Says where the importance comes from, with llama-quantize's keys.
    pub(crate) fn write_metadata(&self, metadata: &mut Metadata) -> Result<(), Error> {
        // The name alone: a path says where somebody works, and would make equal files differ.
        let file = self.path.file_name().unwrap_or_default().to_string_lossy();
        metadata.set("quantize.imatrix.file", file.as_ref())?;
        metadata.set("quantize.imatrix.dataset", self.datasets.join(", "))?;
        metadata.set("quantize.imatrix.entries_count", self.columns.len() as u32)?;
        metadata.set("quantize.imatrix.chunks_count", self.chunks)?;
        Ok(())
    }
}

/// The numbers of an f32 tensor.
fn numbers(file: &File, tensor: &TensorInfo) -> Option<Vec<f32>> {
    (tensor.tensor_type() == TensorType::F32).then(|| {
        let mut values = vec![0.0; tensor.elements() as usize];
        lxmert::ggml::dequantize(TensorType::F32, file.data(tensor), &mut values);
        values
    })
}

/// Mean squares, with none so small beside the others that a block of its columns would have no weight at all.
/// `None` if all are zero, since nothing tells the columns apart then.
fn means(sums: &[f32], count: f32) -> Option<Vec<f32>> {
    const LEAST_SHARE: f64 = 1e-6;
    let total: f64 = sums.iter().map(|sum| f64::from(*sum)).sum();
    let least = (total / sums.len() as f64 * LEAST_SHARE) as f32;
    (total > 0.0).then(|| sums.iter().map(|sum| sum.max(least) / count).collect())
}

/// Collects the importance of a model's columns from what its linear layers read.
#[derive(Clone, Debug, Default)]
pub struct Collector {
    sums: BTreeMap<String, (Vec<f64>, u64)>,
}

impl Collector {
    /// Adds rows that the matrix of that name was multiplied with.
    ///
    /// # Panics
    /// If the rows are of another width than before.
    pub fn add(&mut self, name: &str, width: usize, rows: &[f32]) {
        if !self.sums.contains_key(name) {
            self.sums.insert(name.to_owned(), (vec![0.0; width], 0));
        }
        let (sums, count) = self.sums.get_mut(name).expect("inserted where it was missing");
        assert_eq!(sums.len(), width, "a matrix has as many columns as before");
        for row in rows.chunks_exact(width) {
            *count += 1;
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += f64::from(*value).powi(2);
            }
        }
    }

    /// How many matrices something is known of.
    pub fn matrices(&self) -> usize {
        self.sums.len()
    }

    /// Writes what was collected: `chunks` questions of the file `dataset` were asked, which has `lines` of them, and
    /// `model` is the SHA-256 of the model's weights.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn write(
        &self,
        path: &Path,
        dataset: &str,
        lines: usize,
        chunks: usize,
        model: Option<&str>,
    ) -> Result<(), Error> {
        let mut metadata = Metadata::new();
        metadata.insert("general.type", TYPE)?;
        metadata.insert(DATASETS, Value::from(vec![dataset.to_owned()]))?;
        metadata.insert(CHUNKS, chunks as u32)?;
        // llama.cpp counts tokens per chunk; a chunk here is one question.
        metadata.insert("imatrix.chunk_size", 1u32)?;
        metadata.insert("lxmert.imatrix.dataset_lines", lines as u64)?;
        if let Some(model) = model {
            metadata.insert("lxmert.source.sha256", model)?;
        }
        let (mut specs, mut data) = (Vec::new(), Vec::new());
        for (name, (sums, count)) in &self.sums {
            let sums: Vec<f32> = sums.iter().map(|sum| *sum as f32).collect();
            for (suffix, values) in [(SUMS, sums), (COUNTS, vec![*count as f32])] {
                let dims = vec![values.len() as u64, 1];
                specs.push(TensorSpec {
                    name: format!("{name}{suffix}"),
                    tensor_type: TensorType::F32,
                    dims,
                });
                data.extend(values);
            }
        }
        let mut writer = Writer::create(path, &metadata, &specs)?;
        for value in data {
            writer.write(&value.to_le_bytes())?;
        }
        Ok(writer.finish()?)
    }
}
