//! What a conversion has to tell.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;

use serde::Serialize;

use crate::difference::ErrorReport;
use crate::types::Reason;

/// The result of a conversion. Displays as the text that `lxmert-quantize` prints.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What was converted, in a few words.
    pub source: String,
    /// Hugging Face's class that has these tensors.
    pub class: String,
    /// The number of weights; a tied matrix counts once.
    pub parameters: u64,
    /// SHA-256 of all source values as little-endian f32 in the file's order.
    pub sha256: String,
    /// The file that was written; `None` if none was to be.
    pub output: Option<PathBuf>,
    /// Its size in bytes, or the size that it would have.
    pub file_bytes: u64,
    /// Bits of tensor data for each weight.
    pub bits_per_weight: f64,
    /// The type that was asked for.
    pub tensor_type: String,
    /// The order that the matrices are packed in, if they are.
    pub packing: Option<String>,
    /// The tensors summed up by type.
    pub types: Vec<TypeReport>,
    /// Every tensor, in the file's order.
    pub tensors: Vec<TensorReport>,
    /// Source tensors that were left out because nothing follows from them.
    pub ignored: Vec<String>,
    /// What else a person should know, such as what was assumed or not looked at; one line each.
    pub notes: Vec<String>,
    /// The tokenizer, if there is one.
    pub tokenizer: Option<TokenizerReport>,
    /// The answers, if they have names.
    pub answers: Option<AnswerReport>,
    /// How an image becomes regions: `regions` or `patch_grid`.
    pub front_end: String,
    /// How long the conversion took.
    pub seconds: f64,
}

/// The tensors of one type.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TypeReport {
    /// The type.
    pub tensor_type: String,
    /// How many tensors.
    pub tensors: usize,
    /// Bytes of their data.
    pub bytes: u64,
    /// Bits of data for each weight.
    pub bits_per_weight: f64,
    /// How far all of them together are from the source; `None` if nothing was written.
    pub error: Option<ErrorReport>,
    /// The tensor that is farthest from its source.
    pub worst: Option<WorstTensor>,
}

/// The tensor with the least cosine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WorstTensor {
    /// Its name.
    pub name: String,
    /// Its cosine.
    pub cosine: f64,
}

/// One tensor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its shape, fastest axis first.
    pub dims: Vec<u64>,
    /// Its type; what its numbers were rounded to before they were packed, if they are.
    pub tensor_type: String,
    /// What it is packed in; `None` if it is not.
    pub packed: Option<String>,
    /// Bytes of its data.
    pub bytes: u64,
    /// Bits of data for each weight.
    pub bits_per_weight: f64,
    /// How far it is from the source; `None` if nothing was written.
    pub error: Option<ErrorReport>,
    /// Why it is not of the type that was asked for; `None` also for what is never quantized.
    pub reason: Option<Reason>,
    /// The source tensors that it is made of.
    pub sources: Vec<String>,
}

/// A tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenizerReport {
    /// The file that it comes from.
    pub origin: PathBuf,
    /// How many ids it has.
    pub pieces: usize,
}

/// An answer table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AnswerReport {
    /// Where it comes from.
    pub origin: String,
    /// How many answers it has.
    pub count: usize,
    /// Answers that it has more than once.
    pub duplicates: Vec<String>,
}

/// The heading of [`measures`].
const HEADING: &str = "  cosine    PSNR  max error";

fn measures(error: ErrorReport) -> String {
    let psnr = error.psnr.map_or_else(|| "exact".to_owned(), |psnr| format!("{psnr:.1}"));
    format!("{:>8.6} {psnr:>7} {:>10.2e}", error.cosine, error.max_error)
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let line = |f: &mut Formatter<'_>, name: &str, text: &dyn Display| writeln!(f, "{name:<11} {text}");
        line(f, "source", &self.source)?;
        line(f, "class", &self.class)?;
        line(f, "parameters", &self.parameters)?;
        match &self.output {
            Some(output) => line(f, "output", &output.display())?,
            None => line(f, "output", &"none: this is what would be written")?,
        }
        let bits = self.bits_per_weight;
        line(f, "size", &format_args!("{} bytes, {bits:.2} bits per weight", self.file_bytes))?;
        self.table(f)?;
        self.kept(f)?;
        self.packed(f)?;
        for name in &self.ignored {
            line(f, "ignored", &format_args!("{name:?}: a buffer, not a weight"))?;
        }
        for note in &self.notes {
            line(f, "note", note)?;
        }
        match &self.tokenizer {
            Some(found) => {
                let origin = found.origin.display();
                line(f, "tokenizer", &format_args!("{} pieces from {origin}", found.pieces))?;
            }
            None => line(f, "tokenizer", &"none: lxmert-run works without, lxmert-vqa does not")?,
        }
        match &self.answers {
            Some(found) => {
                line(f, "answers", &format_args!("{} from {}", found.count, found.origin))?;
                if !found.duplicates.is_empty() {
                    line(f, "warning", &format_args!("answers occur twice: {:?}", found.duplicates))?;
                }
            }
            None => line(f, "answers", &"none: lxmert-run works without, lxmert-vqa does not")?,
        }
        match self.front_end.as_str() {
            "regions" => line(f, "front end", &"none: images come as the features of a detector's regions")?,
            name => line(f, "front end", &name)?,
        }
        line(f, "time", &format_args!("{:.1} s", self.seconds))
    }
}

impl Report {
    /// Every tensor in a line: shape, type, error and what it is made of.
    pub fn tensor_table(&self) -> String {
        let mut text =
            format!("{:<32} {:<14} {:<6} {:>5} {HEADING}  source\n", "tensor", "shape", "type", "bits");
        for tensor in &self.tensors {
            let TensorReport { name, tensor_type, bits_per_weight: bits, error, .. } = tensor;
            let (dims, sources) = (format!("{:?}", tensor.dims), tensor.sources.join(" + "));
            let error = error.map_or_else(String::new, measures);
            text += &format!("{name:<32} {dims:<14} {tensor_type:<6} {bits:>5.2} {error:<27}  {sources}\n");
        }
        text
    }

    /// A line for each type: how much there is of it, and how far it is from the source.
    fn table(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} {:>7} {:>11} {:>5}", "type", "tensors", "bytes", "bits")?;
        // Nothing was written, so nothing was lost, where there is no output.
        if self.output.is_some() {
            write!(f, " {HEADING}  worst tensor")?;
        }
        writeln!(f)?;
        for of in &self.types {
            let TypeReport { tensor_type, tensors, bytes, bits_per_weight: bits, .. } = of;
            write!(f, "{tensor_type:<11} {tensors:>7} {bytes:>11} {bits:>5.2}")?;
            match (of.error, &of.worst) {
                // What is stored whole has no worst tensor.
                (Some(error), Some(worst)) if worst.cosine < 1.0 => {
                    writeln!(f, " {}  {:.6} {}", measures(error), worst.cosine, worst.name)?;
                }
                (Some(error), _) => writeln!(f, " {}", measures(error))?,
                (None, _) => writeln!(f)?,
            }
        }
        Ok(())
    }

    /// What the packed matrices hold now.
    fn packed(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(packing) = &self.packing else { return Ok(()) };
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for element in self.tensors.iter().filter_map(|tensor| tensor.packed.as_deref()) {
            *counts.entry(element).or_default() += 1;
        }
        let counts: Vec<_> = counts.iter().map(|(element, count)| format!("{count} as {element}")).collect();
        writeln!(f, "{:<11} as {packing}: {}", "packed", counts.join(", "))
    }

    /// The tensors that kept another type than the one asked for, grouped by type and reason.
    fn kept(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut groups: BTreeMap<(&str, Reason), Vec<&str>> = BTreeMap::new();
        for tensor in &self.tensors {
            if let Some(reason) = tensor.reason {
                groups.entry((&tensor.tensor_type, reason)).or_default().push(&tensor.name);
            }
        }
        for ((tensor_type, reason), names) in groups {
            let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
            let why = reason.describe();
            writeln!(f, "{:<11} {}{more} as {tensor_type}: {why}", "kept", names[0])?;
        }
        Ok(())
    }
}
