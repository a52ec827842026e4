//! The CUDA backend on a machine that may have neither a GPU nor NVIDIA's toolkit: what can be seen there is that it compiles and
//! links, and that programs with it start.

use std::path::PathBuf;
use std::process::Command;

use crate::Result;
use crate::tools::{cargo, output_of, python_environment, succeed, target_directory};

/// NVIDIA's compiler and libraries, as packages for Python, and where in the environment they are.
const PACKAGES: [&str; 1] = ["cuda-toolkit[nvcc,cudart,cccl,cublas]==13.5.0"];
const FOLDER: &str = "nvidia/cu13";

#[derive(clap::Args)]
pub struct Arguments {
    /// The GPUs to compile for, as LXMERT_CUDA_ARCH names them; 87 is a Jetson Orin's.
    #[arg(long, value_name = "LIST", default_value = "87")]
    arch: String,
    /// Another backend for the same programs, such as vulkan.
    #[arg(long, value_name = "BACKEND")]
    also: Vec<String>,
}

pub fn build(arguments: &Arguments) -> Result<()> {
    let toolkit = toolkit()?;
    let backends = [&["cuda".to_owned()], &arguments.also[..]].concat();
    let cargo = |task: &str| {
        let mut cargo = cargo();
        cargo.args([task, "--release", "--features", &backends.join(",")]);
        cargo.env("CUDA_PATH", &toolkit).env("LXMERT_CUDA_ARCH", &arguments.arch);
        cargo
    };
    succeed(&mut cargo("build"))?;
    // Where there is a GPU after all, it multiplies.
    succeed(cargo("test").args([
        "--package",
        "ggml-sys-bindings",
        "--test",
        "compute",
        "--",
        "--nocapture",
    ]))?;
    let mut program = Command::new(target_directory()?.join("release/lxmert-vqa"));
    let version = output_of(program.arg("--version").env("LD_LIBRARY_PATH", toolkit.join("lib")))?;
    println!("{}", version.trim_end());
    match backends.iter().find(|backend| !version.contains(backend.as_str())) {
        None => Ok(()),
        Some(backend) => Err(format!("lxmert-vqa was built without {backend}")),
    }
}

/// NVIDIA's toolkit, installed below Cargo's target folder.
fn toolkit() -> Result<PathBuf> {
    let environment = target_directory()?.join("cuda-toolkit");
    python_environment(&environment, &PACKAGES)?;
    let mut python = Command::new(environment.join("bin/python"));
    let packages = output_of(python.args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))?;
    Ok(PathBuf::from(packages.trim()).join(FOLDER))
}
