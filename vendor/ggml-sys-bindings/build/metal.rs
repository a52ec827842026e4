//! The backend for Metal: kernels as source text in the library, which the driver compiles when a program runs.
//!
//! ggml's code for it releases its objects itself, so it is compiled without automatic reference counting.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::build::backend::Backend;
use crate::build::compile::{Compiler, Language, files};
use crate::build::metal_source::merged;
use crate::build::program::{create_folder, write};
use crate::cargo_env;

pub fn backend(compiler: &Compiler) -> Result<Backend, String> {
    if cargo_env("CARGO_CFG_TARGET_VENDOR") != "apple" {
        return Err(format!("feature metal is for Apple's systems, not for {}", cargo_env("TARGET")));
    }
    let source = compiler.source.src().join("ggml-metal");
    let mut units = Vec::new();
    for (language, extension) in [(Language::Cpp, "cpp"), (Language::C, "m")] {
        let mut unit = compiler.settings(language);
        unit.define("GGML_METAL_EMBED_LIBRARY", None).files(files(&source, extension)?);
        units.push(unit);
    }
    let mut kernels = cc::Build::new();
    kernels.file(embedded(&source, &compiler.out.join("metal"))?);
    units.push(kernels);
    Ok(Backend {
        name: "metal".to_owned(),
        macro_name: "GGML_USE_METAL",
        units,
        objects: Vec::new(),
        link: ["Foundation", "Metal", "MetalKit"].map(|name| format!("lib=framework={name}")).to_vec(),
    })
}

/// Writes each library of kernels as one text, and the assembler's file that holds them all between the symbols that ggml looks for.
fn embedded(source: &Path, out: &Path) -> Result<PathBuf, String> {
    create_folder(out)?;
    let folders = [source.join("kernels"), source.to_owned(), source.join("..")];
    let mut assembly = ".section __DATA,__ggml_metallib\n".to_owned();
    for kernels in files(&folders[0], "metal")? {
        let name = kernels.file_stem().expect("a listed file has a name").to_string_lossy();
        // Parts of others.
        if name.ends_with("_common") {
            continue;
        }
        let text = out.join(format!("{name}.metal"));
        write(&text, &merged(&kernels, &folders)?)?;
        writeln!(assembly, ".globl _ggml_metallib_{name}_start\n_ggml_metallib_{name}_start:").unwrap();
        writeln!(assembly, ".incbin \"{}\"", text.display()).unwrap();
        writeln!(assembly, ".globl _ggml_metallib_{name}_end\n_ggml_metallib_{name}_end:").unwrap();
    }
    let path = out.join("kernels.s");
    write(&path, &assembly)?;
    Ok(path)
}
