//! Faults on purpose: memory that runs out at every single request, calls of the system that go wrong, and files that change while they
//! are in use. After each: an error that says so or the right result, nothing leaked, no half file, and what is left still works.
#![cfg(unix)]

#[path = "../common/faults.rs"]
mod faults;
mod memory;
#[path = "../common/program.rs"]
mod program;
mod programs;
#[path = "../common/vocabulary.rs"]
mod vocabulary;

/// As the programs and the C library have it.
#[global_allocator]
static ALLOCATOR: lxmert::Reserve = lxmert::Reserve::system();
