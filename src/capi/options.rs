//! What a session is made for, as C says it.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::arguments::{self, Bool, UserData, Versioned, slice, text};
use super::memory::{Memory, lxmert_allocator};
use super::{Failure, lxmert_status};
use crate::session::MAX_OUTPUTS;
use crate::{ForeignMemory, Lowering, Model, Output, Residency, SessionOptions};

/// The alignment in bytes of memory that a caller provides: a cache line.
pub const LXMERT_MEMORY_ALIGNMENT: usize = 64;

/// The most CPUs that are listed: as many as Linux knows.
const MAX_CPUS: usize = 4096;

const _: () = assert!(LXMERT_MEMORY_ALIGNMENT == ForeignMemory::ALIGNMENT);

/// Where the weights are while a session runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum lxmert_residency {
    /// The fastest that the memory budget allows.
    LXMERT_RESIDENCY_AUTO = 0,
    /// In memory of their own, in the order in which the kernels read them. All sessions of a model share it.
    LXMERT_RESIDENCY_RESIDENT = 1,
    /// Used where the file is mapped: the operating system may evict what is not in use, and reads it again when it is.
    LXMERT_RESIDENCY_MAPPED = 2,
    /// Read from the file when their turn comes, in every run, with room for the matrices of two operations. With a memory budget,
    /// as many as it has room for are in memory of their own all the same.
    LXMERT_RESIDENCY_STREAMED = 3,
    /// In the memory of a device beside the CPU, which computes with them there.
    LXMERT_RESIDENCY_DEVICE = 4,
}

impl lxmert_residency {
    pub(super) fn of(residency: Residency) -> Self {
        match residency {
            Residency::Auto => Self::LXMERT_RESIDENCY_AUTO,
            Residency::Resident => Self::LXMERT_RESIDENCY_RESIDENT,
            Residency::Mapped => Self::LXMERT_RESIDENCY_MAPPED,
            Residency::Streamed => Self::LXMERT_RESIDENCY_STREAMED,
            Residency::Device => Self::LXMERT_RESIDENCY_DEVICE,
        }
    }
}

/// What a session is made for. Zero or NULL always means the default.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_session_options {
    /// sizeof(lxmert_session_options): LXMERT_SESSION_OPTIONS_INIT sets it.
    pub struct_size: usize,
    /// The longest question in tokens, [CLS] and [SEP] included. Default: what the model takes, up to 512.
    pub max_tokens: usize,
    /// The most regions of an image. Default: the patches of a patch grid, else 100.
    pub max_regions: usize,
    /// The most pairs of image and question in one lxmert_run. Default: the images that one answer is about.
    pub max_batch: usize,
    /// The threads that compute, the calling one included. Default: all cores, or one for a small model.
    pub threads: usize,
    /// The CPUs that threads other than the calling one may run on, cpu_count of them, by the system's numbers. Linux only.
    /// Default: all.
    pub cpus: *const u32,
    /// How many cpus are listed, at most 4096.
    pub cpu_count: usize,
    /// How the model is computed: "ggml", or an instruction set such as "avx2". Default: "fastest", the fastest that the CPU has.
    pub lowering: *const c_char,
    /// What every run computes, output_count names as lxmert_output takes them, or whole lists, such as "vision_attentions". Nothing
    /// else is computed. Default: the answers' scores, or the pooled output of a model without answers.
    pub outputs: *const *const c_char,
    /// How many outputs are listed, at most 1024.
    pub output_count: usize,
    /// Whether lxmert_run is to take inputs_embeds too.
    pub inputs_embeds: Bool,
    /// The most bytes that the model and the session may hold together, as lxmert_plan counts them. The fastest way to run that keeps
    /// to it is chosen. Default: no limit.
    pub memory_budget: usize,
    /// One of lxmert_residency.
    pub residency: i32,
    /// Whether all memory of the session, and the weights if they are in memory, may never be swapped out or evicted. Linux only.
    pub lock_memory: Bool,
    /// Whether every page of that memory is touched while the session is made, so that no run waits for one.
    pub prefault: Bool,
    /// Whether to measure every operation; the sums go to the log, at level LXMERT_LOG_INFO, when the session is freed.
    pub profile: Bool,
    /// Where the session's memory comes from; the struct is read during the call only. Default: the heap.
    pub allocator: *const lxmert_allocator,
    /// Or a block of the caller's, for one session at a time, which must stay until lxmert_session_free has freed it: at least
    /// lxmert_memory_plan.session bytes that begin at a multiple of LXMERT_MEMORY_ALIGNMENT. Not beside an allocator.
    pub memory: *mut c_void,
    /// Bytes of that block.
    pub memory_size: usize,
    /// Asked between operations of a run, by any of its threads; true gives up the call with LXMERT_CANCELLED. It must not call
    /// functions with the session, lxmert_session_cancel apart.
    pub abort: Option<unsafe extern "C" fn(user_data: *mut c_void) -> Bool>,
    /// Given to abort.
    pub abort_user_data: *mut c_void,
    /// Told the share of the weights, 0 to 1, that is ready while the session is made: one call at a time, by any thread of the
    /// session, with a higher share each time. False gives up the call with LXMERT_CANCELLED, and no other follows it. It must not
    /// call functions with the model, which may wait for it.
    pub progress: Option<unsafe extern "C" fn(fraction: f32, user_data: *mut c_void) -> Bool>,
    /// Given to progress.
    pub progress_user_data: *mut c_void,
    /// Where the model is computed: "cpu", or as lxmert_device_name has it, such as "cuda:0". Default: "auto", a GPU if this build drives
    /// one that is faster than a CPU and it is there, else the CPU.
    pub device: *const c_char,
}

// SAFETY: `repr(C)` with the size first; pointers, optional functions and numbers, all valid as zeros.
unsafe impl Versioned for lxmert_session_options {
    const NAME: &'static str = "lxmert_session_options";
    const FIRST: usize = std::mem::offset_of!(lxmert_session_options, cpus);
}

/// What the caller asks for.
pub(super) struct Given {
    pub options: SessionOptions,
    pub memory: Memory,
}

impl Given {
    /// # Safety
    /// The pointer is NULL or points to options that keep the header's rules.
    pub unsafe fn read(model: &Model, pointer: *const lxmert_session_options) -> Result<Self, Failure> {
        let mut options = SessionOptions::new(model);
        if pointer.is_null() {
            return Ok(Given { options, memory: Memory::Heap });
        }
        // SAFETY: a struct of the size that it begins with, by contract.
        let raw = unsafe { arguments::read("options", pointer) }?;
        for (field, value) in [
            (&mut options.max_tokens, raw.max_tokens),
            (&mut options.max_regions, raw.max_regions),
            (&mut options.max_batch, raw.max_batch),
            (&mut options.threads, raw.threads),
        ] {
            if value > 0 {
                *field = value;
            }
        }
        at_most("cpu_count", raw.cpu_count, MAX_CPUS)?;
        at_most("output_count", raw.output_count, MAX_OUTPUTS)?;
        if raw.cpu_count > 0 {
            // SAFETY: so many CPUs or NULL, by contract.
            let cpus = unsafe { slice("options->cpus", raw.cpus, raw.cpu_count) }?;
            options.cpus = Some(cpus.iter().map(|cpu| *cpu as usize).collect());
        }
        if !raw.lowering.is_null() {
            // SAFETY: a string, by contract.
            options.lowering = lowering(unsafe { text("options->lowering", raw.lowering) }?)?;
        }
        if !raw.device.is_null() {
            // SAFETY: a string, by contract.
            options.device = unsafe { text("options->device", raw.device) }?.parse()?;
        }
        if raw.output_count > 0 {
            // SAFETY: so many pointers or NULL, by contract.
            let names = unsafe { slice("options->outputs", raw.outputs, raw.output_count) }?;
            // SAFETY: each a string or NULL, by contract.
            options.outputs = unsafe { outputs(model, names) }?;
        }
        options.inputs_embeds = raw.inputs_embeds.get();
        options.profile = raw.profile.get();
        options.memory_budget = (raw.memory_budget > 0).then_some(raw.memory_budget);
        options.residency = residency(raw.residency)?;
        options.lock_memory = raw.lock_memory.get();
        options.prefault = raw.prefault.get();
        if let Some(abort) = raw.abort {
            let data = UserData::new(raw.abort_user_data);
            // SAFETY: the caller's function takes the caller's data, by the header's rules.
            options.abort = Some(Arc::new(move || unsafe { abort(data.get()) }.get()));
        }
        if let Some(progress) = raw.progress {
            let data = UserData::new(raw.progress_user_data);
            // SAFETY: as for `abort`.
            options.progress = Some(Arc::new(move |share| unsafe { progress(share, data.get()) }.get()));
        }
        // SAFETY: an allocator and memory that keep the header's rules, by contract.
        let memory = unsafe { Memory::read(raw.allocator, raw.memory, raw.memory_size) }?;
        Ok(Given { options, memory })
    }
}

/// Refuses a count that no caller means, before as many things are looked at.
fn at_most(name: &str, count: usize, limit: usize) -> Result<(), Failure> {
    if count > limit {
        return Err(Failure::argument(format_args!("options->{name} is {count}: give at most {limit}")));
    }
    Ok(())
}

fn lowering(name: &str) -> Result<Lowering, Failure> {
    let lowering: Lowering = name.parse()?;
    match lowering.resolve() {
        Ok(_) => Ok(lowering),
        Err(error) => Err(Failure::new(lxmert_status::LXMERT_UNSUPPORTED, format_args!("{error}"))),
    }
}

/// # Safety
/// Every name is NULL or a string.
unsafe fn outputs(model: &Model, names: &[*const c_char]) -> Result<Vec<Output>, Failure> {
    let mut outputs = Vec::new();
    for name in names {
        // SAFETY: this function's contract.
        let name = unsafe { text("a name in options->outputs", *name) }?;
        match Output::list(name, model.config()) {
            Some(list) => outputs.extend(list),
            None => outputs.push(name.parse()?),
        }
    }
    outputs.sort_unstable();
    outputs.dedup();
    Ok(outputs)
}

fn residency(number: i32) -> Result<Residency, Failure> {
    let known = Residency::ALL.into_iter().find(|known| lxmert_residency::of(*known) as i32 == number);
    known.ok_or_else(|| {
        Failure::argument(format_args!(
            "options->residency is {number}: give one of lxmert_residency, 0 to 4"
        ))
    })
}
