//! The two ways to run a session's stages: on ggml's operations, or on the project's own kernels.

mod device;
mod fused;
mod stock;

use super::inputs::{ImageInput, QuestionInput};
use super::stop::Stop;
use super::{Residency, SessionOptions};
use crate::Error;
use crate::ggml::{AlignedBuffer, Device, Region};
use crate::kernels::{InstructionSet, Kernels, OperationTime};
use crate::model::{Model, Output, Packing, Shape};

use device::{DeviceEngine, DevicePlan};
use fused::{FusedEngine, FusedPlan};
use stock::{StockEngine, StockPlan};

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
            expected: format!("on this CPU {}", Self::available().join(", ")),
            found: format!("{name:?}"),
        })
    }
}

/// One way to run a model.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// The kernels; without, ggml's operations.
    kernels: Option<Kernels>,
    /// Never [`Residency::Auto`].
    pub residency: Residency,
    observed: bool,
    /// The device beside the CPU, if it is one that computes.
    device: Option<Device>,
}

impl Way {
    /// How the model is computed.
    pub fn lowering(self) -> Lowering {
        self.kernels.map_or(Lowering::Ggml, |kernels| Lowering::Kernels(kernels.set()))
    }
}

/// The device beside the CPU that a session is for, if any.
///
/// # Errors
/// [`Error::Input`] if it is not there, or an option does not go with it; [`Error::Packed`].
fn device(model: &Model, options: &SessionOptions, observed: bool) -> Result<Option<Device>, Error> {
    let for_cpu = [
        ("lowering", !matches!(options.lowering, Lowering::Fastest | Lowering::Ggml)),
        ("cpus", options.cpus.is_some()),
        ("residency", !matches!(options.residency, Residency::Auto | Residency::Device)),
    ];
    let wish = for_cpu.into_iter().find(|(_, wished)| *wished).map(|(name, _)| name);
    let packed = model.packing().is_some();
    if options.device == Device::Auto {
        if wish.is_some() || packed || observed || options.lowering != Lowering::Fastest {
            return Ok(None);
        }
        return Ok(options.device.resolve().unwrap_or_else(|problem| {
            log::warn!("{problem}: computing on the CPU");
            None
        }));
    }
    let Some(device) = options.device.resolve()? else { return Ok(None) };
    if let Some(name) = wish {
        return Err(Error::Input {
            name: name.to_owned(),
            expected: format!("its default on device {device}"),
            found: "a choice that only the CPU has".to_owned(),
        });
    }
    if packed {
        return Err(Packing::refusal("which no device reads", "without --pack"));
    }
    Ok((!observed).then_some(device))
}

/// A session that has everything but its memory and threads.
pub(super) enum EnginePlan {
    Stock(StockPlan),
    Fused(FusedPlan),
    Device(Box<DevicePlan>),
}

impl EnginePlan {
    /// The ways to run that the options allow, the fastest first: on the device that [`Device::Auto`] finds, if any, then on the CPU, which
    /// serves if that one fails. What a session observes are always ggml's operations.
    pub fn ways(model: &Model, options: &SessionOptions, observed: bool) -> Result<Vec<Way>, Error> {
        let device = device(model, options, observed)?.map(|device| Way {
            kernels: None,
            residency: Residency::Device,
            observed,
            device: Some(device),
        });
        if let Some(device) = device
            && (options.device != Device::Auto || options.residency == Residency::Device)
        {
            return Ok(vec![device]);
        }
        let kernels = if observed { None } else { options.lowering.kernels()? };
        let packed = model.packing().is_some();
        if kernels.is_none() && packed {
            // Plain Rust could run it, a hundred times slower than ggml runs the file without.
            let problem = match options.lowering {
                Lowering::Fastest if !observed => "which this CPU has no fast kernels for",
                _ => "which ggml's operations do not read",
            };
            return Err(Packing::refusal(problem, "without --pack"));
        }
        let mapped = model.weights().storage().is_mapped();
        let stock = if mapped { Residency::Mapped } else { Residency::Resident };
        let way = |kernels, residency| Way { kernels, residency, observed, device: None };
        let ways = match kernels {
            None => vec![way(None, stock)],
            Some(_) => {
                let mut ways = Vec::new();
                if packed && mapped {
                    ways.push(way(kernels, Residency::Mapped));
                }
                ways.push(way(kernels, Residency::Resident));
                // Slower, and in less memory if the file's type has fewer than eight bits.
                let can_run = || crate::ggml::check_cpu().is_ok();
                if !packed
                    && mapped
                    && options.lowering == Lowering::Fastest
                    && options.cpus.is_none()
                    && (options.residency == Residency::Mapped || can_run())
                {
                    ways.push(way(None, Residency::Mapped));
                }
                ways.push(way(kernels, Residency::Streamed));
                ways
            }
        };
        let wanted = options.residency;
        let allowed: Vec<Way> =
            ways.iter().copied().filter(|way| wanted == Residency::Auto || way.residency == wanted).collect();
        if allowed.is_empty() {
            let mut names: Vec<&str> = ways.iter().map(|way| way.residency.name()).collect();
            names.dedup();
            return Err(Error::Input {
                name: "residency".to_owned(),
                expected: format!("{}, for this file and lowering", names.join(" or ")),
                found: wanted.to_string(),
            });
        }
        // Without a limit nobody wants less than the best, and planning the others would take time.
        let allowed = if options.memory_budget.is_none() { &allowed[..1] } else { &allowed[..] };
        Ok(device.iter().chain(allowed).copied().collect())
    }

    pub fn new(model: &Model, options: &SessionOptions, way: Way) -> Result<Self, Error> {
        if let Some(device) = way.device {
            return Ok(EnginePlan::Device(Box::new(DevicePlan::new(model, options, device)?)));
        }
        Ok(match way.kernels {
            None => EnginePlan::Stock(StockPlan::new(model, options, way.observed)?),
            Some(kernels) => EnginePlan::Fused(FusedPlan::new(model, options, kernels, way.residency)?),
        })
    }

    /// The same with as many streamed weights in memory as that many bytes have room for.
    pub fn filled(&self, model: &Model, options: &SessionOptions, room: usize) -> Result<Self, Error> {
        match self {
            EnginePlan::Fused(plan) => Ok(EnginePlan::Fused(plan.filled(model, options, room)?)),
            EnginePlan::Stock(_) | EnginePlan::Device(_) => unreachable!("ggml's operations stream nothing"),
        }
    }

    /// Bytes of mapped weights, and of weights in memory of their own.
    pub fn weights(&self, model: &Model) -> [usize; 2] {
        match self {
            EnginePlan::Stock(_) => {
                let storage = model.weights().storage();
                let packed = model.packed_bytes() + model.own_table_bytes();
                if storage.is_mapped() { [storage.len(), packed] } else { [0, storage.len() + packed] }
            }
            EnginePlan::Fused(plan) => plan.weights(model),
            EnginePlan::Device(_) => {
                // Only the embeddings are looked up here.
                let storage = model.weights().storage();
                let (tables, packed) = (model.table_bytes(), model.packed_bytes());
                match storage.view() {
                    Some(_) if storage.is_mapped() => [tables, packed],
                    Some(_) => [0, storage.own_bytes() + packed],
                    None => [0, tables + packed],
                }
            }
        }
    }

    /// The device, and the bytes of its memory.
    pub fn device(&self) -> (Device, usize) {
        match self {
            EnginePlan::Stock(_) | EnginePlan::Fused(_) => (Device::Cpu, 0),
            EnginePlan::Device(plan) => (plan.device(), plan.device_bytes()),
        }
    }

    /// Bytes on the host that a session takes beside its block.
    pub fn host_bytes(&self) -> usize {
        match self {
            EnginePlan::Stock(_) | EnginePlan::Fused(_) => 0,
            EnginePlan::Device(plan) => plan.host_bytes(),
        }
    }

    /// Bytes of the session's block.
    pub fn session_bytes(&self) -> usize {
        match self {
            EnginePlan::Stock(plan) => plan.session_bytes(),
            EnginePlan::Fused(plan) => plan.session_bytes(),
            EnginePlan::Device(plan) => plan.session_bytes(),
        }
    }
}

/// What runs a session's stages, with all of its memory and threads.
pub(super) enum Engine {
    Stock(StockEngine),
    Fused(FusedEngine),
    Device(Box<DeviceEngine>),
}

/// Which of a question's keys are masked.
#[derive(Clone, Copy)]
pub(super) struct Masks<'m> {
    pub text: Option<Mask<'m>>,
    /// Whether the images' mask counts, which their run was given.
    pub visual: bool,
}

/// Some columns of a mask: 1 to keep a key and 0 to drop it.
#[derive(Clone, Copy)]
pub(super) struct Mask<'m> {
    /// `[batch, given]`
    pub values: &'m [f32],
    pub given: usize,
    /// How many of the given columns count.
    pub used: usize,
}

impl<'m> Mask<'m> {
    /// What is added to the scores of the keys of each batch element.
    fn scores(self) -> impl Iterator<Item = impl Iterator<Item = f32> + Clone + use<'m>> + use<'m> {
        let used = self.used;
        self.values.chunks_exact(self.given).map(move |row| row[..used].iter().copied().map(masked_score))
    }
}

impl Engine {
    /// Takes all weights, in `memory`, which is as long as the plan says, builds what runs, and starts the threads.
    pub fn new(
        model: &Model,
        options: &SessionOptions,
        plan: EnginePlan,
        memory: AlignedBuffer,
    ) -> Result<Self, Error> {
        Ok(match plan {
            EnginePlan::Stock(plan) => Engine::Stock(StockEngine::new(model, options, plan, memory)?),
            EnginePlan::Fused(plan) => Engine::Fused(FusedEngine::new(model, options, plan, memory)?),
            EnginePlan::Device(plan) => {
                Engine::Device(Box::new(DeviceEngine::new(model, options, *plan, memory)?))
            }
        })
    }

    /// What each operation has cost.
    pub fn profile(&self) -> Vec<OperationTime> {
        match self {
            Engine::Stock(_) => Vec::new(),
            Engine::Fused(engine) => engine.profile(),
            Engine::Device(engine) => engine.profile(),
        }
    }

    /// Where an output of the last run lies, which was of that shape.
    pub fn region(&self, output: Output, shape: Shape) -> Option<Region> {
        match self {
            Engine::Stock(engine) => engine.region(output),
            Engine::Fused(engine) => engine.region(output, shape),
            Engine::Device(engine) => engine.region(output),
        }
    }

    /// What each matrix was multiplied with in the last image's run and the last question's, as rows of that width, in an engine that
    /// observes it.
    pub fn factors(&self) -> [&[(String, usize, Region)]; 2] {
        match self {
            Engine::Stock(engine) => engine.factors(),
            Engine::Fused(_) | Engine::Device(_) => [&[], &[]],
        }
    }

    /// The memory that results lie in.
    pub fn memory(&self) -> &AlignedBuffer {
        match self {
            Engine::Stock(engine) => engine.memory(),
            Engine::Fused(engine) => engine.memory(),
            Engine::Device(engine) => engine.memory(),
        }
    }

    /// Encodes images.
    pub fn run_image(
        &mut self,
        shape: Shape,
        input: &ImageInput<'_>,
        mask: Option<Mask<'_>>,
        stop: &Stop,
    ) -> Result<(), Error> {
        match self {
            Engine::Stock(engine) => engine.run_image(shape, input, mask, stop),
            Engine::Fused(engine) => engine.run_image(shape, input, mask, stop),
            Engine::Device(engine) => engine.run_image(shape, input, mask, stop),
        }
    }

    /// Answers questions about the images that [`Engine::run_image`] has encoded.
    pub fn run_question(
        &mut self,
        shape: Shape,
        input: &QuestionInput<'_>,
        masks: Masks<'_>,
        stop: &Stop,
    ) -> Result<(), Error> {
        match self {
            Engine::Stock(engine) => engine.run_question(shape, input, masks, stop),
            Engine::Fused(engine) => engine.run_question(shape, input, masks, stop),
            Engine::Device(engine) => engine.run_question(shape, input, masks, stop),
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

/// Writes what is added to the scores of every query, `[batch, queries, keys]`.
fn fill_mask(target: &mut [f32], mask: Mask<'_>) {
    let (keys, batch) = (mask.used, mask.values.len() / mask.given);
    let elements = target.chunks_exact_mut(target.len() / batch);
    for (rows, scores) in elements.zip(mask.scores()) {
        for row in rows.chunks_exact_mut(keys) {
            row.iter_mut().zip(scores.clone()).for_each(|(score, masked)| *score = masked);
        }
    }
}

/// What is added to the scores of a key: 0 for one with mask 1, f32's least for one with mask 0. Scores of the least
/// everywhere become uniform weights, as in transformers.
fn masked_score(keep: f32) -> f32 {
    (1.0 - keep) * f32::MIN
}
