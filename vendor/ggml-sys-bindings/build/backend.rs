//! The backends for GPUs, by this package's features. Each is compiled into the same library as the CPU's; which devices there are is
//! asked when a program runs.

use std::path::PathBuf;

use crate::build::compile::Compiler;
use crate::build::{cuda, metal, vulkan};

/// What a backend adds to ggml's library.
pub struct Backend {
    /// For people: the feature, and what it was compiled by or for.
    pub name: String,
    /// Says in ggml's list of backends that this one is there.
    pub macro_name: &'static str,
    /// What `cc` compiles.
    pub units: Vec<cc::Build>,
    /// What was compiled without `cc`.
    pub objects: Vec<PathBuf>,
    /// What programs link, as Cargo is told behind `rustc-link-`.
    pub link: Vec<String>,
}

/// The features that are on.
pub fn features() -> impl Iterator<Item = &'static str> {
    let features = [
        ("cuda", cfg!(feature = "cuda")),
        ("metal", cfg!(feature = "metal")),
        ("vulkan", cfg!(feature = "vulkan")),
    ];
    features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name)
}

/// The backends of the features that are on, in the order in which ggml lists them.
pub fn all(compiler: &Compiler) -> Result<Vec<Backend>, String> {
    features()
        .map(|feature| match feature {
            "cuda" => cuda::backend(compiler),
            "metal" => metal::backend(compiler),
            _ => vulkan::backend(compiler),
        })
        .collect()
}
