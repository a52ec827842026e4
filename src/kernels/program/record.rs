//! Writes a program down, operation by operation.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::plan::{Constant, Placing, Plan};
use super::schedule::{self, MatrixPlace, Node, PlannedStage};
use super::{
    Activation, Attention, Buffer, Content, Few, Form, InputBuffers, Kernels, Op, PreparedLayout, Product,
    Rows, Sizes, StageName, Stream,
};
use crate::kernels::PANEL;
use crate::kernels::generic::attention::scratch_len;
use crate::kernels::packed::Layout;
use crate::kernels::vector::MAX_LANES;

/// A program in the making.
pub(crate) struct Recorder {
    kernels: Kernels,
    stage: StageName,
    nodes: [Vec<Node>; 2],
    buffers: Vec<Buffer>,
    /// The matrices by name, as products read them.
    matrices: Vec<(String, Layout)>,
    /// Rows that are prepared already.
    prepared: HashMap<(Stream, PreparedLayout), usize>,
    constants: Vec<Constant>,
    inputs: InputBuffers,
    features: Stream,
    boxes: Stream,
}

impl Recorder {
    /// Starts a program for a model with regions of that many features and coordinates.
    pub fn new(kernels: Kernels, features: usize, boxes: usize) -> Self {
        let inputs = InputBuffers { features: 0, boxes: 1, text_mask: 2, visual_mask: 3 };
        let regions = Rows::Regions;
        let contents = [
            Content::Numbers { rows: regions, width: features },
            Content::Numbers { rows: regions, width: boxes },
            Content::Mask { keys: Rows::Tokens },
            Content::Mask { keys: regions },
        ];
        let buffers = contents.map(|content| Buffer { content, kept: true, offset: 0 });
        Recorder {
            kernels,
            stage: StageName::Image,
            nodes: Default::default(),
            buffers: buffers.to_vec(),
            matrices: Vec::new(),
            prepared: HashMap::new(),
            constants: Vec::new(),
            inputs,
            features: whole(inputs.features, regions, features),
            boxes: whole(inputs.boxes, regions, boxes),
        }
    }

    /// What follows belongs to that stage.
    pub fn begin(&mut self, stage: StageName) {
        self.stage = stage;
    }

    pub fn features(&self) -> Stream {
        self.features
    }

    pub fn boxes(&self) -> Stream {
        self.boxes
    }

    /// Words, positions and token types, added, in rows of that width.
    pub fn embed(&mut self, width: usize) -> Stream {
        let to = self.numbers(Rows::Tokens, width);
        self.push("token_embd", Op::Embed { to });
        to
    }

    /// Layer norm by the constants `name.weight` and `name.bias`.
    pub fn norm(&mut self, name: &str, from: Stream) -> Stream {
        let scale = self.constant(&format!("{name}.weight"), from.width);
        let shift = self.constant(&format!("{name}.bias"), from.width);
        let to = self.numbers(from.rows, from.width);
        self.push(name, Op::Norm { from, scale, shift, to, prepared: Few::default() });
        to
    }

    /// (a + b) / 2.
    pub fn mean(&mut self, a: Stream, b: Stream) -> Stream {
        let to = self.numbers(a.rows, a.width);
        self.push("v.feat_embd", Op::Mean { a, b, to });
        to
    }

    /// activation(W x + b) + residual, for some rows of the stored matrix W. `layout` says how W is packed.
    pub fn product(&mut self, x: Stream, product: Linear<'_>) -> Stream {
        let layout = product.layout;
        assert_eq!(x.width, layout.inputs, "a row of x for {}", product.matrix);
        let outputs = product.outputs.unwrap_or(0..layout.outputs);
        assert!(outputs.end <= layout.outputs, "rows of {}", product.matrix);
        assert!(
            product.residual.is_none_or(|residual| residual.width == outputs.len()),
            "a residual as wide"
        );
        let tiles = self.kernels.tiles(layout);
        let prepared = self.prepare(
            product.matrix,
            x,
            PreparedLayout {
                form: Form::from(layout.element),
                units: layout.units(),
                tile_rows: tiles.max_rows(),
                order: tiles.order,
            },
        );
        let matrix = self.matrix(product.matrix, layout);
        let bias = self.constant(product.bias, layout.outputs);
        let to = self.numbers(x.rows, outputs.len());
        let op = Product {
            matrix,
            prepared,
            rows: x.rows,
            outputs,
            bias,
            activation: product.activation,
            residual: product.residual,
            to,
        };
        self.push(product.matrix, Op::Product(op));
        to
    }

    /// Attention of every head; `keys` says whose mask is added. Returns the mixed values and the buffer of the weights.
    pub fn attention(
        &mut self,
        name: &str,
        [q, k, v]: [Stream; 3],
        heads: usize,
        keys: Rows,
    ) -> (Stream, Stream) {
        let to = self.numbers(q.rows, q.width);
        let content = Content::Probabilities { queries: q.rows, keys: k.rows, heads };
        let weights = self.buffer(content);
        let mask = if keys == Rows::Tokens { self.inputs.text_mask } else { self.inputs.visual_mask };
        let op = Attention { q, k, v, heads, mask, keys, to, probabilities: Some(weights) };
        self.push(name, Op::Attention(op));
        // Its width says nothing: the buffer is read as a whole.
        (to, whole(weights, q.rows, 0))
    }

    /// Lets a result stand after the run, and returns its buffer.
    pub fn keep(&mut self, stream: Stream) -> usize {
        self.buffers[stream.buffer].kept = true;
        stream.buffer
    }

    fn prepare(&mut self, reader: &str, from: Stream, layout: PreparedLayout) -> usize {
        if let Some(known) = self.prepared.get(&(from, layout)) {
            return *known;
        }
        let to = self.buffer(Content::Prepared { rows: from.rows, layout });
        self.prepared.insert((from, layout), to);
        self.push(reader, Op::Prepare { from, to });
        to
    }

    fn matrix(&mut self, name: &str, layout: Layout) -> usize {
        let known = self.matrices.iter().position(|(known, packed)| known == name && *packed == layout);
        known.unwrap_or_else(|| {
            self.matrices.push((name.to_owned(), layout));
            self.matrices.len() - 1
        })
    }

    /// Where a vector of that many numbers begins.
    fn constant(&mut self, name: &str, len: usize) -> usize {
        if let Some(known) = self.constants.iter().find(|known| known.name == name) {
            return known.at;
        }
        let at = self.constants.last().map_or(0, |last| last.at + Constant::padded(last.len));
        self.constants.push(Constant { name: name.to_owned(), at, len });
        at
    }

    fn numbers(&mut self, rows: Rows, width: usize) -> Stream {
        let buffer = self.buffer(Content::Numbers { rows, width });
        whole(buffer, rows, width)
    }

    fn buffer(&mut self, content: Content) -> usize {
        self.buffers.push(Buffer { content, kept: false, offset: 0 });
        self.buffers.len() - 1
    }

    fn push(&mut self, name: &str, op: Op) {
        self.nodes[self.stage as usize].push(Node { name: name.to_owned(), op });
    }

    /// Plans the program for sizes up to `largest`.
    pub fn plan(mut self, largest: Sizes, threads: usize, placing: &Placing<'_>) -> Plan {
        // What the question reads of the image's stage must stand between the two.
        let [mut image, question] = std::mem::take(&mut self.nodes);
        let question = schedule::needed(question, &self.buffers);
        let inputs = [self.inputs.features, self.inputs.boxes, self.inputs.visual_mask];
        let question = schedule::hoist(question, &mut image, &inputs, self.buffers.len());
        let of_image: HashSet<usize> = image.iter().flat_map(|node| node.op.writes()).collect();
        for buffer in question.iter().flat_map(|node| node.op.reads()).filter(|read| of_image.contains(read))
        {
            self.buffers[buffer].kept = true;
        }
        let image = schedule::needed(image, &self.buffers);
        let mut stages = [image, question].map(|nodes| {
            let mut nodes = schedule::fuse(nodes);
            for node in &mut nodes {
                forget_unread_probabilities(&mut node.op, &self.buffers);
            }
            PlannedStage::new(nodes, &self.buffers)
        });
        let mut matrices = self.only_used_matrices(&mut stages);
        let (mut streamed, mut rooms) = (Vec::new(), [0, 0]);
        if let Placing::Streamed { source, stands } = placing {
            let all = matrices;
            matrices = all.iter().filter(|(name, _)| stands(name)).cloned().collect();
            let place = |matrix: usize| {
                let (name, layout) = &all[matrix];
                match matrices.iter().position(|(known, _)| known == name) {
                    Some(number) if matrices[number].1 == *layout => MatrixPlace::Standing(number),
                    _ => MatrixPlace::Streamed(name.clone(), source(name, *layout)),
                }
            };
            for stage in &mut stages {
                stage.stream(&mut streamed, &mut rooms, &place, matrices.len());
            }
        }
        let end = schedule::place(&stages, &mut self.buffers, largest);
        let fetching = streamed.iter().map(|streamed| streamed.source.scratch_bytes()).max().unwrap_or(0);
        let scratch = self.scratch_bytes(&stages, largest).max(fetching);
        Plan {
            kernels: self.kernels,
            stages,
            buffers: self.buffers,
            matrices,
            streamed,
            rooms,
            constants: self.constants,
            largest,
            inputs: self.inputs,
            scratch: (end, scratch),
            threads,
        }
    }

    /// Renumbers the matrices so that only those remain that a product reads.
    fn only_used_matrices(&self, stages: &mut [PlannedStage; 2]) -> Vec<(String, Layout)> {
        let mut used: Vec<usize> = Vec::new();
        for node in stages.iter_mut().flat_map(|stage| &mut stage.nodes) {
            if let Op::Product(product) = &mut node.op {
                let known = used.iter().position(|matrix| *matrix == product.matrix);
                product.matrix = known.unwrap_or_else(|| {
                    used.push(product.matrix);
                    used.len() - 1
                });
            }
        }
        used.into_iter().map(|matrix| self.matrices[matrix].clone()).collect()
    }

    /// Bytes of each worker's own scratch: a tile of sums, one head, or a row of the word embedding that is read from the file.
    fn scratch_bytes(&self, stages: &[PlannedStage; 2], largest: Sizes) -> usize {
        let head = |op: &Op| match op {
            Op::Attention(Attention { q, k, heads, .. }) => {
                scratch_len(q.rows.per_element(largest), k.rows.per_element(largest), q.width / heads)
            }
            _ => 0,
        };
        let heads = stages.iter().flat_map(|stage| &stage.nodes).map(|node| head(&node.op)).max();
        let embedded = |op: &Op| if let Op::Embed { to } = op { to.width } else { 0 };
        let rows = stages.iter().flat_map(|stage| &stage.nodes).map(|node| embedded(&node.op)).max();
        let numbers = heads.max(rows).unwrap_or(0).max(self.kernels.max_tile_rows() * PANEL + MAX_LANES);
        // Neighbours must not share a cache line.
        (numbers * size_of::<f32>()).next_multiple_of(2 * crate::ggml::ALIGNMENT)
    }
}

/// What [`Recorder::product`] multiplies with.
#[derive(Clone)]
pub(crate) struct Linear<'n> {
    pub matrix: &'n str,
    pub bias: &'n str,
    pub layout: Layout,
    /// Which rows of the matrix; `None` for all.
    pub outputs: Option<Range<usize>>,
    pub activation: Activation,
    pub residual: Option<Stream>,
}

impl Stream {
    /// Some of its columns.
    pub fn columns(self, columns: Range<usize>) -> Self {
        Stream { start: self.start + columns.start, width: columns.len(), ..self }
    }

    /// The first row of every batch element.
    pub fn first_rows(self) -> Self {
        Stream { rows: Rows::Elements, first_of: Some(self.rows), ..self }
    }

    /// One row for each answer, made of the rows of the batch elements that it is about.
    pub fn side_by_side(self, images: usize) -> Self {
        Stream { rows: Rows::Answers, width: self.width * images, stride: self.stride * images, ..self }
    }
}

fn whole(buffer: usize, rows: Rows, width: usize) -> Stream {
    Stream { buffer, rows, first_of: None, start: 0, width, stride: width }
}

/// An attention stores its weights only where somebody asked for them.
fn forget_unread_probabilities(op: &mut Op, buffers: &[Buffer]) {
    if let Op::Attention(attention) = op {
        attention.probabilities = attention.probabilities.filter(|buffer| buffers[*buffer].kept);
    }
}
