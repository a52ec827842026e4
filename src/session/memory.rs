//! What a session takes, told before it is taken, and how to run within a budget.

use super::SessionOptions;
use super::engine::{EnginePlan, Lowering, Way};
use crate::Error;
use crate::ggml::{ALIGNMENT, Device};
use crate::model::Model;
use crate::vision::{FrontEnd, PatchGrid};

/// Where the weights of a session are while it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Residency {
    /// The fastest that the memory budget allows.
    #[default]
    Auto,
    /// In private memory, in the order in which the kernels read them. All sessions of a model share it.
    Resident,
    /// Used where the file is mapped: the operating system may evict what is not in use, and reads it again when it is.
    Mapped,
    /// Read from the file when their turn comes, in every run, with room for the matrices of two operations. With a memory budget, as
    /// many as it has room for are in private memory all the same.
    Streamed,
    /// In the memory of a device beside the CPU, which computes with them there.
    Device,
}

impl Residency {
    /// All of them.
    pub const ALL: [Residency; 5] = [Self::Auto, Self::Resident, Self::Mapped, Self::Streamed, Self::Device];

    /// Its name in options.
    pub fn name(self) -> &'static str {
        match self {
            Residency::Auto => "auto",
            Residency::Resident => "resident",
            Residency::Mapped => "mapped",
            Residency::Streamed => "streamed",
            Residency::Device => "device",
        }
    }
}

impl std::fmt::Display for Residency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Residency {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|residency| residency.name() == name).ok_or_else(|| Error::Input {
            name: "residency".to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
            found: format!("{name:?}"),
        })
    }
}

/// What a model and one session of it hold together, in bytes.
///
/// Mapped weights are counted as if all of them were in memory at once. What models and sessions share is counted whole, and so is what
/// the model already holds for other sessions: a second one of the same kind takes only [`session`](Self::session) more, and what
/// each of its threads takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryPlan {
    /// Where the weights will be: never [`Residency::Auto`].
    pub residency: Residency,
    /// How the model will be computed: never [`Lowering::Fastest`].
    pub lowering: Lowering,
    /// Where the session will compute: never [`Device::Auto`].
    pub device: Device,
    /// Weights and scratch in the memory of that device, if it is another than the CPU.
    pub device_bytes: usize,
    /// Weights where the file is mapped, or where they are part of the program.
    pub weights_mapped: usize,
    /// Weights in memory of their own: packed, or a copy of the file. They stay as long as the model does.
    pub weights_private: usize,
    /// The session's block: scratch, inputs and results, its tables, and room for streamed weights. To the byte what
    /// [`Session::new_in`](crate::Session::new_in) wants.
    pub session: usize,
    /// The tokenizer, at most, if the model has one; it is made for the first question that is text.
    pub tokenizer: usize,
    /// The answers' texts.
    pub labels: usize,
    /// The list of tensors, and the threads' stacks, as far as they are used; and what the CPU computes for a device that lacks an
    /// operation.
    pub other: usize,
}

impl MemoryPlan {
    /// All of it.
    pub fn total(&self) -> usize {
        let Self { device_bytes, weights_mapped, weights_private, session, tokenizer, labels, other, .. } =
            self;
        device_bytes + weights_mapped + weights_private + session + tokenizer + labels + other
    }
}

/// Bytes of room for a picture that is cut into regions: features and boxes, and scratch to scale it.
pub(super) fn picture_bytes(model: &Model, options: &SessionOptions) -> usize {
    let FrontEnd::PatchGrid(grid) = model.front_end() else { return 0 };
    let regions = grid.region_count();
    if regions > options.max_regions {
        return 0;
    }
    let numbers = regions * (grid.feature_len() + PatchGrid::BOX_LEN) + grid.scratch_len();
    (numbers * size_of::<f32>()).next_multiple_of(ALIGNMENT)
}

/// What a thread's stack takes, as far as it is used.
const STACK_BYTES: usize = 64 << 10;

/// What the description of a tensor takes.
const TENSOR_BYTES: usize = 768;

fn plan_of(model: &Model, options: &SessionOptions, way: Way, engine: &EnginePlan) -> MemoryPlan {
    let [weights_mapped, weights_private] = engine.weights(model);
    let (device, device_bytes) = engine.device();
    MemoryPlan {
        device,
        device_bytes,
        residency: way.residency,
        lowering: way.lowering(),
        weights_mapped,
        weights_private,
        session: engine.session_bytes() + picture_bytes(model, options),
        tokenizer: model.tokenizer_bytes(),
        labels: model.label_bytes(),
        other: model.tensor_count() * TENSOR_BYTES + options.threads * STACK_BYTES + engine.host_bytes(),
    }
}

/// Plans a session: the first way to run that the budget allows.
///
/// # Errors
/// [`Error::Budget`] if none does; otherwise as [`Session::new`](super::Session::new).
pub(super) fn plan(
    model: &Model,
    options: &SessionOptions,
    observed: bool,
) -> Result<(EnginePlan, MemoryPlan), Error> {
    let budget = options.memory_budget.unwrap_or(usize::MAX);
    let mut smallest = usize::MAX;
    let mut failure = None;
    for way in EnginePlan::ways(model, options, observed)? {
        let engine = match EnginePlan::new(model, options, way) {
            Ok(engine) => engine,
            // Another way may do.
            Err(error) => {
                if way.residency == Residency::Device {
                    log::warn!("{error}");
                }
                failure.get_or_insert(error);
                continue;
            }
        };
        let plan = plan_of(model, options, way, &engine);
        if plan.total() > budget {
            smallest = smallest.min(plan.total());
            continue;
        }
        let spare = budget - plan.total();
        if way.residency != Residency::Streamed || options.memory_budget.is_none() || spare == 0 {
            return Ok((engine, plan));
        }
        let filled = engine.filled(model, options, spare)?;
        let filled_plan = plan_of(model, options, way, &filled);
        let fits = filled_plan.total() <= budget;
        return Ok(if fits { (filled, filled_plan) } else { (engine, plan) });
    }
    match failure {
        Some(error) if smallest == usize::MAX => Err(error),
        _ => Err(Error::Budget { budget, smallest }),
    }
}
