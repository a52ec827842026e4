//! Raw tensors from a safetensors file, under Hugging Face's names.

use std::error::Error;
use std::path::Path;

use lxmert::numbers::floats;
use lxmert::{Inputs, Text, reserve};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The input tensors, converted to the types that a session takes.
pub struct Tensors {
    pub batch: usize,
    pub tokens: usize,
    pub regions: usize,
    pub words: Words,
    pub attention_mask: Option<Vec<f32>>,
    pub token_type_ids: Option<Vec<u32>>,
    pub visual_feats: Vec<f32>,
    pub visual_pos: Vec<f32>,
    pub visual_attention_mask: Option<Vec<f32>>,
}

/// The questions, as token ids or as embeddings.
pub enum Words {
    Ids(Vec<u32>),
    Embeddings(Vec<f32>),
}

const NAMES: [&str; 7] = [
    "input_ids",
    "inputs_embeds",
    "attention_mask",
    "token_type_ids",
    "visual_feats",
    "visual_pos",
    "visual_attention_mask",
];

impl Tensors {
    /// Reads a safetensors file; every error names it.
    pub fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let bytes = std::fs::read(path).map_err(in_file(path))?;
        // Numbers of 16 bits become ones of 32.
        reserve::probe(2 * bytes.len(), "the input tensors")?;
        Tensors::read(&bytes).map_err(in_file(path))
    }

    fn read(bytes: &[u8]) -> Result<Self, Box<dyn Error>> {
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| format!("not a usable safetensors file: {error}"))?;
        if let Some(unknown) = file.names().into_iter().find(|name| !NAMES.contains(name)) {
            return Err(format!("unknown tensor {unknown:?}; the inputs are {}", NAMES.join(", ")).into());
        }
        let optional = |name| file.tensor(name).ok();
        let required =
            |name| optional(name).ok_or_else(|| format!("there is no {name}, which the model needs"));

        let feats = required("visual_feats")?;
        let pos = required("visual_pos")?;
        let [batch, regions, _] = axes("visual_feats", &feats)?;
        expect_axes("visual_pos", &pos, &[batch, regions], 3)?;
        let (tokens, words) = match (optional("input_ids"), optional("inputs_embeds")) {
            (Some(ids), None) => {
                let [_, tokens] = axes("input_ids", &ids)?;
                expect_axes("input_ids", &ids, &[batch, tokens], 2)?;
                (tokens, Words::Ids(integers("input_ids", &ids)?))
            }
            (None, Some(embeds)) => {
                let [_, tokens, _] = axes("inputs_embeds", &embeds)?;
                expect_axes("inputs_embeds", &embeds, &[batch, tokens], 3)?;
                (tokens, Words::Embeddings(numbers("inputs_embeds", &embeds)?))
            }
            _ => return Err("give exactly one of input_ids and inputs_embeds".into()),
        };
        let masks = [
            ("attention_mask", [batch, tokens]),
            ("token_type_ids", [batch, tokens]),
            ("visual_attention_mask", [batch, regions]),
        ];
        for (name, shape) in masks {
            if let Some(tensor) = optional(name) {
                expect_axes(name, &tensor, &shape, 2)?;
            }
        }
        let floats = |name| optional(name).map(|tensor| numbers(name, &tensor)).transpose();
        Ok(Tensors {
            batch,
            tokens,
            regions,
            words,
            attention_mask: floats("attention_mask")?,
            token_type_ids: optional("token_type_ids")
                .map(|tensor| integers("token_type_ids", &tensor))
                .transpose()?,
            visual_feats: numbers("visual_feats", &feats)?,
            visual_pos: numbers("visual_pos", &pos)?,
            visual_attention_mask: floats("visual_attention_mask")?,
        })
    }

    /// The tensors as a session takes them.
    pub fn inputs(&self) -> Inputs<'_> {
        Inputs {
            batch: self.batch,
            tokens: self.tokens,
            regions: self.regions,
            text: match &self.words {
                Words::Ids(ids) => Text::Ids(ids),
                Words::Embeddings(embeddings) => Text::Embeddings(embeddings),
            },
            attention_mask: self.attention_mask.as_deref(),
            token_type_ids: self.token_type_ids.as_deref(),
            visual_feats: &self.visual_feats,
            visual_pos: &self.visual_pos,
            visual_attention_mask: self.visual_attention_mask.as_deref(),
        }
    }
}

fn axes<const RANK: usize>(name: &str, tensor: &TensorView<'_>) -> Result<[usize; RANK], String> {
    let shape = tensor.shape();
    shape.try_into().map_err(|_| format!("{name}: expected {RANK} axes, found shape {shape:?}"))
}

fn expect_axes(name: &str, tensor: &TensorView<'_>, first: &[usize], rank: usize) -> Result<(), String> {
    let shape = tensor.shape();
    if shape.len() == rank && shape.starts_with(first) {
        return Ok(());
    }
    let expected: Vec<String> = first.iter().map(usize::to_string).collect();
    let rest = ", …".repeat(rank - first.len());
    Err(format!("{name}: expected shape [{}{rest}], found {shape:?}", expected.join(", ")))
}

fn numbers(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let data = tensor.data();
    Ok(match tensor.dtype() {
        // Masks come as integers or booleans too.
        Dtype::I64 => data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes) as f32).collect(),
        Dtype::I32 => data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as f32).collect(),
        Dtype::BOOL | Dtype::U8 => data.iter().map(|byte| f32::from(*byte)).collect(),
        dtype => floats(dtype, data)
            .ok_or_else(|| format!("{name}: expected numbers of type F32, found {dtype:?}"))?,
    })
}

fn integers(name: &str, tensor: &TensorView<'_>) -> Result<Vec<u32>, String> {
    let data = tensor.data();
    let wide: Vec<i64> = match tensor.dtype() {
        Dtype::I64 => data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
        Dtype::I32 => data.as_chunks().0.iter().map(|bytes| i32::from_le_bytes(*bytes).into()).collect(),
        Dtype::U8 => data.iter().map(|byte| i64::from(*byte)).collect(),
        other => return Err(format!("{name}: expected integers of type I64 or I32, found {other:?}")),
    };
    let index = |(n, value): (usize, i64)| {
        u32::try_from(value).map_err(|_| format!("{name}: {value} at index {n} is no id"))
    };
    wide.into_iter().enumerate().map(index).collect()
}

/// Puts a file's name before what is wrong with it.
pub fn in_file<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| format!("{}: {error}", path.display()).into()
}
