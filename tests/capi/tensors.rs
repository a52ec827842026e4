//! Raw tensors in, every output out, as through the Rust interface.

use std::ffi::{CString, c_char};
use std::ptr::{null, null_mut};

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;
use lxmert::gguf::TensorType;
use lxmert::{Inputs, Text};
use tempfile::TempDir;

use crate::common::wide::{self, Batch, REGIONS, TOKENS, all_outputs};
use crate::support::*;

pub fn c_inputs(inputs: &Inputs<'_>) -> lxmert_inputs {
    let (input_ids, inputs_embeds) = match inputs.text {
        Text::Ids(ids) => (ids.as_ptr(), null()),
        Text::Embeddings(values) => (null(), values.as_ptr()),
    };
    lxmert_inputs {
        struct_size: size_of::<lxmert_inputs>(),
        batch: inputs.batch,
        tokens: inputs.tokens,
        regions: inputs.regions,
        input_ids,
        inputs_embeds,
        attention_mask: inputs.attention_mask.map_or(null(), <[f32]>::as_ptr),
        token_type_ids: inputs.token_type_ids.map_or(null(), <[u32]>::as_ptr),
        visual_feats: inputs.visual_feats.as_ptr(),
        visual_pos: inputs.visual_pos.as_ptr(),
        visual_attention_mask: inputs.visual_attention_mask.map_or(null(), <[f32]>::as_ptr),
    }
}

/// A model with every kind of output.
pub fn wide_model(directory: &TempDir) -> (Model, lxmert::Model) {
    let file = wide::synthetic(wide::config(), TensorType::Q8_0, directory.path());
    (open(&file), lxmert::Model::open(&file).unwrap())
}

/// A session for the batches of `wide`, with these outputs.
pub fn wide_session(model: &Model, batch: usize, outputs: &[*const c_char]) -> Session {
    session_with(model, |options| {
        (options.max_tokens, options.max_regions, options.max_batch) = (TOKENS, REGIONS, batch);
        (options.outputs, options.output_count) = (outputs.as_ptr(), outputs.len());
        options.inputs_embeds = true.into();
    })
}

#[test]
fn every_output_is_that_of_the_rust_interface() {
    let directory = TempDir::new().unwrap();
    let (model, rust) = wide_model(&directory);
    let outputs = all_outputs(rust.config());
    let names: Vec<CString> = outputs.iter().map(|name| CString::new(name.to_string()).unwrap()).collect();
    let pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let session = wide_session(&model, 3, &pointers);
    let batch = Batch::of(3);
    let set = |options: &mut lxmert::SessionOptions| options.inputs_embeds = true;
    let mut rust = batch.session_after(&rust, &outputs, set);
    ok(c!(lxmert_run(session.0, &c_inputs(&batch.inputs()))));
    for (output, name) in outputs.iter().zip(&names) {
        let expected = rust.output(*output).unwrap();
        assert_eq!(
            self::output(&session, name),
            (expected.shape.to_vec(), expected.data.to_vec()),
            "{name:?}"
        );
    }

    // Embeddings in place of ids, token types, and no masks.
    let embeddings: Vec<f32> = (0..3 * TOKENS * 512).map(|n| (n % 17) as f32 / 17.0 - 0.5).collect();
    let types: Vec<u32> = (0..3 * TOKENS).map(|n| (n % 2) as u32).collect();
    let inputs = Inputs {
        text: Text::Embeddings(&embeddings),
        token_type_ids: Some(&types),
        attention_mask: None,
        visual_attention_mask: None,
        ..batch.inputs()
    };
    ok(c!(lxmert_run(session.0, &c_inputs(&inputs))));
    rust.run(&inputs).unwrap();
    for (output, name) in outputs.iter().zip(&names) {
        assert_eq!(self::output(&session, name).1, rust.output(*output).unwrap().data, "{name:?}");
    }
}

#[test]
fn a_list_is_all_of_its_outputs() {
    let directory = TempDir::new().unwrap();
    let (model, _) = wide_model(&directory);
    let names = [c"vision_attentions", c"pooled_output", c"pooled_output"].map(|name| name.as_ptr());
    let session = wide_session(&model, 2, &names);
    ok(c!(lxmert_run(session.0, &c_inputs(&Batch::of(2).inputs()))));
    assert_eq!(output(&session, c"vision_attentions.0").0, [2, 8, REGIONS, REGIONS]);
    assert_eq!(output(&session, c"pooled_output").0, [2, 512]);
    let mut tensor = lxmert_tensor::sized();
    let mut missing = |name: &std::ffi::CStr| c!(lxmert_output(session.0, name.as_ptr(), &mut tensor));
    refused(missing(c"language_output"), LXMERT_NOT_REQUESTED, "language_output");
    refused(missing(c"vision_attentions"), LXMERT_INVALID_ARGUMENT, "vision_attentions");
    refused(missing(c"vision_attentions.9"), LXMERT_NOT_REQUESTED, "vision_attentions.9");
}

/// A batch of several images is none to ask about, one image is.
#[test]
fn a_model_without_texts_answers_by_number() {
    let directory = TempDir::new().unwrap();
    let (model, _) = wide_model(&directory);
    let session = wide_session(&model, 2, &[c"question_answering_score".as_ptr()]);
    let ids = [1u32, 2, 3];
    let mut answers = [NO_ANSWER; 3];
    let mut count = 9;
    let mut ask = || c!(lxmert_ask_tokens(session.0, ids.as_ptr(), 3, answers.as_mut_ptr(), 3, &mut count));
    refused(ask(), LXMERT_NO_IMAGE, "encode");
    ok(c!(lxmert_run(session.0, &c_inputs(&Batch::of(2).inputs()))));
    refused(ask(), LXMERT_NO_IMAGE, "encode");
    ok(c!(lxmert_run(session.0, &c_inputs(&Batch::of(1).inputs()))));
    ok(ask());
    assert_eq!(count, 3);
    assert!(answers.iter().all(|answer| answer.text.is_null() && answer.label < 200));
    assert!(answers[0].logit >= answers[1].logit && answers[1].logit >= answers[2].logit);

    let found = info(&model);
    assert_eq!(found.head, lxmert_head::LXMERT_HEAD_PRETRAINING as i32);
    assert_eq!(found.front_end, lxmert_front_end::LXMERT_FRONT_END_REGIONS as i32);
    assert_eq!((found.grid_rows, found.grid_columns), (0, 0));
    assert_eq!((found.has_label_texts, found.has_tokenizer), (false.into(), false.into()));
    let mut text = c"".as_ptr();
    refused(c!(lxmert_model_label(model.0, 0, &mut text)), LXMERT_UNSUPPORTED, "no answers");
    assert!(text.is_null());
    let question = c"what?".as_ptr();
    refused(
        c!(lxmert_model_tokenize(model.0, question, null_mut(), 0, &mut count)),
        LXMERT_UNSUPPORTED,
        "tokenizer",
    );
    assert_eq!(crate::support::ask(&session, "what?", 1).unwrap_err(), LXMERT_UNSUPPORTED);
    refused(encode(&session, &picture("example_0.png")), LXMERT_UNSUPPORTED, "pixels");
}
