//! What disks, copies and downloads do to a model file is found: every bit of a header whenever the file is opened, every bit of the
//! weights where that is asked for.

use lxmert::gguf::{CHECKSUM_KEYS, Header, Metadata, Rule, TensorSpec, Writer};
use lxmert::model::{Config, Head, HiddenAct};
use lxmert::{Error, InstructionSet, Loader, Lowering, Model, ModelOptions, Session, SessionOptions};
use lxmert_converter::{Options, Synthetic, convert_synthetic};
use tempfile::TempDir;

/// So small that every bit of it can be turned over.
fn config() -> Config {
    Config {
        vocab_size: 5,
        hidden_size: 4,
        num_attention_heads: 2,
        intermediate_size: 4,
        hidden_act: HiddenAct::Gelu,
        max_position_embeddings: 4,
        type_vocab_size: 2,
        l_layers: 1,
        r_layers: 0,
        x_layers: 1,
        visual_feat_dim: 4,
        visual_pos_dim: 4,
        head: Head::QuestionAnswering { labels: 3 },
    }
}

/// As the converter makes it.
fn file(options: &Options) -> Vec<u8> {
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("model.gguf");
    let synthetic = Synthetic { name: "smallest".to_owned(), config: config(), seed: 1 };
    convert_synthetic(&synthetic, lxmert::gguf::TensorType::F32, &out, options).unwrap();
    std::fs::read(&out).unwrap()
}

fn packed() -> Vec<u8> {
    file(&Options { pack: Some(InstructionSet::Avx2), ..Options::default() })
}

/// As other programs would write it.
fn without_checksums(file: &[u8]) -> Vec<u8> {
    let header = Header::parse(file).unwrap();
    let mut metadata = Metadata::new();
    for (key, value) in header.metadata().iter().filter(|(key, _)| !CHECKSUM_KEYS.contains(key)) {
        metadata.insert(key, value.clone()).unwrap();
    }
    let spec = |info: &lxmert::gguf::TensorInfo| TensorSpec {
        name: info.name().to_owned(),
        tensor_type: info.tensor_type(),
        dims: info.dims().to_vec(),
    };
    let specs: Vec<_> = header.tensors().iter().map(spec).collect();
    let data: Vec<_> = header.tensors().iter().map(|info| &file[info.range()]).collect();
    Writer::to_vec(&metadata, &specs, &data).unwrap()
}

fn verified() -> ModelOptions {
    let mut options = ModelOptions::default();
    options.verify = true;
    options
}

fn answers(model: &Model) -> Result<Vec<f32>, Error> {
    let mut options = SessionOptions::new(model);
    options.lowering = Lowering::Kernels(InstructionSet::Portable);
    options.threads = 1;
    options.max_regions = 2;
    let config = model.config();
    let mut session = Session::new(model, options)?;
    session.encode_regions(
        2,
        &vec![0.5; 2 * config.visual_feat_dim],
        &vec![0.5; 2 * config.visual_pos_dim],
    )?;
    let tokens = config.max_position_embeddings.min(3);
    let ids: Vec<u32> = (0..tokens).map(|n| (n % config.vocab_size) as u32).collect();
    Ok(session.ask_tokens(&ids)?.logits().to_vec())
}

#[test]
fn whole_files_verify_however_they_are_loaded() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("model.gguf");
    for bytes in [file(&Options::default()), packed()] {
        std::fs::write(&path, &bytes).unwrap();
        let models = [
            verified().open(&path).unwrap(),
            verified().from_bytes(&bytes).unwrap(),
            verified().from_static(bytes.clone().leak()).unwrap(),
            verified().from_loader(Box::new(Slow(bytes.clone()))).unwrap(),
            Model::open(&path).unwrap(),
        ];
        models.iter().for_each(|model| model.verify().unwrap());
    }
}

struct Slow(Vec<u8>);

impl Loader for Slow {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        buffer.copy_from_slice(&self.0[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

#[test]
fn every_bit_of_the_weights_is_found_with_the_tensors_name() {
    let whole = file(&Options::default());
    let header = Header::parse(&whole).unwrap();
    assert_eq!(header.checksums().map(<[u64]>::len), Some(header.tensors().len()));
    let mut damaged = whole.clone();
    let mut flips = 0;
    for info in header.tensors() {
        for place in info.range() {
            for bit in 0..8 {
                damaged[place] ^= 1 << bit;
                match verified().from_bytes(&damaged).unwrap_err() {
                    Error::Checksum { tensor, expected, found } => {
                        assert_eq!(tensor, info.name());
                        assert_ne!(expected, found);
                    }
                    other => panic!("byte {place}, bit {bit}: {other}"),
                }
                damaged[place] ^= 1 << bit;
                flips += 1;
            }
        }
    }
    assert!(flips > 20_000, "{flips}");
    verified().from_bytes(&damaged).unwrap();
}

#[test]
fn damage_of_packed_weights_is_found_too() {
    let whole = packed();
    let header = Header::parse(&whole).unwrap();
    let mut damaged = whole.clone();
    for info in header.tensors() {
        for place in info.range() {
            damaged[place] ^= 1 << (place % 8);
            let error = verified().from_bytes(&damaged).unwrap_err();
            assert!(matches!(error, Error::Checksum { tensor, .. } if tensor == info.name()), "byte {place}");
            damaged[place] ^= 1 << (place % 8);
        }
    }
}

/// Without asking to verify: what the header's own checksum covers is compared whenever the file is opened. The only bits that get by are
/// those that make its key another one, which changes nothing else.
#[test]
fn every_bit_of_a_header_is_an_error_or_changes_nothing() {
    let whole = file(&Options::default());
    let header = Header::parse(&whole).unwrap();
    let end = header.tensors()[0].range().start;
    let expected = answers(&Model::from_bytes(&whole).unwrap()).unwrap();
    let mut damaged = whole.clone();
    let (mut refused, mut harmless, mut by_checksum) = (0, 0, 0);
    for place in 0..end {
        for bit in 0..8 {
            damaged[place] ^= 1 << bit;
            match Model::from_bytes(&damaged) {
                Ok(model) => {
                    assert_eq!(answers(&model).unwrap(), expected, "byte {place}, bit {bit}");
                    harmless += 1;
                }
                Err(error) => {
                    let damaged = |error: &Error| matches!(error, Error::Gguf(error) if error.rule == Rule::HeaderChecksum);
                    by_checksum += usize::from(damaged(&error));
                    refused += 1;
                }
            }
            damaged[place] ^= 1 << bit;
        }
    }
    println!("{refused} refused, {by_checksum} of them by the checksum alone; {harmless} without effect");
    assert!(by_checksum > 1000 && harmless <= 8 * CHECKSUM_KEYS[1].len(), "{by_checksum} {harmless}");
}

/// Files of other programs have no checksums: a bit of theirs may change what the model is, but never more than that.
#[test]
fn every_bit_of_a_header_without_checksum_is_an_error_or_another_model() {
    let whole = without_checksums(&file(&Options::default()));
    let end = Header::parse(&whole).unwrap().tensors()[0].range().start;
    let mut damaged = whole.clone();
    let (mut refused, mut accepted) = (0, 0);
    for place in 0..end {
        for bit in 0..8 {
            damaged[place] ^= 1 << bit;
            match Model::from_bytes(&damaged).and_then(|model| answers(&model)) {
                Ok(answers) => {
                    assert_eq!(answers.len(), 3);
                    accepted += 1;
                }
                Err(error) => {
                    assert!(!matches!(error, Error::Ggml(_)), "byte {place}, bit {bit}: {error}");
                    refused += 1;
                }
            }
            damaged[place] ^= 1 << bit;
        }
    }
    println!("{refused} refused, {accepted} accepted");
    assert!(refused > 1000 && accepted > 100, "{refused} {accepted}");
}

#[test]
fn a_file_without_checksums_is_not_verified_but_runs() {
    let bytes = without_checksums(&file(&Options::default()));
    let model = Model::from_bytes(&bytes).unwrap();
    assert_eq!(answers(&model).unwrap().len(), 3);
    for error in [model.verify().unwrap_err(), verified().from_bytes(&bytes).unwrap_err()] {
        assert!(matches!(error, Error::Missing { what: "checksums", .. }), "{error}");
    }
}

#[test]
fn the_bundled_model_verifies() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/models/easy-vqa/easy-vqa-q8_0.gguf");
    verified().open(path).unwrap();
}
