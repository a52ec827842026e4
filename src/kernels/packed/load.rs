//! Makes packed matrices of what a model's file holds: in memory of their own, or piece by piece wherever they are wanted.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapMut;

use super::{Element, Layout, Memory, PackScratch, PackedMatrix, Panel};
use crate::Error;
use crate::ggml::{self, AlignedBuffer};
use crate::gguf::TensorType;
use crate::kernels::workers::{Phases, Workers};
use crate::kernels::{Kernels, LINE, PANEL};
use crate::weights::{Stored, Weights};

impl PackedMatrix {
    /// Packs or copies matrices into memory of their own, on all workers. `ready` is told the share that is done, and gives up by
    /// returning false.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Read`], [`Error::Cancelled`].
    pub fn load(
        weights: &Weights,
        sources: &[Source],
        kernels: Kernels,
        workers: &mut Workers,
        ready: &(dyn Fn(f32) -> bool + Sync),
    ) -> Result<Vec<Self>, Error> {
        let mut bytes = 0;
        let mut places = Vec::with_capacity(sources.len());
        for source in sources {
            places.push(bytes);
            bytes += place_bytes(source.layout);
        }
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let out_of_memory = |_| Error::OutOfMemory { what: "the packed weights", bytes };
        let mut memory = MmapMut::map_anon(bytes).map_err(out_of_memory)?;
        // Streaming through hundreds of megabytes, every page of 4 KiB would be looked up again in each run. A kernel that has
        // no larger ones to give is no error.
        #[cfg(target_os = "linux")]
        let _ = memory.advise(memmap2::Advice::HugePage);
        let scratch_bytes = sources.iter().map(Source::scratch_bytes).max().unwrap_or(0);
        let mut scratch = AlignedBuffer::new(scratch_bytes * workers.threads(), "room to pack weights")?;
        let loading = Loading {
            weights,
            kernels,
            sources,
            places: &places,
            memory: memory.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
            scratch_bytes,
            ready,
            done: Mutex::new(0),
            failure: Mutex::new(None),
        };
        workers.run(&loading);
        if let Some(error) = loading.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let memory = Arc::new(memory);
        let packed = |(source, start): (&Source, usize)| PackedMatrix {
            layout: source.layout,
            memory: Memory::Own(Arc::clone(&memory)),
            start,
        };
        Ok(sources.iter().zip(places).map(packed).collect())
    }
}

/// Bytes from one packed matrix to the next, where they lie one after the other.
pub(crate) fn place_bytes(layout: Layout) -> usize {
    layout.bytes().next_multiple_of(ggml::ALIGNMENT)
}

/// Where a packed matrix comes from: rows in a model's file, or the file has it packed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    pub layout: Layout,
    origin: Origin,
    /// Where the tensor begins in the file.
    start: usize,
}

#[derive(Clone, Copy, Debug)]
enum Origin {
    Packed,
    Rows(TensorType),
}

impl Source {
    /// Rows in a file, to be packed in these elements.
    pub fn rows(stored: Stored<'_>, element: Element) -> Self {
        let layout = Layout { element, inputs: stored.columns, outputs: stored.rows };
        Source { layout, origin: Origin::Rows(stored.tensor_type), start: stored.start }
    }

    /// What a file has packed, from byte `start` on.
    pub fn packed(layout: Layout, start: usize) -> Self {
        Source { layout, origin: Origin::Packed, start }
    }

    /// Tasks of making it: one for each panel, and one for what follows them.
    pub fn tasks(&self) -> usize {
        match self.origin {
            Origin::Packed => self.layout.panels() + usize::from(self.layout.columns().totals),
            Origin::Rows(_) => self.layout.panels(),
        }
    }

    /// Where it lies in the file.
    pub fn range(&self) -> Range<usize> {
        let bytes = match self.origin {
            Origin::Packed => self.layout.bytes(),
            Origin::Rows(tensor_type) => self.layout.outputs * row_bytes(tensor_type, self.layout.inputs),
        };
        self.start..self.start + bytes
    }

    /// Bytes of scratch that a task needs, at the start of a cache line.
    pub fn scratch_bytes(&self) -> usize {
        match self.origin {
            Origin::Packed => 0,
            Origin::Rows(tensor_type) => {
                let stored = (PANEL * row_bytes(tensor_type, self.layout.inputs)).next_multiple_of(LINE);
                (stored + PackScratch::bytes(self.layout)).next_multiple_of(2 * LINE)
            }
        }
    }

    /// Does a task: makes a panel of the matrix that lies at `to`.
    ///
    /// # Errors
    /// [`Error::Read`].
    ///
    /// # Safety
    /// `to` must be valid for the layout's bytes, of which no other thread touches those of this task, and `scratch` for
    /// [`Source::scratch_bytes`] that nobody else uses.
    pub unsafe fn make(
        &self,
        task: usize,
        weights: &Weights,
        kernels: Kernels,
        to: *mut u8,
        scratch: *mut u8,
    ) -> Result<(), Error> {
        let Source { layout, origin, start } = *self;
        let at = |offset: usize, len: usize| {
            // SAFETY: within the matrix; a panel and a number for each of its outputs are this task's alone.
            unsafe { std::slice::from_raw_parts_mut(to.add(offset), len) }
        };
        let storage = weights.storage();
        match origin {
            Origin::Packed => {
                let (from, len) = match task < layout.panels() {
                    true => (task * layout.panel_bytes(), layout.panel_bytes()),
                    false => (layout.scales(), layout.bytes() - layout.scales()),
                };
                storage.read(start + from, at(from, len))
            }
            Origin::Rows(tensor_type) => {
                let outputs = task * PANEL..((task + 1) * PANEL).min(layout.outputs);
                let row_bytes = row_bytes(tensor_type, layout.inputs);
                let stored_bytes = PANEL * row_bytes;
                // SAFETY: the scratch is as long as `scratch_bytes` says.
                let (stored, rest) = unsafe {
                    let rest = scratch.add(stored_bytes.next_multiple_of(LINE));
                    (std::slice::from_raw_parts_mut(scratch, stored_bytes), rest)
                };
                let range = start + outputs.start * row_bytes..start + outputs.end * row_bytes;
                let rows = storage.fetch(range, stored)?;
                let numbers = |offset: usize| at(offset + task * PANEL * 4, PANEL * 4);
                let columns = layout.columns();
                let panel = Panel {
                    layout,
                    tensor_type,
                    rows,
                    bytes: at(task * layout.panel_bytes(), layout.panel_bytes()),
                    scales: if columns.scales { numbers(layout.scales()) } else { &mut [] },
                    totals: if columns.totals { numbers(layout.totals()) } else { &mut [] },
                };
                // SAFETY: as above; the scratch of a cache line's alignment goes on there.
                kernels.pack(panel, unsafe { PackScratch::at(rest, layout) });
                Ok(())
            }
        }
    }
}

fn row_bytes(tensor_type: TensorType, columns: usize) -> usize {
    tensor_type.row_bytes(columns as u64).expect("rows of whole blocks") as usize
}

/// The work of loading: the tasks of each matrix.
struct Loading<'p> {
    weights: &'p Weights,
    kernels: Kernels,
    sources: &'p [Source],
    places: &'p [usize],
    memory: *mut u8,
    /// Room for each worker.
    scratch: *mut u8,
    scratch_bytes: usize,
    ready: &'p (dyn Fn(f32) -> bool + Sync),
    /// Tasks that are done.
    done: Mutex<usize>,
    failure: Mutex<Option<Error>>,
}

// SAFETY: the pointers are to memory that tasks write in disjoint parts: each its own panel and its own outputs' scales, and each
// worker its own scratch.
unsafe impl Sync for Loading<'_> {}

/// How often somebody is told how much is done.
const REPORTS: usize = 100;

impl Loading<'_> {
    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }

    fn has_failed(&self) -> bool {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Counts a task, and tells how many are done once in a while.
    fn count(&self) {
        let tasks = self.tasks(0);
        let step = tasks.div_ceil(REPORTS);
        // Held while somebody is told, so that shares are told one after the other and rise.
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        *done += 1;
        let is_due = done.is_multiple_of(step) || *done == tasks;
        if is_due && !self.has_failed() && !(self.ready)(*done as f32 / tasks as f32) {
            self.fail(Error::Cancelled);
        }
    }
}

impl Phases for Loading<'_> {
    fn phases(&self) -> usize {
        1
    }

    fn tasks(&self, _: usize) -> usize {
        self.sources.iter().map(Source::tasks).sum()
    }

    fn run(&self, _: usize, mut task: usize, worker: usize) {
        if self.has_failed() {
            return;
        }
        for (source, start) in self.sources.iter().zip(self.places) {
            if task < source.tasks() {
                // SAFETY: the matrix lies within the memory, a worker's scratch within all of it, and no other task is this one.
                let made = unsafe {
                    let scratch = self.scratch.add(worker * self.scratch_bytes);
                    source.make(task, self.weights, self.kernels, self.memory.add(*start), scratch)
                };
                match made {
                    Ok(()) => self.count(),
                    Err(error) => self.fail(error),
                }
                return;
            }
            task -= source.tasks();
        }
    }
}
