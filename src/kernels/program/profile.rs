//! Where the time of a program goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::schedule::PlannedStage;
use super::{Item, Op, Program};
use crate::ggml::Device;

/// What one kind of operation has cost so far.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OperationTime {
    /// What is computed: `product`, `attention`, `layer norm`, `prepare`, `embed`, `mean` or
    /// `fetch`; on a device, ggml's name of the operation, such as `MUL_MAT`.
    pub kind: &'static str,
    /// The tensor that it belongs to, such as `blk.0.attn_qkv.weight`.
    pub name: String,
    /// Where it is computed: by a session on a device, on the CPU if the device lacks it.
    pub device: Device,
    /// The time of all threads together.
    pub time: Duration,
    /// Multiplications of a weight and a number.
    pub multiplications: u64,
}

/// Counters for each operation of the stages.
pub(super) struct Profile {
    stages: [Vec<Counter>; 2],
}

struct Counter {
    name: String,
    nanoseconds: AtomicU64,
    multiplications: AtomicU64,
}

impl Profile {
    pub fn new(stages: &[PlannedStage; 2]) -> Self {
        let counter = |name: &String| Counter {
            name: name.clone(),
            nanoseconds: AtomicU64::default(),
            multiplications: AtomicU64::default(),
        };
        let counters = |stage: &PlannedStage| stage.in_order().map(|node| counter(&node.name)).collect();
        Profile { stages: [counters(&stages[0]), counters(&stages[1])] }
    }

    /// Adds a task of an item. Products that share a matrix are counted as one, under the first one's name.
    pub fn add(&self, stage: usize, item: &Item, time: Duration, multiplications: u64) {
        // A run's counters are read when it is over.
        let counter = &self.stages[stage][item.ops.start];
        counter.nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        counter.multiplications.fetch_add(multiplications, Ordering::Relaxed);
    }
}

impl Program {
    /// What each operation has cost so far, in the order in which they run; nothing if the program is not profiled.
    pub fn profile(&self) -> Vec<OperationTime> {
        let Some(profile) = &self.profile else { return Vec::new() };
        let ops = self.stages.iter().flat_map(|stage| stage.ops.iter()).zip(profile.stages.iter().flatten());
        let entry = |(op, counter): (&Op, &Counter)| OperationTime {
            kind: op.kind(),
            name: counter.name.clone(),
            device: Device::Cpu,
            time: Duration::from_nanos(counter.nanoseconds.load(Ordering::Relaxed)),
            multiplications: counter.multiplications.load(Ordering::Relaxed),
        };
        ops.map(entry).filter(|entry| !entry.time.is_zero()).collect()
    }
}

impl Op {
    fn kind(&self) -> &'static str {
        match self {
            Op::Fetch { .. } => "fetch",
            Op::Embed { .. } => "embed",
            Op::Prepare { .. } => "prepare",
            Op::Norm { .. } => "layer norm",
            Op::Mean { .. } => "mean",
            Op::Product(_) => "product",
            Op::Attention(_) => "attention",
        }
    }
}
