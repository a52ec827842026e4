//! How a program loads its model, and how much it takes from files.

use lxmert::{Error, Limits, ModelOptions};

/// What to demand of files.
#[derive(clap::Args, Clone)]
pub struct Loading {
    /// Compare the model's weights with the checksums in its file first, which reads the whole file.
    #[arg(long)]
    verify: bool,
    /// Set a limit on what is taken from files and inputs, such as image_side=20000; may be repeated. An error that speaks of a limit
    /// names it.
    #[arg(long = "limit", value_name = "NAME=N")]
    limits: Vec<String>,
}

impl Loading {
    /// As a model is to be loaded.
    pub fn options(&self) -> Result<ModelOptions, Error> {
        let mut options = ModelOptions::default();
        options.verify = self.verify;
        options.limits = self.limits()?;
        Ok(options)
    }

    /// The limits.
    pub fn limits(&self) -> Result<Limits, Error> {
        let mut limits = Limits::default();
        // Here rather than in clap, whose complaint takes three lines.
        self.limits.iter().try_for_each(|limit| limits.set_from(limit))?;
        Ok(limits)
    }

    /// The limits as arguments of another process.
    #[allow(dead_code, reason = "not every program starts another")]
    pub fn arguments(&self) -> impl Iterator<Item = String> {
        self.limits.iter().map(|limit| format!("--limit={limit}"))
    }
}
