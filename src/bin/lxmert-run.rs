//! `lxmert-run`: raw tensors in, every output of the model out, under Hugging Face's names.

mod support;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use lxmert::atomic_file::{AtomicFile, is_same_file};
use lxmert::model::Config;
use lxmert::numbers::floats;
use lxmert::{Inputs, Model, Output, Session, SessionOptions, Text};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// Run a model on raw tensors.
///
/// Inputs, slowest axis first: input_ids [B, L] or inputs_embeds [B, L, hidden]; visual_feats [B, O, visual_feat_dim];
/// visual_pos [B, O, visual_pos_dim]; optional attention_mask [B, L], token_type_ids [B, L] and visual_attention_mask
/// [B, O]. Outputs carry Hugging Face's names; lists are written as language_hidden_states.0, .1, and so on.
#[derive(Parser)]
#[command(version = support::version(), arg_required_else_help = true)]
struct Arguments {
    /// The model, a GGUF file made by lxmert-quantize.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The input tensors, a safetensors file.
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// The file to write the output tensors to.
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,
    /// An output to write, such as pooled_output, or a whole list, such as vision_attentions; may be repeated. Without
    /// it: every final output that the model has.
    #[arg(long = "output", value_name = "NAME")]
    names: Vec<String>,
    /// Write all hidden states too.
    #[arg(long)]
    output_hidden_states: bool,
    /// Write all attentions too.
    #[arg(long)]
    output_attentions: bool,
    /// Threads to compute with [default: all cores, or 1 for a small model].
    #[arg(long, value_name = "N", overrides_with = "threads")]
    threads: Option<usize>,
}

fn main() -> ExitCode {
    support::finish(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    for (input, what) in [(&arguments.model, "the model"), (&arguments.inputs, "the input tensors")] {
        if is_same_file(input, &arguments.outputs) {
            return Err(format!("{}: would be written over, but holds {what}", input.display()).into());
        }
    }
    let model = Model::open(&arguments.model)?;
    let outputs = wanted(arguments, model.config())?;
    let bytes = std::fs::read(&arguments.inputs).map_err(in_file(&arguments.inputs))?;
    let tensors = Tensors::read(&bytes).map_err(in_file(&arguments.inputs))?;
    let inputs = tensors.inputs().map_err(in_file(&arguments.inputs))?;

    let mut options = SessionOptions::new(&model);
    options.max_tokens = inputs.tokens;
    options.max_regions = inputs.regions;
    options.max_batch = inputs.batch;
    options.inputs_embeds = matches!(inputs.text, Text::Embeddings(_));
    options.outputs = outputs;
    options.threads = arguments.threads.unwrap_or(options.threads);
    let mut session = Session::new(&model, options)?;
    session.run(&inputs).map_err(in_file(&arguments.inputs))?;
    write(&session, &arguments.outputs).map_err(in_file(&arguments.outputs))
}

/// Puts a file's name before what is wrong with it.
fn in_file<E: std::fmt::Display>(path: &Path) -> impl FnOnce(E) -> Box<dyn Error> {
    move |error| format!("{}: {error}", path.display()).into()
}

fn wanted(arguments: &Arguments, config: &Config) -> Result<Vec<Output>, Box<dyn Error>> {
    let mut outputs = Vec::new();
    for name in &arguments.names {
        match Output::list(name, config) {
            Some(list) => outputs.extend(list),
            None => outputs.push(name.parse()?),
        }
    }
    if arguments.names.is_empty() {
        outputs.extend(Output::finals(config));
    }
    if arguments.output_hidden_states {
        outputs.extend(Output::hidden_states(config));
    }
    if arguments.output_attentions {
        outputs.extend(Output::attentions(config));
    }
    outputs.sort_unstable();
    outputs.dedup();
    Ok(outputs)
}

/// The input tensors, converted to the types that a session takes.
struct Tensors {
    batch: usize,
    tokens: usize,
    regions: usize,
    input_ids: Option<Vec<u32>>,
    inputs_embeds: Option<Vec<f32>>,
    attention_mask: Option<Vec<f32>>,
    token_type_ids: Option<Vec<u32>>,
    visual_feats: Vec<f32>,
    visual_pos: Vec<f32>,
    visual_attention_mask: Option<Vec<f32>>,
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
        let (ids, embeds) = (optional("input_ids"), optional("inputs_embeds"));
        let tokens = match (&ids, &embeds) {
            (Some(ids), None) => axes::<2>("input_ids", ids)?[1],
            (None, Some(embeds)) => axes::<3>("inputs_embeds", embeds)?[1],
            _ => return Err("give exactly one of input_ids and inputs_embeds".into()),
        };
        let text = [("input_ids", &ids, 2), ("inputs_embeds", &embeds, 3)];
        for (name, tensor, rank) in text {
            if let Some(tensor) = tensor {
                expect_axes(name, tensor, &[batch, tokens], rank)?;
            }
        }
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
        let indices = |name| optional(name).map(|tensor| integers(name, &tensor)).transpose();
        Ok(Tensors {
            batch,
            tokens,
            regions,
            input_ids: indices("input_ids")?,
            inputs_embeds: floats("inputs_embeds")?,
            attention_mask: floats("attention_mask")?,
            token_type_ids: indices("token_type_ids")?,
            visual_feats: numbers("visual_feats", &feats)?,
            visual_pos: numbers("visual_pos", &pos)?,
            visual_attention_mask: floats("visual_attention_mask")?,
        })
    }

    fn inputs(&self) -> Result<Inputs<'_>, Box<dyn Error>> {
        let text = match (&self.input_ids, &self.inputs_embeds) {
            (Some(ids), _) => Text::Ids(ids),
            (_, Some(embeds)) => Text::Embeddings(embeds),
            _ => return Err("give exactly one of input_ids and inputs_embeds".into()),
        };
        Ok(Inputs {
            batch: self.batch,
            tokens: self.tokens,
            regions: self.regions,
            text,
            attention_mask: self.attention_mask.as_deref(),
            token_type_ids: self.token_type_ids.as_deref(),
            visual_feats: &self.visual_feats,
            visual_pos: &self.visual_pos,
            visual_attention_mask: self.visual_attention_mask.as_deref(),
        })
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

fn write(session: &Session, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut tensors = Vec::new();
    for output in &session.options().outputs {
        let tensor = session.output(*output)?;
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((output.to_string(), tensor.shape, bytes));
    }
    let views: Result<Vec<_>, _> = tensors
        .iter()
        .map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)))
        .collect::<Result<_, safetensors::SafeTensorError>>();
    let bytes = safetensors::serialize(views?, None)?;
    let mut file = AtomicFile::create(path)?;
    file.write_all(&bytes)?;
    Ok(file.commit()?)
}
