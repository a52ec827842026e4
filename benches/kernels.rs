//! How fast single kernels are: matrix products beside the peak of their instructions, and operations on rows.
//!
//! ```text
//! cargo bench --bench kernels                            # the most capable instruction set, weights in cache
//! cargo bench --bench kernels -- int8/                   # some of it
//! cargo bench --bench kernels -- avx2                    # another instruction set
//! cargo bench --bench kernels -- avx512vnni/int8/streamed   # the whole matrix instead of what fits a cache
//! ```
//!
//! One thread. Tables hold medians, in GMAC/s, and the share of the peak: the highest of many short measurements, in turns
//! with the kernel. Whatever else the machine does slows the medians down and not the peak, so shares are for an idle one.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lxmert::InstructionSet;
use lxmert::measure::{BenchProduct, BenchRows, Element, peak};

const ROWS: [usize; 6] = [1, 20, 36, 56, 160, 288];
/// Inputs and outputs of the model's matrices.
const SHAPES: [(usize, usize); 4] = [(768, 768), (768, 2304), (768, 3072), (3072, 768)];
const ELEMENTS: [(&str, Element); 4] = [
    ("int8", Element::Int8),
    ("int8-blocks", Element::Int8Blocks),
    ("bf16", Element::Bf16),
    ("f32", Element::F32),
];
/// (inputs and) outputs of a hidden layer, and heads.
const HIDDEN: usize = 768;
const HEADS: usize = 12;

fn mentioned(name: &str) -> bool {
    std::env::args().skip(1).any(|argument| argument.contains(name))
}

/// Those named on the command line, or else the most capable.
fn sets() -> Vec<InstructionSet> {
    let available = || InstructionSet::ALL.into_iter().filter(|set| set.is_available());
    let named: Vec<InstructionSet> = available().filter(|set| mentioned(set.name())).collect();
    if named.is_empty() { available().next_back().into_iter().collect() } else { named }
}

fn median(mut samples: Vec<f64>) -> Option<f64> {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied()
}

fn products(criterion: &mut Criterion) {
    for set in sets() {
        for (name, element) in ELEMENTS {
            for weights in ["cached", "streamed"] {
                if weights == "cached" || mentioned(weights) {
                    table_of_products(criterion, set, name, element, weights);
                }
            }
        }
    }
}

fn table_of_products(
    criterion: &mut Criterion,
    set: InstructionSet,
    name: &str,
    element: Element,
    weights: &str,
) {
    let mut group = criterion.benchmark_group(format!("{}/{name}/{weights}", set.name()));
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    let (mut lines, mut peaks) = (Vec::new(), Vec::new());
    for rows in ROWS {
        let mut line = format!("| {rows} |");
        let mut measured = false;
        for shape in SHAPES {
            let Some(mut product) = BenchProduct::new(set, element, rows, shape, weights == "cached") else {
                return;
            };
            let multiplications = product.multiplications();
            group.throughput(Throughput::Elements(multiplications));
            let samples: RefCell<(Vec<f64>, Vec<f64>)> = RefCell::default();
            let id = BenchmarkId::new(format!("{}→{}", shape.0, shape.1), rows);
            group.bench_function(id, |bencher| {
                bencher.iter_custom(|times| {
                    let started = Instant::now();
                    (0..times).for_each(|_| product.run());
                    let elapsed = started.elapsed();
                    let speed = (multiplications * times) as f64 / elapsed.as_secs_f64() / 1e9;
                    let (speeds, peaks) = &mut *samples.borrow_mut();
                    speeds.push(speed);
                    peaks.extend(peak(set, element));
                    elapsed
                });
            });
            let (speeds, of_instructions) = samples.into_inner();
            let (speed, peak) = (median(speeds), of_instructions.into_iter().reduce(f64::max));
            measured |= speed.is_some();
            line += &match (speed, peak) {
                (Some(speed), Some(peak)) => format!(" {speed:.0} ({:.0} %) |", 100.0 * speed / peak),
                (Some(speed), None) => format!(" {speed:.1} |"),
                _ => " |".to_owned(),
            };
            peaks.extend(peak);
        }
        if measured {
            lines.push(line);
        }
    }
    group.finish();
    if lines.is_empty() {
        return;
    }
    let peak =
        peaks.into_iter().reduce(f64::max).map_or(String::new(), |peak| format!(", of a peak of {peak:.0}"));
    println!("\n{name} with {}, weights {weights}: GMAC/s{peak}\n", set.name());
    let shapes: Vec<String> = SHAPES.iter().map(|(inputs, outputs)| format!("{inputs}→{outputs}")).collect();
    println!("| rows | {} |\n|---:|{}", shapes.join(" | "), "---:|".repeat(SHAPES.len()));
    println!("{}\n", lines.join("\n"));
}

fn rows(criterion: &mut Criterion) {
    for set in sets() {
        let mut group = criterion.benchmark_group(format!("{}/rows", set.name()));
        group.sample_size(20).warm_up_time(Duration::from_millis(200));
        group.measurement_time(Duration::from_millis(600));
        let attention = |queries, keys| {
            let name = format!("attention, {queries} queries, {keys} keys");
            (name, BenchRows::attention(set, queries, keys, HIDDEN, HEADS))
        };
        let operations = [
            attention(20, 20),
            attention(36, 36),
            attention(20, 36),
            attention(36, 20),
            (format!("layer norm of {HIDDEN}"), BenchRows::layer_norm(set, 36, HIDDEN)),
            (format!("quantize {HIDDEN}"), BenchRows::quantize(set, 12, HIDDEN)),
            ("quantize 3072".to_owned(), BenchRows::quantize(set, 12, 3072)),
        ];
        let mut lines = Vec::new();
        for (name, operation) in operations {
            let Some(mut operation) = operation else { continue };
            let count = operation.rows() as u64;
            group.throughput(Throughput::Elements(count));
            let samples: RefCell<Vec<f64>> = RefCell::default();
            group.bench_function(&name, |bencher| {
                bencher.iter_custom(|times| {
                    let started = Instant::now();
                    (0..times).for_each(|_| operation.run());
                    let elapsed = started.elapsed();
                    samples.borrow_mut().push(elapsed.as_nanos() as f64 / (times * count) as f64);
                    elapsed
                });
            });
            if let Some(time) = median(samples.into_inner()) {
                lines.push(format!("| {name} | {time:.0} ns |"));
            }
        }
        group.finish();
        if !lines.is_empty() {
            println!("\n| a row with {} | time |\n|---|---:|\n{}\n", set.name(), lines.join("\n"));
        }
    }
}

criterion_group!(benches, products, rows);
criterion_main!(benches);
