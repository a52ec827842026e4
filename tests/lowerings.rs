//! The ways to compute a model against each other, on matrices that every kernel multiplies as they are packed for it.

mod common;

use common::wide::{Batch, REGIONS, TOKENS, all_outputs, config, relative_l2, synthetic};
use common::{lowerings, missing_set};
use lxmert::gguf::TensorType;
use lxmert::model::Config;
use lxmert::vision::Regions;
use lxmert::{Error, Inputs, InstructionSet, Lowering, Model, Output, Session, SessionOptions};
use tempfile::TempDir;

/// All outputs of a padded batch of three.
fn run(model: &Model, lowering: Lowering, threads: usize) -> Vec<(Output, Vec<f32>)> {
    let outputs = all_outputs(model.config());
    let found = Batch::of(3).run(model, &outputs, |options| {
        options.lowering = lowering;
        options.threads = threads;
    });
    outputs.into_iter().zip(found).collect()
}

#[test]
fn kernels_compute_what_ggml_does_in_every_output() {
    let directory = TempDir::new().unwrap();
    for (tensor_type, bound) in [(TensorType::F32, 1e-4), (TensorType::Q8_0, 0.03)] {
        let model = Model::open(synthetic(config(), tensor_type, directory.path())).unwrap();
        let expected = run(&model, Lowering::Ggml, 1);
        assert!(expected.len() > 8 && expected.iter().all(|(_, values)| !values.is_empty()));
        for lowering in lowerings() {
            for ((output, found), (_, expected)) in run(&model, lowering, 1).iter().zip(&expected) {
                let error = relative_l2(found, expected);
                assert!(error <= bound, "{lowering} {tensor_type} {output}: {error}");
            }
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let directory = TempDir::new().unwrap();
    // Few layers, since ggml's threads wait for each other by spinning, which takes long on a busy machine.
    let config = Config { r_layers: 0, x_layers: 1, ..config() };
    for tensor_type in [TensorType::F32, TensorType::BF16, TensorType::Q8_0, TensorType::Q4_0] {
        let model = Model::open(synthetic(config.clone(), tensor_type, directory.path())).unwrap();
        for lowering in lowerings() {
            let alone = run(&model, lowering, 1);
            for threads in [2, 3, 4] {
                let together = run(&model, lowering, threads);
                for ((output, alone), (_, together)) in alone.iter().zip(&together) {
                    let same = alone.iter().zip(together).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{lowering} {tensor_type} {output}: {threads} threads");
                }
            }
        }
    }
}

#[test]
fn a_session_goes_the_way_that_it_is_told() {
    let directory = TempDir::new().unwrap();
    let model = Model::open(synthetic(config(), TensorType::Q8_0, directory.path())).unwrap();
    let told = |lowering| {
        let mut options = SessionOptions::new(&model);
        options.lowering = lowering;
        options.threads = 1;
        Session::new(&model, options).map(|session| session.lowering())
    };
    for lowering in lowerings() {
        assert_eq!(told(lowering).unwrap(), lowering);
    }
    let fastest = told(Lowering::Fastest).unwrap();
    assert!(lowerings().contains(&fastest), "{fastest}");
    assert_eq!(Lowering::Fastest.resolve().unwrap(), fastest);
    assert_ne!(fastest, Lowering::Kernels(InstructionSet::Portable), "ggml's operations are faster");
    if let Some(set) = missing_set() {
        let error = told(Lowering::Kernels(set)).unwrap_err();
        assert!(matches!(&error, Error::Input { found, .. } if found == set.name()), "{error}");
    }
}

#[test]
fn names_are_read_as_they_are_written() {
    let sets = InstructionSet::ALL.map(Lowering::Kernels);
    for lowering in [Lowering::Fastest, Lowering::Ggml].into_iter().chain(sets) {
        assert_eq!(lowering.to_string().parse::<Lowering>().unwrap(), lowering);
    }
    assert!("AVX2".parse::<Lowering>().is_err());
}

/// The multiplications of a run of everything, counted on paper.
#[test]
fn a_profile_counts_every_multiplication_once() {
    let directory = TempDir::new().unwrap();
    let config = config();
    let model = Model::open(synthetic(config.clone(), TensorType::Q8_0, directory.path())).unwrap();
    let (batch, tokens, regions) = (3, 3 * TOKENS, 3 * REGIONS);
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let (square, layer) = (hidden * hidden, 4 * hidden * hidden + 2 * hidden * inner);
    let cross = 4 * square + layer;
    let per_token = config.l_layers * layer + config.x_layers * cross + square + hidden * config.vocab_size;
    let inputs = hidden * (config.visual_feat_dim + config.visual_pos_dim);
    let object_heads = square + hidden * (300 + config.visual_feat_dim);
    let per_region = inputs + config.r_layers * layer + config.x_layers * cross + object_heads;
    let answer = 2 * square + 2 * hidden * 200;
    let expected = tokens * per_token + regions * per_region + batch * (square + answer + 2 * hidden);

    for lowering in lowerings() {
        for threads in [1, 3] {
            let session = Batch::of(batch).session_after(&model, &all_outputs(&config), |options| {
                (options.lowering, options.threads, options.profile) = (lowering, threads, true);
            });
            let profile = session.profile();
            if lowering == Lowering::Ggml {
                assert!(profile.is_empty());
                continue;
            }
            let products = profile.iter().filter(|operation| operation.kind == "product");
            let counted: u64 = products.map(|product| product.multiplications).sum();
            assert_eq!(counted, expected as u64, "{lowering}, {threads} threads");
            assert!(
                profile.iter().all(|operation| operation.kind == "product" || operation.multiplications == 0)
            );
        }
    }
}

/// What a session has left in its memory must not show: neither masks nor sizes nor rows of before.
#[test]
fn a_session_that_is_used_again_answers_as_a_new_one() {
    let directory = TempDir::new().unwrap();
    let model = Model::open(synthetic(config(), TensorType::Q8_0, directory.path())).unwrap();
    let (three, two) = (Batch::of(3), Batch::of(2));
    let (one, other) = (three.element(0), three.element(2));
    let unmasked = Inputs { attention_mask: None, visual_attention_mask: None, ..one.inputs() };
    let regions = Regions::new(other.features.clone(), 256, other.boxes.clone(), 4).unwrap();
    let (long, short) = ([5, 9, 2, 77, 31, 8, 200, 4, 6], [5, 9, 6]);
    let image = |session: &mut Session| session.encode_image(&regions).unwrap();
    type Step<'s> = &'s dyn Fn(&mut Session);
    // What a session does, and what a new one has to do before for the same to make sense.
    let nothing: Step<'_> = &|_| ();
    let steps: [(Step<'_>, Step<'_>); 7] = [
        (nothing, &|session| session.run(&three.inputs()).unwrap()),
        (nothing, &|session| session.run(&unmasked).unwrap()),
        (&image, &|session| assert!(!session.ask_tokens(&long).unwrap().logits().is_empty())),
        (&image, &|session| assert!(!session.ask_tokens(&short).unwrap().logits().is_empty())),
        (nothing, &|session| session.run(&two.inputs()).unwrap()),
        (&image, &|session| assert!(!session.ask_tokens(&long).unwrap().logits().is_empty())),
        (nothing, &|session| session.run(&one.inputs()).unwrap()),
    ];
    let answers = Output::QuestionAnsweringScore;
    for (lowering, outputs) in lowerings().into_iter().flat_map(|lowering| {
        [(lowering, vec![answers]), (lowering, vec![answers, Output::VisionHiddenStates(0)])]
    }) {
        let new = || {
            let mut options = SessionOptions::new(&model);
            (options.max_tokens, options.max_regions, options.max_batch) = (TOKENS, REGIONS, 3);
            // ggml's threads wait by spinning, which takes its time where there are other tests.
            options.threads = if lowering == Lowering::Ggml { 1 } else { 2 };
            (options.outputs, options.lowering) = (outputs.clone(), lowering);
            Session::new(&model, options).unwrap()
        };
        let results = |session: &Session| -> Vec<Vec<u32>> {
            let bits =
                |output: &Output| session.output(*output).unwrap().data.iter().map(|x| x.to_bits()).collect();
            outputs.iter().map(bits).collect()
        };
        let mut used = new();
        for (n, (before, step)) in steps.iter().enumerate() {
            let mut fresh = new();
            for session in [&mut used, &mut fresh] {
                before(session);
                step(session);
            }
            assert!(results(&used) == results(&fresh), "{lowering}: step {n}");
        }
        // Another question about the image that is encoded still.
        image(&mut used);
        used.ask_tokens(&long).unwrap();
        used.ask_tokens(&short).unwrap();
        let mut fresh = new();
        image(&mut fresh);
        fresh.ask_tokens(&short).unwrap();
        assert!(results(&used) == results(&fresh), "{lowering}: next question");
    }
}
