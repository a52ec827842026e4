//! How a graph is run, and what its operations cost.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use crate::Error;
use crate::ggml::{AlignedBuffer, Backend, Described, Device, DeviceGraph, DeviceMemory, Scheduler, Timed};
use crate::kernels::OperationTime;
use crate::session::stop::Stop;

/// What runs graphs: the device, unless there is a scheduler; and where what the operations cost is added up, if anybody wants to know.
pub(super) struct Runner<'a> {
    pub scheduler: Option<&'a mut Scheduler>,
    pub profile: Option<&'a mut Vec<OperationTime>>,
}

impl Runner<'_> {
    /// Copies the inputs up, computes, and copies the results down, unless somebody gives up before or after.
    pub fn run(
        self,
        graph: &mut DeviceGraph,
        memory: &DeviceMemory,
        backend: &mut Backend,
        host: &mut AlignedBuffer,
        [inputs, results]: [Range<usize>; 2],
        stop: &Stop,
    ) -> Result<(), Error> {
        if stop.is_wanted() {
            return Err(stop.error());
        }
        memory.upload(backend, host, inputs)?;
        match (self.scheduler, self.profile) {
            (None, _) => graph.compute(backend)?,
            (Some(scheduler), None) => scheduler.compute(backend, graph, None)?,
            (Some(scheduler), Some(profile)) => {
                let mut times = Vec::new();
                scheduler.compute(backend, graph, Some(&mut times))?;
                if !add(profile, backend.device(), &graph.described, &times) {
                    return Err(backend.failed("operations of the profile were not run one by one"));
                }
            }
        }
        if !results.is_empty() {
            memory.download(backend, host, results)?;
        }
        if stop.is_wanted() { Err(stop.error()) } else { Ok(()) }
    }
}

/// Adds a run's times, which may be in another order than the operations, to those before. What another shape or mask computes beside the
/// operations so far comes between them. Returns whether there was one time for each operation: else nothing is added.
pub(super) fn add(
    profile: &mut Vec<OperationTime>,
    device: Device,
    described: &[Described],
    times: &[Timed],
) -> bool {
    let by_id: HashMap<_, _> = times.iter().map(|timed| (timed.id, timed)).collect();
    let is_each_there = described.iter().all(|operation| by_id.contains_key(&operation.id));
    if times.len() != described.len() || !is_each_there {
        return false;
    }
    let mut at = 0;
    for operation in described {
        let timed = by_id[&operation.id];
        let same = |sum: &OperationTime| sum.kind == operation.kind && sum.name == operation.name;
        at = match profile[at..].iter().position(same) {
            Some(further) => at + further,
            None => {
                let new = OperationTime {
                    kind: operation.kind,
                    name: operation.name.clone(),
                    device,
                    time: Duration::ZERO,
                    multiplications: 0,
                };
                profile.insert(at, new);
                at
            }
        };
        let sum = &mut profile[at];
        sum.time += timed.time;
        sum.multiplications += operation.multiplications;
        if timed.on_cpu {
            sum.device = Device::Cpu;
        }
        at += 1;
    }
    true
}
