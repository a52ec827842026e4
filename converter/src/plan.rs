//! Which source tensors make up which GGUF tensors, with every one of them accounted for.

use std::collections::{BTreeMap, BTreeSet};

use lxmert::gguf::TensorType;
use lxmert::model::{Config, Role, tensors};

use crate::Error;
use crate::error::Problem;
use crate::names::source_keys;
use crate::recognise::Recognised;
use crate::source::SourceTensor;

/// What a checkpoint's tensors become.
pub(crate) struct Plan {
    /// The hyper-parameters.
    pub config: Config,
    /// The GGUF tensors in the order of the file; where there are problems, only the sound ones.
    pub tensors: Vec<Planned>,
    /// The decoder of the masked-language head, where the checkpoint has it.
    pub tied: Option<Tied>,
    /// Tensors that are left out because nothing follows from them.
    pub ignored: Vec<String>,
    /// Everything that is wrong so far.
    pub problems: Vec<Problem>,
}

/// One GGUF tensor.
pub(crate) struct Planned {
    /// Its name.
    pub name: String,
    /// Its shape, fastest axis first.
    pub dims: Vec<u64>,
    /// What it is for.
    pub role: Role,
    /// The source tensors whose rows it is made of, one after the other.
    pub sources: Vec<String>,
    /// The shape of each of these.
    pub source_shape: Vec<usize>,
}

impl Planned {
    /// Values in a row, which is what a matrix is quantized by.
    pub fn row_len(&self) -> u64 {
        self.dims[0]
    }

    /// Values in all.
    pub fn values(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Values of each source tensor.
    pub fn source_values(&self) -> u64 {
        self.values() / self.sources.len() as u64
    }

    /// Bytes in a type that the rows allow.
    pub fn bytes(&self, tensor_type: TensorType) -> u64 {
        tensor_type.row_bytes(self.row_len()).unwrap_or(0) * self.dims[1..].iter().product::<u64>()
    }
}

/// A decoder that has to equal the word embedding.
pub(crate) struct Tied {
    pub decoder: String,
    pub embedding: String,
    pub shape: Vec<usize>,
}

const DECODER: &str = "cls.predictions.decoder.weight";

impl Plan {
    /// Matches the tensors that the model needs with those that there are.
    ///
    /// # Errors
    /// [`Error::Model`] for hyper-parameters that the runtime does not accept.
    pub fn new(found: &BTreeMap<String, SourceTensor>, recognised: Recognised) -> Result<Self, Error> {
        let Recognised { prefix, measured, stated, problems } = recognised;
        let mut candidates = Vec::new();
        for config in [&measured, &stated] {
            match config.check() {
                Ok(()) => candidates.push(tensors(config)),
                // With sizes that contradict each other, the contradiction is the news.
                Err(error) if problems.is_empty() => return Err(error.into()),
                Err(_) => {}
            }
        }

        let mut plan =
            Plan { config: measured, tensors: Vec::new(), tied: None, ignored: Vec::new(), problems };
        let mut used = BTreeSet::new();
        let needed = candidates.first().map_or(0, Vec::len);
        for position in 0..needed {
            // A shape is as it should be if it fits either opinion on the sizes: where these differ, that is
            // a problem of its own, which would only be repeated for each tensor.
            let allowed: Vec<_> = candidates.iter().map(|list| &list[position]).collect();
            plan.add(&allowed, prefix, found, &mut used);
        }
        plan.account_for_the_rest(found, &used, &format!("{prefix}embeddings.word_embeddings.weight"));
        if candidates.is_empty() {
            // No list of tensors follows from such sizes.
            plan.problems.retain(|problem| !matches!(problem, Problem::Unknown { .. }));
        }
        Ok(plan)
    }

    /// The number of weights; a tied matrix counts once.
    pub fn parameters(&self) -> u64 {
        self.tensors.iter().map(Planned::values).sum()
    }

    fn add(
        &mut self,
        allowed: &[&lxmert::model::Tensor],
        prefix: &str,
        found: &BTreeMap<String, SourceTensor>,
        used: &mut BTreeSet<String>,
    ) {
        let tensor = allowed[0];
        let sources = source_keys(&tensor.name, prefix);
        let shapes: Vec<_> = allowed.iter().map(|tensor| source_shape(&tensor.dims, sources.len())).collect();
        let mut sound = true;
        for key in &sources {
            let problem = match found.get(key) {
                None => Some(Problem::Missing { name: key.clone(), shape: shapes[0].clone() }),
                Some(source) if !source.readable => {
                    Some(Problem::Dtype { name: key.clone(), dtype: source.dtype.clone() })
                }
                Some(source) if !shapes.contains(&source.shape) => Some(Problem::Shape {
                    name: key.clone(),
                    expected: shapes[0].clone(),
                    found: source.shape.clone(),
                }),
                Some(source) => {
                    sound &= source.shape == shapes[0];
                    None
                }
            };
            sound &= problem.is_none();
            self.problems.extend(problem);
        }
        used.extend(sources.iter().cloned());
        if sound {
            let (name, dims, role) = (tensor.name.clone(), tensor.dims.clone(), tensor.role);
            let source_shape = shapes[0].clone();
            self.tensors.push(Planned { name, dims, role, sources, source_shape });
        }
    }

    fn account_for_the_rest(
        &mut self,
        found: &BTreeMap<String, SourceTensor>,
        used: &BTreeSet<String>,
        embedding: &str,
    ) {
        for (name, tensor) in found.iter().filter(|(name, _)| !used.contains(*name)) {
            // Old versions of transformers saved the numbers 0, 1, 2, … as a buffer.
            if name.ends_with(".position_ids") {
                self.ignored.push(name.clone());
            } else if name == DECODER {
                self.tie(tensor, embedding, found.get(embedding));
            } else {
                self.problems.push(Problem::Unknown { name: name.clone(), shape: tensor.shape.clone() });
            }
        }
    }

    /// Takes down a decoder for the comparison with the word embedding, if they can be compared.
    fn tie(&mut self, decoder: &SourceTensor, name: &str, embedding: Option<&SourceTensor>) {
        let Some(embedding) = embedding.filter(|embedding| embedding.readable) else {
            return; // The word embedding's own problem has been noted.
        };
        if !decoder.readable {
            let (name, dtype) = (DECODER.to_owned(), decoder.dtype.clone());
            self.problems.push(Problem::Dtype { name, dtype });
        } else if decoder.shape != embedding.shape {
            let (expected, found) = (embedding.shape.clone(), decoder.shape.clone());
            self.problems.push(Problem::Shape { name: DECODER.to_owned(), expected, found });
        } else {
            let (decoder, shape) = (DECODER.to_owned(), decoder.shape.clone());
            self.tied = Some(Tied { decoder, embedding: name.to_owned(), shape });
        }
    }
}

/// PyTorch's shape of each of the `parts` tensors that a GGUF tensor stacks along its slowest axis.
pub(crate) fn source_shape(dims: &[u64], parts: usize) -> Vec<usize> {
    let mut shape: Vec<_> = dims.iter().rev().map(|dim| *dim as usize).collect();
    shape[0] /= parts;
    shape
}
