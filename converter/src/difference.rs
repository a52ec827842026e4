//! How far numbers are from those that they stand for.

use std::fmt;

use lxmert::gguf::TensorType;
use serde::Serialize;

/// Sums over pairs of a number and what stands for it. In f64, and added in a fixed order, so that they depend on
/// the numbers alone and not on who computed which part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    count: u64,
    /// Σ a² of the numbers.
    original: f64,
    /// Σ b² of what stands for them.
    restored: f64,
    /// Σ (a − b)².
    error: f64,
    max_error: f32,
    /// The largest |a|.
    peak: f32,
}

/// A difference in the usual measures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ErrorReport {
    /// The cosine of the angle between the numbers and what stands for them, taken as vectors: 1 at best.
    pub cosine: f64,
    /// The peak signal-to-noise ratio in dB, the peak being the largest magnitude; `None` where nothing was lost.
    pub psnr: Option<f64>,
    /// The largest absolute error.
    pub max_error: f32,
}

impl fmt::Display for ErrorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let psnr = self.psnr.map_or_else(|| "exact".to_owned(), |psnr| format!("{psnr:.1} dB"));
        write!(f, "cosine {:.6}, PSNR {psnr}, max error {:.2e}", self.cosine, self.max_error)
    }
}

/// Sums that are kept side by side, so that the compiler can make vectors of them.
const LANES: usize = 4;

/// Numbers that are unpacked at a time: whole blocks of every type, small enough for the first-level cache.
const UNPACKED: usize = 2048;

impl Difference {
    /// Compares as many numbers as there are in both.
    pub fn of(numbers: &[f32], others: &[f32]) -> Self {
        let mut sums = [[0.0f64; LANES]; 3];
        let (mut max_error, mut peak) = ([0.0f32; LANES], [0.0f32; LANES]);
        let mut add = |lane: usize, a: f32, b: f32| {
            let (a64, b64) = (f64::from(a), f64::from(b));
            let error = a64 - b64;
            sums[0][lane] += a64 * a64;
            sums[1][lane] += b64 * b64;
            sums[2][lane] += error * error;
            let error = (a - b).abs();
            max_error[lane] = if error > max_error[lane] { error } else { max_error[lane] };
            peak[lane] = if a.abs() > peak[lane] { a.abs() } else { peak[lane] };
        };
        let ((numbers_whole, numbers_rest), (others_whole, others_rest)) =
            (numbers.as_chunks::<LANES>(), others.as_chunks::<LANES>());
        for (numbers, others) in numbers_whole.iter().zip(others_whole) {
            for lane in 0..LANES {
                add(lane, numbers[lane], others[lane]);
            }
        }
        for (lane, (a, b)) in numbers_rest.iter().zip(others_rest).enumerate() {
            add(lane, *a, *b);
        }
        let [original, restored, error] = sums.map(|lanes| lanes.iter().sum());
        let largest = |lanes: [f32; LANES]| lanes.into_iter().fold(0.0, f32::max);
        Difference {
            count: numbers.len() as u64,
            original,
            restored,
            error,
            max_error: largest(max_error),
            peak: largest(peak),
        }
    }

    /// Compares numbers with what comes back from their form in that type.
    pub fn of_encoded(tensor_type: TensorType, numbers: &[f32], bytes: &[u8]) -> Self {
        let mut difference = Difference::default();
        let mut unpacked = [0.0f32; UNPACKED];
        let step = tensor_type.row_bytes(UNPACKED as u64).expect("whole blocks") as usize;
        for (numbers, bytes) in numbers.chunks(UNPACKED).zip(bytes.chunks(step)) {
            let unpacked = &mut unpacked[..numbers.len()];
            lxmert::ggml::dequantize(tensor_type, bytes, unpacked);
            difference.add(&Difference::of(numbers, unpacked));
        }
        difference
    }

    /// Adds the pairs of another part of the same tensor, or of another tensor.
    pub fn add(&mut self, part: &Difference) {
        self.count += part.count;
        self.original += part.original;
        self.restored += part.restored;
        self.error += part.error;
        self.max_error = self.max_error.max(part.max_error);
        self.peak = self.peak.max(part.peak);
    }

    /// The measures.
    pub fn report(&self) -> ErrorReport {
        // 2ab = a² + b² − (a − b)² saves a sum, and near 1 it rounds less than Σ ab would.
        let product = (self.original + self.restored - self.error) / 2.0;
        let norms = self.original.sqrt() * self.restored.sqrt();
        let cosine = match norms {
            _ if self.error == 0.0 => 1.0,
            0.0 => 0.0,
            norms => (product / norms).min(1.0),
        };
        let mean = self.error / self.count.max(1) as f64;
        let psnr = (self.error != 0.0).then(|| 10.0 * (f64::from(self.peak).powi(2) / mean).log10());
        ErrorReport { cosine, psnr, max_error: self.max_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_as_the_definitions_say() {
        // cos = (3·3 + 4·3) / (5 · √18), mean square error 1/2, peak 4.
        let report = Difference::of(&[3.0, -4.0], &[3.0, -3.0]).report();
        assert!((report.cosine - 21.0 / (5.0 * 18f64.sqrt())).abs() < 1e-15);
        assert!((report.psnr.unwrap() - 10.0 * 32f64.log10()).abs() < 1e-12);
        assert_eq!(report.max_error, 1.0);
    }

    #[test]
    fn parts_add_up() {
        let numbers: Vec<f32> = (0..1000).map(|n| (n as f32 * 0.3).sin()).collect();
        let others: Vec<f32> = numbers.iter().map(|n| n + 0.01 * n.cos()).collect();
        let mut sum = Difference::of(&numbers[..600], &others[..600]);
        sum.add(&Difference::of(&numbers[600..], &others[600..]));
        let (parts, whole) = (sum.report(), Difference::of(&numbers, &others).report());
        assert!((parts.cosine - whole.cosine).abs() < 1e-14 && parts.max_error == whole.max_error);
        assert!((parts.psnr.unwrap() - whole.psnr.unwrap()).abs() < 1e-10);
    }

    #[test]
    fn nothing_lost_is_no_noise() {
        for numbers in [&[0.0; 7][..], &[1e30; 7], &[]] {
            let report = Difference::of(numbers, numbers).report();
            assert_eq!(report, ErrorReport { cosine: 1.0, psnr: None, max_error: 0.0 });
        }
        assert_eq!(Difference::of(&[1.0], &[0.0]).report().cosine, 0.0);
    }

    #[test]
    fn unpacks_what_was_packed() {
        let numbers: Vec<f32> = (0..5120).map(|n| (n as f32 * 0.7).sin()).collect();
        let mut bytes = Vec::new();
        lxmert::ggml::quantize(TensorType::Q4K, &numbers, 512, &mut bytes);
        let mut back = vec![0.0; 5120];
        lxmert::ggml::dequantize(TensorType::Q4K, &bytes, &mut back);
        let (found, expected) =
            (Difference::of_encoded(TensorType::Q4K, &numbers, &bytes), Difference::of(&numbers, &back));
        assert_eq!(found.max_error, expected.max_error);
        assert!((found.error / expected.error - 1.0).abs() < 1e-12);
    }
}
