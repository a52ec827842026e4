//! Devices beside the CPU.

use lxmert::capi::lxmert_status::*;
use lxmert::capi::*;

use crate::support::*;

fn listed() -> Vec<lxmert_device_info> {
    let mut count = 7;
    ok(c!(lxmert_device_count(&mut count)));
    let info = |index| {
        let mut info = lxmert_device_info::sized();
        ok(c!(lxmert_device_get_info(index, &mut info)));
        info
    };
    (0..count).map(info).collect()
}

#[test]
fn the_list_is_that_of_the_rust_interface() {
    let expected = lxmert::devices().unwrap();
    let found = listed();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(string(found.name), expected.device.to_string());
        assert_eq!(string(found.description), expected.description);
        assert_eq!((found.memory, found.integrated), (expected.memory, expected.integrated.into()));
    }
    let mut info = lxmert_device_info { memory: 7, ..lxmert_device_info::sized() };
    let status = c!(lxmert_device_get_info(expected.len(), &mut info));
    refused(status, LXMERT_INVALID_ARGUMENT, &format!("index is {}", expected.len()));
    assert_eq!(info.memory, 0);
    refused(c!(lxmert_device_count(std::ptr::null_mut())), LXMERT_INVALID_ARGUMENT, "count is NULL");
}

#[test]
fn a_session_computes_where_it_is_told() {
    let model = easy_vqa();
    let with = |device| lxmert_session_options { device, ..lxmert_session_options::sized() };
    let found = listed();
    let names = [c"cpu".as_ptr(), c"emulated".as_ptr()].into_iter().chain(found.iter().map(|info| info.name));
    for name in names {
        let mut handle = std::ptr::null_mut();
        ok(c!(lxmert_session_create(model.0, &with(name), &mut handle)));
        let session = Session(handle);
        let info = session_info(&session);
        assert_eq!(string(info.device), string(name));
        let on_device = info.residency == lxmert_residency::LXMERT_RESIDENCY_DEVICE as i32;
        assert_eq!(on_device, string(name) != "cpu");
        still_answers(&session);
    }
    for (name, words) in [(c"cuda:999", "this build has"), (c"gpu", "vulkan:N")] {
        let mut handle = std::ptr::dangling_mut();
        let status = c!(lxmert_session_create(model.0, &with(name.as_ptr()), &mut handle));
        refused(status, LXMERT_INVALID_ARGUMENT, words);
        assert!(handle.is_null());
    }
}
