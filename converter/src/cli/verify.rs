//! Whether files are what they were when they were made.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lxmert::gguf::File;

use super::Failure;

/// Compares the header and every tensor of GGUF files with the checksums that lxmert-quantize has stored in them
///
/// Finds what disks, copies and downloads have done to a file. Whoever changes a file on purpose can change its checksums too. Stops
/// at the first file that is damaged.
#[derive(Parser)]
pub struct Arguments {
    /// Files to verify
    #[arg(value_name = "FILE.gguf", required = true)]
    files: Vec<PathBuf>,
}

/// Prints a line for each file that is whole.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    for path in &arguments.files {
        let file = File::open(path)?;
        file.verify().map_err(|error| format!("{}: {error}", path.display()))?;
        let (tensors, bytes) = (file.header().tensors().len(), file.bytes());
        let line = format!(
            "{}: header and {tensors} tensors of {bytes} bytes are as they were made\n",
            path.display()
        );
        if super::print(&line) != ExitCode::SUCCESS {
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
