//! What the GGUF reader asks of the allocator: little, and it takes no for an answer.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use lxmert::gguf::{Header, Metadata, Rule, TensorSpec, TensorType, Writer};

/// The system's allocator, which counts and on demand refuses. Per thread, since tests run side by
/// side.
struct Counting;

#[derive(Clone, Copy)]
struct Counts {
    live: usize,
    peak: usize,
    /// How many more allocations succeed before one fails.
    before_failure: Option<usize>,
}

thread_local! {
    static COUNTS: Cell<Counts> = const {
        Cell::new(Counts { live: 0, peak: 0, before_failure: None })
    };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whether the next allocation may go ahead.
fn permitted() -> bool {
    let mut counts = COUNTS.get();
    let failing = counts.before_failure == Some(0);
    counts.before_failure = match counts.before_failure {
        Some(0) | None => None,
        Some(left) => Some(left - 1),
    };
    COUNTS.set(counts);
    !failing
}

fn count(freed: usize, allocated: usize) {
    let mut counts = COUNTS.get();
    // Memory of other threads may be freed here, so it cannot be an exact difference.
    counts.live = (counts.live + allocated).saturating_sub(freed);
    counts.peak = counts.peak.max(counts.live);
    COUNTS.set(counts);
}

// SAFETY: every call goes to `System` unchanged, or fails as an allocator may.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !permitted() {
            return std::ptr::null_mut();
        }
        count(0, layout.size());
        // SAFETY: the caller's promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        // SAFETY: the caller's promise that both belong together.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !permitted() {
            return std::ptr::null_mut();
        }
        // Counted as if both blocks lived for a moment, which they may.
        count(0, size);
        count(layout.size(), 0);
        // SAFETY: the caller's promise about all three.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The most bytes that were allocated at a time while `work` ran, and how many were left over.
fn peak_and_rest(work: impl FnOnce()) -> (usize, usize) {
    let before = COUNTS.get();
    COUNTS.set(Counts { live: 0, peak: 0, before_failure: None });
    work();
    let during = COUNTS.get();
    COUNTS.set(before);
    (during.peak, during.live)
}

fn file() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.insert("general.name", "model").unwrap();
    let tokens = ["one", "", "three"].map(str::to_string).to_vec();
    metadata.insert("tokenizer.ggml.tokens", tokens).unwrap();
    metadata.insert("sizes", vec![1u32, 2]).unwrap();
    metadata.insert("flags", vec![true]).unwrap();
    let tensors = ["a", "b"].map(|name| TensorSpec {
        name: name.to_string(),
        tensor_type: TensorType::F32,
        dims: vec![8],
    });
    Writer::to_vec(&metadata, &tensors, &[&[1; 32], &[2; 32]]).unwrap()
}

/// Parses with the `k`-th allocation failing; tells whether there were as many.
fn parse_with_failure(bytes: &[u8], k: usize) -> (Result<Header, lxmert::gguf::Error>, bool) {
    let mut counts = COUNTS.get();
    counts.before_failure = Some(k);
    COUNTS.set(counts);
    let result = Header::parse(bytes);
    let mut counts = COUNTS.get();
    let failed = counts.before_failure.is_none();
    counts.before_failure = None;
    COUNTS.set(counts);
    (result, failed)
}

#[test]
fn any_failing_allocation_is_an_error_without_a_leak() {
    let bytes = file();
    let mut failures = 0;
    let (_, rest) = peak_and_rest(|| {
        loop {
            let (result, failed) = parse_with_failure(&bytes, failures);
            if !failed {
                assert!(result.is_ok());
                break;
            }
            assert_eq!(result.unwrap_err().rule, Rule::OutOfMemory);
            failures += 1;
        }
    });
    // Two copies of each name, three strings, four arrays and tables.
    assert!(failures > 15, "{failures}");
    assert_eq!(rest, 0);
}

#[test]
fn a_broken_file_is_reported_even_without_memory_for_the_words() {
    let mut bytes = file();
    bytes.push(0);
    let mut k = 0;
    loop {
        let (result, failed) = parse_with_failure(&bytes, k);
        let rule = result.unwrap_err().rule;
        assert!([Rule::TrailingBytes, Rule::OutOfMemory].contains(&rule));
        if !failed {
            assert_eq!(rule, Rule::TrailingBytes);
            break;
        }
        k += 1;
    }
}

#[test]
fn memory_is_a_small_multiple_of_the_file() {
    let start = |tensors: u64, keys: u64| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(keys.to_le_bytes());
        bytes
    };
    let key = |bytes: &mut Vec<u8>, key: &str, type_id: u32| {
        bytes.extend((key.len() as u64).to_le_bytes());
        bytes.extend(key.as_bytes());
        bytes.extend(type_id.to_le_bytes());
    };

    let mut empty_strings = start(0, 1);
    key(&mut empty_strings, "tokenizer.x", 9);
    empty_strings.extend(8u32.to_le_bytes());
    empty_strings.extend(500_000u64.to_le_bytes());
    empty_strings.resize(empty_strings.len() + 8 * 500_000, 0);

    let mut short_keys = start(0, 50_000);
    for position in 0..50_000 {
        key(&mut short_keys, &format!("{position:05}"), 7);
        short_keys.push(1);
    }

    let mut many_tensors = start(20_000, 0);
    for position in 0..20_000u64 {
        let name = format!("{position:05}");
        many_tensors.extend(5u64.to_le_bytes());
        many_tensors.extend(name.as_bytes());
        many_tensors.extend(1u32.to_le_bytes());
        many_tensors.extend(1u64.to_le_bytes());
        many_tensors.extend(0u32.to_le_bytes());
        many_tensors.extend((position * 32).to_le_bytes());
    }

    let mut announced_only = start(30_000, 70_000);
    announced_only.resize(1 << 20, 0xff);

    for bytes in [empty_strings, short_keys, many_tensors, announced_only] {
        let (peak, rest) = peak_and_rest(|| drop(Header::parse(&bytes)));
        assert!(peak <= 12 * bytes.len(), "{peak} for {}", bytes.len());
        assert_eq!(rest, 0);
    }
}
