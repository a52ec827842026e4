//! ggml's scheduler: it splits a graph between a device and the CPU where the device lacks an operation, and copies what goes from one to the
//! other.
//!
//! It places what lies between a graph's inputs and its results in memory of its own, cannot keep a graph for another run, and allocates
//! while it splits one. So it runs only what has to be split, and what is to be timed operation by operation.

use std::ffi::c_void;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ggml_sys_bindings as sys;

use super::graph::NodeId;
use super::{ALIGNMENT, Backend, DeviceBuffer, DeviceGraph, Graph, Tensor};
use crate::Error;

/// Splits graphs between one device and the CPU.
pub(crate) struct Scheduler {
    raw: NonNull<sys::ggml_backend_sched>,
    host: Host,
    /// Whether the device is, which is then left alone.
    lost: Arc<AtomicBool>,
}

// SAFETY: it is tied to no thread, and used by one at a time.
unsafe impl Send for Scheduler {}

/// ggml's CPU backend.
struct Host(NonNull<sys::ggml_backend>);

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: made by `Scheduler::new` and freed once, after the scheduler. There is nobody to tell of a failure.
        let _ = unsafe { sys::guarded(|| sys::ggml_backend_free(self.0.as_ptr())) };
    }
}

/// One operation of a run.
#[derive(Clone, Copy)]
pub(crate) struct Timed {
    pub id: NodeId,
    pub on_cpu: bool,
    /// From when it was given to its device until that was done.
    pub time: Duration,
}

impl Scheduler {
    /// For graphs of up to `nodes` operations and inputs. What the device lacks is computed by that many threads.
    ///
    /// # Errors
    /// [`Error::Instructions`], [`Error::Ggml`], [`Error::Device`].
    pub fn new(backend: &Backend, nodes: usize, threads: usize) -> Result<Self, Error> {
        super::check_cpu()?;
        super::check_threads(threads)?;
        super::silence();
        // SAFETY: the CPU has the instructions that the backend was compiled for.
        let host = unsafe { sys::guarded(|| sys::ggml_backend_cpu_init()) };
        let host = Host(host.ok().and_then(NonNull::new).ok_or(OUT_OF_MEMORY)?);
        // SAFETY: the backend is the CPU's.
        unsafe { sys::ggml_backend_cpu_set_n_threads(host.0.as_ptr(), threads as i32) };
        // ggml does not look at what it is given for its tables.
        crate::reserve::probe(Self::asked_bytes(nodes), TOGETHER)?;
        // SAFETY: both backends are valid for as long as the scheduler (see `Drop`); nothing is dropped by an unwinding.
        let raw = unsafe {
            backend.call(|device| {
                let mut backends = [device, host.0.as_ptr()];
                sys::ggml_backend_sched_new(
                    backends.as_mut_ptr(),
                    null_mut(),
                    2,
                    Self::table_nodes(nodes),
                    false,
                    false,
                )
            })?
        };
        let raw = NonNull::new(raw).ok_or(OUT_OF_MEMORY)?;
        Ok(Scheduler { raw, host, lost: backend.lost() })
    }

    /// Nodes that its tables have room for: copies from one place to another, too.
    fn table_nodes(nodes: usize) -> usize {
        2 * nodes
    }

    /// Bytes that ggml asks for when it makes a scheduler: four lists of numbers and room for the description of 60 copies for each node, of
    /// which next to nothing is touched, and what is in [`table_bytes`](Self::table_bytes).
    fn asked_bytes(nodes: usize) -> usize {
        const COPIES: usize = 60;
        let lists = (COPIES + 1) * 4 * size_of::<i32>();
        let described = COPIES * size_of::<sys::ggml_tensor>();
        Self::table_bytes(nodes) + Self::table_nodes(nodes) * (lists + described)
    }

    /// Bytes of memory that its own tables take at most: a graph, and a table of up to twice as many tensors, with the place of each, its
    /// copies in two places, and a bit.
    pub fn table_bytes(nodes: usize) -> usize {
        let nodes = Self::table_nodes(nodes);
        let entry = size_of::<*mut sys::ggml_tensor>() * 3 + size_of::<i32>() + 1;
        // SAFETY: returns a constant of the build.
        let graph = unsafe { sys::ggml_graph_overhead_custom(nodes, false) };
        graph + 2 * nodes * entry + nodes * 4 * size_of::<i32>()
    }

    /// Takes the memory for a graph without places, beside that of inputs, weights and results. Graphs of the same operations on smaller
    /// shapes run in it; another one's would be added to it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`].
    pub fn reserve(&mut self, backend: &Backend, graph: Graph<'_>) -> Result<(), Error> {
        // ggml makes room for what has no place. For as long as it does, inputs, weights and results seem to have one.
        let stand_in = DeviceBuffer::new(backend, ALIGNMENT, "the plan of a session on its device")?;
        let place = stand_in.base(backend)?;
        let elsewhere: Vec<Tensor<'_>> = graph.leaves().into_iter().chain(graph.placed_results()).collect();
        let seem = elsewhere.into_iter().filter(|tensor| tensor.seem_placed(stand_in.as_ptr(), place));
        let seeming: Vec<Tensor<'_>> = seem.collect();
        let done = self.assign(backend, graph.operations()).and_then(|()| {
            // SAFETY: scheduler and graph are valid, nobody reads or writes data, and nothing is dropped by an unwinding.
            unsafe { backend.call(|_| sys::ggml_backend_sched_reserve(self.raw.as_ptr(), graph.as_ptr())) }
        });
        seeming.iter().for_each(Tensor::unplace);
        // A scheduler that has no room is used no more.
        if done? { Ok(()) } else { Err(OUT_OF_MEMORY) }
    }

    /// Bytes that it holds on the device and on the CPU.
    pub fn bytes(&self, backend: &Backend) -> [usize; 2] {
        [backend.as_ptr(), self.host.0.as_ptr()].map(|place| {
            // SAFETY: both backends are the scheduler's.
            unsafe { sys::ggml_backend_sched_get_buffer_size(self.raw.as_ptr(), place) }
        })
    }

    /// Runs the operations of a graph that was not run before, and waits until all are done. Given a list, it runs them one by one, and
    /// leaves there how long each took that is no view.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`].
    pub fn compute(
        &mut self,
        backend: &mut Backend,
        graph: &mut DeviceGraph,
        times: Option<&mut Vec<Timed>>,
    ) -> Result<(), Error> {
        self.assign(backend, graph.operations())?;
        let mut watch = times.map(|times| {
            times.clear();
            Watch { scheduler: self.raw.as_ptr(), host: self.host.0.as_ptr(), times, started: Instant::now() }
        });
        let callback: sys::ggml_backend_sched_eval_callback = match watch {
            Some(_) => Some(Watch::node),
            None => None,
        };
        let data = watch.as_mut().map_or(null_mut(), |watch| (&raw mut *watch).cast());
        // SAFETY: every tensor has its place or is given one by the scheduler; the callback's data outlive the call. Nothing is dropped
        // by an unwinding.
        let status = unsafe {
            backend.call(|_| {
                let raw = self.raw.as_ptr();
                // A computation that has to do this by itself first forgets what was assigned.
                if !sys::ggml_backend_sched_alloc_graph(raw, graph.as_ptr()) {
                    return sys::ggml_status::GGML_STATUS_ALLOC_FAILED;
                }
                sys::ggml_backend_sched_set_eval_callback(raw, callback, data);
                let status = sys::ggml_backend_sched_graph_compute_async(raw, graph.as_ptr());
                sys::ggml_backend_sched_synchronize(raw);
                sys::ggml_backend_sched_set_eval_callback(raw, None, null_mut());
                status
            })?
        };
        backend.outcome(status)
    }

    /// Says where each operation of a graph runs.
    fn assign<'g>(
        &mut self,
        backend: &Backend,
        operations: impl Iterator<Item = Tensor<'g>>,
    ) -> Result<(), Error> {
        let raw = self.raw.as_ptr();
        // SAFETY: the scheduler is valid; nothing is dropped by an unwinding.
        unsafe { backend.call(|_| sys::ggml_backend_sched_reset(raw))? };
        for node in operations.filter(|node| !node.is_view()) {
            let place = if backend.supports(node) { backend.as_ptr() } else { self.host.0.as_ptr() };
            // SAFETY: scheduler and node are valid, the backend is one of the scheduler's, and its table has room for every node.
            unsafe { sys::ggml_backend_sched_set_tensor_backend(raw, node.as_ptr(), place) };
        }
        Ok(())
    }
}

const TOGETHER: &str = "what a device and the CPU compute together";

const OUT_OF_MEMORY: Error = Error::OutOfMemory { what: TOGETHER, bytes: 0 };

impl Drop for Scheduler {
    fn drop(&mut self) {
        if !self.lost.load(Ordering::Relaxed) {
            // SAFETY: made in `new` and freed once, while both backends stand: an engine drops it before its device.
            let freed = unsafe { sys::guarded(|| sys::ggml_backend_sched_free(self.raw.as_ptr())) };
            if freed.is_err() {
                self.lost.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Takes the time of each operation.
struct Watch<'t> {
    scheduler: sys::ggml_backend_sched_t,
    host: *mut sys::ggml_backend,
    times: &'t mut Vec<Timed>,
    started: Instant,
}

impl Watch<'_> {
    /// Asked before an operation whether it is to be waited for, and told when it is done. Never ends a run.
    unsafe extern "C-unwind" fn node(node: *mut sys::ggml_tensor, before: bool, data: *mut c_void) -> bool {
        // SAFETY: the variable in `Scheduler::compute`, which nothing else uses meanwhile.
        let watch = unsafe { &mut *data.cast::<Watch<'_>>() };
        if before {
            watch.started = Instant::now();
            return true;
        }
        let time = watch.started.elapsed();
        // SAFETY: a node of the graph that is run, and so a valid tensor, by a valid scheduler.
        let (tensor, place) = unsafe {
            let tensor = Tensor::new(NonNull::new_unchecked(node));
            (tensor, sys::ggml_backend_sched_get_tensor_backend(watch.scheduler, node))
        };
        if !tensor.is_view() {
            watch.times.push(Timed { id: tensor.id(), on_cpu: place == watch.host, time });
        }
        true
    }
}
