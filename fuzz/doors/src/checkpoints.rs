//! What checkpoints to be converted are made of.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use lxmert::gguf::TensorType;
use lxmert_converter::{Error, Options, convert_directory};

use crate::{Verdict, parts, refused, scratch, tiny};

/// Everything but writing, which [`requantize`](crate::models::requantize) does.
fn options() -> Options {
    Options { threads: NonZeroUsize::new(1), dry_run: true, ..Options::default() }
}

fn convert(name: &str, options: &Options) -> Verdict {
    let out = scratch::path("out.gguf");
    convert_directory(&scratch::path(name), TensorType::Q8_0, &out, options).map_err(unconverted)?;
    Ok(())
}

/// A conversion's error as a verdict, with some of the problems that the program lists beside it.
pub(crate) fn unconverted(error: Error) -> String {
    let text = refused(&error);
    let Error::Tensors { problems } = error else { return text };
    let problems: Vec<String> = problems.iter().take(32).map(refused).collect();
    format!("{text}: {}", problems.join("; "))
}

fn weights(name: &str, bytes: &[u8]) -> Verdict {
    scratch::file(name, bytes);
    let config = scratch::file("given.json", tiny::CONFIG_JSON.as_bytes());
    convert(name, &Options { config: Some(config), ..options() })
}

/// A file of weights in safetensors.
pub fn safetensors(bytes: &[u8]) -> Verdict {
    weights("in.safetensors", bytes)
}

/// A file of weights as `torch.save` writes it. The name decides nothing, so this is a door of its own for its corpus's sake.
pub fn torch(bytes: &[u8]) -> Verdict {
    weights("in.pth", bytes)
}

/// The small files of a checkpoint's directory, one after the other.
pub const FILES: [&str; 7] = [
    "config.json",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "answers.json",
    "preprocessing.json",
    "model.safetensors.index.json",
];

/// A directory with good weights and whatever small files; those without bytes are not there.
pub fn directory(bytes: &[u8]) -> Verdict {
    static WEIGHTS: OnceLock<Vec<u8>> = OnceLock::new();
    let parts: [_; FILES.len()] = parts::split(bytes);
    for (name, part) in FILES.iter().zip(parts) {
        let name = format!("checkpoint/{name}");
        if part.is_empty() {
            scratch::remove(&name);
        } else {
            scratch::file(&name, part);
        }
    }
    // With an index, the weights are its shard.
    let sharded = !parts[6].is_empty();
    let (there, away) = if sharded {
        ("shard.safetensors", "model.safetensors")
    } else {
        ("model.safetensors", "shard.safetensors")
    };
    scratch::remove(&format!("checkpoint/{away}"));
    scratch::file(&format!("checkpoint/{there}"), WEIGHTS.get_or_init(tiny::safetensors));
    convert("checkpoint", &options())
}
