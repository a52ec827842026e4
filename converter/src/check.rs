//! The first pass: every value is looked at before anything is written.

use lxmert::gguf::TensorType;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::encode::encode;
use crate::error::Problem;
use crate::plan::{Plan, Tied};
use crate::source::Source;
use crate::stream::stream;

/// What the values tell.
pub(crate) struct Checked {
    /// The largest magnitude in each tensor of the plan.
    pub max_abs: Vec<f32>,
    /// SHA-256 of all values as little-endian f32 in the order of the GGUF file, in hexadecimal. It depends on
    /// the weights alone, whatever container they come in.
    pub sha256: String,
}

/// Looks at all values; `progress` is told how many were looked at since its last call.
///
/// # Errors
/// [`Error::Tensors`] with the plan's problems and those of the values.
pub(crate) fn check(
    source: &dyn Source,
    plan: &Plan,
    threads: usize,
    progress: &mut dyn FnMut(u64),
) -> Result<Checked, Error> {
    let mut max_abs = vec![0.0; plan.tensors.len()];
    let mut hash = Sha256::new();
    let mut not_finite = NotFinite::default();
    stream(
        source,
        &plan.tensors,
        threads,
        |_, values, bytes| {
            encode(TensorType::F32, values, values.len(), None, bytes);
            Summary::of(values)
        },
        |piece, summary, bytes| {
            max_abs[piece.tensor] = summary.max_abs.max(max_abs[piece.tensor]);
            let planned = &plan.tensors[piece.tensor];
            not_finite.add(&planned.sources[piece.source], &planned.source_shape, piece.start, &summary);
            hash.update(bytes);
            progress(piece.len);
            Ok(())
        },
    )?;

    let mut problems = plan.problems.clone();
    problems.extend(not_finite.problems);
    if let Some(tied) = &plan.tied {
        problems.extend(compare(source, tied)?);
    }
    if !problems.is_empty() {
        return Err(Error::Tensors { problems });
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Checked { max_abs, sha256 })
}

/// The largest magnitude among finite values, and what is not finite.
struct Summary {
    max_abs: f32,
    not_finite: u64,
    first: Option<u64>,
}

impl Summary {
    fn of(values: &[f32]) -> Self {
        let max_abs = values.iter().fold(0.0, |max: f32, value| max.max(value.abs()));
        let not_finite = values.iter().filter(|value| !value.is_finite()).count() as u64;
        let first = values.iter().position(|value| !value.is_finite()).map(|first| first as u64);
        Summary { max_abs, not_finite, first }
    }
}

/// Values that are no numbers, one problem for each source tensor.
#[derive(Default)]
struct NotFinite {
    problems: Vec<Problem>,
}

impl NotFinite {
    /// Adds a piece's summary; the pieces of a tensor come one after the other.
    fn add(&mut self, source: &str, shape: &[usize], start: u64, summary: &Summary) {
        let Some(first) = summary.first else { return };
        match self.problems.last_mut() {
            Some(Problem::NotFinite { name, count, .. }) if name == source => *count += summary.not_finite,
            _ => self.problems.push(Problem::NotFinite {
                name: source.to_owned(),
                count: summary.not_finite,
                first: position(start + first, shape),
            }),
        }
    }
}

/// Compares the decoder with the word embedding.
fn compare(source: &dyn Source, tied: &Tied) -> Result<Option<Problem>, Error> {
    const STEP: usize = 1 << 16;
    let total = tied.shape.iter().product::<usize>();
    let (mut decoder, mut embedding) = (vec![0.0f32; STEP], vec![0.0f32; STEP]);
    for start in (0..total).step_by(STEP) {
        let len = STEP.min(total - start);
        source.read(&tied.decoder, start as u64, &mut decoder[..len])?;
        source.read(&tied.embedding, start as u64, &mut embedding[..len])?;
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        if let Some(first) = decoder[..len].iter().zip(&embedding[..len]).position(differs) {
            return Ok(Some(Problem::NotTied {
                name: tied.decoder.clone(),
                embedding: tied.embedding.clone(),
                first: position((start + first) as u64, &tied.shape),
            }));
        }
    }
    Ok(None)
}

/// One index for each axis of the value with that number.
fn position(mut number: u64, shape: &[usize]) -> Vec<u64> {
    let mut position: Vec<_> = shape
        .iter()
        .rev()
        .map(|size| {
            let index = number % *size as u64;
            number /= *size as u64;
            index
        })
        .collect();
    position.reverse();
    position
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_positions_row_by_row() {
        assert_eq!(position(0, &[3, 5]), [0, 0]);
        assert_eq!(position(13, &[3, 5]), [2, 3]);
        assert_eq!(position(4, &[7]), [4]);
    }

    #[test]
    fn sums_up_what_is_not_finite() {
        let summary = Summary::of(&[1.0, f32::NAN, -3.0, f32::NEG_INFINITY]);
        assert_eq!((summary.not_finite, summary.first), (2, Some(1)));
        assert_eq!(Summary::of(&[1.0, -3.0]).max_abs, 3.0);
    }
}
