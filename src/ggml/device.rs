//! Devices beside the CPU that ggml computes on, and memory there.

use std::collections::BTreeSet;
use std::fmt;
use std::ptr::NonNull;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ggml_sys_bindings as sys;

use super::{ALIGNMENT, Graph, MemoryPlan, Tensor};
use crate::Error;

/// Where a session computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Device {
    /// A GPU with memory of its own, or any that CUDA or Metal drives, if this build has its backend and it is there; otherwise the CPU. A GPU
    /// that shares the CPU's memory and is driven by Vulkan is taken only by its name: those of small boards are slower than their CPUs.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The NVIDIA GPU of that number, as CUDA counts them.
    Cuda(usize),
    /// The GPU of that number, as Vulkan's driver lists them.
    Vulkan(usize),
    /// Apple's GPU.
    Metal,
    /// ggml's CPU backend, treated as a device is: for tests where there is none.
    #[doc(hidden)]
    Emulated,
}

impl Device {
    /// The name that ggml gives the backend, and the device's number there.
    fn of_backend(name: &str, index: usize) -> Option<Self> {
        match name {
            "CUDA" => Some(Device::Cuda(index)),
            "Vulkan" => Some(Device::Vulkan(index)),
            "MTL" | "Metal" => Some(Device::Metal),
            "CPU" => Some(Device::Emulated),
            _ => None,
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Auto => f.write_str("auto"),
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            Device::Vulkan(index) => write!(f, "vulkan:{index}"),
            Device::Metal => f.write_str("metal"),
            Device::Emulated => f.write_str("emulated"),
        }
    }
}

impl FromStr for Device {
    type Err = Error;

    /// `auto`, `cpu`, `cuda`, `cuda:N`, `vulkan`, `vulkan:N` or `metal`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, index) = match text.split_once(':') {
            Some((name, index)) => (name, index.parse().ok()),
            None => (text, Some(0)),
        };
        match (name, index) {
            ("cuda", Some(index)) => Ok(Device::Cuda(index)),
            ("vulkan", Some(index)) => Ok(Device::Vulkan(index)),
            _ => {
                let named = [Device::Auto, Device::Cpu, Device::Metal, Device::Emulated];
                named.into_iter().find(|device| device.to_string() == text).ok_or_else(|| Error::Input {
                    name: "device".to_owned(),
                    expected: "auto, cpu, cuda, cuda:N, vulkan, vulkan:N or metal".to_owned(),
                    found: format!("{text:?}"),
                })
            }
        }
    }
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// What to call it by.
    pub device: Device,
    /// What its driver calls it.
    pub description: String,
    /// Bytes of its memory.
    pub memory: usize,
    /// Bytes of them that nobody uses, as its driver counts.
    pub free_memory: usize,
    /// Whether it shares the CPU's memory.
    pub integrated: bool,
}

/// The devices beside the CPU that this build's backends find here.
///
/// # Errors
/// [`Error::Device`] if a driver fails.
pub fn devices() -> Result<Vec<DeviceInfo>, Error> {
    let found = if sys::BACKENDS.contains(',') { found()? } else { Vec::new() };
    Ok(found.into_iter().map(|found| found.info).filter(|info| info.device != Device::Emulated).collect())
}

/// A device as ggml lists it, for as long as the process lives.
struct Found {
    raw: sys::ggml_backend_dev_t,
    info: DeviceInfo,
}

/// Held while drivers are asked or started: ggml's backends keep what they find in variables that several threads would race for.
static STARTING: Mutex<()> = Mutex::new(());

fn starting() -> MutexGuard<'static, ()> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn found() -> Result<Vec<Found>, Error> {
    let _alone = starting();
    super::check_cpu()?;
    super::silence();
    let text = |text: *const std::ffi::c_char| {
        // SAFETY: ggml's names and descriptions are strings that stay.
        unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    // SAFETY: only numbers are at stake.
    let count = unsafe { sys::guarded(|| sys::ggml_backend_dev_count()) }.map_err(failed(Device::Auto))?;
    let mut all: Vec<Found> = Vec::new();
    for n in 0..count {
        // SAFETY: below the count; the device and its registry stay as long as the process.
        let (raw, backend) = unsafe {
            let raw = sys::ggml_backend_dev_get(n);
            (raw, text(sys::ggml_backend_reg_name(sys::ggml_backend_dev_backend_reg(raw))))
        };
        let same = |found: &&Found| {
            Device::of_backend(&backend, 0).is_some_and(|first| found.info.device.kin(first))
        };
        let Some(device) = Device::of_backend(&backend, all.iter().filter(same).count()) else { continue };
        let mut memory = [0, 0];
        // SAFETY: the device is valid; the driver is asked, and only numbers are written.
        unsafe {
            let [free, total] = &mut memory;
            sys::guarded(|| sys::ggml_backend_dev_memory(raw, free, total)).map_err(failed(device))?;
        }
        // SAFETY: the device is valid.
        let (description, kind) =
            unsafe { (text(sys::ggml_backend_dev_description(raw)), sys::ggml_backend_dev_type(raw)) };
        let integrated = kind == sys::ggml_backend_dev_type::GGML_BACKEND_DEVICE_TYPE_IGPU;
        let [free_memory, memory] = memory;
        all.push(Found { raw, info: DeviceInfo { device, description, memory, free_memory, integrated } });
    }
    Ok(all)
}

impl Device {
    /// Whether both are of the same backend.
    fn kin(self, other: Device) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    /// The device that this stands for here: `None` for the CPU.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not there, [`Error::Device`] if a driver fails.
    pub(crate) fn resolve(self) -> Result<Option<Device>, Error> {
        match self {
            Device::Cpu => Ok(None),
            Device::Emulated => Ok(Some(self)),
            Device::Auto => {
                let serves = |info: &DeviceInfo| !info.integrated || !info.device.kin(Device::Vulkan(0));
                Ok(devices()?.into_iter().find(serves).map(|info| info.device))
            }
            Device::Cuda(_) | Device::Vulkan(_) | Device::Metal => {
                let backend = self.backend();
                if !has_backend(sys::BACKENDS, backend) {
                    let has = sys::BACKENDS;
                    let remedy =
                        format!("auto, cpu (this build has {has}), or a build with --features {backend}");
                    return Err(self.refused(remedy));
                }
                let here = devices()?;
                if here.iter().any(|info| info.device == self) {
                    return Ok(Some(self));
                }
                let names: String = here.iter().map(|info| format!(", {}", info.device)).collect();
                Err(self.refused(format!("auto, cpu{names} (this build has {})", sys::BACKENDS)))
            }
        }
    }

    /// The name of its backend, which is that of the feature of a build.
    fn backend(self) -> &'static str {
        match self {
            Device::Cuda(_) => "cuda",
            Device::Vulkan(_) => "vulkan",
            Device::Metal => "metal",
            Device::Auto | Device::Cpu | Device::Emulated => "cpu",
        }
    }

    fn refused(self, expected: String) -> Error {
        Error::Input { name: "device".to_owned(), expected, found: self.to_string() }
    }
}

/// Whether a list such as `cpu native, cuda 13.0 for 87` has a backend of that name.
fn has_backend(list: &str, backend: &str) -> bool {
    list.split(", ").any(|one| one.split(' ').next() == Some(backend))
}

fn failed(device: Device) -> impl Fn(String) -> Error {
    move |problem| Error::Device { device: device.to_string(), problem }
}

/// A device at work: a queue of its own. Several sessions may have one each on the same device.
pub(crate) struct Backend {
    raw: NonNull<sys::ggml_backend>,
    dev: sys::ggml_backend_dev_t,
    device: Device,
    /// An operation, by ggml's name, that it is taken to lack.
    lacking: Option<&'static str>,
    /// Once true, nothing of it is touched any more, not even to free it: its driver is in no state to be asked.
    lost: Arc<AtomicBool>,
}

// SAFETY: a backend is used by one thread at a time, which `&mut` sees to where it matters; its device is a constant of the process.
unsafe impl Send for Backend {}

impl Backend {
    /// Starts a device, which is taken to lack the operation of that name, if one is given.
    ///
    /// # Errors
    /// [`Error::Input`] if it is not there, [`Error::Device`] if it does not start.
    pub fn new(device: Device, lacking: Option<&'static str>) -> Result<Self, Error> {
        let all = found()?;
        let one = all.iter().find(|found| found.info.device == device).ok_or_else(|| Error::Input {
            name: "device".to_owned(),
            expected: "one that is here".to_owned(),
            found: device.to_string(),
        })?;
        let _alone = starting();
        // SAFETY: the device is valid, and the parameters may be NULL.
        let raw = unsafe { sys::guarded(|| sys::ggml_backend_dev_init(one.raw, std::ptr::null())) };
        let raw = NonNull::new(raw.map_err(failed(device))?);
        let raw = raw.ok_or_else(|| failed(device)("it does not start".to_owned()))?;
        if device == Device::Emulated {
            // Its own default is four threads, which wait for each other by spinning.
            // SAFETY: the backend is ggml's of the CPU.
            unsafe { sys::ggml_backend_cpu_set_n_threads(raw.as_ptr(), 1) };
        }
        Ok(Backend { raw, dev: one.raw, device, lacking, lost: Arc::default() })
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Plans the memory for a graph there, and so for every graph of the same operations on smaller shapes.
    pub fn plan(&self, graph: &Graph<'_>) -> MemoryPlan {
        graph.plan_with(self.alignment(), |tensor| self.bytes_of(tensor))
    }

    /// ggml's names of a graph's operations that the device lacks.
    pub fn missing(&self, graph: &Graph<'_>) -> BTreeSet<&'static str> {
        let missing = graph.operations().filter(|operation| !self.supports(*operation));
        missing.map(|operation| operation.operation()).collect()
    }

    /// Checks that every demanded result can lie there: that the device makes it itself, or a copy of it.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn check_results(&self, graph: &Graph<'_>) -> Result<(), Error> {
        match graph.placed_results().find(|result| !self.supports(*result)) {
            Some(result) => {
                Err(self.failed(&format!("it lacks {}, by which results get there", result.operation())))
            }
            None => Ok(()),
        }
    }

    /// Whether it is lost, as whatever lies there has to know.
    pub(super) fn lost(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.lost)
    }

    pub fn failed(&self, problem: &str) -> Error {
        failed(self.device)(problem.to_owned())
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_backend {
        self.raw.as_ptr()
    }

    /// Whether the device computes that operation on tensors like its own.
    pub fn supports(&self, operation: Tensor<'_>) -> bool {
        if self.lacking == Some(operation.operation()) {
            return false;
        }
        // SAFETY: both are valid; the driver has been asked for its properties already.
        unsafe { sys::ggml_backend_dev_supports_op(self.dev, operation.as_ptr()) }
    }

    fn buffer_type(&self) -> sys::ggml_backend_buffer_type_t {
        // SAFETY: the device is valid.
        unsafe { sys::ggml_backend_dev_buffer_type(self.dev) }
    }

    /// What the start of every tensor must be a multiple of.
    pub fn alignment(&self) -> usize {
        // SAFETY: the type is valid.
        unsafe { sys::ggml_backend_buft_get_alignment(self.buffer_type()) }.max(ALIGNMENT)
    }

    /// The largest block of memory.
    pub(super) fn max_block(&self) -> usize {
        // SAFETY: the type is valid.
        unsafe { sys::ggml_backend_buft_get_max_size(self.buffer_type()) }
    }

    /// The bytes that a tensor takes there.
    pub fn bytes_of(&self, tensor: Tensor<'_>) -> usize {
        // SAFETY: both are valid.
        unsafe { sys::ggml_backend_buft_get_alloc_size(self.buffer_type(), tensor.as_ptr()) }
    }

    /// Writes a tensor's data, all of them.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// # Panics
    /// If there are not as many bytes as the tensor has.
    pub(super) fn set(&self, tensor: Tensor<'_>, data: &[u8]) -> Result<(), Error> {
        // SAFETY: the tensor is valid.
        let bytes = unsafe { sys::ggml_nbytes(tensor.as_ptr()) };
        assert_eq!(bytes, data.len(), "as many bytes as the tensor has");
        // SAFETY: the tensor has its place, as long as the data.
        unsafe {
            self.call(|_| sys::ggml_backend_tensor_set(tensor.as_ptr(), data.as_ptr().cast(), 0, data.len()))
        }
    }

    /// Runs a call that may fail with the device, which is lost then.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::OutOfMemory`].
    ///
    /// # Safety
    /// As for [`sys::guarded`].
    pub(super) unsafe fn call<R>(&self, body: impl FnOnce(*mut sys::ggml_backend) -> R) -> Result<R, Error> {
        self.check()?;
        // SAFETY: this function's contract.
        unsafe { sys::guarded(|| body(self.raw.as_ptr())) }.map_err(|problem| {
            self.give_up();
            match problem == sys::OUT_OF_MEMORY {
                true => Error::OutOfMemory { what: "what a device's driver asks for", bytes: 0 },
                false => failed(self.device)(problem),
            }
        })
    }

    /// Fails if the device is lost.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn check(&self) -> Result<(), Error> {
        match self.lost.load(Ordering::Relaxed) {
            true => Err(failed(self.device)("it was lost".to_owned())),
            false => Ok(()),
        }
    }

    /// Takes the device for lost: what it was doing has ended in no state that anything may be said about.
    pub(super) fn give_up(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// What a computation has come to. One that has failed loses the device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`].
    pub(super) fn outcome(&self, status: sys::ggml_status) -> Result<(), Error> {
        let error = match status {
            sys::ggml_status::GGML_STATUS_SUCCESS => return Ok(()),
            sys::ggml_status::GGML_STATUS_ALLOC_FAILED => {
                Error::OutOfMemory { what: "the intermediate results of a device", bytes: 0 }
            }
            _ => self.failed("the computation failed"),
        };
        self.give_up();
        Err(error)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: made in `new` and freed once; a lost one is left as it is.
        let _ = unsafe { self.call(|raw| sys::ggml_backend_free(raw)) };
    }
}

/// A block of a device's memory.
pub(crate) struct DeviceBuffer {
    raw: NonNull<sys::ggml_backend_buffer>,
    len: usize,
    lost: Arc<AtomicBool>,
}

// SAFETY: the block is tied to no thread; what is in it is read and written through a `Backend`.
unsafe impl Send for DeviceBuffer {}
// SAFETY: a shared reference only tells where it lies.
unsafe impl Sync for DeviceBuffer {}

impl DeviceBuffer {
    /// Takes `len` bytes for the given purpose.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::Device`].
    pub fn new(backend: &Backend, len: usize, what: &'static str) -> Result<Self, Error> {
        let out_of_memory = Error::OutOfMemory { what, bytes: len };
        if len > backend.max_block() {
            return Err(out_of_memory);
        }
        let buffer_type = backend.buffer_type();
        // SAFETY: the type is valid; a driver that fails to allocate returns NULL.
        let raw = unsafe { backend.call(|_| sys::ggml_backend_buft_alloc_buffer(buffer_type, len.max(1))) }?;
        let raw = NonNull::new(raw).ok_or(out_of_memory)?;
        Ok(DeviceBuffer { raw, len, lost: Arc::clone(&backend.lost) })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The address that its places are counted from.
    pub(super) fn base(&self, backend: &Backend) -> Result<*mut std::ffi::c_void, Error> {
        // SAFETY: the buffer is valid.
        unsafe { backend.call(|_| sys::ggml_backend_buffer_get_base(self.raw.as_ptr())) }
    }

    pub(super) fn as_ptr(&self) -> *mut sys::ggml_backend_buffer {
        self.raw.as_ptr()
    }

    /// Gives a tensor without memory its place.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// # Panics
    /// If it is not within the block.
    pub fn place(&self, backend: &Backend, tensor: Tensor<'_>, offset: usize) -> Result<(), Error> {
        assert!(offset + backend.bytes_of(tensor) <= self.len, "a tensor within its block");
        // SAFETY: buffer and tensor are valid, nothing refers to the tensor, and its place is within the buffer.
        let status = unsafe {
            backend.call(|_| {
                let base = sys::ggml_backend_buffer_get_base(self.raw.as_ptr());
                let start = base.cast::<u8>().wrapping_add(offset).cast();
                sys::ggml_backend_tensor_alloc(self.raw.as_ptr(), tensor.as_ptr(), start)
            })?
        };
        match status {
            sys::ggml_status::GGML_STATUS_SUCCESS => Ok(()),
            _ => Err(failed(backend.device)("a tensor could not be placed".to_owned())),
        }
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if !self.lost.load(Ordering::Relaxed) {
            // SAFETY: made in `new` and freed once, unless the device was lost.
            let freed = unsafe { sys::guarded(|| sys::ggml_backend_buffer_free(self.raw.as_ptr())) };
            if freed.is_err() {
                self.lost.store(true, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
impl Backend {
    /// Loses the device, as a driver does that cannot go on, and returns what is told of it.
    pub fn lose(&self, problem: &std::ffi::CStr) -> Error {
        let abort = |_| {
            // SAFETY: three strings, the last for the second's place.
            unsafe { sys::ggml_abort(c"driver.c".as_ptr(), 7, c"%s".as_ptr(), problem.as_ptr()) }
        };
        // SAFETY: nothing is dropped by the unwinding.
        unsafe { self.call::<()>(abort) }.unwrap_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_knows_its_backends() {
        for (list, backend, is_in) in [
            ("cpu native", "cuda", false),
            ("cpu native, cuda 13.0 for 87;90", "cuda", true),
            ("cpu baseline, vulkan", "vulkan", true),
            ("cpu baseline, vulkan", "metal", false),
        ] {
            assert_eq!(has_backend(list, backend), is_in, "{list} {backend}");
        }
        for device in [Device::Cuda(0), Device::Vulkan(0), Device::Metal] {
            if !has_backend(sys::BACKENDS, device.backend()) {
                let text = device.resolve().unwrap_err().to_string();
                assert!(text.contains(&format!("--features {}", device.backend())), "{text}");
            }
        }
    }

    #[test]
    fn a_lost_device_is_asked_nothing_more() {
        let backend = Backend::new(Device::Emulated, None).unwrap();
        let buffer = DeviceBuffer::new(&backend, 100, "a test").unwrap();
        let error = backend.lose(c"it is on fire");
        assert!(
            error.to_string().contains("emulated") && error.to_string().contains("it is on fire"),
            "{error}"
        );
        // SAFETY: nothing is called.
        let error = unsafe { backend.call::<()>(|_| unreachable!("asked of a lost device")) }.unwrap_err();
        assert!(error.to_string().contains("it was lost"), "{error}");
        let more = DeviceBuffer::new(&backend, 100, "a test");
        assert!(matches!(more, Err(Error::Device { .. })));
        drop((buffer, backend));
        assert!(Backend::new(Device::Emulated, None).is_ok());
    }

    #[test]
    fn memory_that_a_device_lacks_is_refused_with_its_size() {
        let backend = Backend::new(Device::Emulated, None).unwrap();
        let error = DeviceBuffer::new(&backend, isize::MAX as usize - 4096, "a test").err().unwrap();
        assert!(matches!(error, Error::OutOfMemory { what: "a test", .. }), "{error}");
        assert!(DeviceBuffer::new(&backend, 100, "a test").is_ok());
    }
}
