//! Files whose matrices are packed answer as those do whose matrices are packed at each start, to the bit, and are refused where
//! nothing reads them.

use std::path::{Path, PathBuf};

use lxmert::gguf::{Header, Metadata, TensorSpec, TensorType, Value, Writer};
use lxmert::model::{Config, Head, HiddenAct, ObjectHead};
use lxmert::vision::{FrontEnd, load_image};
use lxmert::{Error, Inputs, InstructionSet, Lowering, Model, Output, Session, SessionOptions, Text};
use lxmert_converter::{Options, Synthetic, convert_directory, convert_synthetic};
use tempfile::TempDir;

/// Wide enough for blocks of 256 in every matrix, and with matrices of every element. The number of labels is no whole number of
/// panels.
fn config() -> Config {
    let objects = ObjectHead { labels: Some(300), attributes: None, features: true };
    Config {
        vocab_size: 300,
        hidden_size: 512,
        num_attention_heads: 8,
        intermediate_size: 1024,
        hidden_act: HiddenAct::Gelu,
        max_position_embeddings: 40,
        type_vocab_size: 2,
        l_layers: 1,
        r_layers: 1,
        x_layers: 1,
        visual_feat_dim: 256,
        visual_pos_dim: 4,
        head: Head::PreTraining { labels: Some(201), objects: Some(objects) },
    }
}

fn converted(config: Config, tensor_type: TensorType, pack: Option<InstructionSet>, to: &Path) -> PathBuf {
    let file = to.join(format!("{tensor_type}-{}.gguf", pack.map_or("plain", InstructionSet::name)));
    let synthetic = Synthetic { name: "test".to_owned(), config, seed: 5 };
    convert_synthetic(&synthetic, tensor_type, &file, &Options { pack, ..Options::default() }).unwrap();
    file
}

fn best() -> InstructionSet {
    *InstructionSet::ALL.iter().rfind(|set| set.is_available()).unwrap()
}

/// The set for which to pack numbers of that type so that this CPU runs them with its own.
fn best_for(tensor_type: TensorType) -> InstructionSet {
    #[cfg(target_arch = "x86_64")]
    let bf16 = is_x86_feature_detected!("avx512bf16");
    #[cfg(target_arch = "aarch64")]
    let bf16 =
        std::arch::is_aarch64_feature_detected!("i8mm") && std::arch::is_aarch64_feature_detected!("bf16");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let bf16 = false;
    if tensor_type.is_half() && !bf16 { InstructionSet::Portable } else { best() }
}

/// Every output for made-up inputs.
fn outputs(model: &Model, lowering: Lowering) -> Vec<Vec<f32>> {
    const TOKENS: usize = 9;
    const REGIONS: usize = 7;
    let config = model.config();
    let mut options = SessionOptions::new(model);
    options.outputs = Output::finals(config);
    options.lowering = lowering;
    options.max_tokens = TOKENS;
    options.max_regions = REGIONS;
    options.threads = 2;
    let numbers = |count: usize| (0..count).map(|n| (n * 37 % 101) as f32 / 101.0).collect::<Vec<f32>>();
    let ids: Vec<u32> = (0..TOKENS as u32).map(|n| n * 13 % 300).collect();
    let inputs = Inputs {
        batch: 1,
        tokens: TOKENS,
        regions: REGIONS,
        text: Text::Ids(&ids),
        attention_mask: None,
        token_type_ids: None,
        visual_feats: &numbers(REGIONS * config.visual_feat_dim),
        visual_pos: &numbers(REGIONS * config.visual_pos_dim),
        visual_attention_mask: None,
    };
    let mut session = Session::new(model, options.clone()).unwrap();
    session.run(&inputs).unwrap();
    options.outputs.iter().map(|output| session.output(*output).unwrap().data.to_vec()).collect()
}

#[test]
fn a_packed_file_gives_the_same_answers_to_the_bit() {
    let directory = TempDir::new().unwrap();
    use TensorType::*;
    for tensor_type in [Q8_0, Q4_0, Q4K, Q6K, BF16, F16, F32] {
        let lowering = Lowering::Kernels(best());
        let plain = converted(config(), tensor_type, None, directory.path());
        let expected = outputs(&Model::open(plain).unwrap(), lowering);
        let packed = converted(config(), tensor_type, Some(best_for(tensor_type)), directory.path());
        let packed = Model::open(packed).unwrap();
        assert_eq!(expected.len(), 8);
        assert!(expected == outputs(&packed, lowering), "{tensor_type}");
        if best() != InstructionSet::Portable {
            assert!(expected == outputs(&packed, Lowering::Fastest), "{tensor_type} fastest");
        }
    }
}

#[test]
fn a_packed_file_runs_on_every_instruction_set() {
    let directory = TempDir::new().unwrap();
    let plain = Model::open(converted(config(), TensorType::Q8_0, None, directory.path())).unwrap();
    let bytes =
        |set| std::fs::read(converted(config(), TensorType::Q8_0, Some(set), directory.path())).unwrap();
    let packed = bytes(InstructionSet::Avx512Vnni);
    let model = Model::from_bytes(&packed).unwrap();
    assert_eq!(model.parameters(), plain.parameters());
    for set in InstructionSet::ALL {
        assert!(bytes(set) == packed, "{}", set.name());
        if set.is_available() {
            let lowering = Lowering::Kernels(set);
            assert!(outputs(&plain, lowering) == outputs(&model, lowering), "{}", set.name());
        }
    }
}

#[test]
fn the_small_trained_model_answers_the_same_when_packed() {
    let directory = TempDir::new().unwrap();
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/easy-vqa");
    let ask = |pack: Option<InstructionSet>| {
        let file = directory.path().join(format!("{}.gguf", pack.is_some()));
        convert_directory(&checkpoint, TensorType::Q8_0, &file, &Options { pack, ..Options::default() })
            .unwrap();
        let model = Model::open(file).unwrap();
        let FrontEnd::PatchGrid(grid) = model.front_end() else { panic!("no front end") };
        let mut options = SessionOptions::new(&model);
        options.lowering = Lowering::Kernels(best());
        let mut session = Session::new(&model, options).unwrap();
        session
            .encode_image(&grid.regions(&load_image(&checkpoint.join("example_1.png")).unwrap()).unwrap())
            .unwrap();
        session.ask("what color is the shape?").unwrap().logits().to_vec()
    };
    assert_eq!(ask(None), ask(Some(best())));
}

#[test]
fn ggml_s_operations_refuse_a_packed_file() {
    let directory = TempDir::new().unwrap();
    let model = Model::open(converted(config(), TensorType::Q8_0, Some(best()), directory.path())).unwrap();
    let mut options = SessionOptions::new(&model);
    let expected = "the file is packed as panel32x4.1, which ggml's operations do not read: convert the checkpoint again \
                    without --pack";
    let observing = Session::observing(&model, options.clone()).err().unwrap();
    assert_eq!(observing.to_string(), expected);
    options.lowering = Lowering::Ggml;
    assert_eq!(Session::new(&model, options).err().unwrap().to_string(), expected);
}

#[test]
fn bf16_is_refused_by_kernels_that_do_not_multiply_it() {
    let directory = TempDir::new().unwrap();
    let file = converted(config(), TensorType::BF16, Some(InstructionSet::Avx512Vnni), directory.path());
    let model = Model::open(file).unwrap();
    let mut options = SessionOptions::new(&model);
    options.lowering = Lowering::Kernels(InstructionSet::Portable);
    let error = Session::new(&model, options).err().unwrap().to_string();
    assert!(
        error.contains("bf16") && error.ends_with("with --pack avx2 or neon, or without --pack"),
        "{error}"
    );
}

/// What to change in a packed file.
struct Change<'c> {
    keys: &'c [(&'c str, Value)],
    /// A tensor that is written as it would be unpacked.
    unpacked: Option<&'c str>,
    alignment: u32,
}

/// The file with changes; the data of the tensors are zeros.
fn changed(header: &Header, change: &Change<'_>) -> Vec<u8> {
    let mut metadata = Metadata::new();
    header.metadata().iter().for_each(|(key, value)| metadata.insert(key, value.clone()).unwrap());
    metadata.set("general.alignment", change.alignment).unwrap();
    change.keys.iter().for_each(|(key, value)| metadata.set(key, value.clone()).unwrap());
    let specs: Vec<TensorSpec> = header
        .tensors()
        .iter()
        .map(|tensor| {
            let unpacked = Some(tensor.name()) == change.unpacked;
            TensorSpec {
                name: tensor.name().to_owned(),
                tensor_type: if unpacked { TensorType::F32 } else { tensor.tensor_type() },
                dims: if unpacked { vec![32, 32] } else { tensor.dims().to_vec() },
            }
        })
        .collect();
    let bytes = |spec: &TensorSpec| {
        let rows = spec.dims[1..].iter().product::<u64>();
        vec![0u8; (spec.tensor_type.row_bytes(spec.dims[0]).unwrap() * rows) as usize]
    };
    let data: Vec<Vec<u8>> = specs.iter().map(bytes).collect();
    Writer::to_vec(&metadata, &specs, &data.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

#[test]
fn hostile_packed_files_are_refused() {
    let directory = TempDir::new().unwrap();
    let config =
        Config { hidden_size: 32, num_attention_heads: 2, intermediate_size: 32, x_layers: 0, ..config() };
    let file = std::fs::read(converted(config, TensorType::Q8_0, Some(best()), directory.path())).unwrap();
    let header = Header::parse(&file).unwrap();
    let strings = |key: &str| header.metadata().strings(key).unwrap().to_vec();
    let (names, elements) = (strings("lxmert.pack.tensors"), strings("lxmert.pack.elements"));
    let types = strings("lxmert.pack.types");
    let with_first = |list: &[String], first: &str| {
        let mut list = list.to_vec();
        list[0] = first.to_owned();
        Value::from(list)
    };
    let keys = |keys: &[(&str, Value)]| {
        let change = Change { keys, unpacked: None, alignment: 64 };
        Model::from_bytes(&changed(&header, &change)).map(drop)
    };
    keys(&[]).unwrap();

    let layout = keys(&[("lxmert.pack.layout", Value::from("panel64x8.3"))]).unwrap_err();
    assert!(matches!(layout, Error::Packed { .. }));
    assert_eq!(
        layout.to_string(),
        "the file is packed as panel64x8.3, which this build does not read: convert the checkpoint again with this \
         version's lxmert-quantize"
    );
    let refused = |broken: &[(&str, Value)], expected: &str| {
        let error = keys(broken).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refused(&[("lxmert.pack.layout", Value::from(1u32))], "lxmert.pack.layout");
    refused(&[("lxmert.pack.tensors", Value::from(7u32))], "lxmert.pack.tensors");
    refused(&[("lxmert.pack.elements", Value::from(elements[1..].to_vec()))], "one for each of");
    refused(&[("lxmert.pack.types", Value::from(types[1..].to_vec()))], "one for each of");
    refused(&[("lxmert.pack.elements", with_first(&elements, "int4"))], "\"int4\"");
    refused(&[("lxmert.pack.types", with_first(&types, "i8"))], "\"i8\"");
    refused(&[("lxmert.pack.types", with_first(&types, "q9"))], "\"q9\"");
    refused(&[("lxmert.pack.tensors", with_first(&names, &names[1]))], "twice");
    refused(&[("lxmert.pack.tensors", with_first(&names, "token_embd.weight"))], "names of matrices");
    refused(&[("lxmert.pack.tensors", with_first(&names, "pooler.bias"))], "names of matrices");
    refused(&[("lxmert.pack.tensors", with_first(&names, "no.such.weight"))], "names of matrices");
    // Elements of another size than the tensor has.
    assert_eq!(elements[0], "f32");
    for other in ["int8", "int8_blocks", "bf16"] {
        refused(&[("lxmert.pack.elements", with_first(&elements, other))], "packed bytes");
    }
    // A tensor too few in the list is taken to be unpacked, which it is not.
    let shorter = [&names, &elements, &types].map(|list| Value::from(list[1..].to_vec()));
    let listed = ["lxmert.pack.tensors", "lxmert.pack.elements", "lxmert.pack.types"];
    let shorter: Vec<_> = listed.into_iter().zip(shorter).collect();
    refused(&shorter, "expected shape");
    let other = |unpacked, alignment| {
        let change = Change { keys: &[], unpacked, alignment };
        Model::from_bytes(&changed(&header, &change)).map(drop)
    };
    let error = other(Some("pooler.weight"), 64).unwrap_err().to_string();
    assert!(error.contains("\"pooler.weight\": expected") && error.contains("type f32"), "{error}");
    let error = other(None, 8).unwrap_err().to_string();
    assert!(error.contains("general.alignment is 8, expected a multiple of 64"), "{error}");
    // Without the list, the bytes are no numbers.
    let mut metadata = Metadata::new();
    let kept = header.metadata().iter().filter(|(key, _)| !key.starts_with("lxmert.pack."));
    kept.for_each(|(key, value)| metadata.insert(key, value.clone()).unwrap());
    let specs: Vec<TensorSpec> = header
        .tensors()
        .iter()
        .map(|tensor| TensorSpec {
            name: tensor.name().to_owned(),
            tensor_type: tensor.tensor_type(),
            dims: tensor.dims().to_vec(),
        })
        .collect();
    let data: Vec<&[u8]> = header.tensors().iter().map(|tensor| &file[tensor.range()]).collect();
    let unlisted = Writer::to_vec(&metadata, &specs, &data).unwrap();
    assert!(matches!(Model::from_bytes(&unlisted), Err(Error::Tensor { .. })));
}

#[test]
fn any_bytes_in_packed_tensors_give_numbers_of_some_kind() {
    let directory = TempDir::new().unwrap();
    let path = converted(config(), TensorType::Q8_0, Some(best()), directory.path());
    let file = std::fs::read(path).unwrap();
    let header = Header::parse(&file).unwrap();
    for pattern in [0x00, 0x7f, 0x80, 0xff] {
        let mut file = file.clone();
        for tensor in header.tensors().iter().filter(|tensor| tensor.tensor_type() == TensorType::I8) {
            file[tensor.range()].fill(pattern);
        }
        let model = Model::from_bytes(&file).unwrap();
        for set in InstructionSet::ALL.into_iter().filter(|set| set.is_available()) {
            assert_eq!(outputs(&model, Lowering::Kernels(set)).len(), 8);
        }
    }
}
