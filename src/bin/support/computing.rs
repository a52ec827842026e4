//! How a program that runs one session computes.

use lxmert::{Error, SessionOptions};

use crate::support::Cpus;

/// How to compute.
#[derive(clap::Args)]
pub struct Computing {
    /// Threads to compute with [default: all cores, or 1 for a small model].
    #[arg(long, value_name = "N", overrides_with = "threads")]
    threads: Option<usize>,
    /// Which kernels compute: ggml's operations, or this project's for an instruction set (portable, avx2, avxvnni, avx512vnni),
    /// or the fastest that the CPU has.
    #[arg(long, value_name = "NAME", default_value = "fastest", overrides_with = "lowering")]
    lowering: String,
    #[command(flatten)]
    cpus: Cpus,
}

impl Computing {
    /// Sets what was asked for.
    pub fn apply(&self, options: &mut SessionOptions) -> Result<(), Error> {
        options.threads = self.threads.unwrap_or(options.threads);
        // Here rather than in clap, whose complaint takes three lines.
        options.lowering = self.lowering.parse()?;
        options.cpus.clone_from(&self.cpus.numbers);
        Ok(())
    }
}
