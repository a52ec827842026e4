//! The C interface, called as a program without sense would, within the rules of the header that nobody can check: pointers are
//! NULL, or point to as much as is said; handles are live, of the other kind, or never were any.

mod callbacks;

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_char;
use std::ptr::{null, null_mut};

use lxmert::capi::lxmert_status::{LXMERT_INTERNAL, LXMERT_OK};
use lxmert::capi::*;

use crate::Verdict;
use callbacks::{Source, abort, allocate, close, file, log, progress, read, release, seek};

/// Bytes of one call: its function, then what its arguments are chosen by.
pub const CALL: usize = 16;

/// The functions by the first byte of a call.
pub const FUNCTIONS: [&str; 30] = [
    "lxmert_abi_version",
    "lxmert_ask",
    "lxmert_ask_tokens",
    "lxmert_build_info",
    "lxmert_device_count",
    "lxmert_device_get_info",
    "lxmert_encode_pixels",
    "lxmert_encode_regions",
    "lxmert_last_error",
    "lxmert_model_free",
    "lxmert_model_from_loader",
    "lxmert_model_from_memory",
    "lxmert_model_get_info",
    "lxmert_model_label",
    "lxmert_model_name",
    "lxmert_model_open",
    "lxmert_model_tokenize",
    "lxmert_model_verify",
    "lxmert_output",
    "lxmert_plan",
    "lxmert_run",
    "lxmert_session_cancel",
    "lxmert_session_create",
    "lxmert_session_free",
    "lxmert_session_get_info",
    "lxmert_session_last_error",
    "lxmert_session_set_time_limit",
    "lxmert_set_log",
    "lxmert_status_name",
    "lxmert_version",
];

/// More calls only take longer.
const MAX_CALLS: usize = 64;

/// Room behind every pointer to numbers: more than the tiny model takes of the largest of the sizes that are tried.
const ROOM: usize = 4096;

/// Texts, of names and of anything else.
const TEXTS: [&[u8]; 16] = [
    b"what is it?\0",
    b"\0",
    b"\xff\xfe\0",
    b"ggml\0",
    b"fastest\0",
    b"portable\0",
    b"avx2\0",
    b"cpu\0",
    b"cuda:0\0",
    b"pooled_output\0",
    b"question_answering_score\0",
    b"vision_attentions\0",
    b"language_hidden_states\0",
    b"/no/such/file\0",
    b"/\0",
    b"auto\0",
];

/// Calls into the library. Every argument is one that the header allows or that the library has to refuse: see [`Program`].
macro_rules! c {
    ($call:expr) => {{
        // SAFETY: handles are live, or none and at least eight readable bytes at an aligned address; arrays have `ROOM` values or
        // a count that no memory holds; texts end with a NUL; structs are whole, whatever size they claim; results are written to
        // places of the call's own.
        unsafe { $call }
    }};
}

/// A program with at most one model and one session at a time, and what its calls choose from.
struct Program<'a> {
    model: *mut lxmert_model,
    session: *mut lxmert_session,
    /// The memory of the session, if it is the program's; it goes when the session has gone.
    block: Option<Block>,
    numbers: Vec<f32>,
    ids: Vec<u32>,
    pixels: Vec<u8>,
    garbage: [u64; 16],
    arguments: &'a [u8],
    succeeded: usize,
}

/// 64 KiB for a session.
struct Block(*mut u8);

impl Block {
    const LAYOUT: Layout = match Layout::from_size_align(64 << 10, 64) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    };

    fn new() -> Self {
        // SAFETY: the layout has a size.
        let start = unsafe { alloc(Self::LAYOUT) };
        assert!(!start.is_null(), "64 KiB");
        Block(start)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: from `new`, with the same layout, and freed once.
        unsafe { dealloc(self.0, Self::LAYOUT) };
    }
}

/// A sequence of calls, then the end of whatever is still there.
pub fn calls(bytes: &[u8]) -> Verdict {
    let mut program = Program {
        model: null_mut(),
        session: null_mut(),
        block: None,
        numbers: vec![0.5; ROOM],
        ids: vec![5; ROOM],
        pixels: vec![128; ROOM],
        garbage: [0x5a5a_5a5a_5a5a_5a5a; 16],
        arguments: &[],
        succeeded: 0,
    };
    for call in bytes.chunks(CALL).take(MAX_CALLS) {
        program.arguments = &call[1..];
        program.call(usize::from(call[0]) % FUNCTIONS.len());
    }
    let refused = bytes.chunks(CALL).take(MAX_CALLS).len() - program.succeeded;
    if refused == 0 { Ok(()) } else { Err(format!("{refused} calls refused")) }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        c!(lxmert_session_free(self.session));
        c!(lxmert_model_free(self.model));
        c!(lxmert_set_log(None, null_mut(), 0));
    }
}

impl Program<'_> {
    /// The next byte of the call; 0 behind its end.
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.arguments.split_first() else { return 0 };
        self.arguments = rest;
        *byte
    }

    fn choose<T: Copy, const N: usize>(&mut self, from: [T; N]) -> T {
        from[usize::from(self.byte()) % N]
    }

    fn model(&mut self) -> *mut lxmert_model {
        let garbage = self.garbage.as_mut_ptr();
        self.choose([self.model, self.model, self.model, null_mut(), self.session.cast(), garbage.cast()])
    }

    fn session(&mut self) -> *mut lxmert_session {
        let garbage = self.garbage.as_mut_ptr();
        self.choose([self.session, self.session, self.session, null_mut(), self.model.cast(), garbage.cast()])
    }

    fn text(&mut self) -> *const c_char {
        match usize::from(self.byte()) {
            0xff => null(),
            number => TEXTS[number % TEXTS.len()].as_ptr().cast(),
        }
    }

    /// A count of things of which there are [`ROOM`], or more than there can be.
    fn count(&mut self) -> usize {
        self.choose([1, 0, 2, 4, 8, usize::MAX, usize::MAX / 2, 3])
    }

    /// A size of something that is never read: a wish.
    fn wish(&mut self) -> usize {
        self.choose([0, 1, 2, 3, 8, 1 << 40, usize::MAX / 2, usize::MAX])
    }

    fn struct_size(&mut self, whole: usize) -> usize {
        match self.byte() {
            0..=0xbf => whole,
            0xff => usize::MAX,
            // Claims less, mostly what no version had.
            byte => whole - usize::from(byte) % whole,
        }
    }

    fn numbers(&mut self) -> *const f32 {
        let misaligned = self.numbers.as_ptr().wrapping_byte_add(1);
        self.choose([self.numbers.as_ptr(), self.numbers.as_ptr(), null(), misaligned])
    }

    fn optional_numbers(&mut self) -> *const f32 {
        self.choose([null(), self.numbers.as_ptr()])
    }

    fn ids(&mut self) -> *const u32 {
        let id = u32::from(self.byte());
        self.ids.fill(if id == 0xff { u32::MAX } else { id % 24 });
        self.choose([self.ids.as_ptr(), self.ids.as_ptr(), null(), self.ids.as_ptr().wrapping_byte_add(2)])
    }

    /// Takes note of a status. The library's own fault is a finding.
    fn note(&mut self, status: lxmert_status) {
        let text = lxmert_last_error();
        assert!(!text.is_null());
        assert_ne!(status, LXMERT_INTERNAL, "{:?}", c!(std::ffi::CStr::from_ptr(text)));
        self.succeeded += usize::from(status == LXMERT_OK);
    }

    fn call(&mut self, function: usize) {
        match FUNCTIONS[function] {
            "lxmert_abi_version" => self.succeeded += usize::from(lxmert_abi_version() == LXMERT_ABI_VERSION),
            "lxmert_build_info" => self.given(lxmert_build_info()),
            "lxmert_version" => self.given(lxmert_version()),
            "lxmert_last_error" => self.given(lxmert_last_error()),
            "lxmert_status_name" => {
                let number = self.choose([0, 1, 5, 16, 17, -1, i32::MAX, i32::MIN]);
                self.given(lxmert_status_name(number));
            }
            "lxmert_device_count" => {
                let mut count = 0;
                let place = self.choose([&raw mut count, null_mut()]);
                let status = c!(lxmert_device_count(place));
                self.note(status);
            }
            "lxmert_device_get_info" => {
                // SAFETY: zeros are its default.
                let mut info: lxmert_device_info = unsafe { std::mem::zeroed() };
                info.struct_size = self.struct_size(size_of_val(&info));
                let (index, place) = (self.wish(), self.choose([&raw mut info, null_mut()]));
                let status = c!(lxmert_device_get_info(index, place));
                self.note(status);
            }
            "lxmert_set_log" => {
                let callback = self.choose([None, Some(log as _)]);
                let level = self.choose([0, 1, 2, 3, 4, 5, -1, i32::MAX]);
                let status = c!(lxmert_set_log(callback, null_mut(), level));
                self.note(status);
            }
            name if name.starts_with("lxmert_model_free") => {
                let handle = self.model();
                c!(lxmert_model_free(handle));
                if handle == self.model {
                    self.model = null_mut();
                }
                self.succeeded += 1;
            }
            "lxmert_session_free" => {
                let handle = self.session();
                c!(lxmert_session_free(handle));
                if handle == self.session {
                    (self.session, self.block) = (null_mut(), None);
                }
                self.succeeded += 1;
            }
            "lxmert_model_open" => {
                let path = self.text();
                self.load(|out| c!(lxmert_model_open(path, out)));
            }
            "lxmert_model_from_memory" => self.load_from_memory(),
            "lxmert_model_from_loader" => self.load_from_loader(),
            "lxmert_plan" => {
                // SAFETY: zeros are its default.
                let mut plan: lxmert_memory_plan = unsafe { std::mem::zeroed() };
                plan.struct_size = self.struct_size(size_of_val(&plan));
                let (model, place) = (self.model(), self.choose([&raw mut plan, &raw mut plan, null_mut()]));
                let status = self.with_options(|_, options| c!(lxmert_plan(model, options, place)));
                self.note(status);
            }
            "lxmert_session_create" => self.create(),
            name if name.starts_with("lxmert_model_") => self.ask_model(name),
            name => self.ask_session(name),
        }
    }

    fn given(&mut self, text: *const c_char) {
        assert!(!text.is_null());
        let text = c!(std::ffi::CStr::from_ptr(text));
        assert!(text.to_str().is_ok());
        self.succeeded += 1;
    }

    /// Loads a model in place of the one before, which sessions outlive.
    fn load(&mut self, load: impl FnOnce(*mut *mut lxmert_model) -> lxmert_status) {
        let mut model = null_mut();
        let place = self.choose([&raw mut model, &raw mut model, &raw mut model, null_mut()]);
        let status = load(place);
        assert_eq!(status == LXMERT_OK, !model.is_null());
        self.note(status);
        if !model.is_null() {
            c!(lxmert_model_free(self.model));
            self.model = model;
        }
    }

    fn load_from_memory(&mut self) {
        let copy = self.byte().is_multiple_of(2);
        let place = usize::from(self.byte()) * 256 + usize::from(self.byte());
        let flip = self.byte();
        let mut damaged = Vec::new();
        // What is not copied has to outlive the model.
        let bytes: &[u8] = if copy {
            damaged.extend_from_slice(file());
            let place = place % damaged.len();
            damaged[place] ^= flip;
            &damaged
        } else {
            file()
        };
        let size = self.choose([bytes.len(), bytes.len(), bytes.len() - 1, 0, 7, usize::MAX]);
        let start = self.choose([bytes.as_ptr(), bytes.as_ptr(), bytes.as_ptr(), null()]);
        self.load(|out| c!(lxmert_model_from_memory(start.cast(), size, copy.into(), out)));
    }

    fn load_from_loader(&mut self) {
        let manner = self.byte();
        let source = Box::into_raw(Box::new(Source { place: 0, manner }));
        let loader = lxmert_loader {
            struct_size: self.struct_size(size_of::<lxmert_loader>()),
            read: self.choose([Some(read as _), Some(read as _), Some(read as _), None]),
            seek: self.choose([Some(seek as _), Some(seek as _), Some(seek as _), None]),
            size: self.choose([file().len() as u64, file().len() as u64, 0, 1 << 20, u64::MAX]),
            close: Some(close),
            user_data: source.cast(),
        };
        let pointer = self.choose([&raw const loader, &raw const loader, &raw const loader, null()]);
        let before = self.byte();
        let mut refused = true;
        self.arguments = &[];
        // The place for the result is a good one here: whoever refuses it has not taken the loader.
        self.load(|out| {
            let status = c!(lxmert_model_from_loader(pointer, if before == 0xff { null_mut() } else { out }));
            refused = status == lxmert_status::LXMERT_INVALID_ARGUMENT;
            status
        });
        // A header of the first version has no place for close, and a call that refuses its arguments has not taken the loader.
        let short = loader.struct_size != size_of::<lxmert_loader>();
        if refused || short {
            // With the first version's struct the model keeps the loader's data for as long as it lives.
            if short && !refused {
                c!(lxmert_session_free(self.session));
                c!(lxmert_model_free(self.model));
                (self.session, self.model, self.block) = (null_mut(), null_mut(), None);
            }
            // SAFETY: from the box above; nobody else frees it, and nobody reads it any more.
            drop(unsafe { Box::from_raw(source) });
        }
    }

    /// Calls with options of every kind.
    fn with_options(
        &mut self,
        call: impl FnOnce(&mut Self, *const lxmert_session_options) -> lxmert_status,
    ) -> lxmert_status {
        // SAFETY: zeros are its default.
        let mut options: lxmert_session_options = unsafe { std::mem::zeroed() };
        let (cpus, outputs) = ([0u32, 1, u32::MAX], [self.text(), self.text(), null()]);
        let allocator = lxmert_allocator {
            allocate: self.choose([Some(allocate as _), None]),
            release: Some(release),
            user_data: null_mut(),
        };
        options.struct_size = self.struct_size(size_of_val(&options));
        options.max_tokens = self.wish();
        options.max_regions = self.wish();
        options.max_batch = self.wish();
        options.threads = self.choose([0, 1, 2, usize::MAX]);
        let flags = self.byte();
        if flags & 1 != 0 {
            (options.cpus, options.cpu_count) = (cpus.as_ptr(), 1 + usize::from(flags >> 6) % 3);
        }
        if flags & 2 != 0 {
            (options.outputs, options.output_count) = (outputs.as_ptr(), 1 + usize::from(flags >> 5) % 3);
        }
        (options.inputs_embeds, options.prefault) = ((flags & 4 != 0).into(), (flags & 8 != 0).into());
        if flags & 16 != 0 {
            options.abort = Some(abort);
            options.progress = Some(progress);
        }
        let more = self.byte();
        if more & 1 != 0 {
            options.lowering = outputs[0];
        }
        if more & 2 != 0 {
            options.device = outputs[1];
        }
        if more & 4 != 0 {
            options.allocator = &raw const allocator;
        }
        if more & 8 != 0 {
            let block = Block::new();
            (options.memory, options.memory_size) = (block.0.cast(), Block::LAYOUT.size());
            if more & 128 != 0 {
                options.memory_size = 64;
            }
            // Freed only after the session, which comes first in `create`.
            if self.session.is_null() {
                self.block = Some(block);
            } else {
                options.memory = null_mut();
            }
        }
        options.residency = if more >> 4 == 15 { -1 } else { i32::from(more >> 4) };
        options.memory_budget = if more & 64 != 0 { usize::from(flags) << 8 } else { 0 };
        let pointer = self.choose([&raw const options, &raw const options, null()]);
        call(self, pointer)
    }

    fn create(&mut self) {
        // Before the handle is chosen, which must not be one that was freed.
        c!(lxmert_session_free(self.session));
        (self.session, self.block) = (null_mut(), None);
        let handle = self.model();
        let without_place = self.byte() == 0xff;
        let mut session = null_mut();
        let place = if without_place { null_mut() } else { &raw mut session };
        let status = self.with_options(|_, options| c!(lxmert_session_create(handle, options, place)));
        assert_eq!(status == LXMERT_OK, !session.is_null());
        self.session = session;
        self.note(status);
    }

    fn ask_model(&mut self, name: &str) {
        let handle = self.model();
        let mut text = null();
        let status = match name {
            "lxmert_model_get_info" => {
                // SAFETY: zeros are its default.
                let mut info: lxmert_model_info = unsafe { std::mem::zeroed() };
                info.struct_size = self.struct_size(size_of_val(&info));
                let place = self.choose([&raw mut info, &raw mut info, null_mut()]);
                c!(lxmert_model_get_info(handle, place))
            }
            "lxmert_model_verify" => c!(lxmert_model_verify(handle)),
            "lxmert_model_name" => {
                let place = self.choose([&raw mut text, null_mut()]);
                c!(lxmert_model_name(handle, place))
            }
            "lxmert_model_label" => {
                let (index, place) = (self.wish(), self.choose([&raw mut text, null_mut()]));
                c!(lxmert_model_label(handle, index, place))
            }
            _ => {
                let (mut ids, mut count) = ([0; 8], 0);
                let question = self.text();
                let places = self.choose([ids.as_mut_ptr(), null_mut()]);
                let capacity = self.choose([8, 0, 1, usize::MAX]);
                let place = self.choose([&raw mut count, &raw mut count, null_mut()]);
                c!(lxmert_model_tokenize(handle, question, places, capacity, place))
            }
        };
        self.note(status);
    }

    fn ask_session(&mut self, name: &str) {
        let handle = self.session();
        let nothing =
            lxmert_answer { label: usize::MAX, text: null(), logit: 0.0, softmax: 0.0, sigmoid: 0.0 };
        let (mut answers, mut count) = ([nothing; 8], 0);
        let status = match name {
            "lxmert_encode_regions" => {
                let (features, boxes, regions) = (self.numbers(), self.numbers(), self.count());
                c!(lxmert_encode_regions(handle, features, boxes, regions))
            }
            "lxmert_encode_pixels" => {
                let pixels = self.choose([self.pixels.as_ptr(), self.pixels.as_ptr(), null()]);
                let (width, height) =
                    (self.choose([1, 4, 16, 0, u32::MAX, 5]), self.choose([1, 4, 16, 0, u32::MAX, 5]));
                let stride = self.choose([0, 48, 49, 1, usize::MAX]);
                c!(lxmert_encode_pixels(handle, pixels, width, height, stride))
            }
            "lxmert_ask" => {
                let (question, capacity) = (self.text(), self.choose([3, 0, 1, 8]));
                let place = self.choose([&raw mut count, &raw mut count, null_mut()]);
                let room = self.choose([answers.as_mut_ptr(), answers.as_mut_ptr(), null_mut()]);
                c!(lxmert_ask(handle, question, room, capacity, place))
            }
            "lxmert_ask_tokens" => {
                let (ids, id_count, capacity) = (self.ids(), self.count(), self.choose([3, 0, 1, 8]));
                let place = self.choose([&raw mut count, &raw mut count, null_mut()]);
                c!(lxmert_ask_tokens(handle, ids, id_count, answers.as_mut_ptr(), capacity, place))
            }
            "lxmert_run" => {
                let inputs = lxmert_inputs {
                    struct_size: self.struct_size(size_of::<lxmert_inputs>()),
                    batch: self.count(),
                    tokens: self.count(),
                    regions: self.count(),
                    input_ids: self.ids(),
                    inputs_embeds: self.optional_numbers(),
                    attention_mask: self.optional_numbers(),
                    token_type_ids: self.choose([null(), self.ids.as_ptr()]),
                    visual_feats: self.numbers(),
                    visual_pos: self.numbers(),
                    visual_attention_mask: self.optional_numbers(),
                };
                let pointer = self.choose([&raw const inputs, &raw const inputs, null()]);
                c!(lxmert_run(handle, pointer))
            }
            "lxmert_output" => {
                // SAFETY: zeros are its default.
                let mut tensor: lxmert_tensor = unsafe { std::mem::zeroed() };
                tensor.struct_size = self.struct_size(size_of_val(&tensor));
                let (name, place) = (self.text(), self.choose([&raw mut tensor, null_mut()]));
                c!(lxmert_output(handle, name, place))
            }
            "lxmert_session_cancel" => c!(lxmert_session_cancel(handle)),
            "lxmert_session_set_time_limit" => {
                let limit = self.choose([0, 1, 1_000_000, u64::MAX]);
                c!(lxmert_session_set_time_limit(handle, limit))
            }
            "lxmert_session_last_error" => {
                let mut buffer = [0 as c_char; 16];
                let place = self.choose([buffer.as_mut_ptr(), null_mut()]);
                let size = self.choose([16, 0, 1, 2]);
                c!(lxmert_session_last_error(handle, place, size))
            }
            _ => {
                // SAFETY: zeros are its default.
                let mut info: lxmert_session_info = unsafe { std::mem::zeroed() };
                info.struct_size = self.struct_size(size_of_val(&info));
                let place = self.choose([&raw mut info, &raw mut info, null_mut()]);
                c!(lxmert_session_get_info(handle, place))
            }
        };
        assert!(count <= answers.len());
        self.note(status);
    }
}
