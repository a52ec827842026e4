//! Lays out an installation: libraries, headers, and what pkg-config and CMake need to find them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use crate::libraries::{self, Libraries};
use crate::licences::Work;
use crate::{Result, licences, root};

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the library will be found, such as /usr/local.
    #[arg(long, value_name = "FOLDER")]
    prefix: PathBuf,
    /// The folder of libraries within the prefix, such as lib/aarch64-linux-gnu.
    #[arg(long, value_name = "FOLDER", default_value = "lib", value_parser = libdir)]
    libdir: PathBuf,
    /// A folder that stands for / while a package is made: files go to its inside, and nothing they hold names it.
    #[arg(long, value_name = "FOLDER")]
    destdir: Option<PathBuf>,
    /// The target to build for, as Cargo names it [default: this machine].
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
}

/// Builds, and copies into place.
pub fn install(arguments: &Arguments) -> Result<()> {
    let prefix = staged(&arguments.prefix, arguments.destdir.as_deref())?;
    let target = arguments.target.as_deref();
    let libraries = libraries::build(target)?;
    let layout = Layout { prefix, libdir: arguments.libdir.clone() };
    layout.write_shared(&libraries)?;
    layout.write_development(&libraries)?;
    layout.write_licences("lxmert", "LICENSE", &licences::third_party(Work::Library, target, &[])?)
}

/// The folder that files go to.
fn staged(prefix: &Path, destdir: Option<&Path>) -> Result<PathBuf> {
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| format!("{} is no folder: {error}", path.display()))
    };
    let Some(destdir) = destdir else { return absolute(prefix) };
    let inside = prefix.strip_prefix("/").map_err(|_| "with --destdir the prefix must be absolute")?;
    Ok(absolute(destdir)?.join(inside))
}

/// Packages find their prefix by going up from the folder of libraries, so that must be below the prefix.
fn libdir(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !text.is_empty() {
        Ok(path)
    } else {
        Err("expected a folder within the prefix, as lib".to_owned())
    }
}

/// Where files go.
pub struct Layout {
    pub prefix: PathBuf,
    /// Within the prefix.
    pub libdir: PathBuf,
}

impl Layout {
    /// What programs need that are linked to the shared library.
    pub fn write_shared(&self, libraries: &Libraries) -> Result<()> {
        let shared = format!("liblxmert.so.{VERSION}");
        // rustc makes it as if it were a program.
        self.place(&self.libdir.join(&shared), |path| {
            fs::copy(&libraries.shared, path)?;
            fs::set_permissions(path, Permissions::from_mode(0o644))
        })?;
        self.link(&shared, &self.libdir.join(libraries::soname()))
    }

    /// What compilers need.
    pub fn write_development(&self, libraries: &Libraries) -> Result<()> {
        self.link(&libraries::soname(), &self.libdir.join("liblxmert.so"))?;
        self.copy(&libraries.archive, &self.libdir.join("liblxmert.a"))?;
        self.write_headers()?;
        self.write_packages(libraries)
    }

    fn write_headers(&self) -> Result<()> {
        ["include/lxmert.h", "include/lxmert.hpp"]
            .into_iter()
            .try_for_each(|header| self.copy(&root().join(header), Path::new(header)))
    }

    fn write_packages(&self, libraries: &Libraries) -> Result<()> {
        let pkgconfig = self.libdir.join("pkgconfig");
        let cmake = self.libdir.join("cmake/lxmert");
        // CMake adds the -l by itself.
        let names: Vec<_> = libraries.system.iter().map(|name| name.trim_start_matches("-l")).collect();
        let fill = |template: &str, folder: &Path| {
            template
                .replace("@VERSION@", VERSION)
                .replace("@SOVERSION@", libraries::major())
                .replace("@LIBDIR@", &self.libdir.display().to_string())
                .replace("@UP@", &up(folder))
                .replace("@LINK_OPTIONS@", &libraries.system.join(" "))
                .replace("@LINK_LIBRARIES@", &names.join(";"))
        };
        let write = |folder: &Path, name: &str, template: &str| {
            self.write(&fill(template, folder), &folder.join(name))
        };
        write(&pkgconfig, "lxmert.pc", include_str!("../templates/lxmert.pc.in"))?;
        write(&cmake, "lxmertConfig.cmake", include_str!("../templates/lxmertConfig.cmake.in"))?;
        write(&cmake, "lxmertConfigVersion.cmake", include_str!("../templates/lxmertConfigVersion.cmake.in"))
    }

    /// The project's own licence by the name that it has there, and those of what it contains.
    pub fn write_licences(&self, package: &str, own: &str, third_party: &str) -> Result<()> {
        let folder = Path::new("share/doc").join(package);
        self.copy(&root().join("LICENSE"), &folder.join(own))?;
        self.write(third_party, &folder.join("LICENSES-third-party.txt"))?;
        match licences::standard_library()? {
            Some(file) => self.copy(&file, &folder.join("LICENSES-rust-library.html")),
            None => Ok(()),
        }
    }

    pub fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.place(to, |path| fs::copy(from, path).map(drop))
    }

    pub fn write(&self, text: &str, to: &Path) -> Result<()> {
        self.place(to, |path| fs::write(path, text))
    }

    fn link(&self, target: &str, to: &Path) -> Result<()> {
        self.place(to, |path| std::os::unix::fs::symlink(target, path))
    }

    /// Makes a file of the installation. One that is there is removed rather than written over, since a process may have it mapped.
    fn place(&self, to: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<()> {
        let path = self.prefix.join(to);
        let parent = path.parent().expect("files lie in folders");
        let made = fs::create_dir_all(parent)
            .and_then(|()| match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
            .and_then(|()| make(&path));
        made.map_err(|error| format!("{}: {error}", path.display()))?;
        println!("{}", path.display());
        Ok(())
    }
}

/// The way from a folder within the prefix up to the prefix.
fn up(folder: &Path) -> String {
    vec![".."; folder.components().count()].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_being_made_does_not_move_the_prefix() {
        let staged = |prefix: &str, destdir: &str| staged(Path::new(prefix), Some(Path::new(destdir)));
        assert_eq!(staged("/usr", "/stage"), Ok(PathBuf::from("/stage/usr")));
        assert!(staged("usr", "/stage").is_err());
    }

    #[test]
    fn the_folder_of_libraries_is_within_the_prefix() {
        assert_eq!(up(&libdir("lib/aarch64-linux-gnu").unwrap().join("pkgconfig")), "../../..");
        for outside in ["", "/usr/lib", "../lib", "lib/../.."] {
            assert!(libdir(outside).is_err(), "{outside}");
        }
    }
}
