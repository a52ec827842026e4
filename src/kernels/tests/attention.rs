//! Attention of one head.

use proptest::prelude::*;

use super::super::generic::attention::scratch_len;
use super::super::*;
use super::{Random, every_set};

/// One head's rows. Queries, keys and values lie side by side in rows of `stride` numbers, as a fused product leaves them.
struct Case {
    queries: usize,
    keys: usize,
    size: usize,
    /// Numbers from one row to the next, of everything.
    stride: usize,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mask: Option<Vec<f32>>,
    scale: f32,
}

impl Case {
    fn random(queries: usize, keys: usize, size: usize, mask: Option<Vec<f32>>) -> Self {
        let stride = size + 3;
        let mut random = Random((queries * 10_000 + keys * 100 + size) as u64);
        let mut rows = |count: usize, factor: f32| -> Vec<f32> {
            random.numbers(count * stride).iter().map(|x| factor * x).collect()
        };
        let (q, k, v) = (rows(queries, 3.0), rows(keys, 3.0), rows(keys, 1.0));
        Case { queries, keys, size, stride, q, k, v, mask, scale: 1.0 / (size as f32).sqrt() }
    }

    /// The mixed values, `[queries, size]`, and the weights, `[queries, keys]`.
    fn run(&self, kernels: Kernels) -> (Vec<f32>, Vec<f32>) {
        let mut to = vec![7.0; self.queries * self.stride];
        let mut probabilities = vec![7.0; self.queries * self.keys + 1];
        let len = scratch_len(self.queries, self.keys, self.size);
        // What stands in the scratch from the head before must not matter.
        let mut scratch = vec![f32::NAN; len + 1];
        scratch[len] = 7.0;
        let head = |probabilities: *mut f32, to: *mut f32| Head {
            queries: self.queries,
            keys: self.keys,
            size: self.size,
            q: self.q.as_ptr(),
            q_stride: self.stride,
            k: self.k.as_ptr(),
            k_stride: self.stride,
            v: self.v.as_ptr(),
            v_stride: self.stride,
            mask: self.mask.as_ref().map_or(std::ptr::null(), |mask| mask.as_ptr()),
            scale: self.scale,
            to,
            stride: self.stride,
            probabilities,
        };
        let attention = kernels.functions.attention;
        // SAFETY: the CPU has the instructions; every row has its numbers, and the scratch its length.
        unsafe {
            attention(&head(probabilities.as_mut_ptr(), to.as_mut_ptr()), scratch.as_mut_ptr());
        }
        assert_eq!(scratch[len], 7.0, "wrote beyond the scratch");
        assert_eq!(probabilities.pop(), Some(7.0), "wrote beyond the weights");
        assert!(
            to.chunks(self.stride).all(|row| row[self.size..] == [7.0; 3]),
            "wrote beyond the head's columns"
        );
        let mut without = vec![7.0; to.len()];
        // SAFETY: as above.
        unsafe { attention(&head(std::ptr::null_mut(), without.as_mut_ptr()), scratch.as_mut_ptr()) };
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert!(bits(&without) == bits(&to), "to keep the weights changes the result");
        let to = to.chunks(self.stride).flat_map(|row| row[..self.size].to_vec()).collect();
        (to, probabilities)
    }

    fn plain(&self) -> (Vec<f64>, Vec<f64>) {
        let at = |rows: &[f32], row: usize, n: usize| f64::from(rows[row * self.stride + n]);
        let (mut to, mut probabilities) = (Vec::new(), Vec::new());
        for query in 0..self.queries {
            let score = |key: usize| {
                let dot: f64 = (0..self.size).map(|n| at(&self.q, query, n) * at(&self.k, key, n)).sum();
                dot * f64::from(self.scale) + self.mask.as_ref().map_or(0.0, |mask| f64::from(mask[key]))
            };
            let scores: Vec<f64> = (0..self.keys).map(score).collect();
            let peak = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - peak).exp()).collect();
            let total: f64 = weights.iter().sum();
            to.extend(
                (0..self.size).map(|n| {
                    (0..self.keys).map(|key| weights[key] / total * at(&self.v, key, n)).sum::<f64>()
                }),
            );
            probabilities.extend(weights.iter().map(|weight| weight / total));
        }
        (to, probabilities)
    }

    /// Checks against the oracle and returns the largest error.
    fn check(&self, kernels: Kernels) -> f64 {
        let (to, probabilities) = self.run(kernels);
        let (expected_to, expected) = self.plain();
        let error = |found: &[f32], expected: &[f64]| {
            found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max)
        };
        let worst = error(&to, &expected_to).max(error(&probabilities, &expected));
        let sizes = (self.queries, self.keys, self.size);
        assert!(to.len() == expected_to.len() && worst < 5e-6, "{:?}: {sizes:?}: {worst:e}", kernels.set());
        for row in probabilities.chunks(self.keys) {
            let sum: f64 = row.iter().map(|weight| f64::from(*weight)).sum();
            assert!((sum - 1.0).abs() < 2e-6, "{:?}: {sizes:?}: weights add up to {sum}", kernels.set());
        }
        worst
    }
}

/// The weights of keys with these scores.
pub fn weights_of_scores(kernels: Kernels, scores: &[f32]) -> Vec<f32> {
    let (q, k) = (vec![1.0; 4], scores.iter().flat_map(|score| [*score, 0.0, 0.0, 0.0]).collect());
    let v = vec![0.0; scores.len() * 4];
    let case = Case { queries: 1, keys: scores.len(), size: 1, stride: 4, q, k, v, mask: None, scale: 1.0 };
    case.run(kernels).1
}

/// Measured: 6.9e-7.
#[test]
fn heads_of_all_sizes() {
    let mut worst = 0.0f64;
    every_set(|kernels| {
        for (queries, keys, size) in [
            (1, 1, 1),
            (1, 1, 64),
            (1, 36, 64),
            (20, 1, 64),
            (20, 20, 64),
            (20, 36, 64),
            (36, 20, 64),
            (36, 36, 64),
            (7, 5, 3),
            (8, 16, 16),
            (9, 17, 33),
            (15, 31, 5),
            (3, 100, 7),
            (2, 512, 64),
            (100, 33, 20),
        ] {
            worst = worst.max(Case::random(queries, keys, size, None).check(kernels));
        }
    });
    eprintln!("attention: error {worst:.2e}");
}

#[test]
fn masked_keys_have_no_weight() {
    every_set(|kernels| {
        for keys in [1, 5, 16, 20, 36] {
            for low in [f32::MIN, f32::NEG_INFINITY, -10_000.0] {
                let mask = (0..keys).map(|key| if key % 3 == 1 { low } else { 0.0 }).collect();
                let case = Case::random(9, keys, 16, Some(mask));
                case.check(kernels);
                let (_, probabilities) = case.run(kernels);
                for (n, weight) in probabilities.iter().enumerate() {
                    // Nothing beside 1, though not exactly 0.
                    assert!(n % keys % 3 != 1 || *weight < 1e-30, "{:?}: weight {weight}", kernels.set());
                }
            }
        }
    });
}

/// Then all weigh the same, as with the scores of transformers, whose smallest number swallows every score.
#[test]
fn if_all_keys_are_masked_all_weigh_the_same() {
    every_set(|kernels| {
        for keys in [1, 5, 16, 20, 36] {
            for low in [f32::MIN, f32::NEG_INFINITY] {
                let (_, probabilities) = Case::random(9, keys, 16, Some(vec![low; keys])).run(kernels);
                for weight in probabilities {
                    assert!(
                        (weight - 1.0 / keys as f32).abs() < 1e-6,
                        "{:?}: {weight} of {keys}",
                        kernels.set()
                    );
                }
            }
        }
    });
}

#[test]
fn large_scores_do_not_overflow() {
    every_set(|kernels| {
        let weights = weights_of_scores(kernels, &[1e30, 1e30, -1e30]);
        assert_eq!(weights[..2], [0.5, 0.5]);
        assert!(weights[2] < 1e-30);
        let weights = weights_of_scores(kernels, &[-1e30; 20]);
        assert!(weights.iter().all(|weight| (weight - 0.05).abs() < 1e-7));
    });
}

#[test]
fn a_score_that_is_no_number_shows() {
    every_set(|kernels| {
        for keys in [1, 16, 20, 40] {
            for at in [0, keys / 2, keys - 1] {
                let mut scores = vec![1.0; keys];
                scores[at] = f32::NAN;
                let weights = weights_of_scores(kernels, &scores);
                assert!(weights.iter().all(|weight| weight.is_nan()), "{:?}: {at} of {keys}", kernels.set());
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn heads_of_any_size(queries in 1..40usize, keys in 1..70usize, size in 1..70usize, masked: bool) {
        let mut random = Random(keys as u64);
        let mask = masked.then(|| random.numbers(keys).iter().map(|x| if *x < 0.0 { -1e4 } else { *x }).collect());
        every_set(|kernels| {
            Case::random(queries, keys, size, mask.clone()).check(kernels);
        });
    }
}
