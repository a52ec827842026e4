//! Programs in C, as calls one after the other.

use super::List;
use crate::c_abi::{CALL, FUNCTIONS};

pub fn add(all: &mut List) {
    let model = call("lxmert_model_from_memory", &[]);
    let session = call("lxmert_session_create", &[]);
    let encode = call("lxmert_encode_regions", &[]);
    let ask = call("lxmert_ask", &[]);
    all.good("c_abi", "valid", [model, session, encode, ask].concat());
    let loader = call("lxmert_model_from_loader", &[1]);
    let session = call("lxmert_session_create", &[]);
    let run = call("lxmert_run", &[]);
    all.good("c_abi", "valid-loader", [loader, session, run, call("lxmert_output", &[0, 0, 10])].concat());

    // All functions in turn, with a model and a session and without, every argument chosen by the same number.
    for number in [0, 1, 2, 3, 4, 5, 6, 7, 0x80, 0xc1, 0xdd, 0xff] {
        let chosen = [number; CALL - 1];
        let every: Vec<u8> = FUNCTIONS
            .iter()
            .filter(|name| !name.ends_with("_free"))
            .flat_map(|name| call(name, &chosen))
            .collect();
        let made = [call("lxmert_model_from_memory", &[]), call("lxmert_session_create", &[])].concat();
        let freed = [call("lxmert_session_free", &chosen), call("lxmert_model_free", &chosen)].concat();
        let whole = [&made[..], &every, &freed, &freed].concat();
        all.bad("c_abi", &format!("every-function-{number:02x}"), "calls refused", whole);
        all.bad("c_abi", &format!("every-function-without-handles-{number:02x}"), "calls refused", every);
    }
    let limits = [
        call("lxmert_model_from_memory", &[]),
        call("lxmert_session_create", &[0, 0, 0, 0, 0, 0, 0, 0, 7, 6, 5, 3]),
        call("lxmert_session_create", &[0, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 0]),
        call("lxmert_session_create", &[0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 0]),
        call("lxmert_run", &[0, 0, 5, 6, 5, 0xff]),
        call("lxmert_encode_regions", &[0, 0, 0, 5]),
        call("lxmert_encode_pixels", &[0, 0, 4, 4, 4]),
        call("lxmert_ask_tokens", &[0, 0xff, 0, 5]),
    ];
    all.bad("c_abi", "sizes-that-wrap", "calls refused", limits.concat());
    let order = [
        call("lxmert_ask", &[]),
        call("lxmert_model_from_memory", &[]),
        call("lxmert_ask", &[]),
        call("lxmert_session_create", &[]),
        call("lxmert_ask", &[]),
        call("lxmert_output", &[]),
        call("lxmert_model_free", &[]),
        call("lxmert_encode_regions", &[]),
        call("lxmert_ask", &[]),
        call("lxmert_session_free", &[]),
        call("lxmert_ask", &[]),
    ];
    all.bad("c_abi", "in-the-wrong-order", "calls refused", order.concat());
    all.good("c_abi", "empty", []);
}

/// A call of that function, whose arguments these bytes and then zeros choose.
fn call(name: &str, choices: &[u8]) -> Vec<u8> {
    let number = FUNCTIONS.iter().position(|known| *known == name).expect("a function of the interface");
    let mut call = vec![number as u8];
    call.extend(choices);
    call.resize(CALL, 0);
    call
}
