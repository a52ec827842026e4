//! The backend for Vulkan: shaders in SPIR-V, compiled by `glslc` and embedded in the library, and the code that starts them.
//!
//! - `GLSLC`: the compiler of shaders, instead of the one in `VULKAN_SDK` or on the path
//! - `VULKAN_SDK`: a folder with `bin`, `include` and `lib`, for a system without Vulkan's headers or with old ones
//!
//! All of ggml's shaders are compiled: by glslc 2023.2 they take 120 seconds of one processor and their arrays 25, of some 280 for all
//! of ggml.
//!
//! `glslc` runs on as many processors as ggml's generator of shaders finds, whatever number of jobs Cargo is given.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::backend::Backend;
use crate::build::compile::{Compiler, Language, files, preprocessed};
use crate::build::program::{create_folder, on_path, output_of, run_all};
use crate::{cargo_env, user_env};

/// What a `glslc` may know, by the name of ggml's shader that tries it, and the macro that says so to ggml.
const SHADER_EXTENSIONS: [(&str, &str); 7] = [
    ("coopmat", "GGML_VULKAN_COOPMAT_GLSLC_SUPPORT"),
    ("coopmat2", "GGML_VULKAN_COOPMAT2_GLSLC_SUPPORT"),
    ("coopmat2_decode_vector", "GGML_VULKAN_COOPMAT2_DECODE_VECTOR_GLSLC_SUPPORT"),
    ("integer_dot", "GGML_VULKAN_INTEGER_DOT_GLSLC_SUPPORT"),
    ("bfloat16", "GGML_VULKAN_BFLOAT16_GLSLC_SUPPORT"),
    ("float_e2m1", "GGML_VULKAN_FLOAT_E2M1_GLSLC_SUPPORT"),
    ("float_e4m3", "GGML_VULKAN_FLOAT_E4M3_GLSLC_SUPPORT"),
];

pub fn backend(compiler: &Compiler) -> Result<Backend, String> {
    let sdk = user_env("VULKAN_SDK").map(PathBuf::from);
    let glslc = glslc(sdk.as_deref())?;
    let source = compiler.source.src().join("ggml-vulkan");
    let shaders = source.join("vulkan-shaders");
    let generated = compiler.out.join("vulkan");
    create_folder(&generated)?;

    let known: Vec<&str> = SHADER_EXTENSIONS
        .into_iter()
        .filter(|(name, _)| knows(&glslc, &shaders.join("feature-tests").join(format!("{name}.comp"))))
        .map(|(_, macro_name)| macro_name)
        .collect();
    let mut code = compiler.settings(Language::Cpp);
    code.include(&generated);
    if let Some(sdk) = &sdk {
        code.include(sdk.join("include"));
    }
    check_headers(&code)?;
    for macro_name in &known {
        code.define(macro_name, None);
    }

    let generator = Generator { program: generator(&shaders, &known, &generated)?, glslc, out: &generated };
    let mut arrays = code.clone();
    arrays.opt_level(0).files(generator.run(&shaders)?);
    code.flag("-include").flag(manifest_file("build/layer_settings.hpp")).files(files(&source, "cpp")?);

    let mut link = vec!["lib=vulkan".to_owned()];
    link.extend(sdk.map(|sdk| format!("search=native={}", sdk.join("lib").display())));
    Ok(Backend {
        name: "vulkan".to_owned(),
        macro_name: "GGML_USE_VULKAN",
        units: vec![code, arrays],
        objects: Vec::new(),
        link,
    })
}

fn glslc(sdk: Option<&Path>) -> Result<PathBuf, String> {
    if let Some(glslc) = user_env("GLSLC") {
        let glslc = PathBuf::from(glslc);
        return output_of(Command::new(&glslc).arg("--version"))
            .map(|_| glslc)
            .map_err(|error| format!("GLSLC: {}", error.lines().next().unwrap_or_default()));
    }
    let in_sdk = sdk.map(|sdk| sdk.join("bin/glslc")).filter(|glslc| glslc.is_file());
    in_sdk.or_else(|| on_path("glslc")).ok_or_else(|| {
        "feature vulkan needs glslc: install it (Debian: apt-get install glslc) or set VULKAN_SDK or GLSLC".to_owned()
    })
}

/// Whether `glslc` compiles a shader that requires one extension.
fn knows(glslc: &Path, shader: &Path) -> bool {
    let mut command = Command::new(glslc);
    command.args(["-fshader-stage=compute", "--target-env=vulkan1.3", "-o", "-"]).arg(shader);
    output_of(&mut command).is_ok()
}

/// The C++ compiler is asked for the headers, as it may be one for another system.
fn check_headers(build: &cc::Build) -> Result<(), String> {
    let found = preprocessed(build, &manifest_file("build/vulkan_headers.cpp"))?;
    for (word, message) in [
        (
            "no_vulkan_headers",
            "feature vulkan needs Vulkan's headers and library: apt-get install libvulkan-dev, or set VULKAN_SDK",
        ),
        (
            "old_vulkan_headers",
            "Vulkan's headers are older than 1.3.239: set VULKAN_SDK to a folder with newer ones",
        ),
        (
            "no_spirv_headers",
            "feature vulkan needs SPIR-V's headers: apt-get install spirv-headers, or set VULKAN_SDK",
        ),
    ] {
        if found.lines().any(|line| line.trim() == word) {
            return Err(message.to_owned());
        }
    }
    Ok(())
}

/// Compiles ggml's generator of shaders, for the machine that builds.
fn generator(shaders: &Path, known: &[&str], out: &Path) -> Result<PathBuf, String> {
    let host = cargo_env("HOST");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").target(&host).host(&host).opt_level(1).debug(false).cargo_metadata(false);
    build.warnings(false).flag("-w");
    for macro_name in known {
        build.define(macro_name, None);
    }
    let program = out.join("vulkan-shaders-gen");
    let mut compile = build
        .try_get_compiler()
        .map_err(|error| format!("no C++ compiler for this machine works: {error}"))?
        .to_command();
    compile.arg(shaders.join("vulkan-shaders-gen.cpp")).arg("-pthread").arg("-o").arg(&program);
    output_of(&mut compile)?;
    Ok(program)
}

/// ggml's generator of shaders: it knows which variants of each there are.
struct Generator<'a> {
    program: PathBuf,
    glslc: PathBuf,
    out: &'a Path,
}

impl Generator<'_> {
    /// Compiles the shaders. Returns sources with an array of bytes for each.
    fn run(&self, shaders: &Path) -> Result<Vec<PathBuf>, String> {
        output_of(&mut self.command())?; // writes the header alone
        let mut commands = Vec::new();
        let mut sources = Vec::new();
        for shader in files(shaders, "comp")? {
            let name = shader.file_name().expect("a listed file has a name");
            let source = self.out.join(name).with_extension("comp.cpp");
            let mut command = self.command();
            command
                .arg("--glslc")
                .arg(&self.glslc)
                .arg("--source")
                .arg(&shader)
                .arg("--target-cpp")
                .arg(&source);
            commands.push(command);
            sources.push(source);
        }
        run_all(commands)?;
        Ok(sources)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--output-dir").arg(self.out.join("spirv"));
        command.arg("--target-hpp").arg(self.out.join("ggml-vulkan-shaders.hpp"));
        command
    }
}

fn manifest_file(name: &str) -> PathBuf {
    Path::new(&cargo_env("CARGO_MANIFEST_DIR")).join(name)
}
