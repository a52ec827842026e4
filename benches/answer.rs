//! How long an answer takes with the base architecture: 20 tokens, 36 regions, 3129 answers, random weights.
//!
//! `cargo bench --bench answer`. The model is made when the benchmark starts, so that no checkpoint is needed.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use lxmert::gguf::TensorType;
use lxmert::vision::Regions;
use lxmert::{Model, Session, SessionOptions};
use lxmert_converter::{Options, Synthetic, convert_synthetic};

/// A question of 20 tokens: [CLS], 18 pieces, [SEP].
fn question() -> Vec<u32> {
    std::iter::once(101).chain((0..18).map(|n| 2000 + 311 * n)).chain([102]).collect()
}

/// 36 regions like a detector's: features after a ReLU, boxes within the image.
fn regions() -> Regions {
    let feature = |n: usize| ((n * 7919 % 1000) as f32 / 250.0 - 2.0).max(0.0);
    let corner = |n: usize| (n * 31 % 100) as f32 / 100.0;
    let features = (0..36 * 2048).map(feature).collect();
    Regions::new(features, 2048, (0..36 * 4).map(corner).collect(), 4).unwrap()
}

fn answer(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().unwrap();
    let synthetic = Synthetic::named("base", 1).unwrap();
    let mut group = criterion.benchmark_group("answer");
    group.sample_size(20);
    for tensor_type in
        [TensorType::F32, TensorType::BF16, TensorType::Q8_0, TensorType::Q4_0, TensorType::Q4K]
    {
        let file = directory.path().join(format!("base-{tensor_type}.gguf"));
        convert_synthetic(&synthetic, tensor_type, &file, &Options::default()).unwrap();
        let model = Model::open(&file).unwrap();
        for threads in [1, 2] {
            let mut options = SessionOptions::new(&model);
            options.threads = threads;
            let mut session = Session::new(&model, options).unwrap();
            let (regions, question) = (regions(), question());
            group.bench_function(
                BenchmarkId::new(format!("first question, {tensor_type}"), threads),
                |bencher| {
                    bencher.iter(|| {
                        session.encode_image(&regions).unwrap();
                        black_box(session.ask_tokens(&question).unwrap().logits()[0])
                    });
                },
            );
            group.bench_function(
                BenchmarkId::new(format!("next question, {tensor_type}"), threads),
                |bencher| {
                    bencher.iter(|| black_box(session.ask_tokens(&question).unwrap().logits()[0]));
                },
            );
        }
    }
}

criterion_group!(benches, answer);
criterion_main!(benches);
