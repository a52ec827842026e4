//! Plans of operations drawn at random: their phases and memory, and their results against a plain evaluation.

use std::collections::HashSet;

use proptest::prelude::*;

use super::super::schedule::{Members, PlannedStage};
use super::super::*;
use super::Prepared;
use crate::gguf::TensorType;
use crate::kernels::packed::Layout;
use crate::kernels::tests::Random;
use crate::kernels::tests::oracle::{activated, bytes_of, weights};
use crate::model::LAYER_NORM_EPSILON;

const HIDDEN: usize = 8;
const HEADS: usize = 2;
const MATRICES: [&str; 3] = ["one", "two", "qkv"];

/// What is drawn of an operation; the numbers choose among what there is when it is recorded.
#[derive(Clone, Debug)]
struct Draw {
    kind: Kind,
    choices: [usize; 3],
    kept: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Product,
    ProductAdd,
    Norm,
    Mean,
    Within,
    Across,
}

/// An operation of a plain evaluation. Numbers are those of earlier values.
enum Step {
    Features,
    Boxes,
    Embed,
    Product { x: usize, matrix: usize, residual: Option<usize> },
    Norm { x: usize },
    Mean { a: usize, b: usize },
    Attention { queries: usize, context: usize, probabilities: bool },
}

struct Value {
    stream: Stream,
    step: Step,
}

/// Of a matrix for rows of `HIDDEN` numbers.
fn layout(outputs: usize) -> Layout {
    Layout { element: Element::F32, inputs: HIDDEN, outputs }
}

/// A recorded model, and the same as a list of steps.
struct Recorded {
    recorder: Recorder,
    values: Vec<Value>,
    /// Kept results: the value and its buffer.
    kept: Vec<(usize, usize)>,
}

impl Recorded {
    fn add(&mut self, stream: Stream, step: Step) -> usize {
        self.values.push(Value { stream, step });
        self.values.len() - 1
    }

    fn linear<'n>(&self, matrix: &'n str, outputs: Range<usize>, residual: Option<Stream>) -> Linear<'n> {
        let bias = if matrix == "qkv" { "qkv_bias" } else { "bias" };
        let activation = if residual.is_none() { Activation::Tanh } else { Activation::None };
        let activation = if matrix == "qkv" { Activation::None } else { activation };
        let rows = if matrix == "qkv" { 3 * HIDDEN } else { HIDDEN };
        Linear { matrix, bias, layout: layout(rows), outputs: Some(outputs), activation, residual }
    }

    fn record(&mut self, draw: &Draw) {
        // Weights of an attention are read by nothing.
        let usable: Vec<usize> =
            (0..self.values.len()).filter(|n| self.values[*n].stream.width == HIDDEN).collect();
        let x = usable[draw.choices[0] % usable.len()];
        let stream = self.values[x].stream;
        let of_same_rows: Vec<usize> =
            usable.iter().copied().filter(|n| self.values[*n].stream.rows == stream.rows).collect();
        let other = of_same_rows[draw.choices[1] % of_same_rows.len()];
        let new = match draw.kind {
            Kind::Product | Kind::ProductAdd => {
                let matrix = draw.choices[2] % 2;
                let residual = matches!(draw.kind, Kind::ProductAdd).then_some(other);
                let added = residual.map(|other| self.values[other].stream);
                let linear = self.linear(MATRICES[matrix], 0..HIDDEN, added);
                let to = self.recorder.product(stream, linear);
                self.add(to, Step::Product { x, matrix, residual })
            }
            Kind::Norm => {
                let to = self.recorder.norm("norm", stream);
                self.add(to, Step::Norm { x })
            }
            Kind::Mean => {
                let to = self.recorder.mean(stream, self.values[other].stream);
                self.add(to, Step::Mean { a: x, b: other })
            }
            Kind::Within => {
                let linear = self.linear("qkv", 0..3 * HIDDEN, None);
                let all = self.recorder.product(stream, linear);
                let qkv = [0, 1, 2].map(|part| all.columns(part * HIDDEN..(part + 1) * HIDDEN));
                self.attention(x, x, qkv, draw.kept)
            }
            Kind::Across => {
                let context = usable[draw.choices[2] % usable.len()];
                let q = self.linear("qkv", 0..HIDDEN, None);
                let kv = self.linear("qkv", HIDDEN..3 * HIDDEN, None);
                let q = self.recorder.product(stream, q);
                let kv = self.recorder.product(self.values[context].stream, kv);
                let qkv = [q, kv.columns(0..HIDDEN), kv.columns(HIDDEN..2 * HIDDEN)];
                self.attention(x, context, qkv, draw.kept)
            }
        };
        if draw.kept {
            let buffer = self.recorder.keep(self.values[new].stream);
            self.kept.push((new, buffer));
        }
    }

    fn attention(&mut self, queries: usize, context: usize, qkv: [Stream; 3], kept: bool) -> usize {
        let keys = qkv[1].rows;
        let (to, weights) = self.recorder.attention("qkv", qkv, HEADS, keys);
        if kept && context.is_multiple_of(2) {
            let value = self.add(weights, Step::Attention { queries, context, probabilities: true });
            let buffer = self.recorder.keep(weights);
            self.kept.push((value, buffer));
        }
        self.add(to, Step::Attention { queries, context, probabilities: false })
    }
}

type Matrix = Vec<Vec<f64>>;

/// Everything that the plain evaluation reads.
struct Plain<'p> {
    values: &'p [Value],
    sizes: Sizes,
    /// Features, boxes and embedded words.
    inputs: [Matrix; 3],
    /// As stored, `[outputs][inputs]`, and its bias.
    matrices: [(Matrix, Vec<f64>); 3],
    norm: [Vec<f64>; 2],
    text_mask: Vec<f64>,
}

impl Plain<'_> {
    fn rows(&self, value: usize) -> usize {
        self.values[value].stream.rows.count(self.sizes)
    }

    fn product(&self, x: &Matrix, matrix: usize, activation: Activation) -> Matrix {
        let (weights, bias) = &self.matrices[matrix];
        let output = |x: &[f64], (weights, bias): (&Vec<f64>, &f64)| {
            activated(activation, x.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() + bias)
        };
        x.iter().map(|x| weights.iter().zip(bias).map(|of| output(x, of)).collect()).collect()
    }

    fn attention(&self, queries: (&Matrix, usize), context: (&Matrix, usize), probabilities: bool) -> Matrix {
        let batch = self.sizes.batch;
        let masked = self.values[context.1].stream.rows == Rows::Tokens;
        let (q, kv) =
            (self.product(queries.0, 2, Activation::None), self.product(context.0, 2, Activation::None));
        let (queries, keys) = (self.rows(queries.1) / batch, self.rows(context.1) / batch);
        let size = HIDDEN / HEADS;
        let mut mixed = vec![vec![0.0; HIDDEN]; q.len()];
        let mut all_weights = Vec::new();
        for element in 0..batch {
            for head in 0..HEADS {
                for query in 0..queries {
                    let row = element * queries + query;
                    let score = |key: usize| {
                        let n = element * keys + key;
                        let dot: f64 = (0..size)
                            .map(|i| q[row][head * size + i] * kv[n][HIDDEN + head * size + i])
                            .sum();
                        dot / (size as f64).sqrt() + if masked { self.text_mask[n] } else { 0.0 }
                    };
                    let scores: Vec<f64> = (0..keys).map(score).collect();
                    let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    let weights: Vec<f64> = scores.iter().map(|score| (score - peak).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    let weights: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
                    for i in 0..size {
                        let value = |key: usize| kv[element * keys + key][2 * HIDDEN + head * size + i];
                        mixed[row][head * size + i] = (0..keys).map(|key| weights[key] * value(key)).sum();
                    }
                    all_weights.push(weights);
                }
            }
        }
        if probabilities { all_weights } else { mixed }
    }

    fn evaluate(&self) -> Vec<Matrix> {
        let mut done: Vec<Matrix> = Vec::new();
        for value in self.values {
            let result = match value.step {
                Step::Features => self.inputs[0].clone(),
                Step::Boxes => self.inputs[1].clone(),
                Step::Embed => self.inputs[2].clone(),
                Step::Product { x, matrix, residual } => {
                    let activation = if residual.is_none() { Activation::Tanh } else { Activation::None };
                    let mut result = self.product(&done[x], matrix, activation);
                    if let Some(residual) = residual {
                        let add = |(to, from): (&mut f64, &f64)| *to += from;
                        result.iter_mut().flatten().zip(done[residual].iter().flatten()).for_each(add);
                    }
                    result
                }
                Step::Norm { x } => done[x].iter().map(|row| self.normed(row)).collect(),
                Step::Mean { a, b } => {
                    let mean = |(a, b): (&Vec<f64>, &Vec<f64>)| {
                        a.iter().zip(b).map(|(a, b)| (a + b) / 2.0).collect()
                    };
                    done[a].iter().zip(&done[b]).map(mean).collect()
                }
                Step::Attention { queries, context, probabilities } => {
                    self.attention((&done[queries], queries), (&done[context], context), probabilities)
                }
            };
            done.push(result);
        }
        done
    }

    fn normed(&self, row: &[f64]) -> Vec<f64> {
        let mean = row.iter().sum::<f64>() / HIDDEN as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / HIDDEN as f64;
        let factor = 1.0 / (variance + f64::from(LAYER_NORM_EPSILON)).sqrt();
        let scaled = |(n, x): (usize, &f64)| (x - mean) * factor * self.norm[0][n] + self.norm[1][n];
        row.iter().enumerate().map(scaled).collect()
    }
}

/// What must hold of every plan.
fn check_plan(plan: &Plan) {
    for stage in &plan.stages {
        check_phases(stage);
        check_needed(stage, &plan.buffers);
        check_memory(plan, stage);
        check_streams(plan, stage);
    }
}

/// What products read has been fetched in an earlier phase to a place that nothing else was fetched to since, nor is while they run.
fn check_streams(plan: &Plan, stage: &PlannedStage) {
    let place = |matrix: usize| {
        let streamed = &plan.streamed[matrix - plan.matrices.len()];
        let start = streamed.room * plan.rooms[0] + streamed.offset;
        assert!(
            streamed.offset + streamed.source.layout.bytes() <= plan.rooms[streamed.room],
            "beyond the room"
        );
        start..start + streamed.source.layout.bytes()
    };
    let mut fetched: Vec<(usize, usize)> = Vec::new();
    for (phase, items) in stage.phases.iter().enumerate() {
        let ops = || items.iter().flatten().map(|node| &stage.nodes[*node].op);
        fetched.extend(ops().filter_map(|op| match op {
            Op::Fetch { matrix, source } => {
                assert_eq!(*matrix, plan.matrices.len() + source);
                Some((phase, *matrix))
            }
            _ => None,
        }));
        for op in ops().filter(|_| !plan.streamed.is_empty()) {
            let Op::Product(Product { matrix, .. }) = op else { continue };
            if *matrix < plan.matrices.len() {
                continue;
            }
            let known =
                fetched.iter().position(|(_, known)| known == matrix).expect("a matrix that is fetched");
            assert!(fetched[known].0 < phase, "fetched before the phase that reads it");
            for (_, later) in &fetched[known + 1..] {
                let (one, other) = (place(*matrix), place(*later));
                assert!(one.end <= other.start || other.end <= one.start, "overwritten before it was read");
            }
        }
    }
    let all: HashSet<usize> = fetched.iter().map(|(_, matrix)| *matrix).collect();
    assert_eq!(all.len(), fetched.len(), "fetched twice");
}

fn check_phases(stage: &PlannedStage) {
    let mut phase_of = vec![None; stage.nodes.len()];
    for (phase, items) in stage.phases.iter().enumerate() {
        assert!(!items.is_empty(), "phase {phase} is empty");
        let mut matrices = HashSet::new();
        for item in items {
            for node in item {
                assert_eq!(phase_of[*node].replace(phase), None, "node {node} runs twice");
            }
            match &stage.nodes[item[0]].op {
                Op::Product(first) => {
                    assert!(matrices.insert(first.matrix), "two items of one matrix in phase {phase}");
                    let same =
                        |n: &usize| matches!(&stage.nodes[*n].op, Op::Product(p) if p.matrix == first.matrix);
                    assert!(item.iter().all(same), "an item of several matrices");
                }
                _ => assert_eq!(item.len(), 1, "only products share an item"),
            }
        }
    }
    assert!(phase_of.iter().all(Option::is_some), "a node never runs");
    for (reader, node) in stage.nodes.iter().enumerate() {
        for buffer in node.op.reads() {
            for (writer, other) in stage.nodes.iter().enumerate() {
                if other.op.writes().contains(&buffer) {
                    assert!(phase_of[writer] < phase_of[reader], "{} reads too early", node.name);
                }
            }
        }
        let mut written = node.op.writes();
        written.sort();
        written.dedup();
        let elsewhere = |buffer: &usize| {
            stage.nodes.iter().enumerate().any(|(n, other)| n != reader && other.op.writes().contains(buffer))
        };
        assert!(written.len() == node.op.writes().len() && !written.iter().any(elsewhere), "written twice");
    }
}

/// No operation stays that leads to nothing.
fn check_needed(stage: &PlannedStage, buffers: &[Buffer]) {
    for node in stage.nodes.iter().filter(|node| !matches!(node.op, Op::Fetch { .. })) {
        let wanted = |buffer: &usize| {
            buffers[*buffer].kept || stage.nodes.iter().any(|other| other.op.reads().contains(buffer))
        };
        assert!(node.op.writes().iter().any(wanted), "nothing needs {}", node.name);
        if let Op::Attention(Attention { probabilities: Some(buffer), .. }) = &node.op {
            assert!(buffers[*buffer].kept, "weights that nobody reads are stored");
        }
    }
}

fn check_memory(plan: &Plan, stage: &PlannedStage) {
    let end = stage.phases.len();
    // The first and last phase of each buffer that the stage uses, by a plain search.
    let uses = |buffer: usize| {
        let used = |items: &Vec<Members>| {
            items.iter().flatten().any(|n| {
                let op = &stage.nodes[*n].op;
                op.reads().contains(&buffer) || op.writes().contains(&buffer)
            })
        };
        let first = stage.phases.iter().position(used)?;
        Some((first, stage.phases.iter().rposition(used)?))
    };
    let alive: Vec<(usize, usize, usize, usize)> = (0..plan.buffers.len())
        .filter_map(|n| {
            let buffer = &plan.buffers[n];
            let (first, last) = if buffer.kept { (0, end) } else { uses(n)? };
            let bytes = buffer.content.bytes(plan.largest);
            assert!(buffer.offset.is_multiple_of(crate::ggml::ALIGNMENT));
            assert!(buffer.offset + bytes <= plan.scratch.0, "beyond the memory for buffers");
            Some((first, last, buffer.offset, buffer.offset + bytes))
        })
        .collect();
    for (n, (first, last, start, end)) in alive.iter().enumerate() {
        for (other_first, other_last, other_start, other_end) in &alive[..n] {
            let meet = first <= other_last && other_first <= last;
            assert!(!meet || end <= other_start || other_end <= start, "two buffers in one place");
        }
    }
    let (start, bytes) = plan.scratch;
    assert!(plan.memory_bytes() >= start + bytes * plan.threads + plan.stream_bytes());
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    let kinds = [Kind::Product, Kind::ProductAdd, Kind::Norm, Kind::Mean, Kind::Within, Kind::Across];
    let draw =
        (prop::sample::select(kinds.to_vec()), [0..100usize, 0..100, 0..100], prop::bool::weighted(0.2));
    prop::collection::vec(draw.prop_map(|(kind, choices, kept)| Draw { kind, choices, kept }), 1..24)
}

fn rows(values: &[f32]) -> Matrix {
    values.chunks(HIDDEN).map(|row| row.iter().map(|x| f64::from(*x)).collect()).collect()
}

fn numbers(values: &[f32]) -> Vec<f64> {
    values.iter().map(|x| f64::from(*x)).collect()
}

fn check(image: &[Draw], question: &[Draw], sizes: Sizes, threads: usize, streamed: bool, standing: &[&str]) {
    let kernels = Kernels::best();
    let mut random = Random(sizes.batch as u64 + 10 * sizes.regions as u64);
    let mut tensor =
        |count: usize, size: f32| -> Vec<f32> { random.numbers(count).iter().map(|x| size * x).collect() };
    let matrices = [8, 8, 24].map(|outputs| tensor(outputs * HIDDEN, 0.5));
    let biases = [tensor(HIDDEN, 0.3), tensor(3 * HIDDEN, 0.3)];
    let norm = [tensor(HIDDEN, 1.0), tensor(HIDDEN, 1.0)];
    let table = tensor(sizes.tokens * HIDDEN, 0.5);
    let bytes = |values: &[f32]| bytes_of(values);
    let weights = weights(&[
        ("one", TensorType::F32, &[HIDDEN, HIDDEN], &bytes(&matrices[0])),
        ("two", TensorType::F32, &[HIDDEN, HIDDEN], &bytes(&matrices[1])),
        ("qkv", TensorType::F32, &[HIDDEN, 3 * HIDDEN], &bytes(&matrices[2])),
        ("bias", TensorType::F32, &[HIDDEN], &bytes(&biases[0])),
        ("qkv_bias", TensorType::F32, &[3 * HIDDEN], &bytes(&biases[1])),
        ("norm.weight", TensorType::F32, &[HIDDEN], &bytes(&norm[0])),
        ("norm.bias", TensorType::F32, &[HIDDEN], &bytes(&norm[1])),
        ("table", TensorType::F32, &[HIDDEN, sizes.tokens], &bytes(&table)),
    ]);
    let recorder = Recorder::new(kernels, HIDDEN, HIDDEN);
    let mut recorded = Recorded { recorder, values: Vec::new(), kept: Vec::new() };
    let (features, boxes) = (recorded.recorder.features(), recorded.recorder.boxes());
    recorded.add(features, Step::Features);
    recorded.add(boxes, Step::Boxes);
    image.iter().for_each(|draw| recorded.record(draw));
    recorded.recorder.begin(StageName::Question);
    let words = recorded.recorder.embed(HIDDEN);
    recorded.add(words, Step::Embed);
    question.iter().for_each(|draw| recorded.record(draw));
    let Recorded { recorder, values, kept } = recorded;
    let largest = Sizes { batch: sizes.batch + 1, tokens: sizes.tokens + 3, ..sizes };
    let source = |name: &str, layout: Layout| Source::rows(weights.stored(name), layout.element);
    let stands = |name: &str| standing.contains(&name);
    let placing = match streamed {
        true => Placing::Streamed { source: &source, stands: &stands },
        false => Placing::Standing,
    };
    let plan = recorder.plan(largest, threads, &placing);
    check_plan(&plan);
    if kept.is_empty() {
        assert!(plan.stages.iter().all(|stage| stage.nodes.is_empty()), "nothing is wanted of this model");
    }

    let mut prepared = Prepared::new(plan, &weights, threads);
    let buffers = prepared.program.inputs();
    let (batch, all_regions) = (sizes.batch, sizes.batch * sizes.regions);
    let features = random.numbers(all_regions * HIDDEN);
    let boxes = random.numbers(all_regions * HIDDEN);
    let words = random.numbers(batch * sizes.tokens * HIDDEN);
    let mask = |n: usize| if n % 3 == 1 { -1e4 } else { 0.0 };
    let text_mask: Vec<f32> = (0..batch * sizes.tokens).map(mask).collect();
    prepared.fill(buffers.features, sizes, &features);
    prepared.fill(buffers.boxes, sizes, &boxes);
    prepared.run(StageName::Image, sizes, &[], &weights, "table");
    prepared.fill(buffers.text_mask, sizes, &text_mask);
    let mut embedded = words.clone();
    for (row, to) in embedded.chunks_mut(HIDDEN).enumerate() {
        let token = row % sizes.tokens;
        for (n, to) in to.iter_mut().enumerate() {
            *to += table[token * HIDDEN + n] + table[n];
        }
    }
    let matrix = |n: usize| (rows(&matrices[n]), numbers(&biases[n / 2]));
    let plain = Plain {
        values: &values,
        sizes,
        inputs: [rows(&features), rows(&boxes), rows(&embedded)],
        matrices: [matrix(0), matrix(1), matrix(2)],
        norm: [numbers(&norm[0]), numbers(&norm[1])],
        text_mask: numbers(&text_mask),
    };
    let expected = plain.evaluate();
    // A second question must find the image as the first one did.
    for _ in 0..2 {
        prepared.run(StageName::Question, sizes, &words, &weights, "table");
        for (value, buffer) in &kept {
            let found = prepared.numbers(*buffer, sizes);
            let expected: Vec<f64> = expected[*value].iter().flatten().copied().collect();
            assert_eq!(found.len(), expected.len());
            for (found, expected) in found.iter().zip(expected) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 1e-3 * (1.0 + expected.abs()), "value {value}: {found}, not {expected}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_plan_is_sound_and_computes_what_was_recorded(
        image in draws(),
        question in draws(),
        (batch, tokens, regions) in (1..3usize, 1..6usize, 1..6usize),
        threads in 1..4usize,
        streamed in prop::bool::ANY,
        standing in prop::sample::subsequence(MATRICES.to_vec(), 0..=MATRICES.len()),
    ) {
        check(&image, &question, Sizes { batch, tokens, regions, images: 1 }, threads, streamed, &standing);
    }
}

#[test]
fn what_nothing_reads_is_left_out() {
    let norm = Draw { kind: Kind::Norm, choices: [0, 0, 0], kept: false };
    let sizes = Sizes { batch: 1, tokens: 2, regions: 2, images: 1 };
    check(&[norm.clone(), norm.clone()], &[norm], sizes, 1, false, &[]);
}

/// A product that reads the rows of a layer norm has them prepared where they are made.
#[test]
fn a_norm_prepares_its_rows_for_products() {
    let mut recorder = Recorder::new(Kernels::best(), HIDDEN, 4);
    let x = recorder.features();
    let x = recorder.norm("norm", x);
    let linear = Linear {
        matrix: "w",
        bias: "b",
        layout: layout(HIDDEN),
        outputs: None,
        activation: Activation::None,
        residual: None,
    };
    for _ in 0..2 {
        let y = recorder.product(x, linear.clone());
        recorder.keep(y);
    }
    let sizes = Sizes { batch: 1, tokens: 1, regions: 3, images: 1 };
    let plan = recorder.plan(sizes, 1, &Placing::Standing);
    let [norm, products @ ..] = &plan.stages[0].nodes[..] else { panic!("no operations") };
    assert!(matches!(&norm.op, Op::Norm { prepared, .. } if prepared.len() == 1));
    assert!(products.len() == 2 && products.iter().all(|node| matches!(node.op, Op::Product(_))));
    assert_eq!(plan.stages[0].phases, [vec![vec![0]], vec![vec![1, 2]]]);
}
