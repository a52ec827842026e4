//! Every limit refuses by its name what is larger, and what fits when it is raised.

use lxmert::gguf::{Header, Metadata, TensorSpec, TensorType, Writer};
use lxmert::text::Tokenizer;
use lxmert::vision::{
    FeatureOptions, Pixels, Regions, decode_image_within, load_features_within, load_image_within,
};
use lxmert::{Limits, Model, ModelOptions, Session, SessionOptions};

const EASY_VQA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/easy-vqa/");

fn limited(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

fn open(limits: Limits) -> Result<Model, lxmert::Error> {
    let mut options = ModelOptions::default();
    options.limits = limits;
    options.open(format!("{EASY_VQA}easy-vqa-q8_0.gguf"))
}

/// Demands that the error names the limit, and how to raise it.
#[track_caller]
fn names<T>(result: Result<T, impl std::fmt::Display>, limit: &str) {
    let Err(error) = result else { panic!("{limit} does not refuse") };
    let text = error.to_string();
    assert!(text.contains(&format!("raise the limit {limit}: --limit {limit}=N, Limits::{limit}")), "{text}");
    assert!(!text.contains('\n'), "{text}");
}

#[test]
fn of_model_files() {
    open(Limits::default()).unwrap();
    names(open(limited(|limits| limits.header_bytes = 1000)), "header_bytes");
    names(open(limited(|limits| limits.vocabulary_bytes = 1000)), "vocabulary_bytes");
    names(open(limited(|limits| limits.metadata_keys = 10)), "metadata_keys");
    names(open(limited(|limits| limits.key_bytes = 10)), "key_bytes");
    names(open(limited(|limits| limits.string_bytes = 100)), "string_bytes");
    names(open(limited(|limits| limits.tensors = 10)), "tensors");
}

/// Files with more tensors than by default are not written; those with fewer can be refused.
#[test]
fn of_tensors() {
    let specs: Vec<_> = (0..10_000)
        .map(|n| TensorSpec { name: format!("t{n}"), tensor_type: TensorType::F32, dims: vec![1] })
        .collect();
    names(Writer::to_vec(&Metadata::new(), &specs, &[]), "tensors");
    let file = Writer::to_vec(&Metadata::new(), &specs[..8192], &vec![&[0; 4][..]; 8192]).unwrap();
    Header::parse(&file).unwrap();
    names(Header::parse_within(&file, &limited(|limits| limits.tensors = 8191)), "tensors");
}

#[test]
fn of_questions() {
    let model = open(limited(|limits| limits.question_bytes = 20)).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    tokenizer.encode("is it a red circle?").unwrap();
    names(tokenizer.encode("is it not a red circle?"), "question_bytes");
    let model = open(limited(|limits| limits.vocabulary_pieces = 20)).unwrap();
    names(model.tokenizer(), "vocabulary_pieces");
    let json = std::fs::read_to_string(format!("{EASY_VQA}tokenizer.json")).unwrap();
    names(Tokenizer::from_json_within(&json, &limited(|limits| limits.string_bytes = 1000)), "string_bytes");
}

#[test]
fn of_sessions() {
    let session = |limits: Limits, set: fn(&mut SessionOptions)| {
        let model = open(limits).unwrap();
        let mut options = SessionOptions::new(&model);
        set(&mut options);
        Session::new(&model, options)
    };
    names(session(limited(|limits| limits.tokens = 5), |options| options.max_tokens = 6), "tokens");
    names(session(limited(|limits| limits.regions = 5), |options| options.max_regions = 6), "regions");
    names(session(Limits::default(), |options| options.max_batch = 1025), "batch");
    names(session(limited(|limits| limits.session_bytes = 1000), |_| {}), "session_bytes");
    session(limited(|limits| limits.batch = 1025), |options| options.max_batch = 1025).unwrap();
}

#[test]
fn of_pictures() {
    let path = format!("{EASY_VQA}example_0.png");
    let bytes = std::fs::read(&path).unwrap();
    names(
        load_image_within(path.as_ref(), &limited(|limits| limits.image_file_bytes = 100)),
        "image_file_bytes",
    );
    names(decode_image_within(&bytes, &limited(|limits| limits.image_side = 63)), "image_side");
    names(
        decode_image_within(&bytes, &limited(|limits| limits.image_memory_bytes = 100)),
        "image_memory_bytes",
    );
    decode_image_within(&bytes, &limited(|limits| limits.image_side = 64)).unwrap();
    let long = [0; 3 * 20_000];
    names(Pixels::new(&long, 20_000, 1, 60_000), "image_side");
    Pixels::new_within(&long, 20_000, 1, 60_000, &limited(|limits| limits.image_side = 20_000)).unwrap();
}

#[test]
fn of_features() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/features/pixels.npz");
    let load = |limits| load_features_within(path.as_ref(), &FeatureOptions::default(), &limits);
    let regions = load(Limits::default()).unwrap();
    names(load(limited(|limits| limits.feature_file_bytes = 100)), "feature_file_bytes");
    names(load(limited(|limits| limits.feature_values = 3)), "feature_values");
    names(load(limited(|limits| limits.archive_members = 1)), "archive_members");
    names(load(limited(|limits| limits.regions = regions.len() - 1)), "regions");
    let (features, boxes) = (vec![0.5; 5000], vec![0.5; 4 * 5000]);
    names(Regions::new(features.clone(), 1, boxes.clone(), 4), "regions");
    let raised = limited(|limits| limits.regions = 5000);
    assert_eq!(Regions::new_within(features, 1, boxes, 4, &raised).unwrap().len(), 5000);
}
