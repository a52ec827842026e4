//! Where each intermediate result of a graph lies.
//!
//! Results are placed in the order in which they are computed, each in the lowest gap that is wide enough, and their
//! memory is free again after the last operation that reads them. Results to keep, and inputs, have memory of their own
//! that nothing else uses.

/// One step of a graph, as the plan sees it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// Bytes of the result; 0 for a view, which has no memory of its own.
    pub bytes: usize,
    /// Earlier steps whose memory is read, views resolved to what they view.
    pub reads: Vec<usize>,
    /// Whether the result must stand when the graph is done.
    pub keep: bool,
}

/// The offsets of a graph's inputs and steps, and how much memory they span.
///
/// A plan made for the largest shapes serves every smaller run of the same operations: no step needs more
/// than the plan gave it.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryPlan {
    pub(super) inputs: Vec<Slot>,
    pub(super) steps: Vec<Slot>,
    kept: usize,
    scratch: usize,
    /// What every place begins at a multiple of.
    alignment: usize,
}

/// Memory for one result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Slot {
    pub place: Place,
    pub bytes: usize,
}

/// Which memory, and where in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Place {
    /// A view: wherever the viewed tensor lies.
    #[default]
    Viewed,
    /// In the memory that is this graph's alone.
    Kept(usize),
    /// In the memory that graphs which run one after the other share.
    Scratch(usize),
}

impl MemoryPlan {
    /// Bytes that only this graph may use: its inputs and the results to keep.
    pub fn kept_bytes(&self) -> usize {
        self.kept
    }

    /// Bytes that may be anybody's while the graph does not run.
    pub fn scratch_bytes(&self) -> usize {
        self.scratch
    }

    pub(super) fn new(inputs: &[usize], steps: &[Step], alignment: usize) -> Self {
        let mut plan = MemoryPlan { alignment, ..MemoryPlan::default() };
        for bytes in inputs {
            let slot = plan.keep(*bytes);
            plan.inputs.push(slot);
        }
        let mut last_read: Vec<usize> = (0..steps.len()).collect();
        for (n, step) in steps.iter().enumerate() {
            for read in &step.reads {
                last_read[*read] = n;
            }
        }
        let mut used = Ranges::default();
        for (n, step) in steps.iter().enumerate() {
            let slot = match (step.bytes, step.keep) {
                (0, _) => Slot::default(),
                (bytes, true) => plan.keep(bytes),
                (bytes, false) => {
                    let bytes = bytes.next_multiple_of(alignment);
                    let offset = used.take_lowest(bytes, last_read[n]);
                    plan.scratch = plan.scratch.max(offset + bytes);
                    Slot { place: Place::Scratch(offset), bytes }
                }
            };
            plan.steps.push(slot);
            used.release(n);
        }
        plan
    }

    fn keep(&mut self, bytes: usize) -> Slot {
        let bytes = bytes.next_multiple_of(self.alignment);
        let slot = Slot { place: Place::Kept(self.kept), bytes };
        self.kept += bytes;
        slot
    }
}

/// The scratch memory in use, by offset.
#[derive(Default)]
struct Ranges {
    used: Vec<Range>,
}

struct Range {
    start: usize,
    end: usize,
    until: usize,
}

impl Ranges {
    /// Takes the lowest gap of that width until step `until` is done.
    fn take_lowest(&mut self, bytes: usize, until: usize) -> usize {
        let mut start = 0;
        let mut position = 0;
        for range in &self.used {
            if range.start >= start + bytes {
                break;
            }
            start = range.end;
            position += 1;
        }
        self.used.insert(position, Range { start, end: start + bytes, until });
        start
    }

    fn release(&mut self, done: usize) {
        self.used.retain(|range| range.until > done);
    }
}

#[cfg(test)]
mod tests {
    use super::super::ALIGNMENT;
    use super::*;

    fn step(bytes: usize, reads: &[usize], keep: bool) -> Step {
        Step { bytes, reads: reads.to_vec(), keep }
    }

    #[test]
    fn a_chain_needs_two_results_at_a_time() {
        let reads = |n: usize| n.checked_sub(1).into_iter().collect::<Vec<_>>();
        let steps: Vec<_> = (0..10).map(|n| step(64, &reads(n), false)).collect();
        let plan = MemoryPlan::new(&[], &steps, ALIGNMENT);
        assert_eq!((plan.kept_bytes(), plan.scratch_bytes()), (0, 128));
    }

    #[test]
    fn a_result_stands_until_its_last_reader() {
        let steps =
            [step(64, &[], false), step(64, &[0], false), step(64, &[1], false), step(64, &[0, 2], false)];
        let plan = MemoryPlan::new(&[], &steps, ALIGNMENT);
        let offsets: Vec<_> = plan.steps.iter().map(|slot| slot.place).collect();
        let at = Place::Scratch;
        assert_eq!(offsets, [at(0), at(64), at(128), at(64)]);
    }

    #[test]
    fn kept_results_and_inputs_share_no_memory() {
        let steps = [step(10, &[], true), step(0, &[0], false), step(70, &[0], true)];
        let plan = MemoryPlan::new(&[100], &steps, ALIGNMENT);
        assert_eq!(plan.inputs, [Slot { place: Place::Kept(0), bytes: 128 }]);
        assert_eq!(plan.steps[0], Slot { place: Place::Kept(128), bytes: 64 });
        assert_eq!(plan.steps[1].place, Place::Viewed);
        assert_eq!(plan.steps[2], Slot { place: Place::Kept(192), bytes: 128 });
        assert_eq!((plan.kept_bytes(), plan.scratch_bytes()), (320, 0));
    }

    #[test]
    fn results_of_random_graphs_never_overlap_while_they_are_needed() {
        use proptest::prelude::*;
        use proptest::sample::Index;
        use proptest::test_runner::TestRunner;
        // Of every step: bytes (0 for a view), what it reads, whether it is kept.
        let kind = (prop_oneof![4 => 1usize..5000, 1 => Just(0)], any::<[Index; 2]>(), 0..6usize);
        let run = |raw: Vec<(usize, [Index; 2], usize)>| {
            let mut steps: Vec<Step> = Vec::new();
            // Whose memory a step's result lies in: a view's is that of what it views.
            let mut roots: Vec<usize> = Vec::new();
            for (n, (bytes, reads, keep)) in raw.into_iter().enumerate() {
                let reads = if n == 0 { vec![] } else { reads.map(|read| roots[read.index(n)]).to_vec() };
                let is_view = bytes == 0 && n > 0;
                roots.push(if is_view { reads[0] } else { n });
                steps.push(Step { bytes: if is_view { 0 } else { bytes.max(1) }, reads, keep: keep == 0 });
            }
            let plan = MemoryPlan::new(&[100, 200], &steps, ALIGNMENT);
            for (n, step) in steps.iter().enumerate().filter(|(_, step)| step.bytes > 0) {
                let Place::Scratch(start) = plan.steps[n].place else {
                    prop_assert!(step.keep);
                    continue;
                };
                let range = start..start + step.bytes;
                prop_assert!(range.end <= plan.scratch_bytes() && !step.keep);
                let last = (n..steps.len()).rev().find(|m| *m == n || steps[*m].reads.contains(&n)).unwrap();
                for (slot, other) in plan.steps.iter().zip(&steps).take(last + 1).skip(n + 1) {
                    if let (Place::Scratch(start), 1..) = (slot.place, other.bytes) {
                        prop_assert!(start >= range.end || range.start >= start + other.bytes);
                    }
                }
            }
            let kept: usize = plan
                .steps
                .iter()
                .chain(&plan.inputs)
                .filter_map(|slot| match slot.place {
                    Place::Kept(_) => Some(slot.bytes),
                    _ => None,
                })
                .sum();
            prop_assert_eq!(kept, plan.kept_bytes());
            Ok(())
        };
        TestRunner::default().run(&proptest::collection::vec(kind, 1..80), run).unwrap();
    }
}
