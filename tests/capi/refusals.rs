//! Everything that C can get wrong: NULL, garbage, handles of another kind. All of it is an error with a text, and changes nothing.

use std::ffi::{c_char, c_void};
use std::ptr::{dangling, null, null_mut};

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;

use crate::support::*;

const QUESTION: *const c_char = c"what shape is present?".as_ptr();

/// Calls every function that takes a session.
fn with_every_session_function(handle: *mut lxmert_session, mut check: impl FnMut(lxmert_status)) {
    let mut answers = [NO_ANSWER; 1];
    let (shown, mut buffer) = (picture("example_0.png"), [7; 9]);
    let (numbers, ids, room) = ([0.5f32; 4], [2u32, 3], answers.as_mut_ptr());
    let mut tensor = lxmert_tensor::sized();
    let mut info = lxmert_session_info::sized();
    // Results of an earlier call.
    let mut counts = [7; 2];
    (tensor.data, tensor.rank, tensor.shape) = (numbers.as_ptr(), 1, [4; 4]);
    (info.lowering, info.max_tokens, info.label_count) = (QUESTION, 7, 7);
    check(c!(lxmert_encode_regions(handle, numbers.as_ptr(), numbers.as_ptr(), 1)));
    check(c!(lxmert_encode_pixels(handle, shown.rgb.as_ptr(), shown.width, shown.height, 0)));
    check(c!(lxmert_ask(handle, QUESTION, room, 1, &mut counts[0])));
    check(c!(lxmert_ask_tokens(handle, ids.as_ptr(), 2, room, 1, &mut counts[1])));
    check(c!(lxmert_run(handle, &lxmert_inputs::sized())));
    check(c!(lxmert_output(handle, c"pooled_output".as_ptr(), &mut tensor)));
    check(c!(lxmert_session_set_time_limit(handle, 5)));
    check(c!(lxmert_session_cancel(handle)));
    check(c!(lxmert_session_last_error(handle, buffer.as_mut_ptr(), 9)));
    check(c!(lxmert_session_get_info(handle, &mut info)));
    assert_eq!(counts, [0; 2]);
    assert!(tensor.data.is_null() && tensor.rank == 0 && tensor.shape == [0; 4]);
    assert!(info.lowering.is_null() && info.max_tokens == 0 && info.label_count == 0);
    assert_eq!(buffer[0], 0);
}

/// Calls every function that takes a model.
fn with_every_model_function(handle: *mut lxmert_model, mut check: impl FnMut(lxmert_status)) {
    let (mut text, mut count) = (QUESTION, 7);
    let mut info = lxmert_model_info::sized();
    let mut plan = lxmert_memory_plan::sized();
    let mut session = dangling::<lxmert_session>().cast_mut();
    // Results of an earlier call.
    (info.label_count, info.has_tokenizer, info.file_bytes) = (7, true.into(), 7);
    (plan.lowering, plan.session, plan.total) = (QUESTION, 7, 7);
    check(c!(lxmert_model_get_info(handle, &mut info)));
    check(c!(lxmert_model_name(handle, &mut text)));
    check(c!(lxmert_model_label(handle, 0, &mut text)));
    check(c!(lxmert_model_tokenize(handle, QUESTION, null_mut(), 0, &mut count)));
    check(c!(lxmert_plan(handle, null(), &mut plan)));
    check(c!(lxmert_session_create(handle, null(), &mut session)));
    assert!(session.is_null() && text.is_null() && count == 0);
    assert_eq!((info.label_count, info.has_tokenizer, info.file_bytes), (0, false.into(), 0));
    assert!(plan.lowering.is_null() && plan.session == 0 && plan.total == 0);
}

#[test]
fn handles_that_are_none_are_refused() {
    let model = easy_vqa();
    let session = session(&model);
    let garbage = [0x5a5a_5a5a_5a5a_5a5au64; 16];
    let null_or = |status, words| refused(status, LXMERT_INVALID_ARGUMENT, words);

    with_every_model_function(null_mut(), |status| null_or(status, "model is NULL"));
    with_every_model_function(session.0.cast(), |status| null_or(status, "not the handle of a model"));
    with_every_model_function(garbage.as_ptr().cast_mut().cast(), |status| {
        null_or(status, "not the handle of a model");
    });
    with_every_model_function(model.0.wrapping_byte_add(1), |status| {
        null_or(status, "not the handle of a model");
    });

    with_every_session_function(null_mut(), |status| null_or(status, "session is NULL"));
    with_every_session_function(model.0.cast(), |status| null_or(status, "not the handle of a session"));
    with_every_session_function(garbage.as_ptr().cast_mut().cast(), |status| {
        null_or(status, "not the handle of a session");
    });
    with_every_session_function(session.0.wrapping_byte_add(4), |status| {
        null_or(status, "not the handle of a session");
    });
    still_answers(&session);
}

#[test]
fn what_is_no_handle_is_not_freed() {
    let model = easy_vqa();
    let session = session(&model);
    c!(lxmert_model_free(null_mut()));
    c!(lxmert_session_free(null_mut()));
    c!(lxmert_model_free(session.0.cast()));
    assert!(last_error().contains("not the handle of a model"));
    c!(lxmert_session_free(model.0.cast()));
    assert!(last_error().contains("not the handle of a session"));
    still_answers(&session);
    assert_eq!(info(&model).label_count, 13);
}

#[test]
fn loading_refuses_null_and_files_that_are_none() {
    let path = c_path(&file());
    refused(c!(lxmert_model_open(path.as_ptr(), null_mut())), LXMERT_INVALID_ARGUMENT, "out is NULL");
    let mut handle = dangling::<lxmert_model>().cast_mut();
    let mut open = |path: *const c_char| {
        handle = dangling::<lxmert_model>().cast_mut();
        let status = c!(lxmert_model_open(path, &mut handle));
        assert!(handle.is_null());
        status
    };
    refused(open(null()), LXMERT_INVALID_ARGUMENT, "path is NULL");
    refused(open(c"a\xff".as_ptr()), LXMERT_INVALID_ARGUMENT, "path is not UTF-8 from byte 1");
    refused(open(c"/no/such/model.gguf".as_ptr()), LXMERT_IO, "/no/such/model.gguf");
    refused(open(c_path(&directory()).as_ptr()), LXMERT_IO, "directory");
    let text = directory().join("answers.json");
    refused(open(c_path(&text).as_ptr()), LXMERT_INVALID_MODEL, "answers.json");

    let mut from_memory = |bytes: *const c_void, size| {
        for copy in [false, true] {
            handle = dangling::<lxmert_model>().cast_mut();
            let status = c!(lxmert_model_from_memory(bytes, size, copy.into(), &mut handle));
            assert_ne!(status, LXMERT_OK);
            assert!(handle.is_null());
        }
        c!(lxmert_model_from_memory(bytes, size, true.into(), &mut handle))
    };
    refused(from_memory(null(), 5), LXMERT_INVALID_ARGUMENT, "bytes is NULL");
    let bytes = std::fs::read(file()).unwrap();
    let start = bytes.as_ptr().cast::<c_void>();
    refused(from_memory(start, usize::MAX), LXMERT_INVALID_ARGUMENT, "no memory holds");
    refused(from_memory(start, 0), LXMERT_INVALID_MODEL, "");
    refused(from_memory(start, 1000), LXMERT_INVALID_MODEL, "");
    refused(
        c!(lxmert_model_from_memory(start, bytes.len(), true.into(), null_mut())),
        LXMERT_INVALID_ARGUMENT,
        "out is NULL",
    );
    let loader = lxmert_loader::sized();
    refused(c!(lxmert_model_from_loader(&loader, null_mut())), LXMERT_INVALID_ARGUMENT, "out is NULL");
    refused(c!(lxmert_model_from_loader(null(), &mut handle)), LXMERT_INVALID_ARGUMENT, "loader is NULL");
}

#[test]
fn questions_about_a_model_refuse_null_and_what_is_not_there() {
    let model = easy_vqa();
    refused(c!(lxmert_model_get_info(model.0, null_mut())), LXMERT_INVALID_ARGUMENT, "info is NULL");
    refused(c!(lxmert_model_name(model.0, null_mut())), LXMERT_INVALID_ARGUMENT, "text is NULL");
    refused(c!(lxmert_model_label(model.0, 0, null_mut())), LXMERT_INVALID_ARGUMENT, "text is NULL");
    let mut text = c"".as_ptr();
    for index in [13, usize::MAX] {
        refused(c!(lxmert_model_label(model.0, index, &mut text)), LXMERT_INVALID_ARGUMENT, "has 13 answers");
        assert!(text.is_null());
    }
    let (mut ids, mut count) = ([0u32; 8], 5);
    let room = ids.as_mut_ptr();
    let mut tokenize = |question, ids, capacity| {
        count = 5;
        let status = c!(lxmert_model_tokenize(model.0, question, ids, capacity, &mut count));
        (status, count)
    };
    for (question, ids, capacity, words) in [
        (null(), room, 8, "question is NULL"),
        (c"\xc3".as_ptr(), room, 8, "question is not UTF-8"),
        (QUESTION, null_mut(), 8, "ids is NULL"),
        (QUESTION, room.wrapping_byte_add(1), 4, "multiple of 4"),
        (QUESTION, room, usize::MAX, "no memory holds"),
        (c"".as_ptr(), room, 8, "empty"),
        (c" \t\n".as_ptr(), room, 8, "empty"),
    ] {
        let (status, count) = tokenize(question, ids, capacity);
        refused(status, LXMERT_INVALID_ARGUMENT, words);
        assert_eq!(count, 0);
    }
    let status = c!(lxmert_model_tokenize(model.0, QUESTION, room, 8, null_mut()));
    refused(status, LXMERT_INVALID_ARGUMENT, "count is NULL");
    refused(c!(lxmert_plan(model.0, null(), null_mut())), LXMERT_INVALID_ARGUMENT, "plan is NULL");
    refused(c!(lxmert_session_create(model.0, null(), null_mut())), LXMERT_INVALID_ARGUMENT, "out is NULL");
    still_answers(&session(&model));
}

/// A change of good options that spoils them, the status that they get, and words of the text.
type Spoiled = (fn(&mut lxmert_session_options), lxmert_status, &'static str);

#[test]
fn options_that_make_no_sense_are_refused() {
    static UNKNOWN: [usize; 1] = [1];
    static ONE: u32 = 0;
    let names = |name: *const c_char| Box::leak(Box::new([name])).as_ptr();
    let (unknown, not_utf8, null_name) = (names(c"logits".as_ptr()), names(c"\xff".as_ptr()), names(null()));
    let other_head = names(c"prediction_logits".as_ptr());
    let model = easy_vqa();
    let cases: [Spoiled; 22] = [
        (|o| o.max_tokens = usize::MAX, LXMERT_LIMIT, "tokens"),
        (|o| o.max_regions = 5000, LXMERT_LIMIT, "regions"),
        (|o| o.max_batch = 1025, LXMERT_LIMIT, "batch"),
        (|o| (o.device, o.threads) = (c"cpu".as_ptr(), 100_000), LXMERT_INVALID_ARGUMENT, "threads"),
        (|o| o.cpu_count = 1, LXMERT_INVALID_ARGUMENT, "options->cpus is NULL"),
        (
            |o| (o.cpus, o.cpu_count) = (&raw const ONE, 1 << 40),
            LXMERT_INVALID_ARGUMENT,
            "options->cpu_count is 1099511627776: give at most 4096",
        ),
        (|o| o.lowering = c"quickest".as_ptr(), LXMERT_INVALID_ARGUMENT, "quickest"),
        (|o| o.lowering = c"\xfe".as_ptr(), LXMERT_INVALID_ARGUMENT, "options->lowering is not UTF-8"),
        (|o| o.output_count = 2, LXMERT_INVALID_ARGUMENT, "options->outputs is NULL"),
        (|o| o.output_count = usize::MAX, LXMERT_INVALID_ARGUMENT, "options->output_count"),
        (
            |o| (o.outputs, o.output_count) = ((&raw const UNKNOWN).cast(), 1 << 40),
            LXMERT_INVALID_ARGUMENT,
            "options->output_count is 1099511627776: give at most 1024",
        ),
        (|o| o.residency = 5, LXMERT_INVALID_ARGUMENT, "residency is 5"),
        (|o| o.residency = -1, LXMERT_INVALID_ARGUMENT, "residency is -1"),
        (|o| o.residency = i32::MIN, LXMERT_INVALID_ARGUMENT, "residency"),
        (|o| o.memory_budget = 1000, LXMERT_BUDGET, "smallest"),
        (|o| o.memory_size = 64, LXMERT_INVALID_ARGUMENT, "options->memory is NULL"),
        (|o| o.memory = (&raw const UNKNOWN).cast_mut().cast(), LXMERT_INVALID_ARGUMENT, "memory"),
        (
            |o| o.allocator = null::<lxmert_allocator>().wrapping_byte_add(1),
            LXMERT_INVALID_ARGUMENT,
            "allocator",
        ),
        (|o| o.allocator = &NO_FUNCTIONS.0, LXMERT_INVALID_ARGUMENT, "lacks allocate or release"),
        (
            |o| {
                o.allocator = &NO_FUNCTIONS.0;
                o.memory = (&raw const UNKNOWN).cast_mut().cast();
            },
            LXMERT_INVALID_ARGUMENT,
            "give one of them",
        ),
        (
            |o| (o.allocator, o.memory_size) = (&raw const NO_FUNCTIONS.0, 64),
            LXMERT_INVALID_ARGUMENT,
            "give one of them",
        ),
        (|o| o.struct_size = 8, LXMERT_INVALID_ARGUMENT, "struct_size"),
    ];
    let check = |options: &lxmert_session_options, status, words: &str| {
        let mut handle = dangling::<lxmert_session>().cast_mut();
        refused(c!(lxmert_session_create(model.0, options, &mut handle)), status, words);
        assert!(handle.is_null());
    };
    for (spoil, status, words) in cases {
        let mut options = lxmert_session_options::sized();
        spoil(&mut options);
        check(&options, status, words);
    }
    for (outputs, words) in [
        (unknown, "logits"),
        (not_utf8, "not UTF-8"),
        (null_name, "NULL"),
        (other_head, "an output that the model has"),
        (unknown.wrapping_byte_add(1), "multiple of 8"),
    ] {
        let options = lxmert_session_options { outputs, output_count: 1, ..lxmert_session_options::sized() };
        check(&options, LXMERT_INVALID_ARGUMENT, words);
    }
    if let Some(set) = crate::common::missing_set() {
        let name = std::ffi::CString::new(set.name()).unwrap();
        let options = lxmert_session_options { lowering: name.as_ptr(), ..lxmert_session_options::sized() };
        check(&options, LXMERT_UNSUPPORTED, set.name());
    }
    still_answers(&session(&model));
}

struct Shared(lxmert_allocator);
unsafe impl Sync for Shared {}

static NO_FUNCTIONS: Shared =
    Shared(lxmert_allocator { allocate: None, release: None, user_data: null_mut() });

#[test]
fn running_refuses_null_and_numbers_out_of_range() {
    let model = easy_vqa();
    let session = session(&model);
    let lxmert_model_info { feature_size, vocab_size, .. } = info(&model);
    let regions = session_info(&session).max_regions;
    let invalid = |status, words: &str| refused(status, LXMERT_INVALID_ARGUMENT, words);

    // Regions.
    let mut features = vec![0.5f32; (regions + 1) * feature_size];
    let mut boxes = vec![0.5f32; (regions + 1) * 4];
    let encode_regions = |features: *const f32, boxes: *const f32, regions| {
        c!(lxmert_encode_regions(session.0, features, boxes, regions))
    };
    invalid(encode_regions(null(), boxes.as_ptr(), 2), "features is NULL");
    invalid(encode_regions(features.as_ptr(), null(), 2), "boxes is NULL");
    invalid(encode_regions(features.as_ptr().wrapping_byte_add(2), boxes.as_ptr(), 2), "multiple of 4");
    invalid(encode_regions(features.as_ptr(), boxes.as_ptr(), 0), "regions");
    refused(encode_regions(features.as_ptr(), boxes.as_ptr(), regions + 1), LXMERT_LIMIT, "regions");
    refused(encode_regions(features.as_ptr(), boxes.as_ptr(), usize::MAX), LXMERT_LIMIT, "regions");
    features[feature_size + 3] = f32::NAN;
    invalid(encode_regions(features.as_ptr(), boxes.as_ptr(), 2), "finite");
    features[feature_size + 3] = 0.0;
    boxes[5] = 17.0;
    invalid(encode_regions(features.as_ptr(), boxes.as_ptr(), 2), "17");
    boxes[5] = 0.0;
    ok(encode_regions(features.as_ptr(), boxes.as_ptr(), 2));

    // Pixels.
    let rgb = vec![0u8; 3 * 64 * 64];
    let pixels = |rgb: *const u8, width, height, stride| {
        c!(lxmert_encode_pixels(session.0, rgb, width, height, stride))
    };
    invalid(pixels(null(), 64, 64, 0), "rgb is NULL");
    invalid(pixels(rgb.as_ptr(), 0, 64, 0), "0 x 64");
    invalid(pixels(rgb.as_ptr(), 64, 0, 0), "64 x 0");
    invalid(pixels(rgb.as_ptr(), 64, 64, 191), "191");
    invalid(pixels(rgb.as_ptr(), 64, 64, usize::MAX), "no memory holds");
    invalid(pixels(rgb.as_ptr(), 20_000, 1, 0), "20000");

    // Questions.
    let (mut answers, mut count) = ([NO_ANSWER; 2], 7);
    let room = answers.as_mut_ptr();
    let mut ask = |question, room, capacity| {
        count = 7;
        let status = c!(lxmert_ask(session.0, question, room, capacity, &mut count));
        assert!(status == LXMERT_OK || count == 0);
        status
    };
    invalid(ask(null(), room, 2), "question is NULL");
    invalid(ask(c"\x80".as_ptr(), room, 2), "question is not UTF-8");
    invalid(ask(c"  ".as_ptr(), room, 2), "empty");
    invalid(ask(QUESTION, null_mut(), 2), "answers is NULL");
    invalid(ask(QUESTION, room.wrapping_byte_add(1), 1), "multiple of 8");
    ok(ask(QUESTION, null_mut(), 0));
    let long = std::ffi::CString::new("what ".repeat(600)).unwrap();
    refused(ask(long.as_ptr(), room, 2), LXMERT_LIMIT, "tokens");
    invalid(c!(lxmert_ask(session.0, QUESTION, room, 2, null_mut())), "count is NULL");

    let ids = [2u32, vocab_size as u32, 3];
    let mut count = 7;
    let mut ask_tokens = |ids: *const u32, id_count| {
        count = 7;
        let status = c!(lxmert_ask_tokens(session.0, ids, id_count, room, 2, &mut count));
        assert!(status == LXMERT_OK || count == 0);
        status
    };
    invalid(ask_tokens(null(), 3), "ids is NULL");
    invalid(ask_tokens(ids.as_ptr(), 0), "tokens");
    invalid(ask_tokens(ids.as_ptr(), 3), "at index 1");
    invalid(ask_tokens(ids.as_ptr().wrapping_byte_add(1), 2), "multiple of 4");
    refused(ask_tokens(ids.as_ptr(), usize::MAX), LXMERT_LIMIT, "tokens");
    invalid(c!(lxmert_ask_tokens(session.0, ids.as_ptr(), 1, room, 2, null_mut())), "count is NULL");

    // Outputs and texts.
    let mut tensor = lxmert_tensor { data: [0.0f32; 1].as_ptr(), rank: 1, ..lxmert_tensor::sized() };
    invalid(c!(lxmert_output(session.0, null(), &mut tensor)), "name is NULL");
    invalid(c!(lxmert_output(session.0, c"\xff".as_ptr(), &mut tensor)), "name is not UTF-8");
    invalid(c!(lxmert_output(session.0, c"logits".as_ptr(), &mut tensor)), "logits");
    invalid(c!(lxmert_output(session.0, c"pooled_output".as_ptr(), null_mut())), "tensor is NULL");
    refused(
        c!(lxmert_output(session.0, c"pooled_output".as_ptr(), &mut tensor)),
        LXMERT_NOT_REQUESTED,
        "pooled_output",
    );
    assert!(tensor.data.is_null() && tensor.rank == 0);
    let mut buffer = [1 as c_char; 4];
    invalid(c!(lxmert_session_last_error(session.0, null_mut(), 4)), "buffer is NULL");
    invalid(c!(lxmert_session_last_error(session.0, buffer.as_mut_ptr(), 0)), "size is 0");
    invalid(c!(lxmert_session_get_info(session.0, null_mut())), "info is NULL");
    still_answers(&session);
}

#[test]
fn raw_tensors_are_checked_one_by_one() {
    use crate::common::wide::Batch;
    use crate::tensors::{c_inputs, wide_model, wide_session};

    let directory = tempfile::TempDir::new().unwrap();
    let (model, _) = wide_model(&directory);
    let session = wide_session(&model, 2, &[c"pooled_output".as_ptr()]);
    let batch = Batch::of(2);
    let good = c_inputs(&batch.inputs());
    type Spoil = fn(&mut lxmert_inputs);
    let cases: [(Spoil, lxmert_status, &str); 14] = [
        (|i| i.input_ids = null(), LXMERT_INVALID_ARGUMENT, "none of input_ids and inputs_embeds"),
        (|i| i.inputs_embeds = i.visual_feats, LXMERT_INVALID_ARGUMENT, "both of input_ids and"),
        (|i| i.visual_feats = null(), LXMERT_INVALID_ARGUMENT, "inputs->visual_feats is NULL"),
        (|i| i.visual_pos = null(), LXMERT_INVALID_ARGUMENT, "inputs->visual_pos is NULL"),
        (|i| i.visual_pos = i.visual_feats, LXMERT_INVALID_ARGUMENT, "box"),
        (|i| i.attention_mask = i.visual_feats, LXMERT_INVALID_ARGUMENT, "attention_mask"),
        (|i| i.visual_attention_mask = i.visual_feats, LXMERT_INVALID_ARGUMENT, "visual_attention_mask"),
        (|i| i.token_type_ids = i.input_ids, LXMERT_INVALID_ARGUMENT, "token_type_ids"),
        (|i| i.input_ids = i.visual_feats.cast(), LXMERT_INVALID_ARGUMENT, "input_ids"),
        (|i| i.batch = 0, LXMERT_INVALID_ARGUMENT, "batch"),
        (|i| i.batch = 3, LXMERT_LIMIT, "batch"),
        (|i| i.tokens = usize::MAX, LXMERT_LIMIT, "tokens"),
        (|i| i.regions = usize::MAX / 2, LXMERT_LIMIT, "regions"),
        (|i| i.regions = 0, LXMERT_INVALID_ARGUMENT, "regions"),
    ];
    for (spoil, status, words) in cases {
        let mut inputs = good;
        spoil(&mut inputs);
        refused(c!(lxmert_run(session.0, &inputs)), status, words);
    }
    refused(c!(lxmert_run(session.0, null())), LXMERT_INVALID_ARGUMENT, "inputs is NULL");
    ok(c!(lxmert_run(session.0, &good)));
}

#[test]
fn a_session_keeps_the_text_of_its_own_failures() {
    let model = easy_vqa();
    let (one, other) = (session(&model), session(&model));
    assert_eq!(session_error(&one), "");
    assert_eq!(ask(&one, "what?", 1).unwrap_err(), LXMERT_NO_IMAGE);
    let text = last_error();
    assert!(text.contains("encode"), "{text}");
    assert_eq!(session_error(&one), text);
    assert_eq!(session_error(&other), "");
    // Another thread has not failed, and still can read it.
    let shared = &one;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(last_error(), "");
            assert_eq!(session_error(shared), text);
            // Cut to the room there is.
            let mut buffer = [1 as c_char; 6];
            ok(c!(lxmert_session_last_error(shared.0, buffer.as_mut_ptr(), 5)));
            assert_eq!(string(buffer.as_ptr()), text[..4]);
            assert_eq!(buffer[5], 1);
        });
    });
    still_answers(&one);
}

#[test]
fn verifying_names_the_tensor_that_is_damaged() {
    let mut bytes = std::fs::read(file()).unwrap();
    ok(c!(lxmert_model_verify(easy_vqa().0)));
    let header = lxmert::gguf::Header::parse(&bytes).unwrap();
    let (name, place) = (header.tensors()[3].name().to_owned(), header.tensors()[3].range().start);
    bytes[place] ^= 1;
    let mut model = null_mut();
    ok(c!(lxmert_model_from_memory(bytes.as_ptr().cast(), bytes.len(), true.into(), &mut model)));
    let model = Model(model);
    refused(c!(lxmert_model_verify(model.0)), LXMERT_INVALID_MODEL, &format!("tensor {name:?}"));
    refused(c!(lxmert_model_verify(null())), LXMERT_INVALID_ARGUMENT, "model");
}
