//! Every function of the Rust interface that takes arguments, with arguments out of range: an error, or the panic that its documentation
//! tells, and never an abort of ggml. `tests/capi` and the door `c_abi` do the same to the C interface.

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ggml_sys_bindings::ggml_set_abort_callback;
use lxmert::atomic_file::{AtomicFile, is_same_file};
use lxmert::ggml::{dequantize, quantize, quantize_with_importance};
use lxmert::gguf::{File, Header, Metadata, TensorSpec, TensorType, Writer, reserve_checksums};
use lxmert::model::{About, Config, HiddenAct, Packing, Role, tensors};
use lxmert::numbers::{Float, floats};
use lxmert::reserve::{Threads, Watch, probe, watched};
use lxmert::text::{BertOptions, Tokenizer};
use lxmert::vision::{
    FeatureOptions, FrontEnd, PatchGrid, Pixels, Regions, RgbImage, decode_image, decode_image_within,
    load_features, load_features_within, load_image, load_image_within,
};
use lxmert::{
    Answer, Answers, Device, ForeignMemory, Inputs, InstructionSet, Limits, Loader, Lowering, Model, Output,
    Residency, Session, SessionOptions, Text, shown,
};
use lxmert_doors::{root, tiny};
use safetensors::Dtype;

static ABORTS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_abort(_: *const c_char) {
    ABORTS.fetch_add(1, Ordering::SeqCst);
}

/// Whatever `test` does, ggml must not abort: the process would end too.
fn without_aborts(test: impl FnOnce()) {
    // SAFETY: the function takes any text, from any thread.
    unsafe { ggml_set_abort_callback(Some(on_abort)) };
    test();
    assert_eq!(ABORTS.load(Ordering::SeqCst), 0);
}

const SIZES: [usize; 9] = [0, 1, 2, 7, 9, 1 << 10, 1 << 40, usize::MAX / 4, usize::MAX];

fn model() -> Model {
    Model::from_bytes(&tiny::model().encode()).unwrap()
}

fn lowerings() -> Vec<Lowering> {
    let sets = InstructionSet::ALL.map(Lowering::Kernels);
    [Lowering::Fastest, Lowering::Ggml].into_iter().chain(sets).collect()
}

/// The tiny model's session for each lowering that there is.
fn sessions(change: impl Fn(&mut SessionOptions)) -> Vec<Session> {
    let model = model();
    let session = |lowering| {
        let mut options = SessionOptions::new(&model);
        options.lowering = lowering;
        change(&mut options);
        Session::new(&model, options).ok()
    };
    let sessions: Vec<Session> = lowerings().into_iter().filter_map(session).collect();
    assert!(sessions.len() >= 3);
    sessions
}

#[test]
fn sessions_of_any_size() {
    type Set = fn(&mut SessionOptions, usize);
    let sizes: [(Set, &str); 4] = [
        (|options, size| options.max_tokens = size, "tokens"),
        (|options, size| options.max_regions = size, "regions"),
        (|options, size| options.max_batch = size, "batch"),
        (|options, size| options.threads = size, "threads"),
    ];
    without_aborts(|| {
        let model = model();
        let (mut made, mut refused) = (0, 0);
        let mut try_out = |options: SessionOptions| {
            let plan = model.plan(&options);
            let is_planned = plan.is_ok();
            match Session::new(&model, options) {
                Ok(_) => made += 1,
                Err(error) => {
                    assert!(!error.to_string().contains("fault of the program"), "{error}");
                    refused += 1;
                }
            }
            is_planned
        };
        for lowering in lowerings() {
            let with = |change: &dyn Fn(&mut SessionOptions)| {
                let mut options = SessionOptions::new(&model);
                options.lowering = lowering;
                change(&mut options);
                options
            };
            for (set, what) in sizes {
                for size in SIZES {
                    // As many threads as may be are tried by another test.
                    if what != "threads" || size != 1 << 10 {
                        try_out(with(&|options| set(options, size)));
                    }
                }
            }
            for residency in Residency::ALL {
                try_out(with(&|options| options.residency = residency));
            }
            for cpus in [vec![], vec![0], vec![usize::MAX], vec![0; 5000]] {
                try_out(with(&|options| options.cpus = Some(cpus.clone())));
            }
            for budget in SIZES {
                try_out(with(&|options| options.memory_budget = Some(budget)));
            }
            for output in [
                Output::LanguageHiddenStates(usize::MAX),
                Output::CrossEncoderAttentions(7),
                Output::PooledOutput,
            ] {
                try_out(with(&|options| options.outputs = vec![output]));
                try_out(with(&|options| options.outputs = vec![output; 5000]));
            }
            try_out(with(&|options| options.outputs = Vec::new()));
            for device in ["auto", "cpu", "cuda:0", "vulkan:99", "metal:0"].map(str::parse::<Device>) {
                let Ok(device) = device else { continue };
                try_out(with(&|options| options.device = device));
            }
            for bytes in [0, 1, 63, 1000] {
                let mut block = vec![0u8; bytes + 1];
                let start = std::ptr::NonNull::from(&mut block[1..]).cast();
                // SAFETY: the bytes outlive the call, which refuses them.
                let memory = unsafe { ForeignMemory::new(start, bytes, None) };
                assert!(Session::new_in(&model, with(&|_| {}), memory).is_err());
            }
        }
        assert!(made > 20 && refused > 100, "{made} {refused}");
        for name in ["", "fastest ", "avx9", "\0"] {
            assert!(name.parse::<Lowering>().is_err() && name.parse::<Residency>().is_err());
        }
    });
}

#[test]
fn runs_of_any_numbers() {
    without_aborts(|| {
        for mut session in sessions(|options| {
            (options.max_tokens, options.max_batch, options.inputs_embeds) = (4, 2, true);
        }) {
            session.set_time_limit(Some(Duration::MAX));
            session.set_time_limit(None);
            session.canceller().cancel();
            let long = vec![0.5f32; 1 << 12];
            for regions in SIZES {
                for count in [0, 1, tiny::FEATURES, 4 * tiny::FEATURES, 1 << 12] {
                    let _ = session.encode_regions(regions, &long[..count], &long[..count.min(16)]);
                }
            }
            for value in [f32::NAN, f32::INFINITY, f32::MAX, -1.0] {
                let _ = session.encode_regions(4, &[value; 4 * tiny::FEATURES], &[0.5; 16]);
                assert!(session.encode_regions(4, &[0.5; 4 * tiny::FEATURES], &[value; 16]).is_err());
            }
            for (features, feature_len, boxes, box_len) in
                [(12, 12, 4, 4), (24, 6, 16, 4), (60, 12, 25, 5), (12 * 200, 12, 800, 4)]
            {
                if let Ok(regions) = Regions::new(vec![0.5; features], feature_len, vec![0.5; boxes], box_len)
                {
                    let _ = session.encode_image(&regions);
                }
            }
            for ids in [&[][..], &[0], &[u32::MAX; 3], &[2, 16, 3], &[1; 9], &[0; 1 << 12]] {
                let _ = session.ask_tokens(ids);
            }
            for question in ["", "\0", "what is it?", &"a ".repeat(1 << 12), "\u{10ffff}\u{202e}"] {
                let _ = session.ask(question);
            }
            runs(&mut session);
            for output in [
                Output::LanguageHiddenStates(usize::MAX),
                Output::VisionAttentions(9),
                Output::QuestionAnsweringScore,
            ] {
                let _ = session.output(output);
            }
        }
    });
}

/// Batches whose sizes, masks, ids and types are wrong one at a time.
fn runs(session: &mut Session) {
    let (ids, numbers) = (vec![1u32; 1 << 10], vec![0.5f32; 1 << 10]);
    let good = || Inputs {
        batch: 1,
        tokens: 3,
        regions: 4,
        text: Text::Ids(&ids[..3]),
        attention_mask: None,
        token_type_ids: None,
        visual_feats: &numbers[..4 * tiny::FEATURES],
        visual_pos: &numbers[..16],
        visual_attention_mask: None,
    };
    session.run(&good()).unwrap();
    for size in SIZES {
        for inputs in [
            Inputs { batch: size, ..good() },
            Inputs { tokens: size, ..good() },
            Inputs { regions: size, ..good() },
            Inputs { batch: size, tokens: size, regions: size, ..good() },
        ] {
            let _ = session.run(&inputs);
        }
    }
    let strange = [u32::MAX, 16, 2];
    let masks: [&[f32]; 4] = [&[f32::NAN; 3], &[0.0; 3], &[2.0; 3], &[1.0; 9]];
    for mask in masks {
        let _ = session.run(&Inputs { attention_mask: Some(mask), ..good() });
        let four: Vec<f32> = mask.iter().copied().chain([1.0]).collect();
        let _ = session.run(&Inputs { visual_attention_mask: Some(&four), ..good() });
    }
    for text in [
        Text::Ids(&strange),
        Text::Ids(&[]),
        Text::Embeddings(&numbers[..24]),
        Text::Embeddings(&numbers[..5]),
    ] {
        let _ = session.run(&Inputs { text, ..good() });
    }
    assert!(session.run(&Inputs { token_type_ids: Some(&strange), ..good() }).is_err());
    assert!(session.run(&Inputs { visual_feats: &[], ..good() }).is_err());
    assert!(session.run(&Inputs { visual_pos: &[9.0; 16], ..good() }).is_err());
    session.run(&good()).unwrap();
}

struct Lying(u64);

impl Loader for Lying {
    fn size(&self) -> u64 {
        self.0
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let file = tiny::model().encode();
        let from = usize::try_from(offset).unwrap().min(file.len());
        let len = buffer.len().min(file.len() - from);
        buffer[..len].copy_from_slice(&file[from..from + len]);
        Ok(())
    }
}

#[test]
fn files_and_texts_of_any_kind() {
    without_aborts(|| {
        for path in ["", "/", "/no/such/file", "/dev/null", "\0"].map(Path::new) {
            assert!(Model::open(path).is_err() && File::open(path).is_err());
            assert!(load_image(path).is_err() && load_features(path, &FeatureOptions::default()).is_err());
            assert!(Writer::create(path, &Metadata::new(), &[]).is_err());
        }
        for size in [0, 1, 1 << 10, 1 << 20] {
            if let Ok(model) = Model::from_loader(Box::new(Lying(size))) {
                let _ = Session::new(&model, SessionOptions::new(&model));
            }
        }
        for bytes in [&[][..], b"GGUF", &[0xff; 100]] {
            assert!(
                Model::from_bytes(bytes).is_err() && Model::from_static(Box::leak(bytes.into())).is_err()
            );
            assert!(Header::parse(bytes).is_err() && Header::parse_start(bytes, u64::MAX).is_err());
            assert!(decode_image(bytes).is_err());
        }
        let mut metadata = Metadata::new();
        assert!(metadata.insert("", 1u32).is_err() && metadata.set("", 1u32).is_err());
        metadata.insert("key", u32::MAX).unwrap();
        for key in ["", "no", "key", "\0"] {
            let _ = (
                metadata.get(key),
                metadata.u32(key),
                metadata.opt_u32(key),
                metadata.f32(key),
                metadata.opt_f32(key),
            );
            let _ = (metadata.bool(key), metadata.opt_bool(key), metadata.str(key), metadata.opt_str(key));
            let _ = (
                metadata.strings(key),
                metadata.opt_strings(key),
                metadata.f32s(key),
                metadata.opt_f32s(key),
            );
            let _ = (metadata.u32s(key), metadata.opt_u32s(key), metadata.clone().remove(key));
        }
        assert!(Config::from_metadata(&metadata).is_err());
        let _ = (
            FrontEnd::from_metadata(&metadata),
            Packing::read(&metadata, &tiny::config()),
            Packing::is_in(&metadata),
        );
        let strange =
            TensorSpec { name: String::new(), tensor_type: TensorType::Q4_0, dims: vec![u64::MAX; 5] };
        assert!(Writer::file_bytes(&metadata, std::slice::from_ref(&strange)).is_err());
        assert!(Writer::to_vec(&metadata, &[strange], &[&[]]).is_err());
        let file = Writer::to_vec(&metadata, &[], &[]).unwrap();
        let header = Header::parse(&file).unwrap();
        assert!(About::read(&header).is_err() && header.tensor("none").is_none());
        for number in [0, 1, 99, u32::MAX] {
            if let Some(tensor_type) = TensorType::from_id(number) {
                let _ = (tensor_type.row_bytes(0), tensor_type.row_bytes(1), tensor_type.row_bytes(u64::MAX));
            }
        }
        for json in ["", "{}", "[", "null"] {
            assert!(Tokenizer::from_json(json).is_err());
            let _ = BertOptions::from_json(json);
        }
        assert!(Tokenizer::from_vocab(&[], &BertOptions::default()).is_err());
        for size in SIZES {
            let mut limits = Limits::default();
            (limits.string_bytes, limits.vocabulary_pieces) = (size, size);
            let _ = BertOptions::from_json_within("{}", &limits);
            let _ = Tokenizer::from_vocab_within(
                &tiny::PIECES.map(str::to_owned),
                &BertOptions::default(),
                &limits,
            );
        }
        let pieces = tiny::PIECES.map(str::to_owned);
        let tokenizer = Tokenizer::from_vocab(&pieces, &BertOptions::default()).unwrap();
        for limit in SIZES {
            let _ = tokenizer.encode_truncated("what is it?", limit);
        }
        assert!(tokenizer.encode("").is_err());
    });
}

#[test]
fn pictures_grids_and_outputs_of_any_size() {
    without_aborts(|| {
        for (width, height, stride) in
            [(0, 0, 0), (1, 1, 3), (u32::MAX, u32::MAX, usize::MAX), (4, 4, 1), (4, 4, usize::MAX)]
        {
            let pixels = Pixels::new(&[7; 100], width, height, stride);
            for mut session in sessions(|_| {}) {
                if let Ok(pixels) = &pixels {
                    let _ = session.encode_pixels(pixels);
                }
            }
        }
        for [rows, columns, high, wide] in
            [[0, 1, 1, 1], [1, 1, 1, 65], [u32::MAX; 4], [2, 2, 2, 2], [64, 64, 1, 1]]
        {
            let Ok(grid) = PatchGrid::new(rows, columns, high, wide, [0.5; 3], [0.5; 3]) else { continue };
            assert!(grid.regions(&RgbImage::new(0, 0)).is_err());
            let pixels = [7; 48];
            let pixels = Pixels::new(&pixels, 4, 4, 12).unwrap();
            assert!(grid.cut(&pixels, &mut [], &mut [], &mut []).is_err());
            let front_end = FrontEnd::PatchGrid(grid);
            assert!(front_end.mismatch(usize::MAX, 0).is_some());
            front_end.write_metadata(&mut Metadata::new()).unwrap();
        }
        assert!(PatchGrid::new(2, 2, 2, 2, [f32::NAN; 3], [0.0; 3]).is_err());
        let config = tiny::config();
        for name in
            ["", "vision_attentions", "language_hidden_states.18446744073709551616", "pooled_output.1"]
        {
            let _ = (Output::list(name, &config), name.parse::<Output>());
        }
        let _ = (
            Output::finals(&config),
            Output::hidden_states(&config),
            Output::attentions(&config),
            tensors(&config),
        );
        for output in
            [Output::LanguageHiddenStates(usize::MAX), Output::VisionOutput, Output::PredictionLogits]
        {
            let _ = (output.exists_in(&config), output.shape(&config, usize::MAX, usize::MAX, usize::MAX));
        }
        let mut strange = config;
        (strange.hidden_size, strange.num_attention_heads, strange.l_layers) = (usize::MAX, 0, usize::MAX);
        assert!(strange.check().is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| strange.write_metadata(&mut Metadata::new()))).is_ok());
        assert!(HiddenAct::from_name("no such function").is_none());
        let mut session = Session::new(&model(), SessionOptions::new(&model())).unwrap();
        session.encode_regions(4, &[0.5; 4 * tiny::FEATURES], &[0.5; 16]).unwrap();
        let answers: Answers<'_> = session.ask("what is it?").unwrap();
        assert_eq!([0, 2, usize::MAX].map(|count| answers.top(count).len()), [0, 2, 3]);
        assert_eq!(answers.top_into(&mut [Answer::default(); 9]), 3);
    });
}

/// The smallest limits, the defaults, and the largest: whatever is refused is refused by an error.
#[test]
fn limits_of_any_size() {
    let models = root().join("models/easy-vqa");
    let model = models.join("easy-vqa-q8_0.gguf");
    let picture = models.join("example_1.png");
    let [bytes, image] = [&model, &picture].map(|path| std::fs::read(path).unwrap());
    without_aborts(|| {
        let mut outcomes = [[0; 2]; 3];
        for (size, outcomes) in [Some(1), None, Some(usize::MAX)].into_iter().zip(&mut outcomes) {
            let mut limits = Limits::DEFAULT;
            for name in Limits::NAMES {
                let Some(size) = size else { continue };
                // Not every limit goes as far as that.
                if limits.set(name, size).is_err() {
                    let most = (0..usize::BITS).rev().map(|bits| 1 << bits);
                    let set = { most }.find(|most| limits.set(name, *most).is_ok());
                    assert!(set.is_some(), "{name}");
                }
            }
            let features = FeatureOptions::default();
            let each = [
                File::open_within(&model, &limits).is_ok(),
                Header::parse_within(&bytes, &limits).is_ok(),
                Header::parse_start_within(&bytes, bytes.len() as u64, &limits).is_ok(),
                load_image_within(&picture, &limits).is_ok(),
                decode_image_within(&image, &limits).is_ok(),
                Pixels::new_within(&[7; 48], 4, 4, 12, &limits).is_ok(),
                Regions::new_within(vec![0.5; 8], 4, vec![0.5; 8], 4, &limits).is_ok(),
            ];
            each.into_iter().for_each(|is_ok| outcomes[usize::from(is_ok)] += 1);
            assert!(Tokenizer::from_json_within("{}", &limits).is_err());
            assert!(load_features_within(&picture, &features, &limits).is_err());
        }
        assert_eq!(outcomes, [[7, 0], [0, 7], [0, 7]]);
    });
}

/// These are for shapes and types that somebody has checked, and panic for all others, as they say. That must come before ggml.
#[test]
fn rows_that_are_none_panic_before_ggml_sees_them() {
    without_aborts(|| {
        let mut panics = 0;
        let types = (0..64).filter_map(TensorType::from_id);
        for tensor_type in types {
            for (values, row) in
                [(0, 0), (1, 0), (1, 1), (31, 31), (32, 32), (256, 256), (257, 256), (300, 100)]
            {
                let values = vec![0.5f32; values];
                let (mut bytes, mut back) = (Vec::new(), vec![0.0; values.len() + 1]);
                for importance in [&values[..row.min(values.len())], &[]] {
                    let each: [&mut dyn FnMut(); 3] = [
                        &mut || quantize(tensor_type, &values, row, &mut bytes.clone()),
                        &mut || {
                            quantize_with_importance(
                                tensor_type,
                                &values,
                                row,
                                importance,
                                &mut bytes.clone(),
                            )
                        },
                        &mut || dequantize(tensor_type, &bytes.clone(), &mut back),
                    ];
                    let panicked =
                        each.into_iter().filter_map(|call| catch_unwind(AssertUnwindSafe(call)).err());
                    panics += panicked.count();
                }
                bytes.push(0);
            }
        }
        assert!(panics > 100, "{panics}");
    });
}

#[test]
fn helpers_of_other_crates_take_anything() {
    for text in
        ["", "=", "batch", "batch=", "=1", "batch=-1", "batch=x", "\0=1", "batch=99999999999999999999999"]
    {
        assert!(Limits::default().set_from(text).is_err(), "{text}");
    }
    for text in ["", "\0\x1b[31m\u{202e}", &"x".repeat(1 << 20)] {
        let line = shown(text).to_string();
        assert!(!line.chars().any(char::is_control));
    }
    for dtype in [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64, Dtype::I64, Dtype::BOOL] {
        for bytes in 0..20 {
            let bytes = vec![0xff; bytes];
            assert_eq!(floats(dtype, &bytes).is_some(), Float::of(dtype).is_some());
            if let Some(float) = Float::of(dtype) {
                let mut numbers = [0.0; 3];
                float.decode(&bytes, &mut numbers);
            }
        }
    }
    for path in ["", "/", "/no/such/file", "\0"].map(Path::new) {
        assert!(AtomicFile::create(path).is_err() && (path == Path::new("/") || !is_same_file(path, path)));
    }
    let directory = tempfile::TempDir::new().unwrap();
    let mut file = AtomicFile::create(&directory.path().join("file")).unwrap();
    assert!(file.overwrite(u64::MAX, b"x").is_err());
    assert!(probe(usize::MAX / 4, "too much").is_err() && probe(usize::MAX, "too much").is_err());
    for threads in [Threads::This, Threads::All] {
        assert!(watched(threads, "nothing", || Ok::<(), lxmert::Error>(())).is_ok());
        assert!(Watch::start(threads, "nothing").check().is_ok());
    }
}

#[test]
fn writers_and_packers_take_any_order_and_size() {
    without_aborts(|| {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("file.gguf");
        let tensor =
            |name: &str, dims| TensorSpec { name: name.to_owned(), tensor_type: TensorType::Q8_0, dims };
        let mut metadata = Metadata::new();
        reserve_checksums(&mut metadata, 1).unwrap();
        assert!(reserve_checksums(&mut metadata, 1).is_err());
        assert!(reserve_checksums(&mut Metadata::new(), usize::MAX).is_err());
        for len in [0, 1, 33, 34, 35, 1 << 20] {
            let mut writer = Writer::create(&path, &metadata, &[tensor("t", vec![32])]).unwrap();
            let is_written = writer.write(&vec![1; len]).is_ok();
            assert_eq!(is_written, len <= 34);
            let is_finished = writer.finish().is_ok();
            assert_eq!(is_finished, len == 34);
        }
        // Checksums of more or fewer tensors than there are.
        for tensors in [0, 2, 9] {
            let mut metadata = Metadata::new();
            reserve_checksums(&mut metadata, tensors).unwrap();
            if let Ok(mut writer) = Writer::create(&path, &metadata, &[tensor("t", vec![32])]) {
                let _ = (writer.write(&[0; 34]), writer.finish());
            }
        }
        for key in ["", "lxmert.pack.", "general.alignment", "\0"] {
            let _ = Packing::decides(key);
        }
        let dims = [64, 40];
        for set in InstructionSet::ALL {
            let packing = Packing::new([("m", &dims[..], Role::Matrix, TensorType::Q8_0)].into_iter(), set);
            for name in ["", "none", "m"] {
                let is_there = name == "m";
                assert_eq!(packing.element(name).is_some(), is_there);
                assert_eq!(packing.original(name).is_some(), is_there);
                assert_eq!(packing.packer(name).is_some(), is_there);
                assert_eq!(packing.bytes(name).is_some(), is_there);
            }
            let rows = vec![0x11; 40 * 2 * 34];
            for part in [rows.len(), 2 * 34] {
                let (mut packer, mut packed) = (packing.packer("m").unwrap(), Vec::new());
                rows.chunks(part).for_each(|rows| packer.add(rows, &mut packed));
                packer.finish(&mut packed);
                assert_eq!(Some(packed.len() as u64), packing.bytes("m"));
            }
        }
    });
}

/// Where no function is part of the Rust interface, or none of those that take something of a stranger's: `capi` has tests of its own.
const INTERNAL: [&str; 23] = [
    "bin",
    "capi",
    "ggml/buffer.rs",
    "ggml/cpu.rs",
    "ggml/device.rs",
    "ggml/device_graph.rs",
    "ggml/graph",
    "ggml/graph.rs",
    "ggml/memory_plan.rs",
    "ggml/scheduler.rs",
    "ggml/tensors.rs",
    "ggml/threads.rs",
    "gguf/cursor.rs",
    "kernels",
    "reserve/room.rs",
    "session/engine",
    "session/memory.rs",
    "session/observe.rs",
    "session/stop.rs",
    "text/json.rs",
    "text/size.rs",
    "text/vocabulary.rs",
    "weights",
];

/// What is new is called here too, in whichever file it is.
#[test]
fn no_public_function_with_arguments_is_left_out() {
    let own = include_str!("arguments.rs");
    let source = root().join("src");
    for internal in INTERNAL {
        assert!(source.join(internal).exists(), "{internal} is gone");
    }
    let mut missing = Vec::new();
    let mut count = 0;
    for path in sources(&source) {
        let file = path.strip_prefix(&source).unwrap();
        if INTERNAL.iter().any(|internal| file.starts_with(internal)) {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut is_public = true;
        for line in code.lines() {
            if line.starts_with("impl") {
                is_public = is_of_public_type(line, code);
            } else if line == "}" {
                is_public = true;
            }
            let Some((name, rest)) =
                line.trim_start().strip_prefix("pub fn ").and_then(|line| line.split_once(['(', '<']))
            else {
                continue;
            };
            let takes_nothing = ["self)", "mut self)", "&self)", "&mut self)", ")"]
                .iter()
                .any(|nothing| rest.starts_with(nothing));
            count += usize::from(is_public);
            if is_public && !takes_nothing && !own.contains(&format!("{name}(")) {
                missing.push(format!("{}: {name}", file.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 120, "{count}");
}

/// Whether the type of an `impl` is one that the same file makes public.
fn is_of_public_type(line: &str, code: &str) -> bool {
    let of = line.rsplit_once(" for ").map_or(line, |(_, of)| of);
    let of = of.trim_start_matches("impl").trim_end_matches([' ', '{']);
    let name = of.rsplit(' ').next().unwrap_or(of).split('<').next().unwrap_or(of);
    ["struct", "enum", "union"].iter().any(|kind| code.contains(&format!("pub {kind} {name}")))
}

/// The source files in a folder and all within.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let here = files.into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    here.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}
