//! The smallest model that has everything: both encoders, answers, a tokenizer and a front end.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use lxmert::InstructionSet;
use lxmert::gguf::{Metadata, TensorSpec, TensorType, Writer};
use lxmert::model::{Config, Head, HiddenAct, Role, tensors};
use lxmert::vision::{FrontEnd, PatchGrid};
use lxmert_converter::source::{Source, SyntheticSource};
use lxmert_converter::{Options, Synthetic, convert_directory};

use crate::raw::Raw;
use crate::scratch;

/// The pieces of its tokenizer.
pub const PIECES: [&str; 16] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "it", "?", "a", "##n", "##s", "red", "on",
    "the", "##t",
];

/// Its answers.
pub const ANSWERS: [&str; 3] = ["yes", "no", "red"];

/// Values of the pixels in one of its patches.
pub const FEATURES: usize = 12;

/// Its hyper-parameters.
pub fn config() -> Config {
    Config {
        vocab_size: PIECES.len(),
        hidden_size: 8,
        num_attention_heads: 2,
        intermediate_size: 8,
        hidden_act: HiddenAct::Gelu,
        max_position_embeddings: 8,
        type_vocab_size: 2,
        l_layers: 1,
        r_layers: 1,
        x_layers: 1,
        visual_feat_dim: FEATURES,
        visual_pos_dim: 4,
        head: Head::QuestionAnswering { labels: ANSWERS.len() },
    }
}

/// Its patches: 2 x 2, each of 2 x 2 pixels.
pub fn grid() -> PatchGrid {
    PatchGrid::new(2, 2, 2, 2, [0.5; 3], [0.5; 3]).expect("all of it is in range")
}

/// The model as a GGUF file's parts.
pub fn model() -> Raw {
    of(&config(), TensorType::F32)
}

/// A model of other sizes, with its matrices in that type where rows are whole blocks of it.
pub fn of(config: &Config, matrices: TensorType) -> Raw {
    let mut metadata = Metadata::new();
    let written = metadata
        .insert("general.architecture", "lxmert")
        .map_err(lxmert::Error::from)
        .and_then(|()| config.write_metadata(&mut metadata))
        .and_then(|()| FrontEnd::PatchGrid(grid()).write_metadata(&mut metadata));
    written.expect("no key comes twice");

    let (mut specs, mut data) = (Vec::new(), Vec::new());
    for (number, tensor) in tensors(config).into_iter().enumerate() {
        let matrix = matches!(tensor.role, Role::Matrix | Role::WordEmbedding);
        let whole = tensor.dims[0].is_multiple_of(matrices.block_len() as u64);
        let tensor_type = if matrix && whole { matrices } else { TensorType::F32 };
        let count = tensor.dims.iter().product::<u64>() as usize;
        // Any values near those of a trained model will do.
        let values: Vec<f32> =
            (0..count).map(|n| ((n * 37 + number * 11) % 41) as f32 / 100.0 - 0.2).collect();
        let mut bytes = Vec::new();
        lxmert::ggml::quantize(tensor_type, &values, tensor.dims[0] as usize, &mut bytes);
        specs.push(TensorSpec { name: tensor.name, tensor_type, dims: tensor.dims });
        data.push(bytes);
    }
    let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
    let bytes = Writer::to_vec(&metadata, &specs, &data).expect("the data fits the tensors");
    let mut raw = Raw::parse(&bytes).expect("the writer's files are laid out as they should be");
    raw.set_str("tokenizer.ggml.model", "bert");
    raw.set_strs("tokenizer.ggml.tokens", &PIECES);
    for (name, id) in [("unknown", 1), ("cls", 2), ("seperator", 3), ("padding", 0), ("mask", 4)] {
        raw.set_u32(&format!("tokenizer.ggml.{name}_token_id"), id);
    }
    raw.set_strs("lxmert.classifier.output_labels", &ANSWERS);
    raw
}

/// A model with its matrices packed, for a CPU of any kind.
///
/// # Panics
/// If the converter fails.
pub fn packed() -> Raw {
    let wide = Config { hidden_size: 32, intermediate_size: 32, r_layers: 0, x_layers: 0, ..config() };
    let mut raw = of(&wide, TensorType::Q8_0);
    let own: Vec<_> = raw.keys.iter().map(|key| key.name.clone()).collect();
    let (path, out) = (scratch::file("rows.gguf", &raw.encode()), scratch::path("packed.gguf"));
    let options = Options {
        threads: NonZeroUsize::new(1),
        allow_requantize: true,
        pack: Some(InstructionSet::Portable),
        ..Options::default()
    };
    convert_directory(&path, TensorType::Q8_0, &out, &options).expect("the model is good");
    let bytes = std::fs::read(&out).expect("it has just been written");
    raw = Raw::parse(&bytes).expect("the writer's files are laid out as they should be");
    // Without what the converter says of itself.
    let is_kept = |name: &Vec<u8>| {
        own.contains(name) || name == b"general.alignment" || name.starts_with(b"lxmert.pack.")
    };
    raw.keys.retain(|key| is_kept(&key.name));
    raw
}

fn source(config: &Config) -> SyntheticSource {
    SyntheticSource::new(&Synthetic { name: "tiny".to_owned(), config: config.clone(), seed: 1 })
}

/// The model's weights as a checkpoint has them: f32 tensors with their shapes, by Hugging Face's names.
pub fn checkpoint() -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let source = source(&config());
    let tensor = |(name, tensor): (&String, &lxmert_converter::source::SourceTensor)| {
        let mut values = vec![0.0; tensor.shape.iter().product()];
        source.read(name, 0, &mut values).expect("it is computed, not read");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (name.clone(), (tensor.shape.clone(), bytes))
    };
    source.tensors().iter().map(tensor).collect()
}

/// [`checkpoint`] as a safetensors file.
pub fn safetensors() -> Vec<u8> {
    use safetensors::{Dtype, tensor::TensorView};
    let tensors = checkpoint();
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).expect("as many bytes as the shape asks for"),
        )
    });
    safetensors::serialize(views, None).expect("the names are different")
}

/// The `config.json` that goes with [`checkpoint`].
pub const CONFIG_JSON: &str = r#"{"model_type":"lxmert","num_attention_heads":2,"hidden_act":"gelu"}"#;

/// A `tokenizer.json` of [`PIECES`].
pub fn tokenizer_json() -> String {
    let vocab: serde_json::Map<_, _> =
        (0..).zip(PIECES).map(|(id, piece)| (piece.to_owned(), serde_json::Value::from(id))).collect();
    let added: Vec<_> = (0..5)
        .map(|id: usize| {
            serde_json::json!({
                "id": id, "content": PIECES[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
            "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 1}},
            ],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    })
    .to_string()
}
