//! What many timings of the same thing come to.

use std::time::Duration;

use serde::Serialize;

/// Timings in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    pub mean_ms: f64,
    pub min_ms: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Summary {
    /// `None` of no timings.
    pub fn of(milliseconds: &[f64]) -> Option<Self> {
        let mut sorted = milliseconds.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        Some(Summary {
            mean_ms: sorted.iter().sum::<f64>() / sorted.len() as f64,
            min_ms: *sorted.first()?,
            p50_ms: percentile(&sorted, 50)?,
            p90_ms: percentile(&sorted, 90)?,
            p99_ms: percentile(&sorted, 99)?,
            max_ms: *sorted.last()?,
        })
    }
}

/// The nearest rank: the smallest sample that at least `percent` % of the samples do not exceed. Always one that was measured,
/// so that of few samples p99 is the largest, and of an even number p50 the lower one of the two in the middle.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

pub fn milliseconds(durations: &[Duration]) -> Vec<f64> {
    durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Wikipedia's article on percentiles, "The nearest-rank method".
    #[test]
    fn takes_the_nearest_rank() {
        let sorted = [15.0, 20.0, 35.0, 40.0, 50.0];
        let expected = [(5, 15.0), (30, 20.0), (40, 20.0), (50, 35.0), (100, 50.0)];
        for (percent, value) in expected {
            assert_eq!(percentile(&sorted, percent), Some(value), "{percent}");
        }
    }

    #[test]
    fn separates_the_tail_of_a_hundred() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let summary = Summary::of(&samples).unwrap();
        let expected =
            Summary { mean_ms: 50.5, min_ms: 1.0, p50_ms: 50.0, p90_ms: 90.0, p99_ms: 99.0, max_ms: 100.0 };
        assert_eq!(summary, expected);
    }

    #[test]
    fn has_nothing_to_say_of_no_samples() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_sample_is_everything() {
        let summary = Summary::of(&[7.0]).unwrap();
        assert_eq!((summary.min_ms, summary.p50_ms, summary.p99_ms, summary.max_ms), (7.0, 7.0, 7.0, 7.0));
    }
}
