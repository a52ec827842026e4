//! The golden cases on every device beside the CPU that this build drives and finds here, and on ggml's CPU backend in a device's place,
//! against PyTorch.

mod common;

use common::golden::{CASES, Converted, case, largest, largest_difference, relative_l2};
use common::wide::{Batch, config, synthetic};
use lxmert::gguf::TensorType;
use lxmert::{Device, Error, Lowering, Model, Output, Residency, Session, SessionOptions, devices};
use tempfile::TempDir;

fn all() -> Vec<Device> {
    let found = devices().unwrap().into_iter().map(|info| info.device);
    let all: Vec<Device> = [Device::Emulated].into_iter().chain(found).collect();
    println!("devices: {all:?}");
    all
}

/// How far the outputs of f32 weights may be from PyTorch's, absolutely and relative to the largest. CUDA rounds the factors of f32 products
/// to TF32 and Vulkan to f16, which have ten bits.
fn tolerance(device: Device) -> f32 {
    if matches!(device, Device::Cuda(_) | Device::Vulkan(_)) { 5e-3 } else { 1e-4 }
}

#[test]
fn f32_equals_pytorch_in_every_output_of_every_case() {
    for name in CASES {
        let converted = Converted::new(name, TensorType::F32);
        let expected = converted.expected();
        for device in all() {
            let arguments =
                ["--device", &device.to_string(), "--output-hidden-states", "--output-attentions"];
            let found = converted.run_with(&case(name).join("inputs.safetensors"), &arguments);
            assert!(found.keys().eq(expected.keys()), "{device} {name}");
            for (output, (shape, expected)) in &expected {
                let (found_shape, found) = &found[output];
                assert_eq!(found_shape, shape, "{device} {name} {output}");
                let difference = largest_difference(found, expected);
                let (relative, bound) = (difference / largest(expected), tolerance(device));
                let close = difference <= bound && relative <= bound;
                assert!(close, "{device} {name} {output}: {difference} {relative}");
            }
        }
    }
}

#[test]
fn every_type_keeps_the_answers() {
    let bounds = [
        (TensorType::F16, 0.005),
        (TensorType::BF16, 0.02),
        (TensorType::Q8_0, 0.02),
        (TensorType::Q5_1, 0.2),
        (TensorType::Q5_0, 0.2),
        (TensorType::Q4_1, 0.3),
        (TensorType::Q4_0, 0.3),
    ];
    let output = "question_answering_score";
    for (tensor_type, bound) in bounds {
        let converted = Converted::new("qa-masked-batch", tensor_type);
        let expected = converted.expected();
        for device in all() {
            let inputs = case("qa-masked-batch").join("inputs.safetensors");
            let found = converted.run_with(&inputs, &["--device", &device.to_string()]);
            let error = relative_l2(&found[output].1, &expected[output].1);
            assert!(error <= bound, "{device} {tensor_type}: {error}");
        }
    }
}

/// Matrices that stay quantized on the device, which the golden cases' are too small for; and graphs that are used again, for questions of
/// several lengths and many images.
#[test]
fn every_answer_of_a_session_is_the_cpus() {
    let directory = TempDir::new().unwrap();
    for (tensor_type, bound) in [
        (TensorType::F32, 1e-4),
        (TensorType::F16, 0.005),
        (TensorType::BF16, 0.02),
        (TensorType::Q8_0, 0.02),
        (TensorType::Q4_0, 0.03),
        (TensorType::Q4K, 0.03),
        (TensorType::Q6K, 0.03),
    ] {
        let file = synthetic(config(), tensor_type, directory.path());
        let model = Model::open(&file).unwrap();
        let answers = |device: Device| {
            let mut options = on(&model, device);
            (options.max_tokens, options.max_regions, options.lowering) = (9, 7, Lowering::Ggml);
            let mut session = Session::new(&model, options).unwrap();
            let mut answers = Vec::new();
            for image in 0..2 {
                let element = Batch::of(2).element(image);
                session
                    .encode_regions(
                        7 - image,
                        &element.features[..256 * (7 - image)],
                        &element.boxes[..4 * (7 - image)],
                    )
                    .unwrap();
                for length in [3, 8, 4, 5, 9, 6, 7, 3] {
                    let question: Vec<u32> = (0..length).map(|n| 31 * n as u32 % 300).collect();
                    answers.extend_from_slice(session.ask_tokens(&question).unwrap().logits());
                }
            }
            answers
        };
        let expected = answers(Device::Cpu);
        for device in all() {
            let error = relative_l2(&answers(device), &expected);
            let bound = if tensor_type == TensorType::F32 { tolerance(device) } else { bound };
            println!("{device} {tensor_type}: {error}");
            assert!(error <= bound, "{device} {tensor_type}: {error}");
        }
    }
}

fn model() -> Model {
    Model::open(concat!(env!("CARGO_MANIFEST_DIR"), "/models/easy-vqa/easy-vqa-q8_0.gguf")).unwrap()
}

fn on(model: &Model, device: Device) -> SessionOptions {
    let mut options = SessionOptions::new(model);
    options.device = device;
    options
}

#[test]
fn a_plan_and_a_budget_count_the_devices_memory() {
    let model = model();
    for device in all() {
        let plan = model.plan(&on(&model, device)).unwrap();
        assert_eq!((plan.device, plan.residency, plan.lowering), (device, Residency::Device, Lowering::Ggml));
        assert!(plan.device_bytes > 1 << 20 && plan.total() > plan.device_bytes);
        let mut options = on(&model, device);
        options.memory_budget = Some(plan.total());
        assert_eq!(Session::new(&model, options.clone()).unwrap().plan(), &plan);
        options.memory_budget = Some(plan.total() - 1);
        assert!(
            matches!(Session::new(&model, options), Err(Error::Budget { smallest, .. }) if smallest == plan.total())
        );
    }
    assert_eq!(model.plan(&on(&model, Device::Cpu)).unwrap().device_bytes, 0);
}

/// The scores and some of what leads to them, of two questions about an image each, and where how many operations ran.
fn run_of(
    model: &Model,
    device: Device,
    lacking: Option<&'static str>,
) -> (Vec<f32>, Vec<(&'static str, Device)>) {
    let outputs = [
        Output::QuestionAnsweringScore,
        Output::PooledOutput,
        Output::VisionOutput,
        Output::LanguageHiddenStates(0),
        Output::VisionHiddenStates(0),
        Output::VisionAttentions(0),
        Output::CrossEncoderAttentions(0),
    ];
    let mut options = on(model, device);
    (options.max_regions, options.max_tokens, options.profile) = (8, 8, true);
    (options.lacking, options.lowering) = (lacking, Lowering::Ggml);
    options.outputs = outputs.to_vec();
    let mut session = Session::new(model, options).unwrap();
    let config = model.config();
    let mut found = Vec::new();
    for (regions, tokens) in [(8, 8), (5, 3), (6, 4)] {
        let number = |n: usize| (n * 37 % 64) as f32 / 64.0;
        let features: Vec<f32> = (0..regions * config.visual_feat_dim).map(number).collect();
        let boxes: Vec<f32> = (0..regions).flat_map(|n| [0.1, 0.2, 0.5 + 0.05 * n as f32, 0.9]).collect();
        session.encode_regions(regions, &features, &boxes).unwrap();
        for shift in 0..2 {
            let question: Vec<u32> =
                (0..tokens).map(|n| (n * 7 + shift) % config.vocab_size as u32).collect();
            session.ask_tokens(&question).unwrap();
            for output in outputs {
                found.extend_from_slice(session.output(output).unwrap().data);
            }
        }
    }
    (found, session.profile().iter().map(|operation| (operation.kind, operation.device)).collect())
}

#[test]
fn a_device_computes_all_and_the_cpu_what_it_lacks() {
    let converted = Converted::new("qa-small", TensorType::F32);
    let model = Model::open(converted.model()).unwrap();
    let (expected, profile) = run_of(&model, Device::Cpu, None);
    assert!(profile.is_empty());
    for device in all() {
        let (_, whole) = run_of(&model, device, None);
        assert!(whole.len() > 100 && whole.iter().all(|(_, place)| *place == device), "{device}: {whole:?}");
        // Products, so the weights go to the CPU; results that somebody wants; and what is at the end of the first stage.
        for lacking in ["MUL_MAT", "SOFT_MAX", "ADD", "SCALE"] {
            let (found, profile) = run_of(&model, device, Some(lacking));
            let difference = largest_difference(&found, &expected) / largest(&expected);
            assert!(difference <= tolerance(device), "{device} without {lacking}: {difference}");
            let count =
                |profile: &[(&str, Device)]| profile.iter().filter(|(kind, _)| *kind == lacking).count();
            assert!(count(&profile) == count(&whole) && count(&whole) > 0, "{device} without {lacking}");
            for (kind, place) in profile {
                // In the same memory as the CPU, ggml's scheduler leaves everything where it is.
                let on_cpu = kind == lacking && device != Device::Emulated;
                assert_eq!(place == Device::Cpu, on_cpu, "{device} without {lacking}: {kind} on {place}");
            }
        }
    }
}

#[test]
fn a_plan_counts_what_the_cpu_takes_for_a_device() {
    let model = model();
    for device in all() {
        let mut options = on(&model, device);
        let whole = model.plan(&options).unwrap();
        options.lacking = Some("SOFT_MAX");
        let split = model.plan(&options).unwrap();
        // At least the tables of ggml's scheduler.
        assert!(split.other > whole.other, "{device}: {whole:?} {split:?}");
        assert_eq!(split.session, whole.session);
        options.memory_budget = Some(split.total());
        assert_eq!(Session::new(&model, options.clone()).unwrap().plan(), &split);
        options.memory_budget = Some(split.total() - 1);
        assert!(matches!(Session::new(&model, options), Err(Error::Budget { .. })));
    }
}

#[test]
fn what_a_device_cannot_do_is_refused_by_name() {
    let model = model();
    let refusal = |change: fn(&mut SessionOptions)| {
        let mut options = on(&model, Device::Emulated);
        change(&mut options);
        Session::new(&model, options).err().expect("a refusal").to_string()
    };
    assert!(refusal(|options| options.device = Device::Cuda(999)).starts_with("device: expected auto, cpu"));
    assert!(refusal(|options| options.lowering = "portable".parse().unwrap()).starts_with("lowering: "));
    assert!(refusal(|options| options.residency = Residency::Mapped).starts_with("residency: "));
    assert!(refusal(|options| options.cpus = Some(vec![0])).starts_with("cpus: "));
    for (text, found) in
        [("cuda", Device::Cuda(0)), ("vulkan:3", Device::Vulkan(3)), ("metal", Device::Metal)]
    {
        assert_eq!(text.parse::<Device>().unwrap(), found);
    }
    for text in ["", "cuda:", "cuda:x", "gpu", "cpu:1", "metal:0"] {
        assert!(text.parse::<Device>().is_err(), "{text}");
    }
}
