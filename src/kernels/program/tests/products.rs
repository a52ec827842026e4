//! Products of every shape against loops over f64 of what the packed matrix and the prepared rows stand for.

use proptest::prelude::*;

use super::super::*;
use super::Prepared;
use crate::gguf::TensorType;
use crate::kernels::packed::Layout;
use crate::kernels::tests::oracle::{activated, as_read, bytes_of, unpacked, weights};
use crate::kernels::tests::{Random, every_set};

/// Which part of its buffer a product reads.
#[derive(Clone, Copy, Debug)]
enum Source {
    Whole,
    /// That many columns are before, and as many after.
    Columns(usize, usize),
    FirstRows,
}

#[derive(Clone, Debug)]
struct Case {
    element: Element,
    batch: usize,
    /// Rows of each batch element.
    regions: usize,
    inputs: usize,
    outputs: usize,
    range: Range<usize>,
    activation: Activation,
    residual: bool,
    source: Source,
    threads: usize,
}

impl Case {
    fn new(element: Element, rows: usize, inputs: usize, outputs: usize) -> Self {
        Case {
            element,
            batch: 1,
            regions: rows,
            inputs,
            outputs,
            range: 0..outputs,
            activation: Activation::None,
            residual: false,
            source: Source::Whole,
            threads: 1,
        }
    }

    fn check(&self, kernels: Kernels) {
        let Case { batch, regions, inputs, outputs, .. } = *self;
        let mut random = Random((regions * 1000 + inputs) as u64);
        let matrix: Vec<f32> = random.numbers(inputs * outputs);
        let bias = random.numbers(outputs);
        let weights = weights(&[
            ("w", TensorType::F32, &[inputs, outputs], &bytes_of(&matrix)),
            ("b", TensorType::F32, &[outputs], &bytes_of(&bias)),
        ]);
        let (before, after) = match self.source {
            Source::Columns(before, after) => (before, after),
            Source::Whole | Source::FirstRows => (0, 0),
        };
        let (width, kept) = (before + inputs + after, self.range.len());
        let mut recorder = Recorder::new(kernels, width, kept);
        let (mut x, mut residual) = (recorder.features().columns(before..before + inputs), recorder.boxes());
        let step = if matches!(self.source, Source::FirstRows) { regions } else { 1 };
        if step > 1 {
            (x, residual) = (x.first_rows(), residual.first_rows());
        }
        let linear = Linear {
            matrix: "w",
            bias: "b",
            layout: Layout { element: self.element, inputs, outputs },
            outputs: Some(self.range.clone()),
            activation: self.activation,
            residual: self.residual.then_some(residual),
        };
        let y = recorder.product(x, linear);
        let buffer = recorder.keep(y);
        let sizes = Sizes { batch, tokens: 1, regions, images: 1 };
        // Planned for more than what is run.
        let largest = Sizes { batch: batch + 1, regions: regions + 2, ..sizes };
        let plan = recorder.plan(largest, self.threads, &Placing::Standing);
        let mut prepared = Prepared::new(plan, &weights, self.threads);
        let seen = unpacked(&prepared.program._standing[0]);
        let inputs_of = prepared.program.inputs();
        let rows = batch * regions;
        let features = random.numbers(rows * width);
        let residuals = random.numbers(rows * kept);
        prepared.fill(inputs_of.features, sizes, &features);
        prepared.fill(inputs_of.boxes, sizes, &residuals);
        prepared.run(StageName::Image, sizes, &[], &weights, "b");
        let found = prepared.numbers(buffer, sizes);
        assert_eq!(found.len(), rows / step * kept);
        for (row, found) in found.chunks(kept).enumerate() {
            let row = row * step;
            let x = &features[row * width + before..][..inputs];
            let read = as_read(kernels, self.element, x);
            for (n, found) in found.iter().enumerate() {
                let output = self.range.start + n;
                let products = || read.iter().zip(&seen[output]).map(|(x, w)| x * w);
                let sum: f64 = products().sum::<f64>() + f64::from(bias[output]);
                let residual = if self.residual { f64::from(residuals[row * kept + n]) } else { 0.0 };
                let expected = activated(self.activation, sum) + residual;
                let magnitude: f64 = products().map(f64::abs).sum();
                let bound = match self.element {
                    // Sums of integers are exact: what is left are a few roundings of the result.
                    Element::Int8 => 3e-7 * (1.0 + sum.abs()) + 2e-7,
                    // The zero's share is taken off a sum of floats.
                    Element::Int8Blocks => 3e-7 * (1.0 + 2.0 * magnitude) + 2e-7,
                    Element::Bf16 | Element::F32 => 3e-7 * (1.0 + magnitude) + 2e-7,
                };
                let error = (f64::from(*found) - expected).abs();
                let set = kernels.set();
                assert!(
                    error <= bound,
                    "{set:?}, row {row}, output {output}: {found}, not {expected}: {self:?}"
                );
            }
        }
        // What was read is as it was.
        assert!(prepared.numbers(inputs_of.features, sizes) == features);
        assert!(prepared.numbers(inputs_of.boxes, sizes) == residuals);
    }
}

fn elements(kernels: Kernels) -> Vec<Element> {
    let all = [Element::Int8, Element::Int8Blocks, Element::Bf16, Element::F32];
    all.into_iter().filter(|element| *element != Element::Bf16 || kernels.has_bf16()).collect()
}

fn every_element(check: impl Fn(Kernels, Element)) {
    every_set(|kernels| elements(kernels).into_iter().for_each(|element| check(kernels, element)));
}

const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Gelu,
    Activation::GeluNew,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
];

#[test]
fn products_of_many_shapes() {
    every_element(|kernels, element| {
        for (rows, inputs, outputs) in [
            (1, 1, 1),
            (1, 3, 31),
            (2, 4, 32),
            (3, 5, 33),
            (4, 31, 100),
            (5, 33, 33),
            (7, 100, 100),
            (13, 768, 64),
            (14, 3072, 31),
            (15, 768, 33),
            (20, 768, 100),
            (28, 100, 1),
            (29, 33, 100),
            (36, 768, 33),
            (56, 100, 100),
            (64, 3072, 33),
            (1, 768, 3129),
            (2, 3072, 100),
            (100, 33, 31),
            (288, 100, 33),
            (450, 31, 33),
            (65, 64, 33),
            (100, 768, 33),
            (130, 128, 33),
            (288, 64, 33),
        ] {
            Case::new(element, rows, inputs, outputs).check(kernels);
        }
    });
}

#[test]
fn products_of_every_number_of_rows() {
    every_element(|kernels, element| {
        for (rows, inputs) in (1..=64).flat_map(|rows| [(rows, 36), (rows, 64)]) {
            Case::new(element, rows, inputs, 40).check(kernels);
        }
    });
}

#[test]
fn products_of_some_outputs_with_all_that_follows() {
    every_element(|kernels, element| {
        let ranges = [0..100, 10..90, 31..33, 32..64, 33..34, 0..1, 99..100, 40..50, 63..96];
        for (inputs, (n, range)) in [33, 128]
            .into_iter()
            .flat_map(|inputs| ranges.clone().into_iter().enumerate().map(move |range| (inputs, range)))
        {
            for (m, source) in
                [Source::Whole, Source::Columns(5, 2), Source::Columns(32, 0), Source::FirstRows]
                    .into_iter()
                    .enumerate()
            {
                let case = Case {
                    batch: 1 + m,
                    range: range.clone(),
                    activation: ACTIVATIONS[(n + m) % 6],
                    residual: n % 2 == 0,
                    source,
                    threads: 1 + m % 2,
                    ..Case::new(element, 9, inputs, 100)
                };
                case.check(kernels);
            }
        }
    });
}

/// Queries of one stream, keys and values of the other, from one matrix: its panels are read once for both.
#[test]
fn products_that_share_a_matrix() {
    every_element(|kernels, element| {
        for (threads, split, inputs) in [(1, 40, 33), (2, 32, 64), (3, 50, 33), (1, 50, 64)] {
            let (outputs, regions) = (100, 5);
            let mut random = Random(split as u64);
            let (matrix, bias) = (random.numbers(inputs * outputs), random.numbers(outputs));
            let weights = weights(&[
                ("w", TensorType::F32, &[inputs, outputs], &bytes_of(&matrix)),
                ("b", TensorType::F32, &[outputs], &bytes_of(&bias)),
            ]);
            let mut recorder = Recorder::new(kernels, inputs, inputs);
            let parts = [(recorder.features(), 0..split), (recorder.boxes(), split..outputs)];
            let layout = Layout { element, inputs, outputs };
            let results = parts.clone().map(|(x, outputs)| {
                let activation = Activation::None;
                let outputs = Some(outputs);
                let y = recorder.product(
                    x,
                    Linear { matrix: "w", bias: "b", layout, outputs, activation, residual: None },
                );
                recorder.keep(y)
            });
            let sizes = Sizes { batch: 1, tokens: 1, regions, images: 1 };
            let plan = recorder.plan(sizes, threads, &Placing::Standing);
            assert_eq!(plan.matrices().len(), 1);
            assert!(plan.stages[0].phases[1] == [[1, 3]], "one item");
            let mut prepared = Prepared::new(plan, &weights, threads);
            let seen = unpacked(&prepared.program._standing[0]);
            let buffers = prepared.program.inputs();
            let values = [random.numbers(inputs * regions), random.numbers(inputs * regions)];
            prepared.fill(buffers.features, sizes, &values[0]);
            prepared.fill(buffers.boxes, sizes, &values[1]);
            prepared.run(StageName::Image, sizes, &[], &weights, "b");
            for ((x, (_, outputs)), buffer) in values.iter().zip(parts).zip(results) {
                let found = prepared.numbers(buffer, sizes);
                for (x, found) in x.chunks(inputs).zip(found.chunks(outputs.len())) {
                    let read = as_read(kernels, element, x);
                    for (found, output) in found.iter().zip(outputs.clone()) {
                        let sum: f64 = read.iter().zip(&seen[output]).map(|(x, w)| x * w).sum();
                        let expected = sum + f64::from(bias[output]);
                        assert!((f64::from(*found) - expected).abs() < 2e-5, "{found}, not {expected}");
                    }
                }
            }
        }
    });
}

/// So many rows that a task for every two of them would be more than the workers can count.
#[test]
fn the_largest_batch_has_no_more_tasks_than_can_be_shared_out() {
    let case = Case { batch: 1024, threads: 2, ..Case::new(Element::F32, 200, 1, 1) };
    case.check(Kernels::best());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn products_of_any_shape(
        element in 0..4usize,
        rows in 1..140usize,
        batch in 1..4usize,
        inputs in prop_oneof![1..200usize, (1..4usize).prop_map(|steps| 64 * steps)],
        (outputs, start, end) in (1..130usize).prop_flat_map(|outputs| (Just(outputs), 0..outputs, 0..outputs)),
        activation in 0..6usize,
        residual: bool,
        source in prop_oneof![
            Just(Source::Whole),
            (0..9usize, 0..9usize).prop_map(|(before, after)| Source::Columns(before, after)),
            Just(Source::FirstRows),
        ],
        threads in 1..4usize,
    ) {
        every_set(|kernels| {
            let elements = elements(kernels);
            let case = Case {
                batch,
                range: start.min(end)..start.max(end) + 1,
                activation: ACTIVATIONS[activation],
                residual,
                source,
                threads,
                ..Case::new(elements[element % elements.len()], rows, inputs, outputs)
            };
            case.check(kernels);
        });
    }
}
