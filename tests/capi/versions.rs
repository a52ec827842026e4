//! Structs of programs that were compiled with another header.

use std::ptr::null_mut;

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;

use crate::common::wide::Batch;
use crate::support::*;
use crate::tensors::{c_inputs, wide_model, wide_session};

/// Sizes that no version of a struct had: nothing, a pointer's, between two versions, no multiple of its alignment, beyond today's,
/// absurd.
fn wrong_sizes<T>() -> [usize; 8] {
    let size = size_of::<T>();
    [0, 1, 8, 16, size - 1, size + 1, size + 8, usize::MAX]
}

fn refused_for_size(status: lxmert_status, name: &str, size: usize) {
    refused(status, LXMERT_INVALID_ARGUMENT, &format!("struct_size is {size}"));
    refused(status, LXMERT_INVALID_ARGUMENT, name);
}

#[test]
fn sizes_that_no_version_had_are_refused() {
    let model = easy_vqa();
    let session = session(&model);
    for struct_size in wrong_sizes::<lxmert_model_info>() {
        let mut info = lxmert_model_info { struct_size, ..lxmert_model_info::sized() };
        let status = c!(lxmert_model_get_info(model.0, &mut info));
        refused_for_size(status, "lxmert_model_info", struct_size);
        assert_eq!(info.label_count, 0);
    }
    for struct_size in wrong_sizes::<lxmert_session_options>() {
        let options = lxmert_session_options { struct_size, ..lxmert_session_options::sized() };
        let mut handle = session.0;
        let status = c!(lxmert_session_create(model.0, &options, &mut handle));
        refused_for_size(status, "lxmert_session_options", struct_size);
        assert!(handle.is_null());
        let mut plan = lxmert_memory_plan::sized();
        refused_for_size(
            c!(lxmert_plan(model.0, &options, &mut plan)),
            "lxmert_session_options",
            struct_size,
        );
    }
    for struct_size in wrong_sizes::<lxmert_memory_plan>() {
        let mut plan = lxmert_memory_plan { struct_size, ..lxmert_memory_plan::sized() };
        let status = c!(lxmert_plan(model.0, std::ptr::null(), &mut plan));
        refused_for_size(status, "lxmert_memory_plan", struct_size);
    }
    for struct_size in wrong_sizes::<lxmert_device_info>() {
        let mut info = lxmert_device_info { struct_size, ..lxmert_device_info::sized() };
        refused_for_size(c!(lxmert_device_get_info(0, &mut info)), "lxmert_device_info", struct_size);
    }
    for struct_size in wrong_sizes::<lxmert_session_info>() {
        let mut info = lxmert_session_info { struct_size, ..lxmert_session_info::sized() };
        refused_for_size(
            c!(lxmert_session_get_info(session.0, &mut info)),
            "lxmert_session_info",
            struct_size,
        );
    }
    for struct_size in wrong_sizes::<lxmert_inputs>() {
        let inputs = lxmert_inputs { struct_size, ..lxmert_inputs::sized() };
        refused_for_size(c!(lxmert_run(session.0, &inputs)), "lxmert_inputs", struct_size);
    }
    for struct_size in wrong_sizes::<lxmert_tensor>() {
        let mut tensor = lxmert_tensor { struct_size, ..lxmert_tensor::sized() };
        let status = c!(lxmert_output(session.0, c"pooled_output".as_ptr(), &mut tensor));
        refused_for_size(status, "lxmert_tensor", struct_size);
        assert!(tensor.data.is_null());
    }
    for struct_size in wrong_sizes::<lxmert_loader>() {
        let loader = lxmert_loader { struct_size, ..lxmert_loader::sized() };
        let mut handle = model.0;
        let status = c!(lxmert_model_from_loader(&loader, &mut handle));
        refused_for_size(status, "lxmert_loader", struct_size);
        assert!(handle.is_null());
    }
    still_answers(&session);
}

/// A struct that ends where `end` begins, with garbage behind.
fn shortened<T: Copy>(end: usize, make: impl FnOnce(&mut T)) -> Vec<u64> {
    let mut words = vec![u64::MAX; size_of::<T>() / 8];
    let mut value: T = unsafe { std::mem::zeroed() };
    make(&mut value);
    c!(std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), words.as_mut_ptr().cast(), end));
    words[0] = end as u64;
    words
}

#[test]
fn options_that_a_program_does_not_know_yet_are_defaults() {
    let model = easy_vqa();
    let end = std::mem::offset_of!(lxmert_session_options, cpus);
    let options = shortened::<lxmert_session_options>(end, |options| {
        (options.max_tokens, options.threads) = (11, 1);
    });
    let mut handle = null_mut();
    ok(c!(lxmert_session_create(model.0, options.as_ptr().cast(), &mut handle)));
    let session = Session(handle);
    assert_eq!(session_info(&session).max_tokens, 11);
    still_answers(&session);
    // What ends in the middle of that version's successor is of none.
    for end in [end + 8, std::mem::offset_of!(lxmert_session_options, progress)] {
        let options = shortened::<lxmert_session_options>(end, |_| ());
        let status = c!(lxmert_session_create(model.0, options.as_ptr().cast(), &mut handle));
        refused_for_size(status, "lxmert_session_options", end);
    }
}

#[test]
fn inputs_without_the_last_mask_keep_all_regions() {
    let directory = tempfile::TempDir::new().unwrap();
    let (model, _) = wide_model(&directory);
    let session = wide_session(&model, 2, &[c"pooled_output".as_ptr()]);
    let batch = Batch::of(2);
    let mut inputs = c_inputs(&batch.inputs());
    inputs.visual_attention_mask = std::ptr::null();
    ok(c!(lxmert_run(session.0, &inputs)));
    let expected = output(&session, c"pooled_output");
    let end = std::mem::offset_of!(lxmert_inputs, visual_attention_mask);
    let short = shortened::<lxmert_inputs>(end, |short| *short = inputs);
    ok(c!(lxmert_run(session.0, short.as_ptr().cast())));
    assert_eq!(output(&session, c"pooled_output"), expected);
}

/// Calls a function with a struct that ends at `end`, and demands that it fills in just that.
fn fills_up_to<T: Sized>(end: usize, fill: impl Fn(*mut T) -> lxmert_status) {
    let mut whole = T::sized();
    ok(fill(&mut whole));
    let bytes = |value: *const u8, range: std::ops::Range<usize>| {
        c!(std::slice::from_raw_parts(value.add(range.start), range.len())).to_vec()
    };
    let mut part = shortened::<T>(end, |_| ());
    ok(fill(part.as_mut_ptr().cast()));
    assert_eq!(part[0], end as u64);
    let part = part.as_ptr().cast::<u8>();
    assert_eq!(bytes(part, 8..end), bytes((&raw const whole).cast(), 8..end));
    assert!(bytes(part, end..size_of::<T>()).iter().all(|byte| *byte == 0xff));
}

#[test]
fn only_as_much_is_filled_in_as_a_program_has_room_for() {
    use std::mem::offset_of;
    let model = easy_vqa();
    let session = session(&model);
    let end = offset_of!(lxmert_model_info, has_label_texts);
    fills_up_to::<lxmert_model_info>(end, |info| c!(lxmert_model_get_info(model.0, info)));
    let plan = |plan| c!(lxmert_plan(model.0, std::ptr::null(), plan));
    fills_up_to::<lxmert_memory_plan>(offset_of!(lxmert_memory_plan, device), plan);
    let end = offset_of!(lxmert_session_info, device);
    fills_up_to::<lxmert_session_info>(end, |info| c!(lxmert_session_get_info(session.0, info)));
}
