//! Graphs in a device's memory: built once, and computed there any number of times.

use std::ptr::NonNull;
use std::sync::Arc;

use ggml_sys_bindings as sys;

use super::graph::Described;
use super::memory_plan::Place;
use super::{AlignedBuffer, Backend, DeviceBuffer, Graph, GraphMemory, MemoryPlan, Region, Tensor, Tensors};
use crate::Error;

/// A session's memory on a device, of which the first part has the same layout as a buffer of the session's own: what lies there is
/// copied from the one to the other.
pub(crate) struct DeviceMemory {
    buffer: DeviceBuffer,
    /// A tensor of bytes that stands for the whole first part.
    bytes: NonNull<sys::ggml_tensor>,
    // Holds that tensor.
    _description: GraphMemory,
}

// SAFETY: the tensor lies in `_description`, which is tied to no thread.
unsafe impl Send for DeviceMemory {}

impl DeviceMemory {
    /// Tensors that describe it.
    const NODES: usize = 8;

    /// Bytes of host memory that describe it.
    pub fn description_bytes() -> usize {
        GraphMemory::bytes(Self::NODES)
    }

    /// Takes `len` bytes, of which the first `shared` are copied from and to the host.
    ///
    /// # Errors
    /// As [`DeviceBuffer::new`].
    pub fn new(
        backend: &Backend,
        shared: usize,
        len: usize,
        description: AlignedBuffer,
    ) -> Result<Self, Error> {
        let buffer = DeviceBuffer::new(backend, len, "a session's memory on its device")?;
        let mut memory = GraphMemory::new(Self::NODES, description)?;
        let bytes = memory.bytes_tensor(shared);
        // SAFETY: the tensor lies in `memory`, which is kept beside it.
        buffer.place(backend, unsafe { Tensor::new(bytes) }, 0)?;
        Ok(DeviceMemory { buffer, bytes, _description: memory })
    }

    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Copies these bytes to the device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn upload(
        &self,
        backend: &mut Backend,
        host: &AlignedBuffer,
        bytes: std::ops::Range<usize>,
    ) -> Result<(), Error> {
        let from = &host.as_slice()[bytes.clone()];
        // SAFETY: the tensor is as long as the shared part, which ggml asserts; nothing is dropped by an unwinding.
        unsafe {
            backend.call(|_| {
                sys::ggml_backend_tensor_set(
                    self.bytes.as_ptr(),
                    from.as_ptr().cast(),
                    bytes.start,
                    from.len(),
                );
            })
        }
    }

    /// Copies these bytes from the device.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn download(
        &self,
        backend: &mut Backend,
        host: &mut AlignedBuffer,
        bytes: std::ops::Range<usize>,
    ) -> Result<(), Error> {
        let to = &mut host.as_mut_slice()[bytes.clone()];
        // SAFETY: as in `upload`.
        unsafe {
            backend.call(|_| {
                sys::ggml_backend_tensor_get(
                    self.bytes.as_ptr(),
                    to.as_mut_ptr().cast(),
                    bytes.start,
                    to.len(),
                );
            })
        }
    }
}

/// Where the tensors of a graph lie.
pub(crate) struct Places<'a> {
    pub memory: &'a DeviceMemory,
    pub plan: &'a MemoryPlan,
    /// Where the part begins that is this graph's own.
    pub kept: usize,
    /// Where the part begins that graphs share; `None` if a scheduler places what would lie there.
    pub scratch: Option<usize>,
    /// The number of an input that lies elsewhere, and where.
    pub elsewhere: Option<(usize, usize)>,
}

/// Why a graph could not be built, and the memory that was to describe it.
pub(crate) type Unbuilt = Box<(Error, GraphMemory)>;

/// A graph whose tensors have their places in a [`DeviceMemory`], or all those that no scheduler places.
pub(crate) struct DeviceGraph {
    graph: NonNull<sys::ggml_cgraph>,
    /// Where the inputs lie, in the order in which they were made.
    pub inputs: Vec<Region>,
    /// Where the demanded results lie, in the order in which they were.
    pub results: Vec<Region>,
    /// The operations that are no views, if it was made to tell.
    pub described: Vec<Described>,
    /// What describes the graph.
    memory: GraphMemory,
    _weights: Arc<Tensors>,
}

// SAFETY: the graph lies in `memory`, which is tied to no thread.
unsafe impl Send for DeviceGraph {}

impl DeviceGraph {
    /// Builds a graph, gives tensors their places, and tells what the operations are if it `describes`.
    ///
    /// # Errors
    /// [`Error::Device`] and [`Error::OutOfMemory`], with the memory that was to describe the graph.
    ///
    /// # Panics
    /// If the plan is not for this graph, or the memory is smaller than it demands.
    pub fn new<R>(
        mut memory: GraphMemory,
        weights: &Arc<Tensors>,
        backend: &Backend,
        places: &Places<'_>,
        describes: bool,
        build: impl for<'g> FnOnce(&mut Graph<'g>) -> R,
    ) -> Result<(Self, R), Unbuilt> {
        match Laid::out(&mut memory, weights, backend, places, describes, build) {
            Ok((Laid { graph, inputs, results, described }, built)) => {
                let weights = Arc::clone(weights);
                Ok((DeviceGraph { graph, inputs, results, described, memory, _weights: weights }, built))
            }
            Err(error) => Err(Box::new((error, memory))),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_cgraph {
        self.graph.as_ptr()
    }

    /// The operations, views included.
    pub(super) fn operations(&self) -> impl Iterator<Item = Tensor<'_>> {
        // SAFETY: the graph is valid; its nodes are read one by one below their count.
        let count = unsafe { sys::ggml_graph_n_nodes(self.graph.as_ptr()) };
        (0..count).map(|n| {
            // SAFETY: as above; a node lies in the graph's memory.
            unsafe {
                let node = sys::ggml_graph_node(self.graph.as_ptr(), n);
                Tensor::new(NonNull::new(node).expect("a node below the count"))
            }
        })
    }

    /// Runs the operations, and waits until all are done.
    ///
    /// # Errors
    /// [`Error::Device`] and [`Error::OutOfMemory`], after which the device is lost.
    pub fn compute(&mut self, backend: &mut Backend) -> Result<(), Error> {
        // SAFETY: every tensor has its place in memory of the device that lives as long as the graph's owner keeps it; nothing is
        // dropped by an unwinding.
        let status = unsafe {
            backend.call(|raw| {
                let status = sys::ggml_backend_graph_compute_async(raw, self.graph.as_ptr());
                sys::ggml_backend_synchronize(raw);
                status
            })?
        };
        backend.outcome(status)
    }

    /// The room that the graph was described in, for another.
    pub fn into_memory(self) -> GraphMemory {
        self.memory
    }
}

/// A graph whose tensors have their places.
struct Laid {
    graph: NonNull<sys::ggml_cgraph>,
    inputs: Vec<Region>,
    results: Vec<Region>,
    described: Vec<Described>,
}

impl Laid {
    /// As [`DeviceGraph::new`].
    fn out<R>(
        memory: &mut GraphMemory,
        weights: &Tensors,
        backend: &Backend,
        places: &Places<'_>,
        describes: bool,
        build: impl for<'g> FnOnce(&mut Graph<'g>) -> R,
    ) -> Result<(Self, R), Error> {
        backend.check()?;
        let Places { memory: home, plan, kept, scratch, elsewhere } = *places;
        assert!(kept + plan.kept_bytes() <= home.len());
        assert!(scratch.is_none_or(|scratch| scratch + plan.scratch_bytes() <= home.len()));
        let mut graph = Graph::new(memory, weights);
        graph.keep_on(backend);
        let built = build(&mut graph);
        let described = if describes { graph.described() } else { Vec::new() };
        let offset_of = |place| match place {
            Place::Kept(offset) => Some(kept + offset),
            Place::Scratch(offset) => scratch.map(|scratch| scratch + offset),
            Place::Viewed => None,
        };
        let mut offsets = std::collections::HashMap::new();
        let mut inputs = Vec::new();
        for (n, (input, slot)) in graph.inputs().iter().zip(&plan.inputs).enumerate() {
            let other = elsewhere.filter(|(input, _)| *input == n).map(|(_, offset)| offset);
            let offset = other.or_else(|| offset_of(slot.place)).expect("an input has a place");
            assert!(other.is_some() || backend.bytes_of(*input) <= slot.bytes, "a larger graph's plan");
            home.buffer.place(backend, *input, offset)?;
            inputs.push(Region::new(offset, input.elements()));
        }
        for (node, slot) in graph.placed(plan) {
            if let Some(offset) = offset_of(slot.place) {
                assert!(backend.bytes_of(node) <= slot.bytes, "a larger graph's plan");
                home.buffer.place(backend, node, offset)?;
                offsets.insert(node.root(), offset);
            } else if scratch.is_some() {
                // SAFETY: what is viewed has its place already: it comes before the view.
                let status = unsafe { backend.call(|_| sys::ggml_backend_view_init(node.as_ptr()))? };
                assert_eq!(status, sys::ggml_status::GGML_STATUS_SUCCESS, "a view takes no memory");
            }
        }
        let region = |kept: &Tensor<'_>| {
            assert!(kept.is_contiguous(), "a region without gaps");
            Region::new(offsets[&kept.root()] + kept.view_offset(), kept.elements())
        };
        let results = graph.kept().iter().map(region).collect();
        let raw = NonNull::new(graph.as_ptr()).expect("a graph that was built");
        Ok((Laid { graph: raw, inputs, results, described }, built))
    }
}
