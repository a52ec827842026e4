//! Runs a program: shares the tasks of each phase out to the workers.

use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::{
    Attention, Buffer, Content, Form, Item, Matrix, Op, PreparedLayout, Product, Program, Sizes, Source,
    Stage, StageName, Stream,
};
use crate::Error;
use crate::ggml;
use crate::kernels::generic::product::{BlockScaling, Quantized};
use crate::kernels::packed::columns_within;
use crate::kernels::workers::{Phases, Workers};
use crate::kernels::{Ahead, Element, Finish, Head, PANEL, RowScale, Tile, even_block};
use crate::model::LAYER_NORM_EPSILON;
use crate::weights::{Storage, Stored};

/// What a run is about.
pub(crate) struct Call<'c> {
    pub stage: StageName,
    pub sizes: Sizes,
    /// Whether the masks have been filled.
    pub text_masked: bool,
    pub visual_masked: bool,
    pub words: Words<'c>,
    /// Tokens of each element as given, of which `sizes.tokens` are used.
    pub given_tokens: usize,
    pub token_types: Option<&'c [u32]>,
    pub tables: Tables<'c>,
    /// Asked before each phase, by any worker: whether to give the run up.
    pub give_up: &'c (dyn Fn() -> bool + Sync),
}

/// How words enter.
#[derive(Clone, Copy)]
pub(crate) enum Words<'c> {
    /// The image's stage has none.
    None,
    Ids(&'c [u32]),
    /// Embeddings of the caller's own.
    Embeddings(&'c [f32]),
}

/// What is looked up for each token.
#[derive(Clone, Copy)]
pub(crate) struct Tables<'c> {
    pub words: Lookup<'c>,
    pub positions: Lookup<'c>,
    pub types: Lookup<'c>,
}

/// A table whose rows are looked up: in memory, or in the file.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'c> {
    pub stored: Stored<'c>,
    /// All its bytes, if they are in memory.
    pub bytes: Option<&'c [u8]>,
}

impl Tables<'_> {
    /// The sum of a word's row, a position's and a token type's. `buffer` holds a row that is read from the file.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub fn embed(
        &self,
        words: Words<'_>,
        word: usize,
        [position, token_type]: [usize; 2],
        storage: &Storage,
        buffer: &mut [u8],
        to: &mut [f32],
    ) -> Result<(), Error> {
        match words {
            Words::Ids(ids) => {
                let bytes = self.words.row(ids[word] as usize, buffer, storage)?;
                ggml::dequantize(self.words.stored.tensor_type, bytes, to);
            }
            Words::Embeddings(values) => to.copy_from_slice(&values[word * to.len()..][..to.len()]),
            Words::None => unreachable!("the question's stage has words"),
        }
        // Positions and types are f32, whose rows are read as they lie.
        for (table, row) in [(&self.positions, position), (&self.types, token_type)] {
            let bytes = table.row(row, buffer, storage)?;
            for (value, bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
                *value += f32::from_le_bytes(*bytes);
            }
        }
        Ok(())
    }
}

impl Lookup<'_> {
    /// The bytes of a row, which are read into `buffer` if they are not in memory.
    fn row<'b>(&'b self, row: usize, buffer: &'b mut [u8], storage: &'b Storage) -> Result<&'b [u8], Error> {
        let len = self.stored.row_bytes();
        let range = row * len..(row + 1) * len;
        match self.bytes {
            Some(bytes) => Ok(&bytes[range]),
            None => storage.fetch(self.stored.start + range.start..self.stored.start + range.end, buffer),
        }
    }
}

/// Why a run came to no result.
#[derive(Debug)]
pub(crate) enum Interrupted {
    /// Whoever was asked gave it up.
    GivenUp,
    Failed(Error),
}

impl Program {
    /// Runs a stage.
    ///
    /// # Errors
    /// [`Interrupted`]; the next run is as if this one had not been.
    ///
    /// # Panics
    /// If the sizes or the workers are not those that the program was made for.
    pub fn run(&mut self, call: &Call<'_>, workers: &mut Workers) -> Result<(), Interrupted> {
        let Sizes { batch, tokens, regions, images } = call.sizes;
        let largest = self.largest;
        assert!(batch <= largest.batch && tokens <= largest.tokens && regions <= largest.regions);
        assert!(images == largest.images && batch > 0 && tokens > 0 && regions > 0);
        assert!(workers.threads() == self.threads);
        // What a run that ended in a panic has left.
        *self.failure.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        let stage = call.stage as usize;
        for phase in 0..self.stages[stage].phases.len() {
            let stage = &self.stages[stage];
            let items = &stage.items[stage.phases[phase].clone()];
            self.tasks[phase] =
                items.iter().map(|item| tasks_of(item, &stage.ops, &self.sources, call.sizes)).sum();
        }
        let memory = self.memory.as_mut_ptr();
        let stage = &self.stages[stage];
        let shared = Shared {
            run: Run { program: self, call, stage, memory },
            tasks: &self.tasks[..stage.phases.len()],
            given_up: AtomicBool::new(false),
        };
        workers.run(&shared);
        let given_up = shared.given_up.into_inner();
        match self.failure.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(Interrupted::Failed(error)),
            None if given_up => Err(Interrupted::GivenUp),
            None => Ok(()),
        }
    }
}

/// A run, and how many tasks each phase has.
struct Shared<'r> {
    run: Run<'r>,
    tasks: &'r [usize],
    /// Whether the rest of the run is left out.
    given_up: AtomicBool,
}

#[derive(Clone, Copy)]
struct Run<'r> {
    program: &'r Program,
    call: &'r Call<'r>,
    stage: &'r Stage,
    memory: *mut u8,
}

// SAFETY: the memory is borrowed exclusively for the run. Its tasks write to disjoint places: a task has rows, heads or panels
// of its own in buffers that nothing else in its phase writes. It reads only inputs, what the image's stage has left, and what
// earlier phases wrote, since a phase is the first after those that it reads from. Kept buffers share their place with
// nothing, and others that are alive in the same phase do not overlap (`schedule::place`), for any sizes up to the largest. A
// matrix is fetched to a room that no product of the phase reads (`PlannedStage::stream`). The tables, which lie in the same memory, are
// only read.
unsafe impl Sync for Shared<'_> {}

impl Phases for Shared<'_> {
    fn phases(&self) -> usize {
        self.tasks.len()
    }

    fn tasks(&self, phase: usize) -> usize {
        if self.given_up.load(Ordering::Relaxed) {
            return 0;
        }
        // Who is asked may be slow to answer a second time, or change its mind.
        if (self.run.call.give_up)() {
            self.given_up.store(true, Ordering::Relaxed);
            return 0;
        }
        self.tasks[phase]
    }

    fn run(&self, phase: usize, task: usize, worker: usize) {
        if self.given_up.load(Ordering::Relaxed) {
            return;
        }
        let (item, local) = self.run.find(phase, task);
        let started = self.run.program.profile.as_ref().map(|profile| (profile, Instant::now()));
        let done = match &self.run.stage.ops[item.ops.start] {
            Op::Product(_) => {
                self.products(phase, task, item, local, worker);
                Ok(())
            }
            Op::Attention(attention) => {
                self.run.attention(attention, local, worker);
                Ok(())
            }
            // Reading may take long, and a phase has many reads.
            Op::Fetch { .. } if (self.run.call.give_up)() => {
                self.given_up.store(true, Ordering::Relaxed);
                return;
            }
            Op::Fetch { matrix, source } => self.run.fetch(*matrix, *source, local, worker),
            op => self.run.rows(op, local, worker),
        };
        if let Err(error) = done {
            let failure = &self.run.program.failure;
            failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.given_up.store(true, Ordering::Relaxed);
        }
        if let Some((profile, started)) = started {
            let time = started.elapsed();
            profile.add(self.run.call.stage as usize, item, time, self.run.multiplications(item, local));
        }
    }
}

impl<'r> Shared<'r> {
    /// One panel of a matrix, for every product that reads it.
    fn products(&self, phase: usize, task: usize, item: &'r Item, local: usize, worker: usize) {
        let run = &self.run;
        let products = || run.products_of(item);
        let (matrix, panel) = run.panel_at(item, local).expect("an item of products");
        let tiles = run.program.kernels.tiles(matrix.layout);
        let here = |product: &&Product| !columns_within(panel, &product.outputs).is_empty();
        let blocks = |product: &Product| product.rows.count(run.call.sizes).div_ceil(tiles.max_rows());
        let passes: usize = products().filter(here).map(blocks).sum();
        let mut ahead = Ahead::new(tiles, matrix.layout, passes, self.panel_after(phase, task, worker));
        for product in products().filter(here) {
            run.panel(product, matrix, panel, &mut ahead, worker);
        }
    }

    /// The panel that this worker most likely reads next: of the next task, or of its first one in the next phase of products.
    fn panel_after(&self, phase: usize, task: usize, worker: usize) -> *const u8 {
        let threads = self.run.program.threads;
        let own_end = |phase: usize| self.tasks[phase] * (worker + 1) / threads;
        let later = |phase: usize| (phase, self.tasks[phase] * worker / threads);
        let this = (task + 1 < own_end(phase)).then_some((phase, task + 1));
        let next = this.into_iter().chain((phase + 1..self.tasks.len()).map(later));
        next.filter(|(phase, task)| *task < self.tasks[*phase])
            .find_map(|(phase, task)| self.run.panel_of(phase, task))
            .unwrap_or(std::ptr::null())
    }
}

/// How many tasks an item has in a run of those sizes.
fn tasks_of(item: &Item, ops: &[Op], sources: &[Source], sizes: Sizes) -> usize {
    match &ops[item.ops.start] {
        Op::Product(_) => item.panels.len(),
        Op::Attention(attention) => sizes.batch * attention.heads,
        Op::Fetch { source, .. } => sources[*source].tasks(),
        op => row_stream(op).rows.count(sizes).div_ceil(rows_per_task(op)),
    }
}

impl<'r> Run<'r> {
    /// The products of an item; none of an item of another operation.
    fn products_of(&self, item: &'r Item) -> impl Iterator<Item = &'r Product> {
        self.stage.ops[item.ops.clone()].iter().filter_map(|op| match op {
            Op::Product(product) => Some(product),
            _ => None,
        })
    }

    /// The matrix that the products of an item share, and its panel that a task is about.
    fn panel_at(&self, item: &'r Item, local: usize) -> Option<(&'r Matrix, usize)> {
        let product = self.products_of(item).next()?;
        Some((&self.program.matrices[product.matrix], item.panels.start + local))
    }

    /// The item that a task of a phase belongs to, and its number there.
    fn find(&self, phase: usize, mut task: usize) -> (&'r Item, usize) {
        let items = &self.stage.items[self.stage.phases[phase].clone()];
        for item in &items[..items.len() - 1] {
            let tasks = tasks_of(item, &self.stage.ops, &self.program.sources, self.call.sizes);
            if task < tasks {
                return (item, task);
            }
            task -= tasks;
        }
        (&items[items.len() - 1], task)
    }

    /// Multiplications of a task of products; 0 of another.
    fn multiplications(&self, item: &'r Item, local: usize) -> u64 {
        let Some((matrix, panel)) = self.panel_at(item, local) else { return 0 };
        let of = |product: &Product| {
            let outputs = columns_within(panel, &product.outputs).len();
            product.rows.count(self.call.sizes) * outputs * matrix.layout.inputs
        };
        self.products_of(item).map(of).sum::<usize>() as u64
    }

    /// The panel that a task multiplies with, if it does.
    fn panel_of(&self, phase: usize, task: usize) -> Option<*const u8> {
        let (item, local) = self.find(phase, task);
        let (matrix, panel) = self.panel_at(item, local)?;
        Some(matrix.panel(panel))
    }

    fn buffer(&self, buffer: usize) -> &'r Buffer {
        &self.program.buffers[buffer]
    }

    /// Where a buffer lies.
    fn start(&self, buffer: usize) -> *mut u8 {
        // SAFETY: every buffer lies within the memory, whose length `Program::run` has checked.
        unsafe { self.memory.add(self.buffer(buffer).offset) }
    }

    /// Where a row of a stream begins.
    fn row(&self, stream: Stream, row: usize) -> *mut f32 {
        let step = stream.first_of.map_or(1, |rows| rows.per_element(self.call.sizes));
        let at = row * step * stream.stride + stream.start;
        // SAFETY: a stream's rows lie within its buffer.
        unsafe { self.start(stream.buffer).cast::<f32>().add(at) }
    }

    /// From one row of a stream to the next.
    fn stride(&self, stream: Stream) -> usize {
        stream.stride * stream.first_of.map_or(1, |rows| rows.per_element(self.call.sizes))
    }

    fn constant(&self, at: usize) -> *const f32 {
        self.memory.wrapping_add(self.program.constants).cast::<f32>().wrapping_add(at)
    }

    /// A worker's own scratch.
    fn scratch(&self, worker: usize) -> *mut f32 {
        let (start, bytes) = self.program.scratch;
        // SAFETY: the memory ends with a scratch for each worker.
        unsafe { self.memory.add(start + worker * bytes).cast() }
    }

    /// One product's results for the outputs of a panel.
    fn panel(&self, product: &Product, matrix: &Matrix, panel: usize, ahead: &mut Ahead, worker: usize) {
        let functions = self.program.kernels.functions;
        let layout = matrix.layout;
        let tiles = self.program.kernels.tiles(layout);
        let rows = product.rows.count(self.call.sizes);
        let prepared = self.prepared(product.prepared);
        let columns = columns_within(panel, &product.outputs);
        let first_output = panel * PANEL;
        let to_column = first_output + columns.start - product.outputs.start;
        let scratch = self.scratch(worker);
        let per_block = prepared.rows_per_block();
        let mut first = 0;
        while first < rows {
            let count = per_block.min(rows - first);
            let (times, ahead) = ahead.take();
            let tile = Tile {
                panel: matrix.panel(panel),
                count,
                rows: prepared.block(first),
                units: layout.units(),
                ahead,
            };
            let column = |offset: usize| matrix.start.wrapping_add(offset + first_output * size_of::<f32>());
            let residual = product.residual.map(|stream| (self.row(stream, first), self.stride(stream)));
            let finish = Finish {
                rows: count,
                first: columns.start,
                end: columns.end,
                bias: self.constant(product.bias + first_output),
                activation: product.activation,
                residual: residual.map_or(std::ptr::null(), |(row, _)| row.wrapping_add(to_column)),
                residual_stride: residual.map_or(0, |(_, stride)| stride),
                to: self.row(product.to, first).wrapping_add(to_column),
                stride: self.stride(product.to),
            };
            let scales = prepared.scales(first);
            // SAFETY: the kernels exist, so the CPU has their instructions. The panel and the prepared rows are as long as their
            // layouts say, the scratch holds a tile, constants and columns are padded by a register, and the rows of results and
            // residuals have `product.outputs` columns.
            unsafe {
                tiles.by_rows[count - 1][times](&tile, scratch.cast());
                match layout.element {
                    Element::Int8 => {
                        let (weights, totals) =
                            (column(layout.scales()).cast(), column(layout.totals()).cast());
                        let scaling = Quantized { rows: scales, scales: weights, totals };
                        (functions.finish_quantized)(scratch.cast(), &scaling, &finish);
                    }
                    Element::Int8Blocks => {
                        let scaling = BlockScaling { rows: scales, totals: column(layout.totals()).cast() };
                        (functions.finish_blocks)(scratch.cast(), &scaling, &finish);
                    }
                    Element::Bf16 | Element::F32 => (functions.finish_exact)(scratch.cast(), &finish),
                }
            }
            first += count;
        }
    }

    fn prepared(&self, buffer: usize) -> Prepared {
        let Content::Prepared { rows, layout } = self.buffer(buffer).content else {
            unreachable!("a product reads prepared rows")
        };
        Prepared { start: self.start(buffer), rows: rows.count(self.call.sizes), layout }
    }

    /// One head of one batch element.
    fn attention(&self, attention: &Attention, task: usize, worker: usize) {
        let sizes = self.call.sizes;
        let Attention { q, k, v, heads, mask, keys, to, probabilities } = attention;
        let (element, head) = (task / heads, task % heads);
        let queries = q.rows.per_element(sizes);
        let key_count = k.rows.per_element(sizes);
        let size = q.width / heads;
        let row = |stream: Stream, per_element: usize| {
            self.row(stream, element * per_element).wrapping_add(head * size)
        };
        let masked = match keys {
            super::Rows::Tokens => self.call.text_masked,
            _ => self.call.visual_masked,
        };
        let mask = self.start(*mask).cast::<f32>().wrapping_add(element * key_count);
        let kept = probabilities
            .map(|buffer| self.start(buffer).cast::<f32>().wrapping_add(task * queries * key_count));
        let head = Head {
            queries,
            keys: key_count,
            size,
            q: row(*q, queries),
            q_stride: self.stride(*q),
            k: row(*k, key_count),
            k_stride: self.stride(*k),
            v: row(*v, key_count),
            v_stride: self.stride(*v),
            mask: if masked { mask } else { std::ptr::null() },
            scale: 1.0 / (size as f32).sqrt(),
            to: row(*to, queries),
            stride: self.stride(*to),
            probabilities: kept.unwrap_or(std::ptr::null_mut()),
        };
        // SAFETY: the CPU has the instructions. The streams have the rows of this element and the columns of this head, the mask
        // its keys; scratch was sized for the largest head.
        unsafe { (self.program.kernels.functions.attention)(&head, self.scratch(worker)) }
    }

    /// A part of a matrix that is streamed.
    fn fetch(&self, matrix: usize, source: usize, task: usize, worker: usize) -> Result<(), Error> {
        let Program { matrices, sources, weights, kernels, .. } = self.program;
        if let (0, Some(next)) = (task, sources.get(source + 1)) {
            weights.storage().will_need(next.range());
        }
        let to = matrices[matrix].start.cast_mut();
        // SAFETY: the matrix's room is as long as its layout says, and nothing reads it in this phase; each task has a part of it
        // of its own. A worker's scratch was sized for every source.
        unsafe { sources[source].make(task, weights, *kernels, to, self.scratch(worker).cast()) }
    }

    /// Some rows of an operation that takes each by itself.
    fn rows(&self, op: &Op, task: usize, worker: usize) -> Result<(), Error> {
        let functions = self.program.kernels.functions;
        let stream = row_stream(op);
        let per_task = rows_per_task(op);
        let first = task * per_task;
        let end = stream.rows.count(self.call.sizes).min(first + per_task);
        for row in first..end {
            match op {
                Op::Embed { to } => self.embed(*to, row, worker)?,
                Op::Prepare { from, to } => self.prepare(self.row(*from, row), from.width, *to, row),
                Op::Norm { from, scale, shift, to, prepared } => {
                    let (scale, shift) = (self.constant(*scale), self.constant(*shift));
                    let to_row = self.row(*to, row);
                    // SAFETY: the CPU has the instructions; rows and constants are `width` numbers.
                    unsafe {
                        let from = self.row(*from, row);
                        (functions.layer_norm)(from, scale, shift, LAYER_NORM_EPSILON, to.width, to_row);
                    }
                    for buffer in prepared.iter() {
                        self.prepare(to_row, to.width, *buffer, row);
                    }
                }
                Op::Mean { a, b, to } => {
                    let (a, b) = (self.row(*a, row), self.row(*b, row));
                    // SAFETY: as above.
                    unsafe { (functions.mean)(a, b, 0.5, to.width, self.row(*to, row)) }
                }
                Op::Product(_) | Op::Attention(_) | Op::Fetch { .. } => {
                    unreachable!("these have tasks of their own")
                }
            }
        }
        Ok(())
    }

    /// Prepares one row of `width` numbers.
    fn prepare(&self, from: *const f32, width: usize, buffer: usize, row: usize) {
        let prepared = self.prepared(buffer);
        let functions = self.program.kernels.functions;
        let (to, stride) = prepared.row(row);
        // SAFETY: the CPU has the instructions; the row is `width` numbers, and the buffer has its units at that stride.
        unsafe {
            match prepared.layout.form {
                Form::Bytes => {
                    let scale = (functions.quantize)(from, width, to, stride);
                    prepared.scales(row).write(scale);
                }
                Form::Bf16 => (functions.narrow)(from, width, to, stride),
                Form::F32 => (functions.spread)(from, width, to, stride),
            }
        }
    }

    fn embed(&self, to: Stream, row: usize, worker: usize) -> Result<(), Error> {
        let Call { words, given_tokens, token_types, tables, sizes, .. } = self.call;
        let storage = self.program.weights.storage();
        let (element, token) = (row / sizes.tokens, row % sizes.tokens);
        let given = element * given_tokens + token;
        // SAFETY: the row is `width` numbers that no other task touches; the scratch holds as many.
        let (to_row, buffer) = unsafe {
            (
                std::slice::from_raw_parts_mut(self.row(to, row), to.width),
                std::slice::from_raw_parts_mut(self.scratch(worker).cast(), to.width * size_of::<f32>()),
            )
        };
        let token_type = token_types.map_or(0, |types| types[given] as usize);
        tables.embed(*words, given, [token, token_type], storage, buffer, to_row)
    }
}

impl Matrix {
    /// Where a panel begins.
    fn panel(&self, panel: usize) -> *const u8 {
        self.start.wrapping_add(panel * self.layout.panel_bytes())
    }
}

/// Prepared rows: blocks of as many rows as a tile takes, in its order; then a scale for each row.
#[derive(Clone, Copy)]
struct Prepared {
    start: *mut u8,
    rows: usize,
    layout: PreparedLayout,
}

impl Prepared {
    /// As few blocks as the largest tile allows, all of about the same size.
    fn rows_per_block(self) -> usize {
        even_block(self.rows, self.layout.tile_rows)
    }

    /// The block that begins with a row.
    fn block(self, first: usize) -> *mut u8 {
        self.start.wrapping_add(first * self.layout.row_bytes())
    }

    /// The first unit of a row, and the bytes to its next.
    fn row(self, row: usize) -> (*mut u8, usize) {
        let per_block = self.rows_per_block();
        let first = row / per_block * per_block;
        let count = per_block.min(self.rows - first);
        let (start, stride) = self.layout.order.place(row - first, count, self.layout.units);
        (self.block(first).wrapping_add(start), stride)
    }

    fn scales(self, row: usize) -> *mut RowScale {
        let scales = self.start.wrapping_add(self.rows * self.layout.row_bytes());
        scales.cast::<RowScale>().wrapping_add(row)
    }
}

/// The stream whose rows an operation goes through.
fn row_stream(op: &Op) -> Stream {
    match op {
        Op::Embed { to } | Op::Norm { to, .. } | Op::Mean { to, .. } => *to,
        Op::Prepare { from, .. } => *from,
        Op::Product(Product { to, .. }) | Op::Attention(Attention { to, .. }) => *to,
        Op::Fetch { .. } => unreachable!("matrices are fetched panel by panel"),
    }
}

/// So many that a task takes about a microsecond.
fn rows_per_task(op: &Op) -> usize {
    if row_stream(op).width < 2048 { 2 } else { 1 }
}
