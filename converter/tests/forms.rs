//! Every form in which weights come: the same numbers give the same bytes, and files that were tampered with give an
//! error and nothing else.

mod common;

use std::path::{Path, PathBuf};

use common::{Gguf, read_tensors, root, write_tensors};
use lxmert::Limits;
use lxmert::gguf::TensorType;
use lxmert_converter::source::{FileSource, Source};
use lxmert_converter::{Checkpoint, Error, Options, Problem, convert_directory};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    root().join("converter/tests/fixtures").join(name)
}

/// With the configuration that a file of weights alone lacks.
fn options() -> Options {
    Options { config: Some(fixture("bin/config.json")), ..Options::default() }
}

fn convert(path: &Path, tensor_type: TensorType, options: &Options) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("out.gguf");
    convert_directory(path, tensor_type, &out, options).unwrap_or_else(|error| panic!("{error}"));
    std::fs::read(out).unwrap()
}

#[test]
fn gives_the_same_bytes_for_every_container() {
    for tensor_type in [TensorType::F32, TensorType::F16] {
        let expected = convert(&fixture("safetensors"), tensor_type, &Options::default());
        for name in ["safetensors-shards", "bin", "bin-legacy", "bin-shards"] {
            assert!(convert(&fixture(name), tensor_type, &Options::default()) == expected, "{name}");
        }
    }
}

/// The fixtures' weights are numbers that all float types hold.
#[test]
fn gives_the_same_bytes_for_every_float_type_and_every_program_s_names() {
    let expected = convert(&fixture("safetensors"), TensorType::F32, &Options::default());
    let files = ["f16.bin", "bf16-legacy.bin", "BEST.pth", "BEST-cuda.pth", "mmf.pth", "training.pt"];
    for name in files.into_iter().chain(["safetensors/model.safetensors", "bin/pytorch_model.bin"]) {
        assert!(convert(&fixture(name), TensorType::F32, &options()) == expected, "{name}");
    }
}

#[test]
fn reads_the_original_s_pre_training_and_nlvr2() {
    for (directory, file) in [("pretraining", "Epoch20_LXRT.pth"), ("nlvr2", "nlvr2-BEST.pth")] {
        let expected = convert(&fixture(directory), TensorType::F32, &Options::default());
        assert!(convert(&fixture(file), TensorType::F32, &options()) == expected, "{file}");
    }
}

#[test]
fn recognises_an_nlvr2_head_by_its_width() {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("out.gguf");
    convert_directory(&fixture("nlvr2"), TensorType::F32, &out, &Options::default()).unwrap();
    let file = Gguf::read(&out);
    assert_eq!(file.metadata().str("lxmert.head").unwrap(), "nlvr2");
    assert_eq!(file.metadata().strings("lxmert.classifier.output_labels").unwrap(), ["False", "True"]);
    assert_eq!(file.dims("cls.answer.0.weight"), [32, 32]);
    assert_eq!(file.dims("cls.answer.1.weight"), [32, 2]);
}

#[test]
fn reports_the_file_s_own_names_and_what_it_left_out() {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("out.gguf");
    let report = convert_directory(&fixture("BEST-cuda.pth"), TensorType::F32, &out, &options()).unwrap();
    let norm = report.tensors.iter().find(|tensor| tensor.name == "token_embd_norm.bias").unwrap();
    assert_eq!(norm.sources, ["lxrt_encoder.model.module.bert.embeddings.LayerNorm.beta"]);
    assert_eq!(report.notes, ["95 of 95 tensors were renamed as in transformers: see --verbose"]);

    let report = convert_directory(&fixture("training.pt"), TensorType::F32, &out, &options()).unwrap();
    let note = r#"the weights are its "model"; beside them, "epoch", "optimizer" were not looked at"#;
    assert_eq!(report.notes, [note]);
}

#[test]
fn does_not_choose_between_two_state_dicts() {
    let error = open(&fixture("ambiguous.pt")).err().unwrap().to_string();
    assert!(error.ends_with("it holds tensors in several places: state_dict, model"), "{error}");
}

#[test]
fn refuses_two_tensors_of_one_name() {
    let directory = TempDir::new().unwrap();
    let mut tensors = read_tensors(&fixture("safetensors/model.safetensors"));
    let bias = tensors["lxmert.pooler.dense.bias"].clone();
    tensors.insert("module.bert.pooler.dense.bias".to_owned(), bias);
    let path = directory.path().join("model.safetensors");
    write_tensors(&path, &tensors);
    let Err(Error::Tensors { problems }) = open(&path) else { panic!("not refused") };
    let text = r#"the same: "lxmert.pooler.dense.bias" and "module.bert.pooler.dense.bias" are both "lxmert.pooler.dense.bias""#;
    assert_eq!(problems.iter().map(Problem::to_string).collect::<Vec<_>>(), [text]);
}

#[test]
fn asks_for_a_configuration_unless_the_model_is_as_wide_as_base() {
    let error = Checkpoint::open(&fixture("BEST.pth"), None).err().unwrap().to_string();
    assert!(error.contains("16 wide") && error.contains("--config"), "{error}");

    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.safetensors");
    let wide = common::Tensor::f32(&[2, 768], &[0.0; 2 * 768]);
    write_tensors(&path, &[("bert.embeddings.word_embeddings.weight".to_owned(), wide)].into());
    assert!(Checkpoint::open(&path, None).is_ok());
}

#[test]
fn takes_a_tokenizer_and_answers_for_a_bare_file() {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let options = Options {
        tokenizer: write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nred\n"),
        labels: write("answers.json", r#"["a", "b", "c", "d", "e"]"#),
        ..options()
    };
    let out = directory.path().join("out.gguf");
    convert_directory(&fixture("BEST.pth"), TensorType::F32, &out, &options).unwrap();
    let file = Gguf::read(&out);
    assert_eq!(file.metadata().strings("tokenizer.ggml.tokens").unwrap().len(), 6);
    assert_eq!(file.metadata().strings("lxmert.classifier.output_labels").unwrap()[4], "e");
    let whole = Options { tokenizer: Some(directory.path().to_owned()), ..options };
    assert!(convert(&fixture("BEST.pth"), TensorType::F32, &whole) == file.bytes);
}

#[test]
fn runs_nothing_that_a_pickle_asks_for() {
    for name in ["zip-2", "zip-4", "legacy-2", "legacy-4"] {
        let error = open(&fixture(&format!("hostile/{name}.bin"))).err().unwrap();
        assert!(
            matches!(&error, Error::Torch { reason, .. } if reason.contains(r#""posix.system""#)),
            "{error}"
        );
        assert_eq!(error.to_string().lines().count(), 1);
    }
    assert!(!Path::new("taken-over").exists());
}

#[test]
fn says_what_a_torch_file_lacks() {
    for (name, reason) in [
        ("plain", "not one of torch.save"),
        ("tensor", "no dictionary of tensors"),
        ("deflated", r#"storage "0" is compressed"#),
    ] {
        let error = open(&fixture(&format!("hostile/{name}.bin"))).err().unwrap().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// At every length and for several values of every byte: no panic, and what opens has all its values in the file.
#[test]
fn survives_damage_anywhere() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("damaged.bin");
    for name in ["small-zip", "small-legacy"] {
        let whole = std::fs::read(fixture(&format!("hostile/{name}.bin"))).unwrap();
        assert_eq!(open(&fixture(&format!("hostile/{name}.bin"))).unwrap().tensors().len(), 2);
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(open(&path).is_err(), "{name} of {length} bytes");
        }
        for position in 0..whole.len() {
            for change in [0x01, 0x20, 0x80, 0xFF] {
                let mut damaged = whole.clone();
                damaged[position] ^= change;
                std::fs::write(&path, &damaged).unwrap();
                if let Ok(source) = open(&path) {
                    read_all(&source);
                }
            }
        }
    }
}

fn open(path: &Path) -> Result<FileSource, Error> {
    FileSource::open(path, &Limits::default())
}

fn read_all(source: &FileSource) {
    for (name, tensor) in source.tensors().iter().filter(|(_, tensor)| tensor.readable) {
        let mut values = vec![0.0; tensor.shape.iter().product()];
        source.read(name, 0, &mut values).unwrap();
    }
}

#[test]
fn reads_the_numbers_that_torch_wrote() {
    for name in ["small-zip", "small-legacy"] {
        let source = open(&fixture(&format!("hostile/{name}.bin"))).unwrap();
        assert_eq!(
            (&source.tensors()["a.weight"].shape[..], &source.tensors()["b"].dtype[..]),
            (&[2, 3][..], "BF16")
        );
        let mut values = [0.0; 4];
        source.read("a.weight", 2, &mut values).unwrap();
        assert_eq!(values, [2.0, 3.0, 4.0, 5.0]);
        source.read("b", 0, &mut values[..2]).unwrap();
        assert_eq!(values[..2], [1.0, 1.0]);
    }
}

/// A read may start and end anywhere, whatever the order of the values in the file.
#[test]
fn reads_any_part_of_a_matrix_in_any_order() {
    let (plain, training) =
        (open(&fixture("bin/pytorch_model.bin")).unwrap(), open(&fixture("training.pt")).unwrap());
    for (name, tensor) in plain.tensors() {
        let total = tensor.shape.iter().product::<usize>();
        for (start, len) in
            [(0, total), (total / 3, total / 2), (total - 1, 1), (total / 2, 3.min(total / 2))]
        {
            let (mut a, mut b) = (vec![0.0; len], vec![0.0; len]);
            plain.read(name, start as u64, &mut a).unwrap();
            training.read(name, start as u64, &mut b).unwrap();
            assert_eq!(a, b, "{name} from {start}");
        }
    }
}
