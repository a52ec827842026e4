//! What a conversion of a sound checkpoint puts into the file.

mod common;

use std::num::NonZeroUsize;

use common::{Altered, Gguf, Tensor, converted, easy_vqa, golden, read_tensors, write_tensors};
use lxmert::gguf::TensorType;
use lxmert::model::{Config, Head, HiddenAct, ObjectHead};
use lxmert::vision::FrontEnd;
use lxmert_converter::{
    FILE_TYPES, Options, Problem, Reason, Synthetic, convert_directory, convert_synthetic,
};
use safetensors::Dtype;
use tempfile::TempDir;

/// Class and parameters of each golden checkpoint; the numbers were summed in Python over the
/// tensors of each file.
const GOLDEN: [(&str, &str, u64); 8] = [
    ("model-embeds", "LxmertModel", 43_104),
    ("model-odd-sizes", "LxmertModel", 46_796),
    ("model-relu", "LxmertModel", 84_160),
    ("pretraining-small", "LxmertForPreTraining", 210_147),
    ("qa-gelu-new", "LxmertForQuestionAnswering", 176_389),
    ("qa-masked-batch", "LxmertForQuestionAnswering", 333_009),
    ("qa-silu", "LxmertForQuestionAnswering", 176_389),
    ("qa-small", "LxmertForQuestionAnswering", 299_537),
];

#[test]
fn recognises_every_class() {
    for (name, class, parameters) in GOLDEN {
        let (_, report) = converted(&golden(name), TensorType::F32);
        assert_eq!((report.class.as_str(), report.parameters), (class, parameters), "{name}");
    }
}

#[test]
fn tells_the_configuration_from_tensors_and_file() {
    let (file, _) = converted(&golden("pretraining-small"), TensorType::F32);
    let expected = Config {
        vocab_size: 150,
        hidden_size: 64,
        num_attention_heads: 2,
        intermediate_size: 96,
        hidden_act: HiddenAct::Gelu,
        max_position_embeddings: 32,
        type_vocab_size: 2,
        l_layers: 2,
        r_layers: 1,
        x_layers: 1,
        visual_feat_dim: 64,
        visual_pos_dim: 4,
        head: Head::PreTraining {
            labels: Some(23),
            objects: Some(ObjectHead { labels: Some(16), attributes: Some(4), features: true }),
        },
    };
    assert_eq!(Config::from_metadata(file.metadata()).unwrap(), expected);

    let (file, _) = converted(&golden("qa-gelu-new"), TensorType::F32);
    let config = Config::from_metadata(file.metadata()).unwrap();
    assert_eq!(config.hidden_act, HiddenAct::GeluNew);
    assert_eq!(config.head, Head::QuestionAnswering { labels: 5 });
}

#[test]
fn keeps_every_value_in_f32() {
    for (name, ..) in GOLDEN {
        let source = read_tensors(&golden(name).join("model.safetensors"));
        let (file, report) = converted(&golden(name), TensorType::F32);
        let mut used = 0;
        for tensor in &report.tensors {
            let stacked: Vec<f32> = tensor.sources.iter().flat_map(|key| source[key].values()).collect();
            assert_eq!(file.values(&tensor.name), stacked, "{name}: {}", tensor.name);
            used += tensor.sources.len();
        }
        assert_eq!(used, source.len(), "{name}");
    }
}

#[test]
fn puts_the_source_values_under_the_right_names() {
    let source = read_tensors(&golden("qa-small").join("model.safetensors"));
    let (file, _) = converted(&golden("qa-small"), TensorType::F32);
    let same = |ours: &str, theirs: &str| assert_eq!(file.values(ours), source[theirs].values(), "{ours}");
    same("token_embd.weight", "lxmert.embeddings.word_embeddings.weight");
    same("blk.1.ffn_down.weight", "lxmert.encoder.layer.1.output.dense.weight");
    same("v.blk.0.layer_output_norm.bias", "lxmert.encoder.r_layers.0.output.LayerNorm.bias");
    same("x.blk.1.v.ffn_up.bias", "lxmert.encoder.x_layers.1.visn_inter.dense.bias");
    same("v.pos_embd.weight", "lxmert.encoder.visn_fc.box_fc.weight");
    same("cls.answer.1.weight", "answer_head.logit_fc.3.weight");

    let part = |part: &str, kind: &str| {
        source[&format!("lxmert.encoder.x_layers.0.lang_self_att.self.{part}.{kind}")].values()
    };
    for kind in ["weight", "bias"] {
        let stacked = [part("query", kind), part("key", kind), part("value", kind)].concat();
        assert_eq!(file.values(&format!("x.blk.0.l.attn_qkv.{kind}")), stacked);
    }
    assert_eq!(file.dims("x.blk.0.l.attn_qkv.weight"), [64, 192]);
}

#[test]
fn takes_up_tokenizer_answers_and_front_end() {
    let (file, report) = converted(&easy_vqa(), TensorType::F16);
    let metadata = file.metadata();
    assert_eq!(metadata.str("tokenizer.ggml.model").unwrap(), "bert");
    let tokens = metadata.strings("tokenizer.ggml.tokens").unwrap();
    let vocabulary = std::fs::read_to_string(easy_vqa().join("vocab.txt")).unwrap();
    assert!(vocabulary.lines().eq(tokens));
    for (name, piece) in [
        ("unknown", "[UNK]"),
        ("seperator", "[SEP]"),
        ("cls", "[CLS]"),
        ("padding", "[PAD]"),
        ("mask", "[MASK]"),
    ] {
        let id = metadata.u32(&format!("tokenizer.ggml.{name}_token_id")).unwrap();
        assert_eq!(tokens[id as usize], piece);
    }
    let json = metadata.str("tokenizer.huggingface.json").unwrap();
    assert_eq!(lxmert::text::Tokenizer::from_json(json).unwrap().vocab_size(), 134);

    let answers = metadata.strings("lxmert.classifier.output_labels").unwrap();
    assert_eq!((answers.len(), answers[0].as_str(), answers[12].as_str()), (13, "circle", "no"));
    let FrontEnd::PatchGrid(grid) = FrontEnd::from_metadata(metadata).unwrap() else { panic!("no grid") };
    assert_eq!((grid.rows(), grid.columns(), grid.patch_height(), grid.patch_width()), (8, 8, 8, 8));
    assert_eq!((grid.mean(), grid.std()), ([0.5; 3], [0.5; 3]));
    assert_eq!((report.tokenizer.unwrap().pieces, report.answers.unwrap().count), (134, 13));
}

#[test]
fn makes_the_same_tokenizer_from_vocabulary_and_json() {
    let copy = TempDir::new().unwrap();
    for name in ["config.json", "model.safetensors", "vocab.txt", "tokenizer_config.json", "answers.json"] {
        std::fs::copy(easy_vqa().join(name), copy.path().join(name)).unwrap();
    }
    let (from_vocabulary, _) = converted(copy.path(), TensorType::F16);
    let (from_json, _) = converted(&easy_vqa(), TensorType::F16);
    let key = "tokenizer.ggml.tokens";
    assert_eq!(from_vocabulary.metadata().strings(key).unwrap(), from_json.metadata().strings(key).unwrap());
}

#[test]
fn converts_without_tokenizer_and_answers() {
    let (file, report) = converted(&golden("qa-small"), TensorType::F16);
    assert!(report.tokenizer.is_none() && report.answers.is_none());
    assert_eq!(file.metadata().opt_str("tokenizer.ggml.model").unwrap(), None);
    assert_eq!(file.metadata().opt_strings("lxmert.classifier.output_labels").unwrap(), None);
    assert_eq!(FrontEnd::from_metadata(file.metadata()).unwrap(), FrontEnd::Regions);
    assert!(report.to_string().contains("lxmert-vqa does not"));
}

#[test]
fn describes_the_model_as_gguf_files_do() {
    let (file, report) = converted(&easy_vqa(), TensorType::Q8_0);
    let metadata = file.metadata();
    assert_eq!(metadata.str("general.architecture").unwrap(), "lxmert");
    assert_eq!(metadata.str("general.type").unwrap(), "model");
    assert_eq!(metadata.str("general.name").unwrap(), "LXMERT");
    assert_eq!(metadata.str("general.size_label").unwrap(), "1.4M");
    assert_eq!(metadata.u32("general.file_type").unwrap(), 7);
    assert_eq!(metadata.u32("general.quantization_version").unwrap(), 2);
    assert_eq!(metadata.str("lxmert.source.sha256").unwrap(), report.sha256);

    let (file, _) = converted(&easy_vqa(), TensorType::F16);
    assert_eq!(file.metadata().opt_u32("general.quantization_version").unwrap(), None);
}

/// SHA-256 over the values in the file's order, which for f32 are the file's data.
#[test]
fn hashes_the_weights_whatever_the_type_and_container() {
    use sha2::{Digest, Sha256};
    let (file, report) = converted(&golden("qa-small"), TensorType::F32);
    let mut hash = Sha256::new();
    for name in file.names() {
        hash.update(file.data(name));
    }
    let expected: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(report.sha256, expected);
    assert_eq!(converted(&golden("qa-small"), TensorType::Q8_0).1.sha256, expected);
}

#[test]
fn gives_each_tensor_the_type_that_it_can_have() {
    // Rows of 128 do not fit the K types' blocks of 256; the inner rows of 256 do.
    let (file, report) = converted(&easy_vqa(), TensorType::Q4K);
    assert_eq!(file.tensor_type("blk.0.ffn_down.weight"), TensorType::Q4K);
    assert_eq!(file.tensor_type("blk.0.attn_qkv.weight"), TensorType::F16);
    assert_eq!(file.tensor_type("v.pos_embd.weight"), TensorType::F32);
    assert_eq!(file.tensor_type("position_embd.weight"), TensorType::F32);
    assert_eq!(file.tensor_type("blk.0.ffn_down.bias"), TensorType::F32);
    let reason = |name: &str| report.tensors.iter().find(|tensor| tensor.name == name).unwrap().reason;
    assert_eq!(reason("blk.0.ffn_down.weight"), None);
    assert_eq!(reason("blk.0.attn_qkv.weight"), Some(Reason::RowLength));
    assert_eq!(reason("v.pos_embd.weight"), Some(Reason::ShortRows));
    assert_eq!(reason("position_embd.weight"), None);
}

#[test]
fn rounds_to_halves_as_half_does() {
    let source = read_tensors(&golden("qa-small").join("model.safetensors"));
    let values = source["lxmert.pooler.dense.weight"].values();
    let (file, _) = converted(&golden("qa-small"), TensorType::F16);
    let expected: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    assert_eq!(file.data("pooler.weight"), expected);
}

/// The definitions, over the whole tensor at once.
#[test]
fn reports_the_error_of_every_tensor() {
    let source = read_tensors(&easy_vqa().join("model.safetensors"));
    let values = source["lxmert.encoder.layer.0.output.dense.weight"].values();
    let (file, report) = converted(&easy_vqa(), TensorType::Q4_0);
    let mut found = vec![0.0; values.len()];
    let name = "blk.0.ffn_down.weight";
    lxmert::ggml::dequantize(TensorType::Q4_0, file.data(name), &mut found);
    let pairs = || values.iter().zip(&found).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
    let norms: f64 = pairs().map(|(a, _)| a * a).sum::<f64>() * pairs().map(|(_, b)| b * b).sum::<f64>();
    let mean = pairs().map(|(a, b)| (a - b).powi(2)).sum::<f64>() / values.len() as f64;
    let peak = pairs().fold(0.0f64, |peak, (a, _)| peak.max(a.abs()));
    let largest = pairs().fold(0.0f64, |largest, (a, b)| largest.max((a - b).abs()));

    let error = report.tensors.iter().find(|tensor| tensor.name == name).unwrap().error.unwrap();
    assert!((error.cosine - dot / norms.sqrt()).abs() < 1e-12, "{error:?}");
    assert!((error.psnr.unwrap() - 10.0 * (peak * peak / mean).log10()).abs() < 1e-9, "{error:?}");
    assert!((f64::from(error.max_error) - largest).abs() < 1e-7, "{error:?}");
    let of_type = report.types.iter().find(|of| of.tensor_type == "q4_0").unwrap();
    let worst = of_type.worst.as_ref().unwrap();
    let least = report.tensors.iter().map(|tensor| tensor.error.unwrap().cosine).fold(1.0, f64::min);
    assert_eq!(worst.cosine, least);
    assert!(report.types.iter().find(|of| of.tensor_type == "f32").unwrap().error.unwrap().psnr.is_none());
}

/// Bounds on the error in terms of the largest of 32 values: a step of the grid and what rounding the scale to f16
/// adds; looser for the K types, whose scales are quantized as well, and for q8_0, which may cut off up to 5 % of the
/// largest value.
#[test]
fn stays_within_the_error_of_each_type() {
    let source = read_tensors(&easy_vqa().join("model.safetensors"));
    let values = source["lxmert.encoder.layer.0.output.dense.weight"].values();
    let bounds = [
        (TensorType::F32, 0.0),
        (TensorType::F16, 1.0 / 2048.0),
        (TensorType::BF16, 1.0 / 256.0),
        (TensorType::Q8_0, 0.05),
        (TensorType::Q5_1, 1.0 / 31.0 + 1e-3),
        (TensorType::Q5_0, 1.0 / 16.0 + 1e-3),
        (TensorType::Q4_1, 1.0 / 15.0 + 1e-3),
        (TensorType::Q4_0, 1.0 / 8.0 + 1e-3),
        (TensorType::Q6K, 0.06),
        (TensorType::Q5K, 0.12),
        (TensorType::Q4K, 0.25),
        (TensorType::IQ4NL, 0.2),
        (TensorType::Q3K, 0.5),
        (TensorType::Q2K, 1.0),
    ];
    // The two recipes are made of these.
    assert_eq!(bounds.len() + 2, FILE_TYPES.len());
    for (tensor_type, bound) in bounds {
        let (file, _) = converted(&easy_vqa(), tensor_type);
        let mut found = vec![0.0; values.len()];
        lxmert::ggml::dequantize(tensor_type, file.data("blk.0.ffn_down.weight"), &mut found);
        for (expected, found) in values.chunks(32).zip(found.chunks(32)) {
            let largest = expected.iter().fold(0.0f32, |max, value| max.max(value.abs()));
            for (expected, found) in expected.iter().zip(found) {
                assert!((expected - found).abs() <= bound * largest, "{tensor_type}: {expected} {found}");
            }
        }
    }
}

#[test]
fn keeps_values_that_halves_cannot_hold() {
    let mut altered = Altered::golden("qa-small");
    altered.tensor("lxmert.pooler.dense.weight").set(5, -70_000.0);
    altered.write();
    let (file, report) = converted(altered.directory(), TensorType::F16);
    assert_eq!(file.values("pooler.weight")[5], -70_000.0);
    let kept: Vec<_> = report.tensors.iter().filter(|tensor| tensor.reason.is_some()).collect();
    assert_eq!((kept.len(), kept[0].reason), (1, Some(Reason::Range)));
}

#[test]
fn reads_every_float_type() {
    type Encode = fn(f32) -> Vec<u8>;
    let encode: [(Dtype, Encode); 3] = [
        (Dtype::F16, |v| half::f16::from_f32(v).to_le_bytes().to_vec()),
        (Dtype::BF16, |v| half::bf16::from_f32(v).to_le_bytes().to_vec()),
        (Dtype::F64, |v| f64::from(v).to_le_bytes().to_vec()),
    ];
    let values: Vec<f32> = (0..64).map(|n| n as f32 / 4.0 - 8.0).collect();
    for (dtype, encode) in encode {
        let mut altered = Altered::golden("qa-small");
        let data = values.iter().flat_map(|value| encode(*value)).collect();
        *altered.tensor("lxmert.pooler.dense.bias") = Tensor { dtype, shape: vec![64], data };
        altered.convert().unwrap();
        assert_eq!(Gguf::read(&altered.out()).values("pooler.bias"), values, "{dtype:?}");
    }
}

#[test]
fn gives_the_same_bytes_for_any_number_of_threads() {
    let temporary = TempDir::new().unwrap();
    let convert = |name: &str, threads| {
        let out = temporary.path().join(name);
        let options = Options { threads: NonZeroUsize::new(threads), ..Options::default() };
        let synthetic = Synthetic::named("tiny", 3).unwrap();
        let report = convert_synthetic(&synthetic, TensorType::Q4K, &out, &options).unwrap();
        (std::fs::read(out).unwrap(), report.tensors)
    };
    let once = convert("1.gguf", 1);
    assert!(once == convert("again.gguf", 1));
    assert!(once == convert("2.gguf", 2));
    assert!(once == convert("7.gguf", 7));
}

#[test]
fn gives_the_same_bytes_for_shards() {
    let altered = Altered::golden("pretraining-small");
    let mut weight_map = serde_json::Map::new();
    for shard in 0..3 {
        let name = format!("model-0000{}-of-00003.safetensors", shard + 1);
        let part = altered.tensors.clone().into_iter().enumerate().filter(|(n, _)| n % 3 == shard);
        let part: common::Tensors = part.map(|(_, tensor)| tensor).collect();
        write_tensors(&altered.directory().join(&name), &part);
        weight_map.extend(part.into_keys().map(|key| (key, name.clone().into())));
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": weight_map });
    altered.write_file("model.safetensors.index.json", &index.to_string());
    altered.write_config();

    let (sharded, _) = converted(altered.directory(), TensorType::Q8_0);
    let (single, _) = converted(&golden("pretraining-small"), TensorType::Q8_0);
    assert!(sharded.bytes == single.bytes);
}

#[test]
fn accepts_a_decoder_only_if_it_is_the_word_embedding() {
    const DECODER: &str = "cls.predictions.decoder.weight";
    let mut altered = Altered::golden("pretraining-small");
    altered.tensors.remove(DECODER);
    let embedding = altered.tensor("lxmert.embeddings.word_embeddings.weight").clone();
    altered.convert().unwrap();
    let without = std::fs::read(altered.out()).unwrap();

    altered.tensors.insert(DECODER.to_owned(), embedding);
    altered.convert().unwrap();
    assert!(std::fs::read(altered.out()).unwrap() == without);

    altered.tensor(DECODER).set(2 * 64 + 7, 0.125);
    std::fs::remove_file(altered.out()).unwrap();
    let [Problem::NotTied { first, .. }] = &altered.problems()[..] else { panic!("not one problem") };
    assert_eq!(first, &[2, 7]);
}

#[test]
fn ignores_the_buffer_of_old_versions() {
    let mut altered = Altered::golden("qa-small");
    let buffer = Tensor { dtype: Dtype::I64, shape: vec![1, 4], data: vec![0; 32] };
    altered.tensors.insert("lxmert.embeddings.position_ids".to_owned(), buffer);
    assert_eq!(altered.convert().unwrap().ignored, ["lxmert.embeddings.position_ids"]);
}

#[test]
fn converts_to_a_file_that_the_runtime_loads() {
    let temporary = TempDir::new().unwrap();
    let out = temporary.path().join("out.gguf");
    for (name, ..) in GOLDEN {
        for tensor_type in [TensorType::F32, TensorType::Q8_0] {
            convert_directory(&golden(name), tensor_type, &out, &Options::default()).unwrap();
            lxmert::Model::open(&out).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}
