//! The two ways to run a session's stages: on ggml's operations, or on the project's own kernels.

mod fused;
mod stock;

use super::SessionOptions;
use super::inputs::{ImageInput, QuestionInput};
use crate::Error;
use crate::ggml::{AlignedBuffer, Region};
use crate::kernels::{InstructionSet, Kernels, OperationTime};
use crate::model::{Model, Output, Packing, Shape};

use fused::FusedEngine;
use stock::StockEngine;

/// How a model is computed on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lowering {
    /// The fastest way that this CPU has.
    #[default]
    Fastest,
    /// ggml's stock operations.
    Ggml,
    /// Fused kernels for that instruction set.
    Kernels(InstructionSet),
}

impl Lowering {
    /// What this stands for on this CPU: never [`Lowering::Fastest`].
    ///
    /// # Errors
    /// [`Error::Input`] for an instruction set that it does not have.
    pub fn resolve(self) -> Result<Self, Error> {
        let kernels = self.kernels()?;
        Ok(kernels.map_or(Lowering::Ggml, |kernels| Lowering::Kernels(kernels.set())))
    }

    /// The way that this CPU goes.
    ///
    /// # Errors
    /// [`Error::Input`] for an instruction set that it does not have.
    fn kernels(self) -> Result<Option<Kernels>, Error> {
        match self {
            Lowering::Ggml => Ok(None),
            // Plain Rust is the reference of the other kernels; ggml's are faster.
            Lowering::Fastest => {
                Ok(Some(Kernels::best()).filter(|best| best.set() != InstructionSet::Portable))
            }
            Lowering::Kernels(set) => match Kernels::new(set) {
                Some(kernels) => Ok(Some(kernels)),
                None => Err(Error::Input {
                    name: "lowering".to_owned(),
                    expected: format!("one that this CPU has: {}", Self::available().join(", ")),
                    found: set.name().to_owned(),
                }),
            },
        }
    }

    /// The names of those that this CPU has.
    fn available() -> Vec<&'static str> {
        let sets = InstructionSet::ALL.into_iter().filter(|set| set.is_available());
        ["fastest", "ggml"].into_iter().chain(sets.map(InstructionSet::name)).collect()
    }
}

impl std::fmt::Display for Lowering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lowering::Fastest => "fastest",
            Lowering::Ggml => "ggml",
            Lowering::Kernels(set) => set.name(),
        })
    }
}

impl std::str::FromStr for Lowering {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let sets = InstructionSet::ALL.map(Lowering::Kernels);
        let known = [Lowering::Fastest, Lowering::Ggml].into_iter().chain(sets);
        known.into_iter().find(|lowering| lowering.to_string() == name).ok_or_else(|| Error::Input {
            name: "lowering".to_owned(),
            expected: Self::available().join(", "),
            found: format!("{name:?}"),
        })
    }
}

/// What runs a session's stages, with all of its memory and threads.
pub(super) enum Engine {
    Stock(StockEngine),
    Fused(FusedEngine),
}

/// Where a stage has left what was asked for.
#[derive(Default)]
pub(super) struct Results {
    pub outputs: Vec<(Output, Region)>,
    /// What each matrix was multiplied with, as rows of that width, in a session that observes it.
    pub factors: Vec<(String, usize, Region)>,
}

/// The masks of a question's keys, if any is masked.
#[derive(Clone, Copy)]
pub(super) struct Masks<'m> {
    pub text: Option<&'m [f32]>,
    pub visual: Option<&'m [f32]>,
}

impl Engine {
    /// Takes all memory and starts all threads. An engine that observes what matrices are multiplied with is always ggml's.
    pub fn new(model: &Model, options: &SessionOptions, observed: bool) -> Result<Self, Error> {
        let kernels = if observed { None } else { options.lowering.kernels()? };
        if kernels.is_none() && model.packing().is_some() {
            // Plain Rust could run it, a hundred times slower than ggml runs the file without.
            let problem = match options.lowering {
                Lowering::Fastest if !observed => "which this CPU has no fast kernels for",
                _ => "which ggml's operations do not read",
            };
            return Err(Packing::refusal(problem, "without --pack"));
        }
        Ok(match kernels {
            None => Engine::Stock(StockEngine::new(model, options, observed)?),
            Some(kernels) => Engine::Fused(FusedEngine::new(model, options, kernels)?),
        })
    }

    /// How the model is computed.
    pub fn lowering(&self) -> Lowering {
        match self {
            Engine::Stock(_) => Lowering::Ggml,
            Engine::Fused(engine) => Lowering::Kernels(engine.instruction_set()),
        }
    }

    /// What each operation has cost.
    pub fn profile(&self) -> Vec<OperationTime> {
        match self {
            Engine::Stock(_) => Vec::new(),
            Engine::Fused(engine) => engine.profile(),
        }
    }

    /// Bytes of scratch memory.
    pub fn scratch_bytes(&self) -> usize {
        match self {
            Engine::Stock(engine) => engine.scratch_bytes(),
            Engine::Fused(engine) => engine.scratch_bytes(),
        }
    }

    /// The memory that results lie in.
    pub fn memory(&self) -> &AlignedBuffer {
        match self {
            Engine::Stock(engine) => engine.memory(),
            Engine::Fused(engine) => engine.memory(),
        }
    }

    /// Encodes images.
    pub fn run_image(
        &mut self,
        model: &Model,
        shape: Shape,
        input: &ImageInput<'_>,
        mask: Option<&[f32]>,
    ) -> Result<Results, Error> {
        match self {
            Engine::Stock(engine) => engine.run_image(model, shape, input, mask),
            Engine::Fused(engine) => Ok(engine.run_image(model, shape, input, mask)),
        }
    }

    /// Answers questions about the images that [`Engine::run_image`] has encoded.
    pub fn run_question(
        &mut self,
        model: &Model,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: Masks<'_>,
    ) -> Result<Results, Error> {
        match self {
            Engine::Stock(engine) => engine.run_question(model, shape, input, masks),
            Engine::Fused(engine) => Ok(engine.run_question(model, shape, input, masks)),
        }
    }
}

/// Copies the first `used` of every `given` rows.
fn copy_rows(target: &mut [f32], values: &[f32], width: usize, given: usize, used: usize) {
    let target = target.chunks_exact_mut(used * width);
    for (target, source) in target.zip(values.chunks_exact(given * width)) {
        target.copy_from_slice(&source[..used * width]);
    }
}

/// What is added to the scores of a key: 0 for one with mask 1, f32's least for one with mask 0. Scores of the least
/// everywhere become uniform weights, as in transformers.
fn masked_score(keep: f32) -> f32 {
    (1.0 - keep) * f32::MIN
}
