//! Where the time of a program goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Item, Op, Program, Stage};

/// What one kind of operation has cost so far.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct OperationTime {
    /// What is computed: `product`, `attention`, `layer norm`, `prepare`, `embed` or `mean`.
    pub kind: &'static str,
    /// The tensor that it belongs to, such as `blk.0.attn_qkv.weight`.
    pub name: String,
    /// The time of all threads together.
    pub time: Duration,
    /// Multiplications of a weight and a number.
    pub multiplications: u64,
}

/// Counters for each node of the stages.
pub(super) struct Profile {
    stages: [Vec<Counter>; 2],
}

#[derive(Default)]
struct Counter {
    nanoseconds: AtomicU64,
    multiplications: AtomicU64,
}

impl Profile {
    pub fn new(stages: &[Stage; 2]) -> Self {
        let counters = |stage: &Stage| stage.nodes.iter().map(|_| Counter::default()).collect();
        Profile { stages: [counters(&stages[0]), counters(&stages[1])] }
    }

    /// Adds a task of an item. Products that share a matrix are counted as one, under the first one's name.
    pub fn add(&self, stage: usize, item: &Item, time: Duration, multiplications: u64) {
        // A run's counters are read when it is over.
        let counter = &self.stages[stage][item[0]];
        counter.nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
        counter.multiplications.fetch_add(multiplications, Ordering::Relaxed);
    }
}

impl Program {
    /// Counts the time of every operation from now on. A run becomes slower by one or two per cent.
    pub fn start_profile(&mut self) {
        self.profile = Some(Profile::new(&self.stages));
    }

    /// What each operation has cost so far, in the order in which they run; nothing if the program is not profiled.
    pub fn profile(&self) -> Vec<OperationTime> {
        let Some(profile) = &self.profile else { return Vec::new() };
        let nodes = self.stages.iter().flat_map(|stage| &stage.nodes).zip(profile.stages.iter().flatten());
        let entry = |(node, counter): (&super::Node, &Counter)| OperationTime {
            kind: node.op.kind(),
            name: node.name.clone(),
            time: Duration::from_nanos(counter.nanoseconds.load(Ordering::Relaxed)),
            multiplications: counter.multiplications.load(Ordering::Relaxed),
        };
        nodes.map(entry).filter(|entry| !entry.time.is_zero()).collect()
    }
}

impl Op {
    fn kind(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::Prepare { .. } => "prepare",
            Op::Norm { .. } => "layer norm",
            Op::Mean { .. } => "mean",
            Op::Product(_) => "product",
            Op::Attention(_) => "attention",
        }
    }
}
