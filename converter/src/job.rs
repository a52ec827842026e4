//! A conversion when all is decided, and before anything is written.

use std::path::Path;
use std::time::Duration;

use lxmert::gguf::{CHECKSUM_KEYS, Metadata, TensorSpec, TensorType, reserve_checksums};
use lxmert::model::{ARCHITECTURE, Config, Packing, Tensor, tensors};

use crate::Error;
use crate::check::Checked;
use crate::checkpoint::Checkpoint;
use crate::convert::Options;
use crate::difference::{Difference, ErrorReport};
use crate::labels::Labels;
use crate::plan::{Plan, Planned};
use crate::recognise::class_name;
use crate::report::{AnswerReport, Report, TensorReport, TokenizerReport, TypeReport, WorstTensor};
use crate::source::Source;
use crate::types::{FILE_TYPES, FileType, Reason, choose, is_matrix};

const FILE_TYPE: &str = "general.file_type";
const QUANTIZATION_VERSION_KEY: &str = "general.quantization_version";
const CONVERTER_VERSION: &str = "lxmert.converter.version";

/// The checksum of the weights that a file was made from in the beginning.
pub(crate) const SOURCE_SHA256: &str = "lxmert.source.sha256";

/// The version of the block formats, as ggml counts it.
const QUANTIZATION_VERSION: u32 = 2;

/// What goes into the file.
pub(crate) struct Job<'a> {
    checkpoint: &'a Checkpoint,
    /// The tensors.
    pub plan: Plan,
    /// The type of each, and why it is not the one that was asked for.
    pub choices: Vec<(TensorType, Option<Reason>)>,
    /// Which of them are packed, and how.
    pub packing: Option<Packing>,
    labels: Option<Labels>,
    requested: FileType,
    options: &'a Options,
    sha256: String,
}

impl<'a> Job<'a> {
    /// Decides on the types, and checks that answers, tokenizer and front end go with the model.
    pub fn new(
        checkpoint: &'a Checkpoint,
        plan: Plan,
        checked: Checked,
        requested: FileType,
        options: &'a Options,
    ) -> Result<Self, Error> {
        let labels = checkpoint.labels(&plan.config.head)?;
        let sha256 = checkpoint.origin_sha256().map_or(checked.sha256, str::to_owned);
        if let Some(tokenizer) = &checkpoint.tokenizer {
            tokenizer.check_size(plan.config.vocab_size)?;
        }
        checkpoint.preprocessing.check(&plan.config)?;

        let matrices = plan.tensors.iter().filter(|tensor| is_matrix(tensor.role));
        options.types.check(matrices.clone().map(|tensor| tensor.name.as_str()))?;
        if let Some(importance) = &options.importance {
            importance.check(matrices)?;
        }
        let tensors = plan.tensors.iter().zip(&checked.max_abs);
        let choices: Vec<_> = tensors
            .map(|(tensor, max_abs)| {
                let wanted = options.types.choose(requested, &tensor.name);
                choose(tensor.role, tensor.row_len(), *max_abs, wanted)
            })
            .collect();
        let packing = options.pack.map(|set| {
            let types = choices.iter().map(|(tensor_type, _)| *tensor_type);
            let tensors = plan.tensors.iter().zip(types);
            Packing::new(tensors.map(|(of, type_)| (&*of.name, &*of.dims, of.role, type_)), set)
        });
        if let Some(key) = options.keys.iter().find(|key| packing.is_some() && Packing::decides(&key.key)) {
            return Err(Error::PackedKey { key: key.key.clone() });
        }
        if let Some(key) = options.keys.iter().find(|key| CHECKSUM_KEYS.contains(&&*key.key)) {
            return Err(Error::ChecksumKey { key: key.key.clone() });
        }
        Ok(Job { checkpoint, plan, choices, packing, labels, requested, options, sha256 })
    }

    /// How much each column of a tensor matters, if that is known.
    pub fn importance(&self, tensor: usize) -> Option<&[f32]> {
        self.options.importance.as_ref()?.columns(&self.plan.tensors[tensor].name)
    }

    /// Name, type and shape of each tensor.
    pub fn specs(&self) -> Vec<TensorSpec> {
        let tensors = self.plan.tensors.iter().zip(&self.choices);
        tensors
            .map(|(tensor, (tensor_type, _))| {
                let packed = self.packing.as_ref().and_then(|packing| packing.bytes(&tensor.name));
                let (tensor_type, dims) = match packed {
                    Some(bytes) => (TensorType::I8, vec![bytes]),
                    None => (*tensor_type, tensor.dims.clone()),
                };
                TensorSpec { name: tensor.name.clone(), tensor_type, dims }
            })
            .collect()
    }

    /// Everything that goes before the tensors: what the model is, how it was made, and all that an answer
    /// needs beside the weights.
    pub fn metadata(&self) -> Result<Metadata, Error> {
        let mut metadata = match &self.checkpoint.origin {
            Some(origin) => self.renewed(origin)?,
            None => self.new_metadata()?,
        };
        // Last, for whoever lists the keys.
        reserve_checksums(&mut metadata, self.plan.tensors.len())?;
        Ok(metadata)
    }

    /// The metadata of a checkpoint that is no GGUF file.
    fn new_metadata(&self) -> Result<Metadata, Error> {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture", ARCHITECTURE)?;
        metadata.insert("general.type", "model")?;
        metadata.insert("general.name", self.checkpoint.config.model_name().unwrap_or("LXMERT"))?;
        metadata.insert("general.size_label", size_label(self.plan.parameters()))?;
        self.describe_types(&mut metadata)?;
        self.plan.config.write_metadata(&mut metadata)?;
        if let Some(labels) = &self.labels {
            metadata.insert("lxmert.classifier.output_labels", labels.answers.clone())?;
        }
        self.checkpoint.preprocessing.front_end.write_metadata(&mut metadata)?;
        if let Some(tokenizer) = &self.checkpoint.tokenizer {
            tokenizer.write_metadata(&mut metadata)?;
        }
        metadata.insert(SOURCE_SHA256, self.sha256.as_str())?;
        metadata.insert(CONVERTER_VERSION, env!("CARGO_PKG_VERSION"))?;
        self.describe_choices(&mut metadata)?;
        Ok(metadata)
    }

    /// The metadata of the GGUF file that this one is made from, with what differs between the two.
    fn renewed(&self, origin: &Metadata) -> Result<Metadata, Error> {
        let mut metadata = Metadata::new();
        for (key, value) in origin.iter() {
            match key {
                FILE_TYPE => self.describe_types(&mut metadata)?,
                QUANTIZATION_VERSION_KEY => {}
                key if CHECKSUM_KEYS.contains(&key) => {}
                key => metadata.insert(key, value.clone())?,
            }
        }
        if metadata.get(FILE_TYPE).is_none() {
            self.describe_types(&mut metadata)?;
        }
        metadata.set(SOURCE_SHA256, self.sha256.as_str())?;
        metadata.set(CONVERTER_VERSION, env!("CARGO_PKG_VERSION"))?;
        self.describe_choices(&mut metadata)?;
        Ok(metadata)
    }

    /// Writes which types the file has.
    fn describe_types(&self, metadata: &mut Metadata) -> Result<(), Error> {
        metadata.insert(FILE_TYPE, self.requested.number())?;
        if self.choices.iter().any(|(tensor_type, _)| tensor_type.is_quantized()) {
            metadata.insert(QUANTIZATION_VERSION_KEY, QUANTIZATION_VERSION)?;
        }
        Ok(())
    }

    /// Writes how matrices are packed, where the importance came from, and the keys that somebody wants otherwise.
    fn describe_choices(&self, metadata: &mut Metadata) -> Result<(), Error> {
        if let Some(packing) = &self.packing {
            packing.write_metadata(metadata)?;
        }
        if let Some(importance) = &self.options.importance {
            importance.write_metadata(metadata)?;
        }
        self.override_keys(metadata)
    }

    /// Sets the keys that somebody wants otherwise, as long as the tensors still are those of the model.
    fn override_keys(&self, metadata: &mut Metadata) -> Result<(), Error> {
        for key in &self.options.keys {
            key.apply(metadata)?;
        }
        let tensors = tensors(&Config::from_metadata(metadata)?);
        let same = |(wanted, planned): (&Tensor, &Planned)| {
            wanted.name == planned.name && wanted.dims == planned.dims
        };
        if tensors.len() != self.plan.tensors.len() || !tensors.iter().zip(&self.plan.tensors).all(same) {
            return Err(Error::Overrides);
        }
        Ok(())
    }

    /// What there is to tell, with the differences of the tensors if they were written to `output`.
    pub fn report(
        self,
        output: Option<&Path>,
        file_bytes: u64,
        differences: &[Difference],
        time: Duration,
    ) -> Report {
        let parameters = self.plan.parameters();
        let ignored = self.plan.ignored;
        let packing = self.packing;
        let element = |name: &str| packing.as_ref()?.element(name);
        let planned = self.plan.tensors.into_iter().zip(self.choices).enumerate();
        let tensors: Vec<_> = planned
            .map(|(number, (tensor, (tensor_type, reason)))| {
                let packed = packing.as_ref().and_then(|packing| packing.bytes(&tensor.name));
                let bytes = packed.unwrap_or_else(|| tensor.bytes(tensor_type));
                TensorReport {
                    bytes,
                    bits_per_weight: bits_per_weight(bytes, tensor.values()),
                    tensor_type: tensor_type.to_string(),
                    packed: element(&tensor.name).map(str::to_owned),
                    name: tensor.name,
                    dims: tensor.dims,
                    reason,
                    error: differences.get(number).map(Difference::report),
                    sources: own_names(self.checkpoint.source.as_ref(), &tensor.sources),
                }
            })
            .collect();
        let data_bytes = tensors.iter().map(|tensor| tensor.bytes).sum::<u64>();
        let tokenizer = self.checkpoint.tokenizer.as_ref().map(|found| TokenizerReport {
            origin: found.files[0].clone(),
            pieces: found.tokenizer.vocab_size(),
        });
        let answers = self.labels.map(|labels| AnswerReport {
            count: labels.answers.len(),
            duplicates: labels.duplicates(),
            origin: labels.origin,
        });
        Report {
            source: self.checkpoint.source.description(),
            class: class_name(&self.plan.config.head).to_owned(),
            parameters,
            sha256: self.sha256,
            output: output.map(Path::to_owned),
            file_bytes,
            bits_per_weight: bits_per_weight(data_bytes, parameters),
            tensor_type: self.requested.to_string(),
            packing: packing.is_some().then(|| Packing::LAYOUT.to_owned()),
            types: types(&tensors, differences),
            tensors,
            ignored,
            notes: self.checkpoint.notes(),
            tokenizer,
            answers,
            front_end: self.checkpoint.preprocessing.front_end.name().to_owned(),
            seconds: time.as_secs_f64(),
        }
    }
}

/// What the container calls the tensors, each name once: parts of a GGUF tensor share theirs.
fn own_names(source: &dyn Source, names: &[String]) -> Vec<String> {
    let mut own: Vec<_> = names.iter().map(|name| source.own_name(name)).collect();
    own.dedup();
    own
}

fn bits_per_weight(bytes: u64, weights: u64) -> f64 {
    bytes as f64 * 8.0 / weights as f64
}

/// The tensors summed up by type.
fn types(tensors: &[TensorReport], differences: &[Difference]) -> Vec<TypeReport> {
    let of = |tensor_type: String| {
        let (mut count, mut bytes, mut weights, mut sum) = (0, 0, 0, Difference::default());
        let mut worst: Option<WorstTensor> = None;
        for (number, tensor) in
            tensors.iter().enumerate().filter(|(_, other)| other.tensor_type == tensor_type)
        {
            count += 1;
            bytes += tensor.bytes;
            weights += tensor.dims.iter().product::<u64>();
            sum.add(differences.get(number).unwrap_or(&Difference::default()));
            let Some(ErrorReport { cosine, .. }) = tensor.error else { continue };
            if worst.as_ref().is_none_or(|worst| cosine < worst.cosine) {
                worst = Some(WorstTensor { name: tensor.name.clone(), cosine });
            }
        }
        let error = worst.is_some().then(|| sum.report());
        let bits_per_weight = bits_per_weight(bytes, weights);
        TypeReport { tensor_type, tensors: count, bytes, bits_per_weight, error, worst }
    };
    let uniform = FILE_TYPES.into_iter().filter(|file_type| FileType::from(file_type.base()) == *file_type);
    uniform.map(|file_type| of(file_type.to_string())).filter(|of| of.tensors > 0).collect()
}

/// A number of weights as model names carry it, with at least two digits: `214M`, `1.4M`, `67K`.
fn size_label(parameters: u64) -> String {
    let (unit, suffix) = match parameters {
        0..1_000_000 => (1e3, "K"),
        1_000_000..1_000_000_000 => (1e6, "M"),
        _ => (1e9, "B"),
    };
    let scaled = parameters as f64 / unit;
    if scaled.round() >= 10.0 { format!("{scaled:.0}{suffix}") } else { format!("{scaled:.1}{suffix}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_sizes_with_two_digits_or_more() {
        for (parameters, label) in [
            (213_930_297, "214M"),
            (1_430_000, "1.4M"),
            (67_300, "67K"),
            (9_800, "10K"),
            (2_500_000_000, "2.5B"),
        ] {
            assert_eq!(size_label(parameters), label);
        }
    }
}
