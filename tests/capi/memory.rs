//! Sessions in memory of the caller's, and what they say to take.

use std::ffi::c_void;
use std::ptr::{null, null_mut};

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;

use crate::support::*;

fn plan(model: &Model, options: &lxmert_session_options) -> lxmert_memory_plan {
    let mut plan = lxmert_memory_plan::sized();
    ok(c!(lxmert_plan(model.0, options, &mut plan)));
    plan
}

fn options() -> lxmert_session_options {
    lxmert_session_options { threads: 1, ..lxmert_session_options::sized() }
}

fn create(model: &Model, options: &lxmert_session_options) -> Result<Session, lxmert_status> {
    let mut handle = std::ptr::dangling::<lxmert_session>().cast_mut();
    let status = c!(lxmert_session_create(model.0, options, &mut handle));
    assert_eq!(handle.is_null(), status != LXMERT_OK);
    if status == LXMERT_OK { Ok(Session(handle)) } else { Err(status) }
}

#[test]
fn a_plan_is_that_of_the_rust_interface_and_comes_true() {
    let model = easy_vqa();
    let found = plan(&model, &options());
    let rust = lxmert::Model::open(file()).unwrap();
    let mut rust_options = lxmert::SessionOptions::new(&rust);
    rust_options.threads = 1;
    let expected = rust.plan(&rust_options).unwrap();
    assert_eq!(found.session, expected.session);
    assert_eq!(found.weights_mapped, expected.weights_mapped);
    assert_eq!(found.weights_private, expected.weights_private);
    assert_eq!((found.tokenizer, found.labels), (expected.tokenizer, expected.labels));
    assert_eq!((found.other, found.total), (expected.other, expected.total()));
    assert_eq!(string(found.lowering), expected.lowering.to_string());
    assert_eq!(
        (string(found.device), found.device_bytes),
        (expected.device.to_string(), expected.device_bytes)
    );
    let sum = found.device_bytes + found.weights_mapped + found.weights_private + found.session;
    assert_eq!(found.total, sum + found.tokenizer + found.labels + found.other);

    let made = session_info(&create(&model, &options()).unwrap());
    assert_eq!((made.session_bytes, made.residency), (found.session, found.residency));
    assert_eq!((made.lowering, made.device), (found.lowering, found.device));
}

#[test]
fn a_budget_chooses_how_to_run() {
    let model = easy_vqa();
    let enough = plan(&model, &options());
    let tight = lxmert_session_options { memory_budget: enough.total, ..options() };
    assert_eq!(plan(&model, &tight).total, enough.total);
    still_answers(&create(&model, &tight).unwrap());
    let nothing = lxmert_session_options { memory_budget: 1, ..options() };
    let mut refused_plan = lxmert_memory_plan::sized();
    refused(c!(lxmert_plan(model.0, &nothing, &mut refused_plan)), LXMERT_BUDGET, "smallest");
    assert_eq!(refused_plan.total, 0);
    refused(create(&model, &nothing).err().unwrap(), LXMERT_BUDGET, "smallest");
}

#[test]
fn weights_stay_where_they_are_wanted() {
    let model = easy_vqa();
    for residency in
        [lxmert_residency::LXMERT_RESIDENCY_RESIDENT, lxmert_residency::LXMERT_RESIDENCY_STREAMED]
    {
        let wanted = lxmert_session_options {
            residency: residency as i32,
            prefault: true.into(),
            profile: true.into(),
            ..options()
        };
        match create(&model, &wanted) {
            Ok(session) => {
                assert_eq!(session_info(&session).residency, residency as i32);
                still_answers(&session);
            }
            Err(status) => refused(status, LXMERT_INVALID_ARGUMENT, "residency"),
        }
    }
}

#[repr(align(64))]
#[derive(Clone, Copy)]
struct Line(#[expect(dead_code, reason = "room")] [u8; 64]);

#[test]
fn a_session_lives_in_a_block_of_the_callers() {
    let model = easy_vqa();
    let bytes = plan(&model, &options()).session;
    let mut block = vec![Line([0xcc; 64]); bytes.div_ceil(64) + 1];
    let memory = block.as_mut_ptr().cast::<c_void>();
    let end = memory.wrapping_byte_add(bytes).cast::<u8>();
    let given = lxmert_session_options { memory, memory_size: bytes, ..options() };
    let session = create(&model, &given).unwrap();
    still_answers(&session);
    let mut tensor = lxmert_tensor::sized();
    ok(c!(lxmert_output(session.0, c"question_answering_score".as_ptr(), &mut tensor)));
    let start = memory.addr();
    assert!((start..start + bytes).contains(&tensor.data.addr()));
    drop(session);
    assert_eq!(c!(end.read()), 0xcc);

    let short = lxmert_session_options { memory_size: bytes - 1, ..given };
    refused(create(&model, &short).err().unwrap(), LXMERT_INVALID_ARGUMENT, "memory");
    let crooked = lxmert_session_options { memory: memory.wrapping_byte_add(8), ..given };
    refused(create(&model, &crooked).err().unwrap(), LXMERT_INVALID_ARGUMENT, "memory");
    // The block serves again.
    still_answers(&create(&model, &given).unwrap());
}

/// An allocator that counts.
struct Pool {
    block: Vec<Line>,
    taken: Vec<(usize, usize)>,
    returned: Vec<(usize, usize)>,
    empty: bool,
    shift: usize,
}

unsafe extern "C" fn allocate(data: *mut c_void, size: usize, alignment: usize) -> *mut c_void {
    let pool = unsafe { &mut *data.cast::<Pool>() };
    assert_eq!(alignment, LXMERT_MEMORY_ALIGNMENT);
    if pool.empty {
        return null_mut();
    }
    pool.block = vec![Line([0; 64]); size.div_ceil(64) + 1];
    let start = pool.block.as_mut_ptr().cast::<c_void>().wrapping_byte_add(pool.shift);
    pool.taken.push((start.addr(), size));
    start
}

unsafe extern "C" fn release(data: *mut c_void, memory: *mut c_void, size: usize) {
    unsafe { &mut *data.cast::<Pool>() }.returned.push((memory.addr(), size));
}

#[test]
fn an_allocator_is_asked_once_and_gets_it_back() {
    let model = easy_vqa();
    let mut pool =
        Pool { block: Vec::new(), taken: Vec::new(), returned: Vec::new(), empty: false, shift: 0 };
    let data = &raw mut pool;
    let allocator =
        lxmert_allocator { allocate: Some(allocate), release: Some(release), user_data: data.cast() };
    let given = lxmert_session_options { allocator: &allocator, ..options() };
    let session = create(&model, &given).unwrap();
    still_answers(&session);
    let bytes = plan(&model, &options()).session;
    let pool = || unsafe { &mut *data };
    assert_eq!(pool().taken.iter().map(|(_, size)| *size).collect::<Vec<_>>(), [bytes]);
    assert!(pool().returned.is_empty());
    drop(session);
    assert_eq!(pool().returned, pool().taken);

    pool().empty = true;
    refused(create(&model, &given).err().unwrap(), LXMERT_OUT_OF_MEMORY, &bytes.to_string());
    assert_eq!(pool().returned.len(), 1);
    (pool().empty, pool().shift) = (false, 4);
    refused(create(&model, &given).err().unwrap(), LXMERT_INVALID_ARGUMENT, "memory");
    assert_eq!(pool().returned, pool().taken);
    pool().shift = 0;
    still_answers(&create(&model, &given).unwrap());
    let plain = lxmert_session_options { allocator: null(), ..given };
    still_answers(&create(&model, &plain).unwrap());
}
