//! apt with a state of its own, so that this machine's lists of packages and architectures stay as they are. Nothing is installed, and
//! root is not needed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Apt {
    options: Vec<String>,
    archives: PathBuf,
}

impl Apt {
    /// In a folder of its own, for those architectures, and from the machine's own sources or from one line of a `sources.list`.
    pub fn new(folder: &Path, architectures: &[&str], source: Option<&str>) -> io::Result<Self> {
        let (lists, archives) = (folder.join("lists"), folder.join("archives"));
        for state in [&lists, &archives] {
            fs::create_dir_all(state.join("partial"))?;
        }
        // Another user than the one that runs this could not write there; and nothing is installed that others must wait for.
        let mut options = vec!["APT::Sandbox::User=root".to_owned(), "Debug::NoLocking=1".to_owned()];
        options.extend(architectures.iter().map(|name| format!("APT::Architectures::={name}")));
        options.push(format!("Dir::State::Lists={}", lists.display()));
        options.push(format!("Dir::Cache={}", folder.display()));
        if let Some(source) = source {
            let list = folder.join("sources.list");
            fs::write(&list, source)?;
            options.push(format!("Dir::Etc::SourceList={}", list.display()));
            options.push("Dir::Etc::SourceParts=-".to_owned());
        }
        Ok(Apt { options, archives })
    }

    /// An `apt-get`, which says nothing of its progress.
    pub fn get(&self, arguments: &[&str]) -> Command {
        let mut apt = Command::new("apt-get");
        // `download` leaves packages in the folder that it is started from.
        apt.current_dir(&self.archives).arg("-qq");
        apt.args(self.options.iter().flat_map(|option| ["-o", option])).args(arguments);
        apt
    }

    /// What was downloaded.
    pub fn packages(&self) -> io::Result<Vec<PathBuf>> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(&self.archives)? {
            packages.push(entry?.path());
        }
        packages.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
        Ok(packages)
    }
}
