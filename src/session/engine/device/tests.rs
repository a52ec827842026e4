use std::time::Duration;

use super::run::add;
use super::*;
use crate::ggml::{Described, Device, NodeId, Timed};
use crate::session::Session;
use crate::session::engine::Engine;

/// The scores of a question about some regions.
fn ask_about(session: &mut Session, regions: usize) -> Result<Vec<f32>, Error> {
    let features = vec![0.5; regions * session.model().config().visual_feat_dim];
    session.encode_regions(regions, &features, &[0.1, 0.1, 0.5, 0.5].repeat(regions))?;
    Ok(session.ask_tokens(&[1, 2, 3])?.logits().to_vec())
}

fn ask(session: &mut Session) -> Result<Vec<f32>, Error> {
    ask_about(session, 2)
}

/// Times come in the order in which a device runs operations, and each still goes to its own.
#[test]
fn a_profile_does_not_depend_on_the_order_of_a_run() {
    let operation = |n, kind| Described { id: NodeId(n), kind, name: format!("blk.{n}"), multiplications: 1 };
    let described = [operation(1, "MUL_MAT"), operation(2, "ADD"), operation(3, "MUL_MAT")];
    let timed = |n: usize| Timed { id: NodeId(n), on_cpu: n == 2, time: Duration::from_millis(n as u64) };
    let mut profile = Vec::new();
    assert!(add(&mut profile, Device::Emulated, &described, &[3, 1, 2].map(timed)));
    assert!(add(&mut profile, Device::Emulated, &described, &[2, 3, 1].map(timed)));
    let found: Vec<_> = profile
        .iter()
        .map(|sum| (sum.name.as_str(), sum.device == Device::Cpu, sum.time.as_millis(), sum.multiplications))
        .collect();
    assert_eq!(found, [("blk.1", false, 2, 2), ("blk.2", true, 4, 2), ("blk.3", false, 6, 2)]);
    for times in [&[1, 2][..], &[1, 2, 3, 4], &[1, 2, 4]] {
        let times: Vec<_> = times.iter().map(|n| timed(*n)).collect();
        assert!(!add(&mut profile, Device::Emulated, &described, &times));
    }
    assert_eq!(profile.len(), 3);
}

/// A graph that cannot be built costs no room: a call after a failed one fails in the same way, whatever shape it has.
#[test]
fn a_lost_device_is_an_error_at_every_later_call() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/easy-vqa/easy-vqa-q8_0.gguf");
    let model = Model::open(file).unwrap();
    for profile in [false, true] {
        let mut options = SessionOptions::new(&model);
        options.device = Device::Emulated;
        (options.lowering, options.profile) = (crate::Lowering::Ggml, profile);
        let mut session = Session::new(&model, options).unwrap();
        ask(&mut session).unwrap();
        let Engine::Device(engine) = &mut session.engine else { panic!("another engine") };
        engine.backend.lose(c"it fell off the bus");
        let shape = |regions| Shape { batch: 1, tokens: 3, regions };
        for regions in [1, 3, 2, 1] {
            // As if the device were lost after it was looked at.
            let DeviceEngine { image, plans, tensors, backend, memory, model, .. } = &mut **engine;
            let builder = Builder { config: model.config(), plans, tensors, backend, memory };
            let masked = Masked { text: false, visual: false };
            let built = image.get(shape(regions), masked, false, |room| {
                builder.image(room, shape(regions), masked, profile)
            });
            assert!(matches!(built.err(), Some(Error::Device { .. })), "{regions}");
            assert_eq!(image.rooms(), IMAGE_GRAPHS);
        }
        for regions in [1, 3, 2, 1] {
            let error = ask_about(&mut session, regions).unwrap_err();
            assert!(matches!(error, Error::Device { .. }), "{error}");
        }
    }
}

#[test]
fn a_session_fails_once_its_device_is_lost_and_one_on_the_cpu_takes_its_place() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/models/easy-vqa/easy-vqa-q8_0.gguf");
    let model = Model::open(file).unwrap();
    let session = |device| {
        let mut options = SessionOptions::new(&model);
        (options.device, options.lowering) = (device, crate::Lowering::Ggml);
        Session::new(&model, options).unwrap()
    };
    let mut on_device = session(Device::Emulated);
    let expected = ask(&mut on_device).unwrap();
    let Engine::Device(engine) = &on_device.engine else { panic!("another engine") };
    let problem = engine.backend.lose(c"it fell off the bus");
    assert!(problem.to_string().contains("it fell off the bus"), "{problem}");
    for _ in 0..2 {
        let error = ask(&mut on_device).unwrap_err();
        assert!(matches!(error, Error::Device { .. }), "{error}");
        assert!(
            error.to_string().contains("emulated") && error.to_string().contains("it was lost"),
            "{error}"
        );
    }
    drop(on_device);
    let found = ask(&mut session(Device::Cpu)).unwrap();
    let close = |(found, expected): (&f32, &f32)| (found - expected).abs() < 1e-3;
    assert!(found.iter().zip(&expected).all(close), "{found:?} {expected:?}");
}
