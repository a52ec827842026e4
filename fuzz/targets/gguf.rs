#![no_main]
use lxmert_doors::{enter, mutate::in_place};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| enter("gguf", bytes));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, room: usize, seed: u32| {
    if seed.is_multiple_of(4) {
        libfuzzer_sys::fuzzer_mutate(data, size, room)
    } else {
        in_place(data, size, room, seed)
    }
});
