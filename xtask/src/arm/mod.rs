//! 64-bit ARM without such a machine: a cross toolchain, and qemu to run what it builds.

mod count;
mod debian;
mod loops;
mod newer_cpu;
mod program;
mod test;
pub mod toolchain;

use crate::Result;
use toolchain::{Cpu, RustFrom, Toolchain};

#[derive(clap::Subcommand)]
pub enum Task {
    /// Build everything for the target, and run the tests under qemu on each CPU.
    Test(test::Arguments),
    /// Count what the inner loops of the kernels are made of, and compare with benches/arm-loops.md.
    Loops(loops::Arguments),
    /// Count the instructions of an answer under qemu, beside ggml's, and compare with the goals.
    Count(count::Arguments),
    /// Print the variables that builds for the target need, for a shell: eval "$(cargo xtask arm env)".
    Env(Env),
}

#[derive(clap::Args)]
pub struct Env {
    /// The CPU that qemu is when it runs what was built.
    #[arg(long, value_name = "NAME", default_value = "cortex-a57")]
    cpu: Cpu,
    /// Where Rust's standard library for the target is from [default: rustup, or Debian where that has none].
    #[arg(long, value_name = "NAME")]
    toolchain: Option<RustFrom>,
}

pub fn run(task: &Task) -> Result<()> {
    match task {
        Task::Test(arguments) => test::test(arguments),
        Task::Loops(arguments) => loops::loops(arguments),
        Task::Count(arguments) => count::count(arguments),
        Task::Env(arguments) => env(arguments),
    }
}

fn env(arguments: &Env) -> Result<()> {
    let toolchain = Toolchain::set_up(arguments.toolchain)?;
    let mut command = std::process::Command::new("");
    toolchain.environment(&mut command, arguments.cpu);
    for (name, value) in command.get_envs() {
        let value = value.unwrap_or_default().to_string_lossy().replace('\'', r"'\''");
        println!("export {}='{value}'", name.to_string_lossy());
    }
    Ok(())
}
