//! How a program that runs one session computes.

use lxmert::{Error, Model, Session, SessionOptions};

use crate::memory::{self, Memory};
use crate::support::Cpus;

/// How to compute.
#[derive(clap::Args)]
pub struct Computing {
    /// Threads to compute with [default: all cores, or 1 for a small model].
    #[arg(long, value_name = "N", overrides_with = "threads")]
    threads: Option<usize>,
    /// Which kernels compute: ggml's operations, or this project's for an instruction set (portable; avx2, avxvnni, avx512vnni,
    /// amx; neon, dotprod, i8mm), or the fastest that the CPU has.
    #[arg(long, value_name = "NAME", default_value = "fastest", overrides_with = "lowering")]
    lowering: String,
    /// Where to compute: cpu, or cuda, vulkan or metal, whose second GPU is cuda:1 and so on, or a GPU if this build drives one that
    /// is faster than a CPU and it is there (auto).
    #[arg(long, value_name = "NAME", default_value = "auto", overrides_with = "device")]
    device: String,
    #[command(flatten)]
    cpus: Cpus,
    #[command(flatten)]
    memory: Memory,
    /// Tell how much memory it would take, and where the weights would be, and take none.
    #[arg(long)]
    plan: bool,
}

impl Computing {
    /// Sets what was asked for.
    pub fn apply(&self, options: &mut SessionOptions) -> Result<(), Error> {
        options.threads = self.threads.unwrap_or(options.threads);
        // Here rather than in clap, whose complaint takes three lines.
        options.lowering = self.lowering.parse()?;
        options.device = self.device.parse()?;
        options.cpus.clone_from(&self.cpus.numbers);
        self.memory.apply(options)
    }

    /// Makes the session, or tells its plan and makes none.
    pub fn session(&self, model: &Model, options: SessionOptions) -> Result<Option<Session>, Error> {
        let explain = |error| self.memory.explain(error);
        if self.plan {
            print!("{}", memory::plan(model, &options).map_err(explain)?);
            return Ok(None);
        }
        Session::new(model, options).map(Some).map_err(explain)
    }
}
