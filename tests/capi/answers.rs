//! Questions about pictures, and what the Rust interface answers to them.

use std::ffi::{CStr, CString};
use std::ptr::{null, null_mut};

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;
use lxmert::vision::{FrontEnd, Pixels};
use serde::Deserialize;

use crate::allocations::allocated;
use crate::support::*;

#[derive(Deserialize)]
struct Example {
    image: String,
    question: String,
    input_ids: Vec<u32>,
    predicted: String,
}

fn examples() -> Vec<Example> {
    serde_json::from_slice(&std::fs::read(directory().join("examples.json")).unwrap()).unwrap()
}

fn rust() -> lxmert::Session {
    let model = lxmert::Model::open(file()).unwrap();
    let mut options = lxmert::SessionOptions::new(&model);
    options.threads = 1;
    lxmert::Session::new(&model, options).unwrap()
}

#[test]
fn answers_are_those_of_the_rust_interface() {
    let model = easy_vqa();
    let session = session(&model);
    let mut rust = rust();
    for example in examples() {
        let Picture { rgb, width, height } = picture(&example.image);
        let row = width as usize * 3;
        ok(encode(&session, &picture(&example.image)));
        rust.encode_pixels(&Pixels::new(&rgb, width, height, row).unwrap()).unwrap();
        let found = ask(&session, &example.question, 99).unwrap();
        let expected = rust.ask(&example.question).unwrap();
        assert_eq!(string(found[0].text), example.predicted);
        let (expected_logits, expected) = (expected.logits(), expected.top(99));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.label, expected.class);
            assert_eq!(string(found.text), expected.text.unwrap());
            let scores = (found.logit, found.softmax, found.sigmoid);
            assert_eq!(scores, (expected.logit, expected.softmax, expected.sigmoid));
        }
        let (shape, logits) = output(&session, c"question_answering_score");
        assert_eq!(shape, [1, 13]);
        assert_eq!(logits, expected_logits);

        // Token ids in place of text.
        let mut few = [NO_ANSWER; 2];
        let (mut count, ids) = (0, &example.input_ids);
        let status = c!(lxmert_ask_tokens(
            session.0,
            ids.as_ptr(),
            ids.len(),
            few.as_mut_ptr(),
            few.len(),
            &mut count
        ));
        ok(status);
        assert_eq!(count, 2);
        assert_eq!([few[0].label, few[1].label], [expected[0].class, expected[1].class]);
        assert_eq!([few[0].logit, few[1].logit], [expected[0].logit, expected[1].logit]);
    }
}

#[test]
fn pixels_with_gaps_and_ready_features_are_the_same_picture() {
    let session = session(&easy_vqa());
    let Picture { rgb, width, height } = picture("example_1.png");
    let row = width as usize * 3;
    let question = "what is the color of the circle?";
    ok(encode(&session, &picture("example_1.png")));
    let expected = ask(&session, question, 1).unwrap()[0].logit;

    // The last row ends with its last pixel.
    let stride = row + 13;
    let mut padded = vec![0xaa; stride * (height as usize - 1) + row];
    for (target, source) in padded.chunks_mut(stride).zip(rgb.chunks(row)) {
        target[..row].copy_from_slice(source);
    }
    ok(c!(lxmert_encode_pixels(session.0, padded.as_ptr(), width, height, stride)));
    assert_eq!(ask(&session, question, 1).unwrap()[0].logit, expected);

    let model = lxmert::Model::open(file()).unwrap();
    let FrontEnd::PatchGrid(grid) = *model.front_end() else { panic!("a patch grid") };
    let image = lxmert::vision::load_image(&directory().join("example_1.png")).unwrap();
    let regions = grid.regions(&image).unwrap();
    let (features, boxes) = (regions.features().as_ptr(), regions.boxes().as_ptr());
    ok(c!(lxmert_encode_regions(session.0, features, boxes, regions.len())));
    assert_eq!(ask(&session, question, 1).unwrap()[0].logit, expected);
}

#[test]
fn a_model_says_what_it_is() {
    let model = easy_vqa();
    let rust = lxmert::Model::open(file()).unwrap();
    let config = rust.config();
    let found = info(&model);
    assert_eq!(found.head, lxmert_head::LXMERT_HEAD_QUESTION_ANSWERING as i32);
    assert_eq!(found.front_end, lxmert_front_end::LXMERT_FRONT_END_PATCH_GRID as i32);
    assert_eq!((found.label_count, found.images_per_answer), (13, 1));
    assert_eq!((found.has_label_texts, found.has_tokenizer), (true.into(), true.into()));
    assert_eq!((found.hidden_size, found.vocab_size), (config.hidden_size, config.vocab_size));
    assert_eq!((found.max_tokens, found.max_batch), (config.max_position_embeddings, 1024));
    assert_eq!(found.max_regions, lxmert::Limits::DEFAULT.regions);
    assert_eq!((found.feature_size, found.box_size), (config.visual_feat_dim, 4));
    let FrontEnd::PatchGrid(grid) = rust.front_end() else { panic!("a patch grid") };
    assert_eq!(found.grid_rows * found.grid_columns, grid.region_count());
    assert_eq!(found.parameters, rust.parameters());
    assert_eq!(found.file_bytes, std::fs::metadata(file()).unwrap().len());

    let mut text = null();
    for (index, label) in rust.labels().unwrap().iter().enumerate() {
        ok(c!(lxmert_model_label(model.0, index, &mut text)));
        assert_eq!(string(text), *label);
    }
    ok(c!(lxmert_model_name(model.0, &mut text)));
    assert_eq!((!text.is_null()).then(|| string(text)).as_deref(), rust.name());
}

#[test]
fn tokenizes_as_it_asks() {
    let model = easy_vqa();
    for Example { question, input_ids, .. } in examples() {
        let question = CString::new(question).unwrap();
        let (mut ids, mut count) = ([u32::MAX; 32], 0);
        ok(c!(lxmert_model_tokenize(model.0, question.as_ptr(), ids.as_mut_ptr(), ids.len(), &mut count)));
        assert_eq!(ids[..count], input_ids);
        assert_eq!(ids[count], u32::MAX);

        // How many there will be, before there is room.
        count = 0;
        let status = c!(lxmert_model_tokenize(model.0, question.as_ptr(), null_mut(), 0, &mut count));
        refused(status, LXMERT_LIMIT, "capacity is 0");
        assert_eq!(count, input_ids.len());
        let mut short = [u32::MAX; 2];
        let status = c!(lxmert_model_tokenize(model.0, question.as_ptr(), short.as_mut_ptr(), 2, &mut count));
        refused(status, LXMERT_LIMIT, "give more room");
        assert_eq!(short, [u32::MAX; 2]);
    }
}

#[test]
fn a_session_outlives_its_models_handle() {
    let model = easy_vqa();
    let session = session(&model);
    drop(model);
    still_answers(&session);
}

#[test]
fn sessions_on_many_threads_answer_alike() {
    let model = &easy_vqa();
    let sessions: Vec<Session> = (0..4).map(|_| session(model)).collect();
    let logit = |(n, session): (usize, &Session)| {
        ok(encode(session, &picture(&format!("example_{}.png", n % 2))));
        ask(session, "what shape is present?", 1).unwrap()[0].logit
    };
    let found: Vec<f32> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            sessions.iter().enumerate().map(|numbered| scope.spawn(move || logit(numbered))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(found[..2], found[2..]);
}

#[test]
fn a_session_says_what_it_was_made_for() {
    let model = easy_vqa();
    let made = session_with(&model, |options| {
        options.max_tokens = 12;
        options.max_batch = 3;
        options.threads = 2;
        options.lowering = c"ggml".as_ptr();
    });
    let found = session_info(&made);
    assert_eq!((found.max_tokens, found.max_batch, found.threads), (12, 3, 2));
    assert_eq!(found.max_regions, info(&model).grid_rows * info(&model).grid_columns);
    assert_eq!(string(found.lowering), "ggml");
    assert!(found.session_bytes > 0);
    assert_eq!(found.label_count, 13);
    assert_ne!(found.residency, lxmert_residency::LXMERT_RESIDENCY_AUTO as i32);

    // NULL is the defaults.
    let mut handle = null_mut();
    ok(c!(lxmert_session_create(model.0, null(), &mut handle)));
    let default = Session(handle);
    assert_eq!(session_info(&default).max_batch, 1);
    assert_ne!(string(session_info(&default).lowering), "fastest");
    still_answers(&default);
}

/// Images, token ids and outputs take no memory while they run.
#[test]
fn a_run_allocates_nothing() {
    let session = session(&easy_vqa());
    if string(session_info(&session).lowering) == "ggml" {
        eprintln!("skipped: this CPU has no kernels, and ggml's operations allocate");
        return;
    }
    let (shown, ids) = (picture("example_0.png"), &examples()[0].input_ids);
    let mut answers = [NO_ANSWER; 5];
    let mut tensor = lxmert_tensor::sized();
    let mut count = 0;
    let (_, allocated) = allocated(|| {
        ok(encode(&session, &shown));
        let room = answers.as_mut_ptr();
        ok(c!(lxmert_ask_tokens(session.0, ids.as_ptr(), ids.len(), room, 5, &mut count)));
        ok(c!(lxmert_output(session.0, c"question_answering_score".as_ptr(), &mut tensor)));
        // Nor do failures of the interface's own.
        let status = c!(lxmert_ask_tokens(session.0, null(), 3, room, 5, &mut count));
        assert_eq!(status, LXMERT_INVALID_ARGUMENT);
    });
    assert_eq!(allocated.times, 0);
}

#[test]
fn the_library_says_what_it_is() {
    assert_eq!(string(lxmert_version()), env!("CARGO_PKG_VERSION"));
    assert_eq!(lxmert_abi_version(), LXMERT_ABI_VERSION);
    assert_eq!(string(lxmert_build_info()), lxmert::BUILD);
    assert_eq!(string(lxmert_status_name(0)), "LXMERT_OK");
    assert_eq!(string(lxmert_status_name(15)), "LXMERT_INTERNAL");
    assert_eq!(string(lxmert_status_name(16)), "LXMERT_DEVICE");
    for number in [-1, 17, i32::MIN, i32::MAX] {
        assert_eq!(string(lxmert_status_name(number)), "unknown status");
    }
}

#[test]
fn texts_of_answers_are_those_of_the_labels() {
    let model = easy_vqa();
    let session = session(&model);
    ok(encode(&session, &picture("example_0.png")));
    for answer in ask(&session, "is there a circle?", 13).unwrap() {
        let mut text = null();
        ok(c!(lxmert_model_label(model.0, answer.label, &mut text)));
        assert_eq!(c!(CStr::from_ptr(text)), c!(CStr::from_ptr(answer.text)));
    }
}
