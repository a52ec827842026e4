//! A program that has everything but its memory.

use std::sync::{Arc, Mutex};

use super::schedule::{Node, PlannedStage, Streamed};
use super::{Buffer, InputBuffers, Item, Kernels, Matrix, Op, Program, Sizes, Stage, Table};
use crate::Error;
use crate::ggml::{ALIGNMENT, AlignedBuffer};
use crate::kernels::packed::Source;
use crate::kernels::vector::MAX_LANES;
use crate::kernels::{Layout, PANEL, PackedMatrix};
use crate::weights::Weights;

/// Where matrices lie while a program runs.
pub(crate) enum Placing<'p> {
    /// All in memory, packed by the time that the program is built.
    Standing,
    /// Fetched when their turn comes, but for those that stand.
    Streamed {
        /// Where a matrix of that name and layout is fetched from.
        source: &'p dyn Fn(&str, Layout) -> Source,
        /// Whether the matrix of that name stands in memory.
        stands: &'p dyn Fn(&str) -> bool,
    },
}

/// A planned program. It knows what it will take, and takes nothing yet.
pub(crate) struct Plan {
    pub(super) kernels: Kernels,
    pub(super) stages: [PlannedStage; 2],
    pub(super) buffers: Vec<Buffer>,
    /// The matrices that have to stand in memory.
    pub(super) matrices: Vec<(String, Layout)>,
    pub(super) streamed: Vec<Streamed>,
    /// Bytes of the two rooms for them.
    pub(super) rooms: [usize; 2],
    pub(super) constants: Vec<Constant>,
    pub(super) largest: Sizes,
    pub(super) inputs: InputBuffers,
    /// Where buffers end, and how many bytes of scratch each worker has.
    pub(super) scratch: (usize, usize),
    pub(super) threads: usize,
}

/// A vector of numbers that operations read.
pub(super) struct Constant {
    pub name: String,
    /// Its first number among all of them.
    pub at: usize,
    pub len: usize,
}

impl Constant {
    /// Numbers that it takes: whole panels, and a register may be read from any of them on.
    pub fn padded(len: usize) -> usize {
        len.next_multiple_of(PANEL) + MAX_LANES
    }
}

/// A part of a program's memory.
#[derive(Clone, Copy)]
struct Section {
    start: usize,
    bytes: usize,
}

/// The parts of a program's memory.
struct Sections {
    streamed: Section,
    constants: Section,
    buffers: Section,
    matrices: Section,
    standing: Section,
    sources: Section,
    tasks: Section,
    /// Operations, items and phases of each stage.
    stages: [[Section; 3]; 2],
    end: usize,
}

impl Plan {
    /// The matrices that have to stand in memory, in the order in which [`Plan::build`] takes them.
    pub fn matrices(&self) -> &[(String, Layout)] {
        &self.matrices
    }

    /// The matrices that are streamed, each once for every stage that reads it: those of the questions first.
    pub fn streamed(&self) -> impl Iterator<Item = (&str, Layout)> {
        let nodes = self.stages.iter().rev().flat_map(|stage| &stage.nodes);
        nodes.filter_map(|node| match node.op {
            Op::Fetch { source, .. } => Some((node.name.as_str(), self.streamed[source].source.layout)),
            _ => None,
        })
    }

    /// Bytes of memory that the program will take.
    pub fn memory_bytes(&self) -> usize {
        self.sections().end
    }

    /// Bytes of that which are room for streamed matrices.
    pub fn stream_bytes(&self) -> usize {
        self.rooms.iter().sum()
    }

    /// The phases of the stage that has more.
    fn most_phases(&self) -> usize {
        self.stages.iter().map(|stage| stage.phases.len()).max().unwrap_or(0)
    }

    fn constant_count(&self) -> usize {
        self.constants.last().map_or(0, |last| last.at + Constant::padded(last.len))
    }

    fn sections(&self) -> Sections {
        let (end, scratch) = self.scratch;
        let mut at = end + scratch * self.threads;
        let mut section = |bytes: usize| {
            let start = at.next_multiple_of(ALIGNMENT);
            at = start + bytes;
            Section { start, bytes }
        };
        fn bytes<T>(count: usize) -> usize {
            const { assert!(align_of::<T>() <= ALIGNMENT) }
            count * size_of::<T>()
        }
        let matrices = self.matrices.len() + self.streamed.len();
        let phases = self.most_phases();
        Sections {
            streamed: section(self.stream_bytes()),
            constants: section(bytes::<f32>(self.constant_count())),
            buffers: section(bytes::<Buffer>(self.buffers.len())),
            matrices: section(bytes::<Matrix>(matrices)),
            standing: section(bytes::<PackedMatrix>(self.matrices.len())),
            sources: section(bytes::<Source>(self.streamed.len())),
            tasks: section(bytes::<usize>(phases)),
            stages: [0, 1].map(|stage| {
                let PlannedStage { nodes, phases } = &self.stages[stage];
                let items = phases.iter().map(Vec::len).sum();
                [
                    section(bytes::<Op>(nodes.len())),
                    section(bytes::<Item>(items)),
                    section(bytes::<std::ops::Range<usize>>(phases.len())),
                ]
            }),
            end: at.next_multiple_of(ALIGNMENT),
        }
    }

    /// Builds the program in its memory, from the matrices that have to stand.
    ///
    /// # Errors
    /// [`Error::Read`] if the constants cannot be read.
    ///
    /// # Panics
    /// If the memory is too small, or the matrices are not those of [`Plan::matrices`].
    pub fn build(
        self,
        mut memory: AlignedBuffer,
        weights: &Arc<Weights>,
        standing: Vec<PackedMatrix>,
        profiled: bool,
    ) -> Result<Program, Error> {
        let sections = self.sections();
        assert!(memory.len() >= sections.end, "memory for the program");
        let same =
            standing.iter().map(|matrix| matrix.layout).eq(self.matrices.iter().map(|(_, layout)| *layout));
        assert!(same, "matrices are packed as products read them");
        for Constant { name, at, len } in &self.constants {
            let start = sections.constants.start + at * size_of::<f32>();
            weights.stored(name).read_f32(memory.f32s_mut(start, *len))?;
        }
        let start = memory.as_mut_ptr();
        // SAFETY: a section lies within the memory.
        let place = |offset: usize| unsafe { start.add(offset) };
        let stands = |matrix: &PackedMatrix| Matrix { layout: matrix.layout, start: matrix.bytes().as_ptr() };
        let fetched = |streamed: &Streamed| Matrix {
            layout: streamed.source.layout,
            start: place(sections.streamed.start + streamed.room * self.rooms[0] + streamed.offset),
        };
        let matrices = standing.iter().map(stands).chain(self.streamed.iter().map(fetched)).collect();
        let profile = profiled.then(|| super::Profile::new(&self.stages));
        let phases = self.most_phases();
        /// # Safety
        /// The section must lie within the memory and overlap no other, and the memory outlive the table.
        unsafe fn table<T>(start: *mut u8, section: Section, values: Vec<T>) -> Table<T> {
            // SAFETY: as the caller guarantees.
            unsafe { Table::at(start.add(section.start), section.bytes, values) }
        }
        // SAFETY: `sections` has laid them out one after the other, and the program owns the memory and drops it after the tables.
        let program = unsafe {
            let stages = [0, 1].map(|n| {
                let [ops, items, phases] = sections.stages[n];
                let frozen = Frozen::new(&self.stages[n]);
                Stage {
                    ops: table(start, ops, frozen.ops),
                    items: table(start, items, frozen.items),
                    phases: table(start, phases, frozen.phases),
                }
            });
            let sources = self.streamed.iter().map(|streamed| streamed.source).collect();
            Program {
                kernels: self.kernels,
                stages,
                buffers: table(start, sections.buffers, self.buffers),
                matrices: table(start, sections.matrices, matrices),
                _standing: table(start, sections.standing, standing),
                sources: table(start, sections.sources, sources),
                constants: sections.constants.start,
                weights: Arc::clone(weights),
                largest: self.largest,
                inputs: self.inputs,
                scratch: self.scratch,
                threads: self.threads,
                tasks: table(start, sections.tasks, vec![0; phases]),
                failure: Mutex::new(None),
                profile,
                memory,
            }
        };
        Ok(program)
    }
}

/// A stage with the operations of each item side by side.
struct Frozen {
    ops: Vec<Op>,
    items: Vec<Item>,
    phases: Vec<std::ops::Range<usize>>,
}

impl Frozen {
    fn new(stage: &PlannedStage) -> Self {
        let mut frozen = Frozen { ops: Vec::new(), items: Vec::new(), phases: Vec::new() };
        for items in &stage.phases {
            let first = frozen.items.len();
            for members in items {
                let ops = frozen.ops.len()..frozen.ops.len() + members.len();
                frozen.ops.extend(members.iter().map(|node| stage.nodes[*node].op.clone()));
                frozen.items.push(Item { panels: panels(&frozen.ops[ops.clone()]), ops });
            }
            frozen.phases.push(first..frozen.items.len());
        }
        frozen
    }
}

/// The panels that the products among these operations read.
fn panels(ops: &[Op]) -> std::ops::Range<usize> {
    let products = || {
        ops.iter().filter_map(|op| match op {
            Op::Product(product) => Some(product),
            _ => None,
        })
    };
    let start = products().map(|product| product.outputs.start / PANEL).min().unwrap_or(0);
    start..products().map(|product| product.outputs.end.div_ceil(PANEL)).max().unwrap_or(start)
}

impl PlannedStage {
    /// The operations in the order in which a program has them.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Node> {
        self.phases.iter().flatten().flatten().map(|node| &self.nodes[*node])
    }
}
