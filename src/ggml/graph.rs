//! A graph of ggml operations: `operations` builds it, it is planned, and `bound` has it in memory and computes it.

mod bound;
mod operations;

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

use ggml_sys_bindings as sys;

use super::memory_plan::{Slot, Step};
use super::{ALIGNMENT, AlignedBuffer, Backend, MemoryPlan, Tensors};
use crate::Error;
use crate::gguf::TensorType;

pub(crate) use bound::{BoundGraph, Region};

/// Room for the description of one graph at a time. Kept by a session, so that ggml allocates nothing for a graph.
pub(crate) struct GraphMemory {
    context: NonNull<sys::ggml_context>,
    nodes: usize,
    // Referred to by `context`, so it is dropped after it (see `Drop`).
    _memory: AlignedBuffer,
}

// SAFETY: a context is tied to no thread, and building a graph takes it by `&mut`.
unsafe impl Send for GraphMemory {}

impl GraphMemory {
    /// Bytes of room for a graph of up to `nodes` operations and inputs.
    pub fn bytes(nodes: usize) -> usize {
        // SAFETY: both return constants of the build.
        unsafe { sys::ggml_tensor_overhead() * nodes + sys::ggml_graph_overhead_custom(nodes, false) }
    }

    /// Room for a graph of up to `nodes` operations and inputs, in memory of [`GraphMemory::bytes`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    ///
    /// # Panics
    /// If the memory is smaller.
    pub fn new(nodes: usize, mut memory: AlignedBuffer) -> Result<Self, Error> {
        assert!(memory.len() >= Self::bytes(nodes), "room for a graph");
        let params = sys::ggml_init_params {
            mem_size: memory.len(),
            mem_buffer: memory.as_mut_ptr().cast(),
            no_alloc: true,
        };
        // SAFETY: the buffer is aligned and outlives the context.
        let context = unsafe { super::context(params) }?;
        Ok(GraphMemory { context, nodes, _memory: memory })
    }

    pub(super) fn context(&self) -> *mut sys::ggml_context {
        self.context.as_ptr()
    }

    /// A tensor of so many bytes without a place, in an otherwise empty room.
    pub(super) fn bytes_tensor(&mut self, len: usize) -> NonNull<sys::ggml_tensor> {
        // SAFETY: whatever lay in the context borrowed `self` and is gone, so that there is room for one tensor.
        let tensor = unsafe {
            sys::ggml_reset(self.context.as_ptr());
            sys::ggml_new_tensor_1d(self.context.as_ptr(), sys::ggml_type::GGML_TYPE_I8, len as i64)
        };
        NonNull::new(tensor).expect("room for one tensor")
    }
}

impl Drop for GraphMemory {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once, while its memory still stands.
        unsafe { sys::ggml_free(self.context.as_ptr()) }
    }
}

/// A tensor of a [`Graph`] or of [`Tensors`]. Shapes are in ggml's order, fastest axis first.
#[derive(Clone, Copy)]
pub(crate) struct Tensor<'g> {
    raw: NonNull<sys::ggml_tensor>,
    _lives: PhantomData<&'g ()>,
}

impl Tensor<'_> {
    /// # Safety
    /// `raw` must be valid for as long as the lifetime that the caller picks.
    pub(super) unsafe fn new(raw: NonNull<sys::ggml_tensor>) -> Self {
        Tensor { raw, _lives: PhantomData }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_tensor {
        self.raw.as_ptr()
    }

    fn get(&self) -> &sys::ggml_tensor {
        // SAFETY: valid by construction; written only while no reference is held (see `Graph::bind`).
        unsafe { self.raw.as_ref() }
    }

    /// The sizes of the four axes.
    pub fn dims(&self) -> [usize; 4] {
        self.get().ne.map(|dim| dim as usize)
    }

    /// Whether its numbers are stored in blocks.
    pub fn is_quantized(&self) -> bool {
        // SAFETY: reads a table with the tensor's valid type.
        unsafe { sys::ggml_is_quantized(self.get().type_) }
    }

    pub(super) fn id(&self) -> NodeId {
        NodeId(self.raw.addr().get())
    }

    /// ggml's name of the operation that makes it.
    pub(super) fn operation(&self) -> &'static str {
        // SAFETY: the tensor is valid; the name is a string literal.
        let name = unsafe { std::ffi::CStr::from_ptr(sys::ggml_op_desc(self.raw.as_ptr())) };
        name.to_str().unwrap_or("?")
    }

    /// Whether it only shows another tensor's numbers, so that nothing is computed.
    pub(super) fn is_view(&self) -> bool {
        use sys::ggml_op as op;
        [op::GGML_OP_VIEW, op::GGML_OP_RESHAPE, op::GGML_OP_PERMUTE, op::GGML_OP_TRANSPOSE]
            .contains(&self.get().op)
    }

    /// Whether its numbers are of that type.
    pub(super) fn is_of(&self, tensor_type: TensorType) -> bool {
        self.get().type_ == sys::ggml_type(tensor_type.id())
    }

    /// Where a view begins in what it views, in bytes.
    pub(super) fn view_offset(&self) -> usize {
        self.get().view_offs
    }

    /// Lets it seem to lie in that buffer, if it has no place yet. Returns whether it had none.
    pub(super) fn seem_placed(&self, buffer: *mut sys::ggml_backend_buffer, place: *mut c_void) -> bool {
        // SAFETY: the tensor is valid, and while it has no place nobody but the caller knows it.
        unsafe {
            let raw = self.raw.as_ptr();
            let has_none = (*raw).data.is_null() && (*raw).view_src.is_null();
            if has_none {
                ((*raw).buffer, (*raw).data) = (buffer, place);
            }
            has_none
        }
    }

    /// Takes back what [`Tensor::seem_placed`] did.
    pub(super) fn unplace(&self) {
        // SAFETY: as above.
        unsafe {
            let raw = self.raw.as_ptr();
            ((*raw).buffer, (*raw).data) = (std::ptr::null_mut(), std::ptr::null_mut());
        }
    }

    fn strides(&self) -> [usize; 4] {
        self.get().nb
    }

    /// How many numbers it holds.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    pub(super) fn is_contiguous(&self) -> bool {
        // SAFETY: the tensor is valid.
        unsafe { sys::ggml_is_contiguous(self.raw.as_ptr()) }
    }
}

/// The operations of one forward pass.
///
/// The methods that add an operation panic where ggml would abort: their shapes follow from a configuration and
/// limits that have been checked.
pub(crate) struct Graph<'g> {
    context: NonNull<sys::ggml_context>,
    graph: NonNull<sys::ggml_cgraph>,
    weights: &'g Tensors,
    capacity: usize,
    tensors: Cell<usize>,
    inputs: Vec<Tensor<'g>>,
    kept: Vec<Tensor<'g>>,
    /// The device whose memory the demanded results lie in, if it is one beside the CPU.
    home: Option<&'g Backend>,
    _memory: PhantomData<&'g mut GraphMemory>,
}

/// Which operation of a graph: the order in which they run is up to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NodeId(pub(crate) usize);

/// What an operation is, for people.
pub(crate) struct Described {
    pub id: NodeId,
    /// ggml's name of it.
    pub kind: &'static str,
    /// The model's tensor that it reads, or else the one that was read last before it.
    pub name: String,
    /// Multiplications of a weight and a number.
    pub multiplications: u64,
}

impl<'g> Graph<'g> {
    /// Starts an empty graph, which replaces the one before it in that memory.
    pub fn new(memory: &'g mut GraphMemory, weights: &'g Tensors) -> Self {
        // SAFETY: whatever lay in the context borrowed `memory` and is gone.
        let graph = unsafe {
            sys::ggml_reset(memory.context.as_ptr());
            sys::ggml_new_graph_custom(memory.context.as_ptr(), memory.nodes, false)
        };
        Graph {
            context: memory.context,
            graph: NonNull::new(graph).expect("room for the graph was made"),
            weights,
            capacity: memory.nodes,
            tensors: Cell::new(0),
            inputs: Vec::new(),
            kept: Vec::new(),
            home: None,
            _memory: PhantomData,
        }
    }

    /// Sees to it that every result which is demanded from now on can lie in that device's memory: one that the device cannot compute is
    /// copied there.
    pub fn keep_on(&mut self, backend: &'g Backend) {
        self.home = Some(backend);
    }

    /// The model's tensor of that name.
    pub fn weight(&self, name: &str) -> Tensor<'g> {
        self.weights.tensor(name)
    }

    /// A tensor of f32 that is filled before each run.
    pub fn input_f32(&mut self, dims: [usize; 4]) -> Tensor<'g> {
        self.input(sys::ggml_type::GGML_TYPE_F32, dims)
    }

    /// A tensor of indices that is filled before each run.
    pub fn input_i32(&mut self, dims: [usize; 4]) -> Tensor<'g> {
        self.input(sys::ggml_type::GGML_TYPE_I32, dims)
    }

    fn input(&mut self, element: sys::ggml_type, dims: [usize; 4]) -> Tensor<'g> {
        let ne = dims.map(|dim| dim as i64);
        // SAFETY: the context is valid and the sizes are positive.
        let tensor = self.wrap(unsafe { sys::ggml_new_tensor(self.room_for_one(), element, 4, ne.as_ptr()) });
        self.inputs.push(tensor);
        tensor
    }

    /// Demands a result: it is computed, and stands until the next run.
    pub fn keep(&mut self, tensor: Tensor<'g>) {
        // SAFETY: the root of a valid tensor is valid.
        let computes = |backend: &Backend| backend.supports(unsafe { Tensor::new(tensor.root()) });
        let is_there = self.home.is_none_or(computes);
        let tensor = if is_there { tensor } else { self.contiguous(tensor) };
        // SAFETY: the tensor is of this graph, whose capacity bounds the nodes that lead to it. The flag keeps ggml from
        // fusing the result away.
        unsafe {
            sys::ggml_set_output(tensor.raw.as_ptr());
            sys::ggml_build_forward_expand(self.graph.as_ptr(), tensor.raw.as_ptr());
        }
        self.kept.push(tensor);
    }

    /// Keeps what every matrix of the model is multiplied with, in the operations so far. Returns it with the matrices'
    /// names.
    pub fn keep_factors(&mut self) -> Vec<(String, Tensor<'g>)> {
        let products = self.nodes().filter_map(|node| {
            // SAFETY: the node is valid.
            let node = unsafe { node.as_ref() };
            let [matrix, x, ..] = node.src;
            let name =
                (node.op == sys::ggml_op::GGML_OP_MUL_MAT).then(|| self.weight_name(matrix)).flatten()?;
            Some((name.to_owned(), self.wrap(x)))
        });
        let products: Vec<_> = products.collect();
        for (_, x) in &products {
            self.keep(*x);
        }
        products
    }

    /// The tensors that no operation makes: inputs and weights, each once.
    pub(super) fn leaves(&self) -> Vec<Tensor<'g>> {
        let made: HashSet<_> = self.nodes().collect();
        let mut seen = HashSet::new();
        let mut leaves = Vec::new();
        for node in self.nodes() {
            // SAFETY: the node is valid.
            let sources = unsafe { node.as_ref() }.src.into_iter().filter_map(NonNull::new);
            for source in sources.filter(|source| !made.contains(source)) {
                if seen.insert(source) {
                    leaves.push(self.wrap(source.as_ptr()));
                }
            }
        }
        leaves
    }

    /// What each operation that is not a view is.
    pub(super) fn described(&self) -> Vec<Described> {
        let mut last = "";
        let computed = self.operations().filter(|tensor| !tensor.is_view());
        let described = computed.map(|tensor| {
            let sources = tensor.get().src;
            let weight = sources.into_iter().find_map(|source| self.weight_name(source));
            last = weight.unwrap_or(last);
            let multiplies = weight.is_some() && tensor.get().op == sys::ggml_op::GGML_OP_MUL_MAT;
            let terms = NonNull::new(sources[0]).filter(|_| multiplies).map_or(0, |matrix| {
                // SAFETY: a source of a valid tensor is valid.
                unsafe { matrix.as_ref() }.ne[0] as u64
            });
            Described {
                id: tensor.id(),
                kind: tensor.operation(),
                name: last.to_owned(),
                multiplications: terms * tensor.elements() as u64,
            }
        });
        described.collect()
    }

    /// The name of the model's tensor that this one is, or is a view or an unpacked copy of.
    fn weight_name(&self, mut tensor: *mut sys::ggml_tensor) -> Option<&'g str> {
        while let Some(found) = NonNull::new(tensor) {
            if let Some(name) = self.weights.name(found) {
                return Some(name);
            }
            // SAFETY: a source or view of a valid tensor is valid.
            let found = unsafe { found.as_ref() };
            tensor = match found.view_src {
                viewed if !viewed.is_null() => viewed,
                _ if found.op == sys::ggml_op::GGML_OP_CPY => found.src[0],
                _ => return None,
            };
        }
        None
    }

    /// The context, for the one tensor that the next call makes in it: ggml aborts when there is no room.
    fn room_for_one(&self) -> *mut sys::ggml_context {
        let tensors = self.tensors.get() + 1;
        assert!(tensors <= self.capacity, "a graph of more than {} operations", self.capacity);
        self.tensors.set(tensors);
        self.context.as_ptr()
    }

    fn wrap(&self, tensor: *mut sys::ggml_tensor) -> Tensor<'g> {
        let raw = NonNull::new(tensor).expect("a tensor where there is room for one");
        // SAFETY: lives in the graph's memory, which is borrowed for 'g.
        unsafe { Tensor::new(raw) }
    }

    fn nodes(&self) -> impl ExactSizeIterator<Item = NonNull<sys::ggml_tensor>> {
        // SAFETY: the graph is valid; its nodes are read one by one below its count.
        let count = unsafe { sys::ggml_graph_n_nodes(self.graph.as_ptr()) };
        let graph = self.graph;
        (0..count).map(move |n| {
            // SAFETY: as above.
            let node = unsafe { sys::ggml_graph_node(graph.as_ptr(), n) };
            NonNull::new(node).expect("a node below the count")
        })
    }

    /// The inputs, in the order in which they were made.
    pub(super) fn inputs(&self) -> &[Tensor<'g>] {
        &self.inputs
    }

    /// The results that were demanded, in that order.
    pub(super) fn kept(&self) -> &[Tensor<'g>] {
        &self.kept
    }

    /// The tensors that these lie in.
    pub(super) fn placed_results(&self) -> impl Iterator<Item = Tensor<'g>> {
        self.kept.iter().map(|kept| self.wrap(kept.root().as_ptr()))
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_cgraph {
        self.graph.as_ptr()
    }

    /// The operations, views included.
    pub(super) fn operations(&self) -> impl Iterator<Item = Tensor<'g>> {
        self.nodes().map(|node| self.wrap(node.as_ptr()))
    }

    /// The operations, each with where a plan for the graph puts its result.
    pub(super) fn placed<'p>(&self, plan: &'p MemoryPlan) -> impl Iterator<Item = (Tensor<'g>, &'p Slot)> {
        assert_eq!(
            (plan.inputs.len(), plan.steps.len()),
            (self.inputs.len(), self.len()),
            "another graph's plan"
        );
        self.operations().zip(&plan.steps)
    }

    /// How many operations, views included, a run takes.
    pub fn len(&self) -> usize {
        self.nodes().len()
    }

    /// Plans the memory for this graph, and so for every graph of the same operations on smaller shapes.
    pub fn plan(&self) -> MemoryPlan {
        // SAFETY: the tensor is valid.
        self.plan_with(ALIGNMENT, |tensor| unsafe { sys::ggml_nbytes(tensor.as_ptr()) })
    }

    /// The same where places begin at multiples of `alignment`, and a tensor takes as many bytes as `bytes_of` says.
    pub(super) fn plan_with(&self, alignment: usize, bytes_of: impl Fn(Tensor<'_>) -> usize) -> MemoryPlan {
        let bytes_of = |tensor: NonNull<sys::ggml_tensor>| {
            // SAFETY: the tensor is valid.
            bytes_of(unsafe { Tensor::new(tensor) })
        };
        let inputs: Vec<usize> = self.inputs.iter().map(|input| bytes_of(input.raw)).collect();
        let mut position = HashMap::new();
        let mut steps = Vec::new();
        for (n, node) in self.nodes().enumerate() {
            position.insert(node, n);
            // SAFETY: the node is valid.
            let tensor = unsafe { node.as_ref() };
            let viewed = NonNull::new(tensor.view_src);
            let sources = tensor.src.iter().filter_map(|source| NonNull::new(*source));
            let reads = sources.filter_map(|source| {
                // SAFETY: the source is a valid tensor. ggml resolves chains of views itself.
                let root = NonNull::new(unsafe { source.as_ref().view_src }).unwrap_or(source);
                position.get(&root).copied()
            });
            let reads: Vec<usize> =
                reads.chain(viewed.and_then(|root| position.get(&root).copied())).collect();
            let keep = self.kept.iter().any(|kept| kept.root() == node);
            steps.push(Step { bytes: if viewed.is_some() { 0 } else { bytes_of(node) }, reads, keep });
        }
        MemoryPlan::new(&inputs, &steps, alignment)
    }

    /// The work memory that computing takes on top of the plan.
    ///
    /// # Errors
    /// [`Error::Instructions`] if the CPU lacks some that ggml was compiled with, [`Error::OutOfMemory`].
    pub fn work_bytes(&self, threads: usize) -> Result<usize, Error> {
        super::check_cpu()?;
        Ok(self.compute_plan(threads, std::ptr::null_mut())?.work_size)
    }

    fn compute_plan(
        &self,
        threads: usize,
        pool: *mut sys::ggml_threadpool,
    ) -> Result<sys::ggml_cplan, Error> {
        // SAFETY: the graph is valid, and the pool is only noted; the closure owns nothing. The first call makes a list, for which there
        // may be no memory.
        let plan =
            unsafe { sys::guarded(|| sys::ggml_graph_plan(self.graph.as_ptr(), threads as i32, pool)) };
        plan.map_err(|problem| match problem == sys::OUT_OF_MEMORY {
            true => Error::OutOfMemory { what: "a list of ggml's", bytes: size_of::<usize>() },
            false => Error::Ggml("a run cannot be planned"),
        })
    }
}

impl<'g> Tensor<'g> {
    /// The tensor whose memory this one lies in.
    pub(super) fn root(&self) -> NonNull<sys::ggml_tensor> {
        NonNull::new(self.get().view_src).unwrap_or(self.raw)
    }
}
