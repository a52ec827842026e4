//! `lxmert-run`: raw tensors in, every output of the model out, under Hugging Face's names.

#[path = "support/computing.rs"]
mod computing;
#[path = "support/loading.rs"]
mod loading;
#[path = "support/memory.rs"]
mod memory;
mod support;
#[path = "support/tensors.rs"]
mod tensors;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use lxmert::atomic_file::{AtomicFile, is_same_file};
use lxmert::model::Config;
use lxmert::{Output, Session, SessionOptions, Text, reserve};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use computing::Computing;
use loading::Loading;
use tensors::{Tensors, in_file};

/// Run a model on raw tensors.
///
/// Inputs, slowest axis first: input_ids [B, L] or inputs_embeds [B, L, hidden]; visual_feats [B, O, visual_feat_dim];
/// visual_pos [B, O, visual_pos_dim]; optional attention_mask [B, L], token_type_ids [B, L] and visual_attention_mask
/// [B, O]. Outputs carry Hugging Face's names; lists are written as language_hidden_states.0, .1, and so on.
#[derive(Parser)]
#[command(version = support::version(), arg_required_else_help = true)]
#[command(override_usage = "lxmert-run [OPTIONS] --model <FILE> --inputs <FILE> --outputs <FILE>")]
struct Arguments {
    /// The model, a GGUF file made by lxmert-quantize.
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The input tensors, a safetensors file.
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// The file to write the output tensors to; a plan needs none.
    #[arg(long, value_name = "FILE", required_unless_present = "plan")]
    outputs: Option<PathBuf>,
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
    #[command(flatten)]
    loading: Loading,
    #[command(flatten)]
    computing: Computing,
}

#[global_allocator]
static ALLOCATOR: lxmert::Reserve = lxmert::Reserve::system();

fn main() -> ExitCode {
    support::start(|| support::finish(run(&Arguments::parse())))
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    memory::program_bytes();
    for (input, what) in [(&arguments.model, "the model"), (&arguments.inputs, "the input tensors")] {
        if arguments.outputs.as_ref().is_some_and(|outputs| is_same_file(input, outputs)) {
            return Err(format!("{}: would be written over, but holds {what}", input.display()).into());
        }
    }
    let model = arguments.loading.options()?.open(&arguments.model)?;
    let outputs = wanted(arguments, model.config())?;
    let tensors = Tensors::open(&arguments.inputs)?;
    let inputs = tensors.inputs();

    let mut options = SessionOptions::new(&model);
    options.max_tokens = inputs.tokens;
    options.max_regions = inputs.regions;
    options.max_batch = inputs.batch;
    options.inputs_embeds = matches!(inputs.text, Text::Embeddings(_));
    options.outputs = outputs;
    arguments.computing.apply(&mut options)?;
    let (Some(mut session), Some(outputs)) =
        (arguments.computing.session(&model, options)?, &arguments.outputs)
    else {
        // Only a plan was asked for.
        return Ok(());
    };
    session.run(&inputs).map_err(in_file(&arguments.inputs))?;
    write(&session, outputs).map_err(in_file(outputs))
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

fn write(session: &Session, path: &Path) -> Result<(), Box<dyn Error>> {
    let tensors = session.options().outputs.iter().map(|output| session.output(*output));
    let numbers = tensors.map(|tensor| tensor.map_or(0, |tensor| tensor.data.len())).sum::<usize>();
    // Twice, once as tensors and once as a file; a list that grows has as much again in between.
    reserve::probe(3 * numbers * size_of::<f32>(), "the outputs")?;
    let mut tensors = Vec::new();
    for output in &session.options().outputs {
        let tensor = session.output(*output)?;
        let bytes: Vec<u8> = tensor.data.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((output.to_string(), tensor.shape.to_vec(), bytes));
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
