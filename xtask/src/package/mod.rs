//! Debian packages, as Debian itself would cut them: a robot that runs a node needs the shared library and nothing else, a machine that
//! compiles one the headers too, and the programs contain all that they need.

mod elf;
pub mod zig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::install::{Layout, VERSION};
use crate::libraries::{self, Libraries};
use crate::licences::{self, Work};
use crate::tools::{Binutils, host, output_of, succeed, target_directory};
use crate::{Result, root};
use zig::{GLIBC, Zig};

const PROGRAMS: [&str; 4] = ["lxmert-bench", "lxmert-quantize", "lxmert-run", "lxmert-vqa"];

#[derive(clap::Args)]
pub struct Arguments {
    /// The target to build for: aarch64-unknown-linux-gnu or x86_64-unknown-linux-gnu [default: this machine].
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Where the packages go [default: packages in Cargo's target folder].
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

/// A target's names.
struct Platform {
    cargo: &'static str,
    debian: &'static str,
    /// The folder of libraries.
    multiarch: &'static str,
}

const PLATFORMS: [Platform; 2] = [
    Platform { cargo: "aarch64-unknown-linux-gnu", debian: "arm64", multiarch: "aarch64-linux-gnu" },
    Platform { cargo: "x86_64-unknown-linux-gnu", debian: "amd64", multiarch: "x86_64-linux-gnu" },
];

impl Platform {
    fn of(target: &str) -> Result<&'static Self> {
        let found = PLATFORMS.iter().find(|platform| platform.cargo == target);
        found.ok_or_else(|| {
            let names = PLATFORMS.map(|platform| platform.cargo).join(" and ");
            format!("packages are made for {names}, not for {target}: name one with --target")
        })
    }
}

/// One package before it has contents.
struct Package {
    name: String,
    section: &'static str,
    /// Beside glibc.
    depends: Option<String>,
    /// Whether those of several architectures may be installed side by side.
    is_library: bool,
    /// One line, then the text, whose lines begin with a space.
    description: [&'static str; 2],
}

/// Builds all, and writes the packages.
pub fn package(arguments: &Arguments) -> Result<()> {
    let target = match &arguments.target {
        Some(target) => target.clone(),
        None => host()?,
    };
    let platform = Platform::of(&target)?;
    let out = match &arguments.out {
        Some(out) => out.clone(),
        None => target_directory()?.join("packages"),
    };
    fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;

    let zig = Zig::set_up(platform.cargo)?;
    succeed(zig.cargo("zigbuild").args(["--workspace", "--exclude", "xtask", "--bins"]))?;
    let libraries = libraries::build_with(&zig)?;

    programs(&zig, platform)?.write(&out)?;
    shared_library(&zig, platform, &libraries)?.write(&out)?;
    development(&zig, platform, &libraries)?.write(&out)
}

fn programs(zig: &Zig, platform: &'static Platform) -> Result<Staged> {
    let package = Package {
        name: "lxmert".to_owned(),
        section: "science",
        depends: None,
        is_library: false,
        description: [
            "answers questions about images with quantized LXMERT models",
            "Programs that run LXMERT, a vision-and-language model, on the CPU, convert\n \
             its checkpoints to quantized files, and measure both. They contain a\n \
             small trained model to try.",
        ],
    };
    let mut staged = Staged::new(package, platform)?;
    let objcopy = |from: &Path, to: &Path| {
        succeed(Binutils::of(Some(platform.cargo)).tool("objcopy").arg("--strip-all").arg(from).arg(to))
    };
    for name in PROGRAMS {
        let stripped = staged.folder.path().join(name);
        objcopy(&zig.programs().join(name), &stripped)?;
        let path = Path::new("bin").join(name);
        staged.layout.copy(&stripped, &path)?;
        staged.needs_glibc_of(&path)?;
    }
    for file in ["easy-vqa-q8_0.gguf", "example_1.png", "example_2.png"] {
        let from = root().join("models/easy-vqa").join(file);
        staged.layout.copy(&from, &Path::new("share/lxmert/easy-vqa").join(file))?;
    }
    let data = ("easy-VQA data set", root().join("models/easy-vqa"));
    let others = [zig.licences()?, vec![data]].concat();
    staged.write_documents(&licences::third_party(Work::Programs, Some(platform.cargo), &others)?)?;
    Ok(staged)
}

fn shared_library(zig: &Zig, platform: &'static Platform, libraries: &Libraries) -> Result<Staged> {
    let package = Package {
        name: shared_name(),
        section: "libs",
        depends: None,
        is_library: true,
        description: [
            "runs quantized LXMERT models, shared library",
            "A library for C and C++ that answers questions about images with LXMERT,\n a vision-and-language model, on the CPU.",
        ],
    };
    let mut staged = Staged::new(package, platform)?;
    staged.layout.write_shared(libraries)?;
    staged.needs_glibc_of(&staged.layout.libdir.join(libraries::soname()))?;
    staged.write_library_licences(zig)?;
    staged
        .control("shlibs", &format!("liblxmert {} {} (>= {VERSION})\n", libraries::major(), shared_name()))?;
    staged.control("triggers", "activate-noawait ldconfig\n")?;
    Ok(staged)
}

fn development(zig: &Zig, platform: &'static Platform, libraries: &Libraries) -> Result<Staged> {
    let package = Package {
        name: "liblxmert-dev".to_owned(),
        section: "libdevel",
        depends: Some(format!("{} (= {VERSION})", shared_name())),
        is_library: true,
        description: [
            "runs quantized LXMERT models, files for compiling",
            "Headers for C and C++, the static library, files for pkg-config and CMake,\n and example programs.",
        ],
    };
    let staged = Staged::new(package, platform)?;
    staged.layout.write_development(libraries)?;
    for example in ["c/ask.c", "c/ppm.c", "c/ppm.h", "c/Makefile", "c/CMakeLists.txt"].into_iter().chain([
        "cpp/ask.cpp",
        "cpp/Makefile",
        "cpp/CMakeLists.txt",
    ]) {
        let to = Path::new("share/doc/liblxmert-dev/examples").join(example);
        staged.layout.copy(&root().join("examples").join(example), &to)?;
    }
    staged.write_library_licences(zig)?;
    Ok(staged)
}

/// The shared library's package carries the number of its interface: those of several may be installed.
fn shared_name() -> String {
    format!("liblxmert{}", libraries::major())
}

/// A package's files, in a folder that stands for `/`.
struct Staged {
    package: Package,
    platform: &'static Platform,
    layout: Layout,
    /// The oldest glibc that everything in it loads with; empty where nothing needs it.
    glibc: elf::Version,
    folder: TempDir,
}

impl Staged {
    fn new(package: Package, platform: &'static Platform) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(|error| format!("no temporary folder: {error}"))?;
        let layout = Layout {
            prefix: folder.path().join("root/usr"),
            libdir: Path::new("lib").join(platform.multiarch),
        };
        Ok(Staged { package, platform, layout, glibc: elf::Version::new(), folder })
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn needs_glibc_of(&mut self, file: &Path) -> Result<()> {
        let needed = elf::needed_glibc(&self.layout.prefix.join(file), GLIBC)?;
        self.glibc = std::mem::take(&mut self.glibc).max(needed);
        Ok(())
    }

    fn write_library_licences(&self, zig: &Zig) -> Result<()> {
        self.write_documents(&licences::third_party(
            Work::Library,
            Some(self.platform.cargo),
            &zig.licences()?,
        )?)
    }

    /// The licences, and the list of changes, without which Debian takes no package.
    fn write_documents(&self, third_party: &str) -> Result<()> {
        let Package { name, .. } = &self.package;
        self.layout.write_licences(name, "copyright", third_party)?;
        let date = output_of(git().args(["log", "-1", "--format=%cD"]))?;
        let changes = format!(
            "lxmert ({VERSION}) unstable; urgency=medium\n\n  * Built from the project's repository.\n\n -- {}  {}\n",
            maintainer(),
            date.trim()
        );
        let file = Path::new("share/doc").join(name).join("changelog");
        self.layout.write(&changes, &file)?;
        succeed(Command::new("gzip").arg("-9n").arg(self.layout.prefix.join(file)))
    }

    /// A file for dpkg.
    fn control(&self, name: &str, text: &str) -> Result<()> {
        self.layout.write(text, &Path::new("../DEBIAN").join(name))
    }

    /// Makes the package of what is there.
    fn write(&self, out: &Path) -> Result<()> {
        // Whatever the modes were where files came from.
        succeed(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(self.root()))?;
        let size = output_of(Command::new("du").args(["-ks", "--apparent-size"]).arg(self.root()))?;
        let size = size.split_whitespace().next().unwrap_or_default();
        self.control("control", &self.fields(size))?;

        let Platform { debian, .. } = self.platform;
        let file = out.join(format!("{}_{VERSION}_{debian}.deb", self.package.name));
        let mut dpkg_deb = Command::new("dpkg-deb");
        // No file is newer than the last change of the sources.
        if std::env::var_os("SOURCE_DATE_EPOCH").is_none() {
            let time = output_of(git().args(["log", "-1", "--format=%ct"]))?;
            dpkg_deb.env("SOURCE_DATE_EPOCH", time.trim());
        }
        // Newer compressions than xz are unknown to old systems.
        dpkg_deb.args(["--root-owner-group", "-Zxz", "--build"]).arg(self.root()).arg(file);
        succeed(&mut dpkg_deb)
    }

    fn fields(&self, size: &str) -> String {
        let Package { name, section, depends, is_library, description: [line, text] } = &self.package;
        let glibc = (!self.glibc.is_empty()).then(|| {
            let numbers: Vec<_> = self.glibc.iter().map(u32::to_string).collect();
            format!("libc6 (>= {})", numbers.join("."))
        });
        let depends: Vec<String> = glibc.into_iter().chain(depends.clone()).collect();
        let source = if name == "lxmert" { "" } else { "Source: lxmert\n" };
        let multi_arch = if *is_library { "Multi-Arch: same\n" } else { "" };
        format!(
            "Package: {name}\n{source}Version: {VERSION}\nArchitecture: {}\nMaintainer: {}\nInstalled-Size: {size}\n\
             Depends: {}\nSection: {section}\nPriority: optional\n{multi_arch}Description: {line}\n {text}\n",
            self.platform.debian,
            maintainer(),
            depends.join(", "),
        )
    }
}

/// Who Debian's own tools would name, too.
fn maintainer() -> String {
    let or = |variable: &str, default: &str| std::env::var(variable).unwrap_or_else(|_| default.to_owned());
    format!("{} <{}>", or("DEBFULLNAME", "Local build of lxmert"), or("DEBEMAIL", "root@localhost"))
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(root());
    git
}
