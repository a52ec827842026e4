//! The backend for CUDA, by `nvcc` of CUDA 11.4 (JetPack 5) or newer.
//!
//! - `CUDA_PATH`: the toolkit's folder, with `bin/nvcc` in it. Else `nvcc` is looked for on the path and in `/usr/local/cuda`
//! - `LXMERT_CUDA_ARCH`: which GPUs to compile for, by compute capability without its point: `87`, or `72;87;90`. By default those of
//!   this machine, or where it has none or is not the target, [`DEFAULT_ARCHS`]
//! - `LXMERT_CUDA_LIB`: the absolute path of the folder with the target's `libcudart_static.a`, `libcublas` and `libcublasLt`, for a cross build
//!
//! For each GPU there is code and, for newer ones, PTX, which the driver translates when a program first runs.
//!
//! Left out is what takes most of the time and LXMERT has no use for: flash attention, products of quantized matrices of types that the
//! converter does not write, and those of float matrices with few columns. By nvcc 13.5 and for one GPU the whole backend takes some
//! 2400 seconds of one processor, what is compiled here 760. All operations but flash attention are in these, for 290 seconds: without
//! those that LXMERT lacks, ggml would say that it can compute what it cannot. `cuda_absent.cu` stands for the rest.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build::backend::Backend;
use crate::build::compile::{Compiler, Language, files};
use crate::build::program::{create_folder, on_path, output_of, run_all};
use crate::{cargo_env, user_env};

/// Jetson Xavier, Jetson Orin and Hopper; of these what the toolkit knows.
const DEFAULT_ARCHS: [&str; 3] = ["72", "87", "90"];

/// Types of the converter that are quantized, as ggml names the files with their products.
const QUANTIZED: [&str; 11] =
    ["iq4_nl", "q2_k", "q3_k", "q4_0", "q4_1", "q4_k", "q5_0", "q5_1", "q5_k", "q6_k", "q8_0"];

/// Files of the backend that are left out, beside all of flash attention.
const ABSENT: [&str; 1] = ["mmf.cu"];

pub fn backend(compiler: &Compiler) -> Result<Backend, String> {
    let target = Target::of_build()?;
    let nvcc = Nvcc::find()?;
    let archs = nvcc.archs()?;
    let link = link(&nvcc, &target, &compiler.out)?;
    Ok(Backend {
        name: format!("cuda {}.{} for {}", nvcc.version.0, nvcc.version.1, archs.join(" ")),
        macro_name: "GGML_USE_CUDA",
        units: Vec::new(),
        objects: compile(compiler, &nvcc, &archs)?,
        link,
    })
}

/// What the toolkit calls the target.
struct Target {
    /// Folders in the toolkit's `targets`. ARM has two: Jetsons before CUDA 13 are not servers.
    folders: &'static [&'static str],
    arch: String,
}

impl Target {
    fn of_build() -> Result<Self, String> {
        let arch = cargo_env("CARGO_CFG_TARGET_ARCH");
        let folders: &[&str] = match (cargo_env("CARGO_CFG_TARGET_OS").as_str(), arch.as_str()) {
            ("linux", "x86_64") => &["x86_64-linux"],
            ("linux", "aarch64") => &["aarch64-linux", "sbsa-linux"],
            _ => return Err(format!("feature cuda is for Linux, not for {}", cargo_env("TARGET"))),
        };
        Ok(Self { folders, arch })
    }
}

struct Nvcc {
    program: PathBuf,
    version: (u32, u32),
}

impl Nvcc {
    fn find() -> Result<Self, String> {
        let program = match user_env("CUDA_PATH") {
            Some(toolkit) => {
                let program = Path::new(&toolkit).join("bin/nvcc");
                if !program.is_file() {
                    return Err(format!("CUDA_PATH={toolkit} has no bin/nvcc"));
                }
                program
            }
            None => {
                let usual = PathBuf::from("/usr/local/cuda/bin/nvcc");
                on_path("nvcc").or_else(|| usual.is_file().then_some(usual)).ok_or(
                    "feature cuda needs nvcc: install NVIDIA's CUDA toolkit, or set CUDA_PATH to the folder with bin/nvcc",
                )?
            }
        };
        let text = output_of(Command::new(&program).arg("--version"))?;
        let version =
            version(&text).ok_or_else(|| format!("{} --version tells no release", program.display()))?;
        if version < (11, 4) {
            let (major, minor) = version;
            return Err(format!("{} is CUDA {major}.{minor}, at least 11.4 is needed", program.display()));
        }
        Ok(Self { program, version })
    }

    /// The GPUs to compile for, all of which this compiler knows.
    fn archs(&self) -> Result<Vec<String>, String> {
        let list = output_of(Command::new(&self.program).arg("--list-gpu-code"))?;
        let mut known: Vec<&str> = list.lines().filter_map(|line| line.trim().strip_prefix("sm_")).collect();
        known.sort_by_key(|arch| (arch.len(), *arch));
        let unknown = |arch: &str| {
            let (major, minor) = self.version;
            format!("nvcc {major}.{minor} does not know GPUs of {arch:?}, but {}", known.join(", "))
        };

        if let Some(given) = user_env("LXMERT_CUDA_ARCH") {
            let archs: Vec<&str> = given.split([';', ',']).map(str::trim).collect();
            return match archs.iter().find(|arch| !known.contains(arch)) {
                Some(arch) => Err(format!("LXMERT_CUDA_ARCH={given:?}: {}", unknown(arch))),
                None => Ok(sorted(&archs)),
            };
        }
        if cargo_env("HOST") == cargo_env("TARGET") {
            let here = archs_of_this_machine();
            if let Some(arch) = here.iter().find(|arch| !known.contains(&arch.as_str())) {
                return Err(format!(
                    "{}; that is this machine's: LXMERT_CUDA_ARCH names others",
                    unknown(arch)
                ));
            }
            if !here.is_empty() {
                return Ok(sorted(&here));
            }
        }
        let (archs, left_out): (Vec<_>, Vec<_>) = DEFAULT_ARCHS.iter().partition(|arch| known.contains(arch));
        for arch in left_out {
            println!("cargo::warning=left out: {}", unknown(arch));
        }
        Ok(sorted(&archs))
    }

    /// The toolkit's own folder, also where the path has a link to its compiler.
    fn toolkit(&self) -> PathBuf {
        let program = self.program.canonicalize().unwrap_or_else(|_| self.program.clone());
        program.ancestors().nth(2).unwrap_or(Path::new("/")).to_owned()
    }
}

/// From `Cuda compilation tools, release 11.4, V11.4.315`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (_, release) = text.split_once("release ")?;
    let (major, rest) = release.split_once('.')?;
    let (minor, _) = rest.split_once(',')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// Each once, in the order of numbers.
fn sorted(archs: &[impl ToString]) -> Vec<String> {
    let mut archs: Vec<String> = archs.iter().map(ToString::to_string).collect();
    archs.sort_by_key(|arch| (arch.len(), arch.clone()));
    archs.dedup();
    archs
}

/// Of this machine's GPUs. The driver's program prints `8.7` for each that it knows.
fn archs_of_this_machine() -> Vec<String> {
    let Some(program) = on_path("nvidia-smi") else {
        return Vec::new();
    };
    let list = output_of(Command::new(program).args(["--query-gpu=compute_cap", "--format=csv,noheader"]));
    let archs = list.unwrap_or_default();
    let archs = archs.lines().map(|line| line.trim().replace('.', ""));
    archs.filter(|arch| arch.len() >= 2 && arch.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// `cc` would compile more than one file of CUDA for a linker of device code, which ggml does without.
fn compile(compiler: &Compiler, nvcc: &Nvcc, archs: &[String]) -> Result<Vec<PathBuf>, String> {
    let objects_folder = compiler.out.join("cuda");
    create_folder(&objects_folder)?;
    let flags = flags(compiler, nvcc, archs)?;
    let mut commands = Vec::new();
    let mut objects = Vec::new();
    for source in sources(compiler)? {
        let name = source.file_name().expect("a listed file has a name");
        let object = objects_folder.join(name).with_extension("o");
        let mut command = Command::new(&nvcc.program);
        command.args(&flags).arg("-c").arg(&source).arg("-o").arg(&object);
        commands.push(command);
        objects.push(object);
    }
    run_all(commands)?;
    Ok(objects)
}

fn sources(compiler: &Compiler) -> Result<Vec<PathBuf>, String> {
    let folder = compiler.source.src().join("ggml-cuda");
    let products = QUANTIZED.map(|kind| folder.join(format!("template-instances/mmq-instance-{kind}.cu")));
    // Those that take longest first.
    let mut sources = products.to_vec();
    sources.extend(files(&folder, "cu")?.into_iter().filter(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        !name.starts_with("fattn") && !ABSENT.contains(&name.as_ref())
    }));
    sources.push(Path::new(&cargo_env("CARGO_MANIFEST_DIR")).join("build/cuda_absent.cu"));
    Ok(sources)
}

fn flags(compiler: &Compiler, nvcc: &Nvcc, archs: &[String]) -> Result<Vec<String>, String> {
    let host = compiler.settings(Language::Cpp);
    let host_compiler = host.try_get_compiler().map_err(|error| format!("no C++ compiler works: {error}"))?;
    let mut flags: Vec<String> =
        ["-w", "-std=c++17", "-O3", "-use_fast_math", "-extended-lambda", "-Xcompiler=-fPIC"]
            .map(str::to_owned)
            .to_vec();
    flags.push(format!("-ccbin={}", host_compiler.path().display()));
    if host.is_flag_supported("-fno-gnu-unique").unwrap_or(false) {
        flags.push("-Xcompiler=-fno-gnu-unique".to_owned());
    }
    if nvcc.version >= (12, 8) {
        flags.push("-compress-mode=size".to_owned());
    }
    for arch in archs {
        // Products of 4-bit floats, of which ggml's code for these GPUs has some, are of the exact GPU only.
        let exact = if arch.starts_with("12") { "a" } else { "" };
        flags.push(format!(
            "-gencode=arch=compute_{arch}{exact},code=[sm_{arch}{exact},compute_{arch}{exact}]"
        ));
    }
    for definition in [
        "NDEBUG",
        "_GNU_SOURCE",
        "_XOPEN_SOURCE=600",
        "GGML_SCHED_MAX_COPIES=4",
        "GGML_CUDA_NO_FA",
        // Does without the driver's own library, so that programs start where there is no driver.
        "GGML_CUDA_NO_VMM",
        "GGML_CUDA_PEER_MAX_BATCH_SIZE=128",
        "GGML_CUDA_USE_GRAPHS",
    ] {
        flags.push(format!("-D{definition}"));
    }
    for folder in [compiler.source.include(), compiler.source.src()] {
        flags.push(format!("-I{}", folder.display()));
    }
    Ok(flags)
}

/// CUDA's run time becomes part of the library, the libraries with the products of matrices, which are large, do not.
fn link(nvcc: &Nvcc, target: &Target, out: &Path) -> Result<Vec<String>, String> {
    let folders = library_folders(nvcc, target)?;
    let find = |file: &dyn Fn(&Path) -> Option<PathBuf>, name: &str| {
        folders.iter().find_map(|folder| file(folder)).ok_or_else(|| {
            let folders: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
            format!("no {name} in {}: set LXMERT_CUDA_LIB to the folder that has it", folders.join(", "))
        })
    };
    let run_time = "libcudart_static.a";
    let archive = find(&|folder| Some(folder.join(run_time)).filter(|file| file.is_file()), run_time)?;
    let mut link =
        vec![format!("search=native={}", folder_of(&archive)), "lib=static=cudart_static".to_owned()];

    let own = out.join("cuda/lib");
    create_folder(&own)?;
    link.push(format!("search=native={}", own.display()));
    for name in ["cublas", "cublasLt"] {
        let library = find(&|folder| shared_library(folder, name), &format!("lib{name}.so"))?;
        // Packages for Python have no name without a version, which linkers look for.
        let file = library.file_name().expect("a file that was found has a name");
        let plain = format!("lib{name}.so");
        if file == plain.as_str() {
            link.push(format!("search=native={}", folder_of(&library)));
        } else {
            // The full name is what the linked program looks for when Cargo runs it.
            for link_name in [plain.as_ref(), file] {
                symlink(&library, &own.join(link_name))?;
            }
        }
        link.push(format!("lib=dylib={name}"));
    }
    // The run time needs it of the system, beside what all of ggml does.
    link.push("lib=dylib=rt".to_owned());
    Ok(link)
}

/// Where the target's libraries may be: of a toolkit from NVIDIA, of a package for Python, of Debian's.
fn library_folders(nvcc: &Nvcc, target: &Target) -> Result<Vec<PathBuf>, String> {
    if let Some(folder) = user_env("LXMERT_CUDA_LIB").map(PathBuf::from) {
        // The linker runs in another folder than the user.
        return match folder.is_absolute() {
            true => Ok(vec![folder]),
            false => Err(format!("LXMERT_CUDA_LIB must be absolute, not {}", folder.display())),
        };
    }
    let toolkit = nvcc.toolkit();
    let mut folders: Vec<_> =
        target.folders.iter().map(|name| toolkit.join("targets").join(name).join("lib")).collect();
    if cargo_env("HOST") == cargo_env("TARGET") {
        folders.extend(["lib64", "lib"].map(|name| toolkit.join(name)));
    }
    folders.push(toolkit.join("lib").join(format!("{}-linux-gnu", target.arch)));
    Ok(folders)
}

/// `libNAME.so`, or else the newest with a version behind.
fn shared_library(folder: &Path, name: &str) -> Option<PathBuf> {
    let plain = format!("lib{name}.so");
    if folder.join(&plain).is_file() {
        return Some(folder.join(plain));
    }
    let entries = std::fs::read_dir(folder).ok()?;
    let version = |path: &Path| {
        let version =
            path.file_name()?.to_str()?.strip_prefix(&plain)?.strip_prefix('.')?.parse::<u32>().ok()?;
        Some((version, path.to_owned()))
    };
    entries.flatten().filter_map(|entry| version(&entry.path())).max().map(|(_, path)| path)
}

fn symlink(to: &Path, link: &Path) -> Result<(), String> {
    // One from an earlier build may lead elsewhere.
    let _ = std::fs::remove_file(link);
    std::os::unix::fs::symlink(to, link).map_err(|error| format!("cannot link {}: {error}", link.display()))
}

fn folder_of(file: &Path) -> String {
    file.parent().unwrap_or(Path::new("/")).display().to_string()
}
