//! Random weights of a chosen architecture, for measuring speed and size where no checkpoint is at hand.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lxmert::model::{Config, Head, HiddenAct, tensors};

use super::{Source, SourceTensor};
use crate::Error;
use crate::names::source_keys;
use crate::plan::source_shape;

/// Which random model to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synthetic {
    /// The architecture's name in the report, such as `base`.
    pub name: String,
    /// The architecture.
    pub config: Config,
    /// The same seed gives the same weights on every machine.
    pub seed: u64,
}

impl Synthetic {
    /// The architectures that [`Synthetic::named`] knows.
    pub const NAMES: [&str; 2] = ["base", "tiny"];

    /// The question-answering model of that name.
    ///
    /// `base` has the sizes of the published VQA checkpoint. `tiny` has a few million weights and rows of
    /// whole 256-value blocks, so that every tensor type is put to use.
    pub fn named(name: &str, seed: u64) -> Option<Self> {
        let config = match name {
            "base" => Config::base(),
            "tiny" => tiny(),
            _ => return None,
        };
        Some(Synthetic { name: name.to_owned(), config, seed })
    }
}

fn tiny() -> Config {
    Config {
        vocab_size: 512,
        hidden_size: 256,
        num_attention_heads: 4,
        intermediate_size: 512,
        hidden_act: HiddenAct::Gelu,
        max_position_embeddings: 64,
        type_vocab_size: 2,
        l_layers: 2,
        r_layers: 1,
        x_layers: 1,
        visual_feat_dim: 256,
        visual_pos_dim: 4,
        head: Head::QuestionAnswering { labels: 16 },
    }
}

/// A checkpoint that is computed, not stored: any value follows from the seed, the tensor's name and the
/// value's number, so reads may come in any order.
///
/// Value `i` is made from one output of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) at state
/// `start + (i + 1) · 0x9E3779B97F4A7C15`, where `start` mixes the seed with the name's FNV-1a hash. The sum of
/// the output's four 16-bit quarters is close to normal; only integer sums and one f32 product follow, so the
/// values do not depend on a platform's mathematical functions. Matrices, tables and biases have a standard
/// deviation of 0.02, as transformers initialises them; norm scales are 1 plus such noise.
pub struct SyntheticSource {
    description: String,
    seed: u64,
    tensors: BTreeMap<String, SourceTensor>,
}

/// Standard deviation of the weights.
const DEVIATION: f64 = 0.02;

/// Standard deviation of the sum of four uniform 16-bit numbers: √(4 · (2³² − 1) / 12).
const SUM_DEVIATION: f64 = 37_837.227_237_206_48;

/// Mean of that sum.
const SUM_MEAN: i32 = 2 * 65_535;

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

impl SyntheticSource {
    /// The weights of that model, named as `LxmertForQuestionAnswering` or, without a head, `LxmertModel` does.
    pub fn new(synthetic: &Synthetic) -> Self {
        let prefix = if synthetic.config.head == Head::None { "" } else { "lxmert." };
        let mut map = BTreeMap::new();
        for tensor in tensors(&synthetic.config) {
            let keys = source_keys(&tensor.name, prefix);
            let shape = source_shape(&tensor.dims, keys.len());
            for key in keys {
                let dtype = "F32".to_owned();
                map.insert(key, SourceTensor { shape: shape.clone(), dtype, readable: true });
            }
        }
        let description = format!("synthetic {}, seed {}", synthetic.name, synthetic.seed);
        SyntheticSource { description, seed: synthetic.seed, tensors: map }
    }
}

impl Source for SyntheticSource {
    fn description(&self) -> String {
        self.description.clone()
    }

    fn tensors(&self) -> &BTreeMap<String, SourceTensor> {
        &self.tensors
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn read(&self, name: &str, start: u64, out: &mut [f32]) -> Result<(), Error> {
        assert!(self.tensors.contains_key(name), "{name} is not among the tensors");
        // Only norm scales are one-dimensional weights.
        let centre = if name.ends_with(".weight") && self.tensors[name].shape.len() == 1 { 1.0 } else { 0.0 };
        let scale = (DEVIATION / SUM_DEVIATION) as f32;
        let base = mix(self.seed ^ fnv1a(name.as_bytes()));
        for (number, value) in (start..).zip(out) {
            let bits = mix(base.wrapping_add((number + 1).wrapping_mul(GOLDEN_GAMMA)));
            let sum: i32 = (0..4).map(|quarter| (bits >> (16 * quarter)) as u16 as i32).sum();
            *value = centre + (sum - SUM_MEAN) as f32 * scale;
        }
        Ok(())
    }
}

/// SplitMix64's output function.
fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    bytes.iter().fold(0xCBF2_9CE4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MATRIX: &str = "lxmert.pooler.dense.weight";

    fn source(seed: u64) -> SyntheticSource {
        SyntheticSource::new(&Synthetic::named("tiny", seed).unwrap())
    }

    fn read(source: &SyntheticSource, name: &str, start: u64, count: usize) -> Vec<f32> {
        let mut values = vec![0.0; count];
        source.read(name, start, &mut values).unwrap();
        values
    }

    /// The first outputs for seed 1234567 of the reference implementation in C.
    #[test]
    fn mixes_as_splitmix64_does() {
        let outputs = (1..=3u64).map(|i| mix(1_234_567u64.wrapping_add(i.wrapping_mul(GOLDEN_GAMMA))));
        let expected = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert!(outputs.eq(expected));
    }

    #[test]
    fn hashes_as_fnv1a_does() {
        assert_eq!(fnv1a(b""), 0xCBF2_9CE4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_F739_67E8);
    }

    #[test]
    fn gives_the_same_values_wherever_a_read_starts() {
        let source = source(7);
        let whole = read(&source, MATRIX, 0, 1000);
        assert_eq!(read(&source, MATRIX, 300, 50), whole[300..350]);
    }

    #[test]
    fn depends_on_seed_and_name() {
        let values = read(&source(1), MATRIX, 0, 8);
        assert_ne!(values, read(&source(2), MATRIX, 0, 8));
        assert_ne!(values, read(&source(1), "lxmert.embeddings.word_embeddings.weight", 0, 8));
    }

    #[test]
    fn has_the_moments_of_an_initialised_model() {
        let moments = |values: &[f32]| {
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>();
            (mean, (variance / values.len() as f64).sqrt())
        };
        let (mean, deviation) = moments(&read(&source(1), MATRIX, 0, 65_536));
        assert!(mean.abs() < 3e-4 && (deviation - 0.02).abs() < 3e-4, "{mean} {deviation}");
        let norm = read(&source(1), "lxmert.embeddings.LayerNorm.weight", 0, 256);
        let (mean, deviation) = moments(&norm);
        assert!((mean - 1.0).abs() < 0.01 && (deviation - 0.02).abs() < 0.005, "{mean} {deviation}");
    }
}
