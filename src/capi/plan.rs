//! What a session would take, before it is made.

use std::ffi::c_char;

use super::arguments::{Out, Versioned};
use super::device::kept;
use super::errors::{made, status};
use super::handles::Handle;
use super::lxmert_status;
use super::model::{LoadedModel, lxmert_model};
use super::options::{Given, lxmert_residency, lxmert_session_options};
use super::strings::lowering_name;

/// What a model and one session of it hold together, in bytes, and how the session would run. What sessions share is counted
/// whole: a second session of the model takes only its session and other more.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct lxmert_memory_plan {
    /// sizeof(lxmert_memory_plan): LXMERT_MEMORY_PLAN_INIT sets it.
    pub struct_size: usize,
    /// One of lxmert_residency, never LXMERT_RESIDENCY_AUTO.
    pub residency: i32,
    /// How the model would be computed, such as "avx2". Valid for as long as the library is loaded.
    pub lowering: *const c_char,
    /// Where the model would be computed: "cpu", or as lxmert_device_info has it. Valid for as long as the library is loaded.
    pub device: *const c_char,
    /// Weights and scratch in the memory of that device, if it is another than the CPU.
    pub device_bytes: usize,
    /// Weights where the file is mapped, as if all of them were in memory at once, or where the caller keeps its bytes.
    pub weights_mapped: usize,
    /// Weights in memory of the model's own, which all its sessions share. They stay until the model and its last session are
    /// freed, and so count for later sessions that would do without.
    pub weights_private: usize,
    /// The session's block: what allocator is asked for, and what memory must have room for, to the byte.
    pub session: usize,
    /// The tokenizer, at most, once the first question is asked as text.
    pub tokenizer: usize,
    /// The answers' texts.
    pub labels: usize,
    /// The list of tensors, and the threads' stacks as far as they are used.
    pub other: usize,
    /// The sum, which memory_budget is compared with.
    pub total: usize,
}

// SAFETY: `repr(C)` with the size first; numbers and a pointer.
unsafe impl Versioned for lxmert_memory_plan {
    const NAME: &'static str = "lxmert_memory_plan";
    const FIRST: usize = std::mem::offset_of!(lxmert_memory_plan, device);
}

/// Tells what a session with these options would take, without making it. options may be NULL for the defaults. Only as much of
/// plan is written as its struct_size says.
///
/// | allocates   | while it plans                                                                           |
/// |-------------|------------------------------------------------------------------------------------------|
/// | thread-safe | yes                                                                                      |
/// | blocks      | no                                                                                       |
/// | fails       | as lxmert_session_create does for these options, and LXMERT_BUDGET if no way to run fits |
/// |             | memory_budget                                                                            |
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lxmert_plan(
    model: *const lxmert_model,
    options: *const lxmert_session_options,
    plan: *mut lxmert_memory_plan,
) -> lxmert_status {
    status(|| {
        // SAFETY: a struct of the size that it begins with or NULL, by the header's rules.
        let out = unsafe { Out::new("plan", plan) }?;
        // SAFETY: a live handle, or NULL, by the header's rules.
        let model = &unsafe { Handle::<LoadedModel>::get(model) }?.model;
        let plan = made(|| {
            // SAFETY: options or NULL, by the header's rules.
            let options = unsafe { Given::read(model, options) }?.options;
            Ok(model.plan(&options)?)
        })?;
        let device = made(|| kept(&plan.device.to_string()))?;
        out.write(&lxmert_memory_plan {
            struct_size: size_of::<lxmert_memory_plan>(),
            residency: lxmert_residency::of(plan.residency) as i32,
            lowering: lowering_name(plan.lowering),
            device,
            device_bytes: plan.device_bytes,
            weights_mapped: plan.weights_mapped,
            weights_private: plan.weights_private,
            session: plan.session,
            tokenizer: plan.tokenizer,
            labels: plan.labels,
            other: plan.other,
            total: plan.total(),
        });
        Ok(())
    })
}
