#![no_main]
use lxmert_doors::{enter, mutate::in_place};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| enter("requantize", bytes));
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, room: usize, seed: u32| match seed % 4 {
    0 => libfuzzer_sys::fuzzer_mutate(data, size, room),
    _ => in_place(data, size, room, seed),
});
