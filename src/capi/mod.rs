//! The C interface: what `include/lxmert.h` declares, which tells its rules.
//!
//! Names are those of the header, so that there is one vocabulary on both sides. Every function is a thin layer: it checks what C
//! can get wrong (`arguments`, `handles`), calls the Rust interface, and turns the outcome into a status and a line of text
//! (`errors`, `status`). No panic leaves it, and on the way of a run it takes no memory of its own.
//!
//! The header is made from these files, their documentation included; see `tests/header.rs`.

// The names are C's. What its callers owe the library stands once, at the top of the header. Brackets in the header's text are
// shapes and tokens.
#![allow(non_camel_case_types, clippy::missing_safety_doc, rustdoc::broken_intra_doc_links)]

mod arguments;
mod device;
mod errors;
mod handles;
mod library;
mod loader;
mod log;
mod memory;
mod model;
mod options;
mod plan;
mod run;
mod session;
mod status;
mod strings;

pub use arguments::Bool;
pub use device::{lxmert_device_count, lxmert_device_get_info, lxmert_device_info};
use errors::Failure;
pub use errors::lxmert_last_error;
pub use library::{LXMERT_ABI_VERSION, lxmert_abi_version, lxmert_build_info, lxmert_version};
pub use loader::lxmert_loader;
pub use log::{lxmert_log_callback, lxmert_log_level, lxmert_set_log};
pub use memory::lxmert_allocator;
pub use model::{
    lxmert_front_end, lxmert_head, lxmert_model, lxmert_model_free, lxmert_model_from_loader,
    lxmert_model_from_memory, lxmert_model_get_info, lxmert_model_info, lxmert_model_label,
    lxmert_model_name, lxmert_model_open, lxmert_model_tokenize, lxmert_model_verify,
};
pub use options::{LXMERT_MEMORY_ALIGNMENT, lxmert_residency, lxmert_session_options};
pub use plan::{lxmert_memory_plan, lxmert_plan};
pub use run::{
    lxmert_answer, lxmert_ask, lxmert_ask_tokens, lxmert_encode_pixels, lxmert_encode_regions, lxmert_inputs,
    lxmert_output, lxmert_run, lxmert_tensor,
};
pub use session::{
    lxmert_session, lxmert_session_cancel, lxmert_session_create, lxmert_session_free,
    lxmert_session_get_info, lxmert_session_info, lxmert_session_last_error, lxmert_session_set_time_limit,
};
pub use status::{lxmert_status, lxmert_status_name};
