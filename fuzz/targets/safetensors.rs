#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lxmert_doors::enter("safetensors", bytes));
