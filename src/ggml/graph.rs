//! A graph of ggml operations: built, planned, bound to memory and computed.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use ggml_sys_bindings as sys;

use super::memory_plan::{Place, Slot, Step};
use super::{ALIGNMENT, AlignedBuffer, MemoryPlan, Tensors, ThreadPool};
use crate::Error;
use crate::gguf::TensorType;

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

    /// The name of the operation that makes it.
    pub(super) fn operation(&self) -> String {
        // SAFETY: the tensor is valid; the name is a string that stays.
        let name = unsafe { std::ffi::CStr::from_ptr(sys::ggml_op_desc(self.raw.as_ptr())) };
        name.to_string_lossy().into_owned()
    }

    /// Whether its numbers are of that type.
    pub(super) fn is_of(&self, tensor_type: TensorType) -> bool {
        self.get().type_ == sys::ggml_type(tensor_type.id())
    }

    /// Where a view begins in what it views, in bytes.
    pub(super) fn view_offset(&self) -> usize {
        self.get().view_offs
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

/// Numbers in a session's memory: an input to fill, or a result to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    offset: usize,
    elements: usize,
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
    _memory: PhantomData<&'g mut GraphMemory>,
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
            _memory: PhantomData,
        }
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

    /// matrix · x: [k, m] · [k, n, …] → [m, n, …]; the matrix may be quantized.
    pub fn mul_mat(&self, matrix: Tensor<'g>, x: Tensor<'g>) -> Tensor<'g> {
        let ([k, _, m2, m3], [x0, _, x2, x3]) = (matrix.dims(), x.dims());
        assert!(k == x0 && x2.is_multiple_of(m2) && x3.is_multiple_of(m3), "shapes of a product");
        assert!(matrix.strides()[0] <= matrix.strides()[1], "a transposed matrix");
        self.binary(sys::ggml_mul_mat, matrix, x)
    }

    /// a + b, with b repeated where its axes are 1.
    pub fn add(&self, a: Tensor<'g>, b: Tensor<'g>) -> Tensor<'g> {
        assert_repeats(b, a);
        self.binary(sys::ggml_add, a, b)
    }

    /// a · b element by element, with b repeated where its axes are 1.
    pub fn mul(&self, a: Tensor<'g>, b: Tensor<'g>) -> Tensor<'g> {
        assert_repeats(b, a);
        self.binary(sys::ggml_mul, a, b)
    }

    /// x · factor.
    pub fn scale(&self, x: Tensor<'g>, factor: f32) -> Tensor<'g> {
        // SAFETY: context and tensor are valid.
        self.wrap(unsafe { sys::ggml_scale(self.room_for_one(), x.raw.as_ptr(), factor) })
    }

    /// (x − mean) / √(variance + epsilon) over the first axis.
    pub fn norm(&self, x: Tensor<'g>, epsilon: f32) -> Tensor<'g> {
        // SAFETY: context and tensor are valid.
        self.wrap(unsafe { sys::ggml_norm(self.room_for_one(), x.raw.as_ptr(), epsilon) })
    }

    /// GELU with the error function.
    pub fn gelu_erf(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_gelu_erf, x)
    }

    /// max(0, x).
    pub fn relu(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_relu, x)
    }

    /// x · sigmoid(x).
    pub fn silu(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_silu, x)
    }

    /// tanh(x).
    pub fn tanh(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_tanh, x)
    }

    /// softmax(x · scale + mask) over the first axis. The mask `[keys, ≥ queries, 1 or …, batch]` is f32.
    pub fn soft_max(&self, x: Tensor<'g>, mask: Option<Tensor<'g>>, scale: f32) -> Tensor<'g> {
        if let Some(mask) = mask {
            let ([x0, x1, x2, x3], [m0, m1, m2, m3]) = (x.dims(), mask.dims());
            let fits = m0 == x0 && m1 >= x1 && x2.is_multiple_of(m2) && x3.is_multiple_of(m3);
            assert!(fits && mask.is_contiguous(), "shape of a mask");
        }
        assert!(x.is_contiguous(), "softmax of a view");
        let mask = mask.map_or(std::ptr::null_mut(), |mask| mask.raw.as_ptr());
        // SAFETY: context and tensors are valid.
        let soft_max =
            unsafe { sys::ggml_soft_max_ext(self.room_for_one(), x.raw.as_ptr(), mask, scale, 0.0) };
        self.wrap(soft_max)
    }

    /// The table's rows at `indices`: [width, rows] → [width, indices], in f32.
    ///
    /// Whoever fills the indices answers for their range.
    pub fn get_rows(&self, table: Tensor<'g>, indices: Tensor<'g>) -> Tensor<'g> {
        assert!(table.dims()[2..] == [1, 1] && indices.dims()[1..] == [1, 1, 1], "shapes of a look-up");
        self.binary(sys::ggml_get_rows, table, indices)
    }

    /// A view of `x` with its own sizes, strides in bytes for all axes but the first, and start in bytes.
    pub fn view(&self, x: Tensor<'g>, dims: [usize; 4], strides: [usize; 3], offset: usize) -> Tensor<'g> {
        let last: usize = dims[1..].iter().zip(strides).map(|(dim, stride)| (dim - 1) * stride).sum();
        // SAFETY: the tensor is valid.
        let (row, whole) = unsafe {
            let raw = x.raw.as_ptr();
            (sys::ggml_row_size((*raw).type_, dims[0] as i64), sys::ggml_nbytes(raw))
        };
        assert!(offset + last + row <= whole, "a view beyond its tensor");
        let [ne0, ne1, ne2, ne3] = dims.map(|dim| dim as i64);
        let [nb1, nb2, nb3] = strides;
        // SAFETY: context and tensor are valid, and the view lies within the tensor.
        let view = unsafe {
            sys::ggml_view_4d(self.room_for_one(), x.raw.as_ptr(), ne0, ne1, ne2, ne3, nb1, nb2, nb3, offset)
        };
        self.wrap(view)
    }

    /// The rows `start..start + count` of a matrix or vector `[k, m]`; of a vector, its elements.
    pub fn rows(&self, x: Tensor<'g>, start: usize, count: usize) -> Tensor<'g> {
        let ([k, m, ..], [element, row, ..]) = (x.dims(), x.strides());
        if m == 1 {
            return self.view(x, [count, 1, 1, 1], [element * count; 3], start * element);
        }
        self.view(x, [k, count, 1, 1], [row, row * count, row * count], start * row)
    }

    /// The same numbers in the same order under other sizes.
    pub fn reshape(&self, x: Tensor<'g>, dims: [usize; 4]) -> Tensor<'g> {
        assert!(x.is_contiguous() && x.elements() == dims.iter().product::<usize>(), "a reshaped view");
        let [ne0, ne1, ne2, ne3] = dims.map(|dim| dim as i64);
        // SAFETY: context and tensor are valid, and the sizes agree.
        self.wrap(unsafe { sys::ggml_reshape_4d(self.room_for_one(), x.raw.as_ptr(), ne0, ne1, ne2, ne3) })
    }

    /// A view in which axis i of `x` has become axis `axes[i]`.
    pub fn permute(&self, x: Tensor<'g>, axes: [usize; 4]) -> Tensor<'g> {
        let mut sorted = axes;
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1, 2, 3], "a permutation");
        let [a, b, c, d] = axes.map(|axis| axis as i32);
        // SAFETY: context and tensor are valid, and the axes are a permutation.
        self.wrap(unsafe { sys::ggml_permute(self.room_for_one(), x.raw.as_ptr(), a, b, c, d) })
    }

    /// A copy in f32.
    pub fn to_f32(&self, x: Tensor<'g>) -> Tensor<'g> {
        // SAFETY: context and tensor are valid; ggml unpacks every type there is.
        self.wrap(unsafe {
            sys::ggml_cast(self.room_for_one(), x.raw.as_ptr(), sys::ggml_type::GGML_TYPE_F32)
        })
    }

    /// A copy without gaps between the elements.
    pub fn contiguous(&self, x: Tensor<'g>) -> Tensor<'g> {
        self.unary(sys::ggml_cont, x)
    }

    fn unary(
        &self,
        operation: unsafe extern "C" fn(
            *mut sys::ggml_context,
            *mut sys::ggml_tensor,
        ) -> *mut sys::ggml_tensor,
        x: Tensor<'g>,
    ) -> Tensor<'g> {
        // SAFETY: context and tensor are valid; the operation takes any shape.
        self.wrap(unsafe { operation(self.room_for_one(), x.raw.as_ptr()) })
    }

    fn binary(
        &self,
        operation: unsafe extern "C" fn(
            *mut sys::ggml_context,
            *mut sys::ggml_tensor,
            *mut sys::ggml_tensor,
        ) -> *mut sys::ggml_tensor,
        a: Tensor<'g>,
        b: Tensor<'g>,
    ) -> Tensor<'g> {
        // SAFETY: context and tensors are valid; the caller has checked the shapes.
        self.wrap(unsafe { operation(self.room_for_one(), a.raw.as_ptr(), b.raw.as_ptr()) })
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

    /// Gives every tensor its place in `memory`: this graph's own part starts at `kept`, the shared part at `scratch`.
    ///
    /// # Panics
    /// If the plan is not for this graph or `memory` is smaller than it demands.
    pub fn bind<'m>(
        self,
        plan: &MemoryPlan,
        memory: &'m mut AlignedBuffer,
        kept: usize,
        scratch: usize,
    ) -> BoundGraph<'g, 'm> {
        assert!(kept + plan.kept_bytes() <= memory.len() && scratch + plan.scratch_bytes() <= memory.len());
        assert_eq!(
            (plan.inputs.len(), plan.steps.len()),
            (self.inputs.len(), self.len()),
            "another graph's plan"
        );
        let base = memory.as_mut_ptr();
        let place = |tensor: NonNull<sys::ggml_tensor>, slot: &Slot| {
            // SAFETY: nothing refers to the tensor, and its memory lies within `memory`: the plan's parts do, as checked
            // above, and the tensor is no larger than its slot.
            unsafe {
                let raw = tensor.as_ptr();
                let data = match slot.place {
                    Place::Viewed => {
                        let viewed = (*raw).view_src;
                        assert!(
                            !viewed.is_null() && !(*viewed).data.is_null(),
                            "a view of memory with a place"
                        );
                        (*viewed).data.cast::<u8>().add((*raw).view_offs)
                    }
                    Place::Kept(offset) => base.add(kept + offset),
                    Place::Scratch(offset) => base.add(scratch + offset),
                };
                assert!(
                    slot.place == Place::Viewed || sys::ggml_nbytes(raw) <= slot.bytes,
                    "a larger graph's plan"
                );
                (*raw).data = data.cast();
            }
        };
        for (input, slot) in self.inputs.iter().zip(&plan.inputs) {
            place(input.raw, slot);
        }
        for (node, slot) in self.nodes().zip(&plan.steps) {
            place(node, slot);
        }
        BoundGraph { graph: self, memory }
    }
}

impl<'g> Tensor<'g> {
    /// The tensor whose memory this one lies in.
    pub(super) fn root(&self) -> NonNull<sys::ggml_tensor> {
        NonNull::new(self.get().view_src).unwrap_or(self.raw)
    }
}

fn assert_repeats(small: Tensor<'_>, large: Tensor<'_>) {
    let fits = large.dims().iter().zip(small.dims()).all(|(large, small)| large.is_multiple_of(small));
    assert!(fits, "shapes {:?} and {:?} of an element-wise operation", large.dims(), small.dims());
}

/// A graph whose tensors have their memory.
pub(crate) struct BoundGraph<'g, 'm> {
    graph: Graph<'g>,
    memory: &'m mut AlignedBuffer,
}

impl<'g> BoundGraph<'g, '_> {
    /// Where a tensor of the graph without gaps lies.
    ///
    /// # Panics
    /// If it has gaps, or does not lie in the graph's memory.
    pub fn region(&self, tensor: Tensor<'g>) -> Region {
        let (start, len) = (self.memory.as_slice().as_ptr().addr(), self.memory.len());
        let offset = tensor.get().data.addr().checked_sub(start).filter(|offset| *offset < len);
        assert!(tensor.is_contiguous(), "a region without gaps");
        Region { offset: offset.expect("memory of this graph"), elements: tensor.elements() }
    }

    /// The numbers of an f32 input, to fill.
    pub fn f32s_mut(&mut self, input: Tensor<'g>) -> &mut [f32] {
        let region = self.region(input);
        self.memory.f32s_mut(region.offset, region.elements)
    }

    /// Fills an input of indices.
    ///
    /// # Panics
    /// If there are not as many indices as the input has room for.
    pub fn set_indices(&mut self, input: Tensor<'g>, indices: impl ExactSizeIterator<Item = u32>) {
        let region = self.region(input);
        assert_eq!(indices.len(), region.elements, "as many indices as the input has");
        let bytes = &mut self.memory.as_mut_slice()[region.offset..][..4 * region.elements];
        for (bytes, index) in bytes.as_chunks_mut().0.iter_mut().zip(indices) {
            *bytes = index.to_ne_bytes();
        }
    }

    /// Copies what another graph has left in the same memory into an f32 input.
    ///
    /// # Panics
    /// If the sizes differ.
    pub fn copy(&mut self, from: Region, input: Tensor<'g>) {
        let to = self.region(input);
        assert_eq!(from.elements, to.elements, "as many numbers as the input has");
        let bytes = from.offset..from.offset + 4 * from.elements;
        self.memory.as_mut_slice().copy_within(bytes, to.offset);
    }

    /// Runs the operations, and asks before the first and after each whether to give up. Returns false if somebody wanted to.
    ///
    /// # Errors
    /// [`Error::Ggml`] if ggml reports a failure, or `work` is smaller than [`Graph::work_bytes`] says.
    ///
    /// # Panics
    /// If `give_up` does.
    pub fn compute(
        &mut self,
        pool: &mut ThreadPool,
        work: &mut AlignedBuffer,
        give_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<bool, Error> {
        /// Who is asked, and what a panic of theirs said.
        struct Asked<'a> {
            give_up: &'a (dyn Fn() -> bool + Sync),
            panic: Mutex<Option<Box<dyn Any + Send>>>,
        }
        unsafe extern "C" fn ask(asked: *mut c_void) -> bool {
            // SAFETY: points to the variable below, which outlives the computation.
            let asked = unsafe { &*asked.cast::<Asked<'_>>() };
            // A panic must not unwind through ggml.
            catch_unwind(AssertUnwindSafe(asked.give_up)).unwrap_or_else(|panic| {
                asked.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
                true
            })
        }
        if give_up() {
            return Ok(false);
        }
        let asked = Asked { give_up, panic: Mutex::new(None) };
        let mut plan = self.graph.compute_plan(pool.threads(), pool.as_ptr())?;
        if plan.work_size > work.len() {
            return Err(Error::Ggml("a run needs more work memory than its limits said"));
        }
        plan.work_data = work.as_mut_ptr();
        plan.abort_callback = Some(ask);
        plan.abort_callback_data = (&raw const asked).cast_mut().cast();
        // SAFETY: every tensor has memory of its size within `self.memory` or the model's storage, the work memory is
        // large enough, and pool, work and memory are borrowed exclusively until the call returns.
        let status = unsafe { sys::ggml_graph_compute(self.graph.graph.as_ptr(), &mut plan) };
        if let Some(panic) = asked.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
        match status {
            sys::ggml_status::GGML_STATUS_SUCCESS => Ok(true),
            sys::ggml_status::GGML_STATUS_ABORTED => Ok(false),
            sys::ggml_status::GGML_STATUS_ALLOC_FAILED => Err(Error::Ggml("out of memory")),
            _ => Err(Error::Ggml("the computation failed")),
        }
    }
}

impl Region {
    /// That many numbers, so many bytes from the start of the memory.
    pub fn new(offset: usize, elements: usize) -> Self {
        Region { offset, elements }
    }

    /// Where it begins, from the start of the memory.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// The bytes that it takes there.
    pub fn bytes(self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.elements * size_of::<f32>()
    }

    /// The numbers that lie there, to write.
    pub fn write(self, memory: &mut AlignedBuffer) -> &mut [f32] {
        memory.f32s_mut(self.offset, self.elements)
    }

    /// The numbers that lie there.
    pub fn read(self, memory: &AlignedBuffer) -> &[f32] {
        memory.f32s(self.offset, self.elements)
    }
}
