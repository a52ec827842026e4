//! Which operations are needed, in which phase each runs, and where each result lies.

use super::{Buffer, Op, Product, Sizes};
use crate::ggml::ALIGNMENT;
use crate::kernels::packed::{Source, place_bytes};

/// An operation with its name in a profile.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub name: String,
    pub op: Op,
}

/// The operations of one phase that are shared out together, by their numbers.
pub(super) type Members = Vec<usize>;

/// Operations in phases.
#[derive(Default)]
pub(super) struct PlannedStage {
    pub nodes: Vec<Node>,
    pub phases: Vec<Vec<Members>>,
}

/// Where a matrix is.
pub(super) enum MatrixPlace {
    /// In memory, with that number.
    Standing(usize),
    /// In the file, under that name.
    Streamed(String, Source),
}

/// A matrix that is fetched when its turn comes.
pub(super) struct Streamed {
    pub source: Source,
    /// Which of the two rooms it goes to, and where from its start.
    pub room: usize,
    pub offset: usize,
}

impl Op {
    /// The buffers that it reads.
    pub(super) fn reads(&self) -> Vec<usize> {
        match self {
            Op::Embed { .. } | Op::Fetch { .. } => vec![],
            Op::Prepare { from, .. } | Op::Norm { from, .. } => vec![from.buffer],
            Op::Mean { a, b, .. } => vec![a.buffer, b.buffer],
            Op::Product(product) => {
                product.residual.iter().map(|residual| residual.buffer).chain([product.prepared]).collect()
            }
            Op::Attention(attention) => {
                vec![attention.q.buffer, attention.k.buffer, attention.v.buffer, attention.mask]
            }
        }
    }

    /// The buffers that it writes.
    pub(super) fn writes(&self) -> Vec<usize> {
        match self {
            Op::Embed { to } | Op::Mean { to, .. } | Op::Product(Product { to, .. }) => vec![to.buffer],
            Op::Fetch { .. } => vec![],
            Op::Prepare { to, .. } => vec![*to],
            Op::Norm { to, prepared, .. } => prepared.iter().copied().chain([to.buffer]).collect(),
            Op::Attention(attention) => {
                attention.probabilities.iter().copied().chain([attention.to.buffer]).collect()
            }
        }
    }
}

/// The nodes that lead to a kept buffer, in their order.
pub(super) fn needed(nodes: Vec<Node>, buffers: &[Buffer]) -> Vec<Node> {
    let mut wanted: Vec<bool> = buffers.iter().map(|buffer| buffer.kept).collect();
    let mut needed: Vec<Node> = Vec::new();
    for node in nodes.into_iter().rev() {
        if node.op.writes().iter().any(|buffer| wanted[*buffer]) {
            node.op.reads().into_iter().for_each(|buffer| wanted[buffer] = true);
            needed.push(node);
        }
    }
    needed.reverse();
    needed
}

/// Moves what reads nothing but the image, and `inputs` of it, to the end of the image's stage, and returns the rest: queries,
/// keys and values of the regions in the first cross layer serve every question about the image.
pub(super) fn hoist(
    question: Vec<Node>,
    image: &mut Vec<Node>,
    inputs: &[usize],
    buffers: usize,
) -> Vec<Node> {
    let mut of_image = vec![false; buffers];
    let written = image.iter().flat_map(|node| node.op.writes());
    inputs.iter().copied().chain(written).for_each(|buffer| of_image[buffer] = true);
    let mut rest = Vec::new();
    for node in question {
        let reads = node.op.reads();
        // Words are no buffer: what reads none is about them.
        if !reads.is_empty() && reads.iter().all(|buffer| of_image[*buffer]) {
            node.op.writes().into_iter().for_each(|buffer| of_image[buffer] = true);
            image.push(node);
        } else {
            rest.push(node);
        }
    }
    rest
}

/// Lets a layer norm prepare its rows itself where a product reads them: they are still in the first-level cache.
pub(super) fn fuse(nodes: Vec<Node>) -> Vec<Node> {
    let mut fused: Vec<Node> = Vec::new();
    for node in nodes {
        if let Op::Prepare { from, to } = node.op {
            let norm = fused.iter_mut().find_map(|earlier| match &mut earlier.op {
                Op::Norm { to, prepared, .. } if *to == from => Some(prepared),
                _ => None,
            });
            if let Some(prepared) = norm {
                prepared.push(to);
                continue;
            }
        }
        fused.push(node);
    }
    fused
}

impl PlannedStage {
    /// Puts every operation into the earliest phase after those that it waits for.
    pub(super) fn new(nodes: Vec<Node>, buffers: &[Buffer]) -> Self {
        let mut written_in: Vec<Option<usize>> = vec![None; buffers.len()];
        let mut stage = PlannedStage::default();
        for (n, node) in nodes.iter().enumerate() {
            let after = node.op.reads().into_iter().filter_map(|buffer| written_in[buffer]).max();
            let phase = after.map_or(0, |phase| phase + 1);
            node.op.writes().into_iter().for_each(|buffer| written_in[buffer] = Some(phase));
            if stage.phases.len() <= phase {
                stage.phases.resize_with(phase + 1, Vec::new);
            }
            let items = &mut stage.phases[phase];
            let same_matrix = items.iter_mut().find(|item| match (&node.op, &nodes[item[0]].op) {
                (Op::Product(one), Op::Product(other)) => one.matrix == other.matrix,
                _ => false,
            });
            match same_matrix {
                Some(item) => item.push(n),
                None => items.push(vec![n]),
            }
        }
        stage.nodes = nodes;
        stage
    }

    /// Has every matrix that does not stand in memory fetched in the phase of products before the one that needs it, those of the first in a
    /// phase of their own. Products get their matrix's new number: those that stand come first, then those that are fetched. There is
    /// room for the matrices of two phases, which take turns: what is fetched takes the place of what was done with before.
    /// `rooms` become as large as that takes.
    pub(super) fn stream(
        &mut self,
        streamed: &mut Vec<Streamed>,
        rooms: &mut [usize; 2],
        place: &dyn Fn(usize) -> MatrixPlace,
        standing: usize,
    ) {
        let mut room = 0;
        let mut phases: Vec<Vec<Members>> = vec![Vec::new()];
        // Where what the next phase needs is fetched.
        let mut before = 0;
        for items in std::mem::take(&mut self.phases) {
            let mut end = 0;
            let mut fetches = Vec::new();
            for members in &items {
                let Op::Product(Product { matrix, .. }) = self.nodes[members[0]].op else { continue };
                let matrix = match place(matrix) {
                    MatrixPlace::Standing(number) => number,
                    MatrixPlace::Streamed(name, source) => {
                        let number = streamed.len();
                        streamed.push(Streamed { source, room, offset: end });
                        end += place_bytes(source.layout);
                        fetches.push(vec![self.nodes.len()]);
                        let op = Op::Fetch { matrix: standing + number, source: number };
                        self.nodes.push(Node { name, op });
                        standing + number
                    }
                };
                for node in members {
                    if let Op::Product(product) = &mut self.nodes[*node].op {
                        product.matrix = matrix;
                    }
                }
            }
            if end > 0 {
                phases[before].splice(0..0, fetches);
                rooms[room] = rooms[room].max(end);
                room = 1 - room;
                before = phases.len();
            }
            phases.push(items);
        }
        if phases[0].is_empty() {
            phases.remove(0);
        }
        self.phases = phases;
    }

    /// The first and last phase in which each buffer is used, if any.
    fn lifetimes(&self, buffers: usize) -> Vec<Option<(usize, usize)>> {
        let mut lifetimes: Vec<Option<(usize, usize)>> = vec![None; buffers];
        for (phase, items) in self.phases.iter().enumerate() {
            for op in items.iter().flatten().map(|n| &self.nodes[*n].op) {
                for buffer in op.reads().into_iter().chain(op.writes()) {
                    let (first, _) = lifetimes[buffer].unwrap_or((phase, phase));
                    lifetimes[buffer] = Some((first, phase));
                }
            }
        }
        lifetimes
    }
}

/// Gives every buffer its place and returns how many bytes they span. What is kept has memory of its own; everything
/// else shares what is left, each buffer in the lowest gap that is free from its first phase to its last.
pub(super) fn place(stages: &[PlannedStage], buffers: &mut [Buffer], largest: Sizes) -> usize {
    let size = |buffer: &Buffer| buffer.content.bytes(largest).next_multiple_of(ALIGNMENT);
    let mut kept = 0;
    for buffer in buffers.iter_mut().filter(|buffer| buffer.kept) {
        buffer.offset = kept;
        kept += size(buffer);
    }
    let mut end = kept;
    for stage in stages {
        let lifetimes = stage.lifetimes(buffers.len());
        let mut placed: Vec<(usize, usize, usize, usize)> = Vec::new();
        let mut order: Vec<usize> =
            (0..buffers.len()).filter(|n| lifetimes[*n].is_some() && !buffers[*n].kept).collect();
        order.sort_by_key(|n| lifetimes[*n]);
        for n in order {
            let Some((first, last)) = lifetimes[n] else { continue };
            let bytes = size(&buffers[n]);
            let mut start = kept;
            // `placed` is in the order of offsets.
            for (other_first, other_last, other_start, other_end) in &placed {
                let meets = *other_first <= last && first <= *other_last;
                if meets && *other_start < start + bytes && start < *other_end {
                    start = *other_end;
                }
            }
            buffers[n].offset = start;
            end = end.max(start + bytes);
            let position = placed.partition_point(|(_, _, other, _)| *other < start);
            placed.insert(position, (first, last, start, start + bytes));
        }
    }
    end
}
