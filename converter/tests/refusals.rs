//! Checkpoints that are refused: with what is wrong, and without a file left behind.

mod common;

use std::path::Path;

use common::{Altered, Tensor, easy_vqa, golden, write_tensors};
use lxmert::gguf::TensorType;
use lxmert_converter::{Error, Options, Problem, convert_directory};
use safetensors::Dtype;
use tempfile::TempDir;

const POOLER: &str = "lxmert.pooler.dense.weight";

#[test]
fn names_a_missing_tensor() {
    let mut altered = Altered::golden("qa-small");
    altered.tensors.remove(POOLER);
    let missing = Problem::Missing { name: POOLER.to_owned(), shape: vec![64, 64] };
    assert_eq!(altered.problems(), [missing]);
}

#[test]
fn names_an_unknown_tensor() {
    let mut altered = Altered::golden("qa-small");
    altered.tensors.insert("lxmert.pooler.extra".to_owned(), Tensor::f32(&[2], &[1.0, 2.0]));
    let unknown = Problem::Unknown { name: "lxmert.pooler.extra".to_owned(), shape: vec![2] };
    assert_eq!(altered.problems(), [unknown]);
}

#[test]
fn names_a_tensor_of_the_wrong_shape() {
    let mut altered = Altered::golden("qa-small");
    *altered.tensor(POOLER) = Tensor::f32(&[64, 63], &[0.0; 64 * 63]);
    let shape = Problem::Shape { name: POOLER.to_owned(), expected: vec![64, 64], found: vec![64, 63] };
    assert_eq!(altered.problems(), [shape]);
}

#[test]
fn names_a_tensor_of_an_unsupported_type() {
    let mut altered = Altered::golden("qa-small");
    *altered.tensor(POOLER) = Tensor { dtype: Dtype::I8, shape: vec![64, 64], data: vec![0; 64 * 64] };
    assert_eq!(altered.problems(), [Problem::Dtype { name: POOLER.to_owned(), dtype: "I8".to_owned() }]);
}

#[test]
fn counts_values_that_are_no_numbers() {
    let mut altered = Altered::golden("qa-small");
    altered.tensor(POOLER).set(64 * 3 + 9, f32::NAN);
    altered.tensor(POOLER).set(64 * 5, f32::INFINITY);
    let expected = Problem::NotFinite { name: POOLER.to_owned(), count: 2, first: vec![3, 9] };
    assert_eq!(altered.problems(), [expected]);
}

#[test]
fn refuses_a_double_that_no_float_can_hold() {
    let mut altered = Altered::golden("qa-small");
    let data = [1e300f64; 64].iter().flat_map(|value| value.to_le_bytes()).collect();
    *altered.tensor("lxmert.pooler.dense.bias") = Tensor { dtype: Dtype::F64, shape: vec![64], data };
    assert!(matches!(altered.problems()[..], [Problem::NotFinite { count: 64, .. }]));
}

#[test]
fn lists_everything_that_is_wrong_at_once() {
    let mut altered = Altered::golden("qa-small");
    altered.tensors.remove("lxmert.pooler.dense.bias");
    altered.tensors.insert("stray".to_owned(), Tensor::f32(&[1], &[0.0]));
    *altered.tensor("answer_head.logit_fc.2.bias") = Tensor::f32(&[5], &[0.0; 5]);
    altered.tensor("lxmert.encoder.x_layers.1.visn_output.dense.bias").set(2, f32::NAN);
    let problems = altered.problems();
    assert_eq!(problems.len(), 4, "{problems:?}");
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(texts.contains(&r#"missing: "lxmert.pooler.dense.bias" [64]"#.to_owned()), "{texts:?}");
    assert!(texts.contains(&r#"unknown: "stray" [1]"#.to_owned()), "{texts:?}");
    assert!(texts.iter().all(|text| !text.contains('\n')));
}

#[test]
fn reports_a_layer_with_a_hole_below_it() {
    let mut altered = Altered::golden("qa-small");
    altered.tensors.retain(|name, _| !name.starts_with("lxmert.encoder.layer.0."));
    let problems = altered.problems();
    assert_eq!(problems.len(), 16);
    assert!(problems.iter().all(|problem| matches!(problem, Problem::Missing { .. })), "{problems:?}");
}

#[test]
fn takes_a_layer_of_an_absurd_number_as_unknown() {
    let mut altered = Altered::golden("qa-small");
    let name = "lxmert.encoder.layer.18446744073709551615.output.dense.bias";
    altered.tensors.insert(name.to_owned(), Tensor::f32(&[64], &[0.0; 64]));
    assert!(matches!(&altered.problems()[..], [Problem::Unknown { name: found, .. }] if found == name));
}

#[test]
fn names_both_sides_where_a_size_differs() {
    for (field, value, tensors) in [
        ("hidden_size", 32, 64),
        ("vocab_size", 121, 120),
        ("intermediate_size", 64, 128),
        ("max_position_embeddings", 512, 32),
        ("visual_feat_dim", 2048, 96),
        ("l_layers", 9, 2),
        ("x_layers", 1, 2),
        ("num_qa_labels", 3129, 17),
    ] {
        let mut altered = Altered::golden("qa-small");
        altered.config[field] = value.into();
        let problems = altered.problems();
        let [Problem::Size { field: found, config, tensors: told, .. }] = &problems[..] else {
            panic!("{field}: {problems:?}")
        };
        assert_eq!((*found, *config, *told), (field, value, tensors));
    }
}

#[test]
fn does_not_repeat_a_size_for_every_tensor() {
    let mut altered = Altered::golden("qa-small");
    let embedding = "lxmert.embeddings.word_embeddings.weight";
    *altered.tensor(embedding) = Tensor::f32(&[120, 32], &[0.0; 120 * 32]);
    assert!(matches!(altered.problems()[..], [Problem::Size { config: 64, tensors: 32, .. }]));
}

#[test]
fn names_the_class_where_the_head_is_missing() {
    let mut altered = Altered::golden("qa-small");
    altered.tensors.retain(|name, _| !name.starts_with("answer_head."));
    let problems = altered.problems();
    assert!(matches!(&problems[..], [Problem::Class { .. }]), "{problems:?}");
    let text = problems[0].to_string();
    assert!(text.contains("LxmertForQuestionAnswering") && text.contains("LxmertModel"), "{text}");

    let mut altered = Altered::golden("pretraining-small");
    altered.tensors.retain(|name, _| !name.starts_with("answer_head."));
    assert_eq!(
        altered.problems()[0].to_string(),
        "config.json: task_qa is true, but there are no tensors answer_head.*"
    );
}

#[test]
fn refuses_what_the_runtime_cannot_compute() {
    let error_with = |field: &str, value: serde_json::Value| {
        let mut altered = Altered::golden("qa-small");
        altered.config[field] = value;
        altered.convert().unwrap_err().to_string()
    };
    let error = error_with("hidden_act", "mish".into());
    assert!(
        error.ends_with(r#"hidden_act is "mish": the runtime has gelu, relu, silu, gelu_new"#),
        "{error}"
    );
    let error = error_with("model_type", "bert".into());
    assert!(error.ends_with(r#"model_type is "bert": only lxmert is converted"#), "{error}");
    let error = error_with("num_attention_heads", 5.into());
    assert!(error.contains("expected a divisor of the embedding length 64"), "{error}");
    let error = error_with("hidden_size", (-1).into());
    assert!(error.contains("invalid value"), "{error}");
}

#[test]
fn tells_a_file_that_is_cut_short() {
    let altered = Altered::golden("qa-small");
    altered.write();
    let weights = altered.directory().join("model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    for len in [0, 7, 8, 100, header - 1, header, whole.len() - 1] {
        std::fs::write(&weights, &whole[..len]).unwrap();
        let error = altered.convert_written().unwrap_err();
        assert!(matches!(error, Error::Safetensors { .. }), "{len}: {error}");
        assert!(!altered.out().exists());
    }
    std::fs::write(&weights, [&whole[..], &[0]].concat()).unwrap();
    let error = altered.convert_written().unwrap_err().to_string();
    assert!(error.contains("too long"), "{error}");
}

#[test]
fn refuses_headers_that_lie() {
    let altered = Altered::golden("qa-small");
    altered.write();
    let huge = u64::MAX.to_le_bytes().to_vec();
    let file = |header: &str| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
    for bytes in [
        huge,
        file("{"),
        file(r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 8]}}"#),
        file(r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}"#),
        file(r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#),
        file(r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}"#),
        file(r#"{"a": {"dtype": "Q4", "shape": [2], "data_offsets": [0, 8]}}"#),
    ] {
        std::fs::write(altered.directory().join("model.safetensors"), bytes).unwrap();
        assert!(matches!(altered.convert_written(), Err(Error::Safetensors { .. })));
    }
}

/// Two shards of a golden checkpoint, with an index that may be altered.
struct Shards {
    altered: Altered,
    index: serde_json::Value,
}

impl Shards {
    const NAMES: [&str; 2] = ["a.safetensors", "b.safetensors"];

    fn new() -> Self {
        let altered = Altered::golden("qa-small");
        altered.write_config();
        let mut index = serde_json::json!({ "weight_map": {} });
        for (number, name) in Self::NAMES.into_iter().enumerate() {
            let half = altered.tensors.iter().enumerate().filter(|(n, _)| n % 2 == number);
            let half = half.map(|(_, (key, tensor))| (key.clone(), tensor.clone())).collect();
            write_tensors(&altered.directory().join(name), &half);
            for key in half.keys() {
                index["weight_map"][key] = name.into();
            }
        }
        Shards { altered, index }
    }

    fn error(&self) -> Error {
        self.altered.write_file("model.safetensors.index.json", &self.index.to_string());
        self.altered.convert_written().unwrap_err()
    }
}

#[test]
fn names_a_shard_that_is_missing() {
    let shards = Shards::new();
    std::fs::remove_file(shards.altered.directory().join("b.safetensors")).unwrap();
    let error = shards.error().to_string();
    assert!(error.ends_with(r#"it lists files that are not there: ["b.safetensors"]"#), "{error}");
}

#[test]
fn keeps_an_index_within_its_directory() {
    for path in ["../b.safetensors", "/etc/passwd", "sub/b.safetensors", "..", "", r"..\b.safetensors"] {
        let mut shards = Shards::new();
        shards.index["weight_map"][POOLER] = path.into();
        let error = shards.error().to_string();
        assert!(error.contains("is not the plain name of a file"), "{path:?}: {error}");
    }
}

#[test]
fn compares_shards_with_their_index() {
    let mut shards = Shards::new();
    let home = shards.index["weight_map"][POOLER].take();
    let other = Shards::NAMES.into_iter().find(|name| home != **name).unwrap();
    shards.index["weight_map"][POOLER] = other.into();
    shards.index["weight_map"].as_object_mut().unwrap().remove("lxmert.pooler.dense.bias");
    let Error::Tensors { problems } = shards.error() else { panic!("not refused for its tensors") };
    assert!(matches!(&problems[0], Problem::NotInShard { name, shard } if name == POOLER && shard == other));
    assert!(matches!(&problems[1], Problem::NotInIndex { name, .. } if name == "lxmert.pooler.dense.bias"));
    assert_eq!(problems.len(), 2);
}

#[test]
fn refuses_answers_that_do_not_fit_the_head() {
    let altered = Altered::golden("qa-small");
    altered.write_file("answers.json", r#"["yes", "no"]"#);
    let error = altered.convert().unwrap_err();
    assert!(matches!(error, Error::Labels { .. }));
    assert!(error.to_string().ends_with("answers.json: 2 answers for a head of 17"), "{error}");
    assert!(!altered.out().exists());
}

#[test]
fn prefers_the_given_answers_then_the_directory_then_the_configuration() {
    let mut altered = Altered::golden("qa-small");
    let table = |word: &str| (0..17).map(|n| format!("{word}{n}")).collect::<Vec<_>>();
    let first = |altered: &Altered, options: &Options| {
        convert_directory(altered.directory(), TensorType::F32, &altered.out(), options).unwrap();
        let file = common::Gguf::read(&altered.out());
        file.metadata().strings("lxmert.classifier.output_labels").unwrap()[0].clone()
    };
    let ids: serde_json::Map<_, _> =
        table("config").into_iter().enumerate().map(|(id, answer)| (id.to_string(), answer.into())).collect();
    altered.config["id2label"] = ids.into();
    altered.write();
    assert_eq!(first(&altered, &Options::default()), "config0");
    altered.write_file("answers.json", &serde_json::json!(table("directory")).to_string());
    assert_eq!(first(&altered, &Options::default()), "directory0");
    altered.write_file("mine.json", &serde_json::json!(table("given")).to_string());
    let options = Options { labels: Some(altered.directory().join("mine.json")), ..Options::default() };
    assert_eq!(first(&altered, &options), "given0");
}

#[test]
fn refuses_answers_for_a_model_without_a_head() {
    let altered = Altered::golden("model-relu");
    altered.write();
    altered.write_file("mine.json", r#"["yes"]"#);
    let options = Options { labels: Some(altered.directory().join("mine.json")), ..Options::default() };
    let error =
        convert_directory(altered.directory(), TensorType::F32, &altered.out(), &options).unwrap_err();
    assert!(error.to_string().ends_with("the model has no answer head"), "{error}");
}

#[test]
fn refuses_a_tokenizer_with_more_pieces_than_rows() {
    let altered = Altered::golden("model-embeds");
    std::fs::copy(easy_vqa().join("vocab.txt"), altered.directory().join("vocab.txt")).unwrap();
    let error = altered.convert().unwrap_err();
    assert!(matches!(error, Error::Tokenizer { .. }));
    assert!(error.to_string().ends_with("its ids go up to 133, the model's vocab_size is 50"), "{error}");
}

#[test]
fn refuses_patches_of_another_length_than_the_model_takes() {
    let altered = Altered::golden("qa-small");
    std::fs::copy(easy_vqa().join("preprocessing.json"), altered.directory().join("preprocessing.json"))
        .unwrap();
    let error = altered.convert().unwrap_err().to_string();
    assert!(error.ends_with("patches have 192 features and boxes of 4, the model takes 96 and 4"), "{error}");
}

#[test]
fn refuses_to_overwrite_an_input() {
    let altered = Altered::golden("qa-small");
    altered.write();
    let before = std::fs::read(altered.directory().join("config.json")).unwrap();
    let twisted = altered.directory().join("../").join(altered.directory().file_name().unwrap());
    for out in [altered.directory().join("model.safetensors"), twisted.join("config.json")] {
        let error = convert_directory(altered.directory(), TensorType::F32, &out, &Options::default());
        assert!(matches!(error, Err(Error::OutputIsInput { .. })));
    }
    assert_eq!(std::fs::read(altered.directory().join("config.json")).unwrap(), before);
}

#[test]
fn leaves_an_older_file_alone_when_it_fails() {
    let mut altered = Altered::golden("qa-small");
    altered.tensor(POOLER).set(0, f32::NAN);
    altered.write_file("out.gguf", "older");
    altered.convert().unwrap_err();
    assert_eq!(std::fs::read(altered.out()).unwrap(), b"older");
}

#[test]
fn refuses_types_that_it_does_not_write() {
    let out = Path::new("/nonexistent/out.gguf");
    let error =
        convert_directory(&golden("qa-small"), TensorType::I32, out, &Options::default()).unwrap_err();
    assert!(error.to_string().starts_with("no conversion to i32: choose one of f32, f16,"), "{error}");
}

#[test]
fn says_what_a_directory_lacks() {
    let directory = TempDir::new().unwrap();
    let error = |path: &Path| {
        let out = directory.path().join("out.gguf");
        convert_directory(path, TensorType::F32, &out, &Options::default()).unwrap_err().to_string()
    };
    let missing = error(&directory.path().join("nowhere"));
    assert!(missing.contains("nowhere: "), "{missing}");
    let no_config = error(directory.path());
    assert!(no_config.contains("no config.json"), "{no_config}");

    std::fs::write(directory.path().join("config.json"), "{").unwrap();
    let broken = error(directory.path());
    assert!(
        broken.contains("config.json: not the JSON that is expected here: EOF while parsing"),
        "{broken}"
    );
    std::fs::write(directory.path().join("config.json"), "{}").unwrap();
    let no_weights = error(directory.path());
    assert!(no_weights.contains("no model.safetensors"), "{no_weights}");
    std::fs::write(directory.path().join("BEST.pth"), "").unwrap();
    let other = error(directory.path());
    assert!(other.contains("\"BEST.pth\"") && other.contains("--config"), "{other}");

    let file = error(&directory.path().join("config.json"));
    assert!(file.contains("not a valid safetensors file"), "{file}");
}
