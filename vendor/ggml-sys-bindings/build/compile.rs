//! The compiler's part: what ggml's own CMake files do for a static library with the CPU backend, and whatever backends there are
//! beside it.

use std::path::{Path, PathBuf};
use std::thread;

use crate::build::program::{self, write};
use crate::build::{backend::Backend, cpu::Cpu, source::Source};
use crate::{cargo_env, user_env};

/// Folders of `ggml-cpu` that are compiled, beside `arch/<target>`. Left out are `kleidiai`,
/// which needs a library of that name, and `spacemit`, for a RISC-V processor.
const CPU_FOLDERS: [&str; 4] = ["", "amx", "llamafile", "tiled"];

/// What `LXMERT_SANITIZE` may list, separated by commas.
const SANITIZERS: [&str; 5] = ["address", "fuzzer-no-link", "leak", "thread", "undefined"];

#[derive(Clone, Copy)]
pub enum Language {
    C,
    Cpp,
}

impl Language {
    fn extension(self) -> &'static str {
        match self {
            Language::C => "c",
            Language::Cpp => "cpp",
        }
    }
}

pub struct Compiler<'a> {
    pub source: &'a Source,
    cpu: &'a Cpu,
    sanitizers: Option<String>,
    /// The build script's own folder.
    pub out: PathBuf,
}

impl<'a> Compiler<'a> {
    pub fn new(source: &'a Source, cpu: &'a Cpu) -> Result<Self, String> {
        Ok(Self { source, cpu, sanitizers: sanitizers()?, out: PathBuf::from(cargo_env("OUT_DIR")) })
    }

    /// Compiles everything into one archive, since ggml's base and its backends call each other.
    pub fn build(&self, backends: Vec<Backend>) -> Result<(), String> {
        write(&self.out.join("ggml-version.h"), &self.version_header())?;

        let mut units = Vec::new();
        for language in [Language::Cpp, Language::C] {
            let mut cpu = self.settings(language);
            cpu.flag(&self.cpu.flag).files(self.cpu_files(language)?);
            let mut base = self.settings(language);
            // Weights are unpacked to the same numbers on every CPU: compilers would fuse a product and a sum where it has an
            // instruction for both.
            base.flag_if_supported("-ffp-contract=off")
                .files(files(&self.source.src(), language.extension())?);
            for backend in &backends {
                base.define(backend.macro_name, None); // for the list of backends
            }
            match language {
                // Exceptions of `guard.cpp` pass through it.
                Language::C => {
                    cpu.flag("-fexceptions")
                        .define("ggml_aligned_malloc", "lxmert_ggml_aligned_malloc")
                        .define("ggml_aligned_free", "lxmert_ggml_aligned_free")
                        .define("ggml_init", "lxmert_ggml_begin");
                    base.flag("-fexceptions")
                }
                Language::Cpp => base.file("src/guard.cpp"),
            };
            units.extend([cpu, base]);
        }
        let takes_cpu = units[0]
            .is_flag_supported(&self.cpu.flag)
            .map_err(|error| format!("no C++ compiler works: {error}"))?;
        if !takes_cpu {
            return Err(format!("the C++ compiler does not take {}", self.cpu.flag));
        }

        let mut objects = Vec::new();
        let mut link = Vec::new();
        for backend in backends {
            units.extend(backend.units);
            objects.extend(backend.objects);
            link.extend(backend.link);
        }
        objects.extend(compile_all(&units)?);

        cc::Build::new()
            .cpp(true) // links the C++ library, behind ggml
            .objects(objects)
            .try_compile("ggml")
            .map_err(|error| format!("ggml's objects make no library: {error}"))?;
        for line in link {
            println!("cargo::rustc-link-{line}");
        }
        if cargo_env("CARGO_CFG_TARGET_OS") == "linux" {
            for library in ["pthread", "dl", "m"] {
                println!("cargo::rustc-link-lib={library}");
            }
        }
        Ok(())
    }

    /// The instructions that the CPU backend was compiled with, of those that a CPU may lack.
    pub fn features(&self) -> Result<Vec<&'static str>, String> {
        let mut build = self.settings(Language::Cpp);
        // Prints every macro that is defined at the end of a source, here of an empty one.
        let macros = preprocessed(build.flag(&self.cpu.flag).flag("-dM"), Path::new("/dev/null"))?;
        let defined = |wanted: &str| {
            macros.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|name| name == wanted))
        };
        let features = self.cpu.arch.features().iter();
        Ok(features.filter(|(name, _)| defined(name)).map(|(_, feature)| *feature).collect())
    }

    /// What all files of a language are compiled with.
    pub fn settings(&self, language: Language) -> cc::Build {
        let mut build = cc::Build::new();
        match language {
            Language::C => build.std("gnu11"),
            // GCC would else mark some data of templates as one for the whole process. That holds even within a shared library,
            // which then can never be unloaded, and no tool can make such symbols local to a static one.
            Language::Cpp => build.cpp(true).std("gnu++17").flag_if_supported("-fno-gnu-unique"),
        };
        // The same in all profiles: ggml without optimisation is of use to nobody.
        build.opt_level(3).debug(false).define("NDEBUG", None);
        build
            .define("GGML_USE_CPU", None)
            .define("GGML_USE_CPU_REPACK", None)
            .define("GGML_USE_LLAMAFILE", None)
            .define("GGML_SCHED_MAX_COPIES", "4")
            .define("_XOPEN_SOURCE", "600");
        match cargo_env("CARGO_CFG_TARGET_OS").as_str() {
            "macos" => build.define("_DARWIN_C_SOURCE", None),
            _ => build.define("_GNU_SOURCE", None),
        };
        let src = self.source.src();
        build.includes([&self.out, &self.source.include(), &src, &src.join("ggml-cpu")]);
        // Warnings in code that is not ours.
        build.warnings(false).flag("-w");
        if let Some(list) = &self.sanitizers {
            build.debug(true).flag(format!("-fsanitize={list}"));
            // Undefined behaviour traps: its runtime library would have to be linked otherwise.
            if list.contains("undefined") {
                build.flag("-fsanitize-undefined-trap-on-error");
            }
        }
        build
    }

    fn cpu_files(&self, language: Language) -> Result<Vec<PathBuf>, String> {
        let cpu = self.source.src().join("ggml-cpu");
        let extension = language.extension();
        let mut all = Vec::new();
        for folder in CPU_FOLDERS {
            all.extend(files(&cpu.join(folder), extension)?);
        }
        let arch = files(&cpu.join("arch").join(self.cpu.arch.folder()), extension)?;
        // Chooses between CPU backends that are loaded at run time; there is one, linked.
        all.extend(arch.into_iter().filter(|file| !file.ends_with("cpu-feats.cpp")));
        Ok(all)
    }

    /// ggml's CMake files generate this header.
    fn version_header(&self) -> String {
        format!(
            "#pragma once\n#define GGML_VERSION \"{}\"\n#define GGML_COMMIT \"unknown\"\n",
            self.source.version
        )
    }
}

/// A source as the compiler sees it behind its preprocessor.
pub fn preprocessed(build: &cc::Build, source: &Path) -> Result<String, String> {
    let mut preprocess = build.get_compiler().to_command();
    program::output_of(preprocess.args(["-E", "-x", "c++"]).arg(source))
}

/// Compiles side by side, so that no processor waits for the last and longest file of a unit.
/// How many compilers run at once is Cargo's to say, through its job server.
fn compile_all(units: &[cc::Build]) -> Result<Vec<PathBuf>, String> {
    let results: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            units.iter().map(|unit| scope.spawn(|| unit.try_compile_intermediates())).collect();
        threads.into_iter().map(|thread| thread.join().expect("cc does not panic")).collect()
    });
    let mut objects = Vec::new();
    for result in results {
        objects.extend(result.map_err(|error| format!("ggml does not compile: {error}"))?);
    }
    Ok(objects)
}

/// The files with one extension directly in a folder, in the same order everywhere.
pub fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error| format!("cannot list {}: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// For fuzzing and for the sanitizers of Rust: the library is compiled with them too, and with
/// line numbers.
fn sanitizers() -> Result<Option<String>, String> {
    let Some(list) = user_env("LXMERT_SANITIZE") else {
        return Ok(None);
    };
    match list.split(',').find(|name| !SANITIZERS.contains(name)) {
        Some(name) => Err(format!("LXMERT_SANITIZE: {name:?} is none of {}", SANITIZERS.join(", "))),
        None => Ok(Some(list)),
    }
}
