//! Makes the Debian packages, installs them into the root of an old system, and uses them there, on the oldest CPU of the target under
//! qemu. Everything is compiled anew by another compiler, so these tests run only when asked for:
//! `cargo test --release -p xtask --test packaging debian -- --ignored`.
//!
//! The old system is Debian 11, from where this machine has its packages. `LXMERT_OLD_SYSTEM` names another as a line of apt's
//! `sources.list`, with the architecture in brackets.

#[path = "../../src/apt.rs"]
mod apt;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use apt::Apt;

use super::{Language, folder, has, model, picture, root, succeed};

struct Target {
    cargo: &'static str,
    debian: &'static str,
    libraries: &'static str,
    qemu: &'static str,
    cpu: &'static str,
}

const ARM64: Target = Target {
    cargo: "aarch64-unknown-linux-gnu",
    debian: "arm64",
    libraries: "usr/lib/aarch64-linux-gnu",
    qemu: "qemu-aarch64-static",
    cpu: "cortex-a57",
};

/// The CPU is the first with the target's SSE4.2.
const AMD64: Target = Target {
    cargo: "x86_64-unknown-linux-gnu",
    debian: "amd64",
    libraries: "usr/lib/x86_64-linux-gnu",
    qemu: "qemu-x86_64-static",
    cpu: "Nehalem",
};

#[test]
#[ignore = "compiles everything anew"]
fn packages_for_arm64_work_on_an_old_system() {
    packages_work_on_an_old_system(&ARM64);
}

#[test]
#[ignore = "compiles everything anew"]
fn packages_for_amd64_work_on_an_old_system() {
    packages_work_on_an_old_system(&AMD64);
}

fn packages_work_on_an_old_system(target: &Target) {
    if !["dpkg", "apt-get", "pkg-config", target.qemu].into_iter().all(has) {
        return;
    }
    if succeed(Command::new("id").arg("-u")).trim() != "0" {
        eprintln!("skipped: only root may install into a folder with dpkg");
        return;
    }
    let folder = folder(&format!("debian-{}", target.debian));
    let Some(glibc) = glibc_of_old_system(target, &folder) else { return };
    let packages = make(target, &folder);

    let old = system(target, &folder.join("root"), &glibc, None);
    succeed(install(&old).args(&packages));
    for program in ["lxmert-bench", "lxmert-quantize", "lxmert-run", "lxmert-vqa"] {
        let version = succeed(run(target, &old, &old.join("usr/bin").join(program)).arg("--version"));
        assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    }
    let mut ask = run(target, &old, &old.join("usr/bin/lxmert-vqa"));
    ask.arg("--model").arg(old.join("usr/share/lxmert/easy-vqa/easy-vqa-q8_0.gguf"));
    ask.arg("--image").arg(old.join("usr/share/lxmert/easy-vqa/example_2.png"));
    let answers = succeed(ask.args(["--question", "is there a black shape?"]));
    assert_eq!(first_answer(&answers), "yes", "{answers}");

    for language in Language::BOTH {
        for is_static in [false, true] {
            let program = compile(target, &old, language, is_static);
            let answers =
                succeed(run(target, &old, &program).arg(model()).arg(picture()).arg("what shape is it?"));
            assert_eq!(first_answer(&answers), "circle", "{answers}");
        }
    }

    let too_old = system(target, &folder.join("too-old"), &glibc, Some("2.26-0"));
    let refused = install(&too_old).args(&packages).output().unwrap();
    let message = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && message.contains("depends on libc6 (>= 2."), "{message}");
}

/// The answer in the line below the question.
fn first_answer(text: &str) -> &str {
    let mut lines = text.lines().skip_while(|line| !line.ends_with('?')).skip(1);
    lines.next().and_then(|line| line.split_whitespace().next()).unwrap_or_default()
}

/// Downloads the package with glibc, where that can be had.
fn glibc_of_old_system(target: &Target, folder: &Path) -> Option<PathBuf> {
    let source = match std::env::var("LXMERT_OLD_SYSTEM") {
        Ok(line) if line.contains(&format!("arch={}", target.debian)) => line,
        _ => {
            let indexes =
                ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"];
            let mirrors = succeed(Command::new("apt-get").args(indexes));
            let Some(mirror) = mirrors.lines().find(|mirror| !mirror.contains("security")) else {
                eprintln!("skipped: this machine has no packages from Debian");
                return None;
            };
            format!("deb [arch={}] {mirror} bullseye main", target.debian)
        }
    };
    let apt = Apt::new(&folder.join("apt"), &[target.debian], Some(&source)).unwrap();
    let succeeds = |arguments: &[&str]| apt.get(arguments).status().unwrap().success();
    if !succeeds(&["update"]) || !succeeds(&["download", &format!("libc6:{}", target.debian)]) {
        eprintln!("skipped: no glibc of an old system to be had");
        return None;
    }
    apt.packages().unwrap().pop()
}

fn make(target: &Target, folder: &Path) -> Vec<PathBuf> {
    let out = folder.join("packages");
    let mut package = Command::new(env!("CARGO_BIN_EXE_xtask"));
    succeed(package.args(["package", "--target", target.cargo, "--out"]).arg(&out));
    let mut packages: Vec<_> = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    packages.sort();
    let names = packages.iter().map(|path| path.file_name().unwrap().to_str().unwrap());
    let expected = ["liblxmert-dev", "liblxmert0", "lxmert"]
        .map(|name| format!("{name}_{}_{}.deb", env!("CARGO_PKG_VERSION"), target.debian));
    assert!(names.eq(expected.iter()), "{packages:?}");
    packages
}

/// A root that holds glibc alone, in dpkg's books too: as of the version that it is, or another.
fn system(target: &Target, root: &Path, glibc: &Path, version: Option<&str>) -> PathBuf {
    for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "tmp"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    succeed(Command::new("dpkg-deb").arg("-x").arg(glibc).arg(root));
    let field = |name: &str| succeed(Command::new("dpkg-deb").arg("-f").arg(glibc).arg(name));
    let version = version.map_or_else(|| field("Version"), |version| format!("{version}\n"));
    let status = format!(
        "Package: libc6\nStatus: install ok installed\nMaintainer: nobody\nDescription: glibc\nMulti-Arch: same\n\
         Architecture: {}\nVersion: {version}",
        target.debian
    );
    fs::write(root.join("var/lib/dpkg/status"), status).unwrap();
    let native = succeed(Command::new("dpkg").arg("--print-architecture"));
    fs::write(root.join("var/lib/dpkg/arch"), format!("{native}{}\n", target.debian)).unwrap();
    root.to_owned()
}

fn install(system: &Path) -> Command {
    let mut dpkg = Command::new("dpkg");
    dpkg.arg("--root").arg(system).arg("--install");
    dpkg
}

/// A program as the system's own kernel and loader would start it.
fn run(target: &Target, system: &Path, program: &Path) -> Command {
    let mut command = Command::new(target.qemu);
    command.args(["-cpu", target.cpu, "-L"]).arg(system).arg(program);
    command
}

/// Builds the example against the installation, by the compiler that made the packages: this machine's would link its newer glibc.
fn compile(target: &Target, system: &Path, language: Language, is_static: bool) -> PathBuf {
    let libraries = system.join(target.libraries);
    let of_package = |options: &[&str]| {
        let mut pkg_config = Command::new("pkg-config");
        // Debian's own libraries are looked for where Debian looks for them; these lie in a folder.
        pkg_config
            .env("PKG_CONFIG_LIBDIR", libraries.join("pkgconfig"))
            .env("PKG_CONFIG_ALLOW_SYSTEM_LIBS", "1");
        pkg_config.env("PKG_CONFIG_ALLOW_SYSTEM_CFLAGS", "1");
        let text = succeed(pkg_config.args(options).arg("lxmert"));
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (compiler, sources) = match language {
        Language::C => ("cc", &["ask.c", "ppm.c"][..]),
        Language::Cpp => ("c++", &["ask.cpp"][..]),
    };
    let sources = sources.iter().map(|source| {
        system.join("usr/share/doc/liblxmert-dev/examples").join(language.folder()).join(source)
    });
    let program = system.join("tmp").join(format!("ask-{}-{is_static}", language.folder()));
    let mut zig = Command::new(Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("zig/bin/python-zig"));
    zig.args([compiler, "-target", &format!("{}.2.27", target.cargo.replace("-unknown-", "-"))]);
    zig.arg("-I")
        .arg(root("examples/c"))
        .args(of_package(&["--cflags"]))
        .args(sources)
        .arg("-o")
        .arg(&program);
    if is_static {
        let options = of_package(&["--static", "--libs"]);
        let archive = libraries.join("liblxmert.a").display().to_string();
        zig.args(options.iter().map(|option| option.replace("-llxmert", &archive)));
    } else {
        zig.args(of_package(&["--libs"]));
    }
    succeed(&mut zig);
    program
}
