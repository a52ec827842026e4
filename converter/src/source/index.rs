//! The index of a sharded checkpoint: which file holds which tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use lxmert::Limits;
use serde::Deserialize;

use crate::Error;
use crate::error::Problem;
use crate::files::{json_error, read_bounded};

/// A shard's name for each tensor's.
pub(super) struct ShardIndex {
    path: PathBuf,
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads an index, whose shards have to be there.
    pub fn read(path: &Path, limits: &Limits) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let text = read_bounded(path, limits)?;
        let Index { weight_map } = serde_json::from_slice(&text).map_err(json_error(path))?;
        let broken = |reason| Error::Index { path: path.to_owned(), reason };
        for shard in weight_map.values() {
            // An index may not lead out of its directory.
            let mut components = Path::new(shard).components();
            let plain = matches!((components.next(), components.next()), (Some(Component::Normal(_)), None));
            if !plain || shard.contains(['/', '\\']) || shard.contains(char::is_control) {
                return Err(broken(format!("{shard:?} is not the plain name of a file beside it")));
            }
        }
        let index = ShardIndex { path: path.to_owned(), weight_map };
        let missing: Vec<_> =
            index.shards().into_iter().filter(|name| !index.path_of(name).is_file()).collect();
        if !missing.is_empty() {
            return Err(broken(format!("it lists files that are not there: {missing:?}")));
        }
        Ok(index)
    }

    /// The names of all shards, each once.
    pub fn shards(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.weight_map.values().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Where a shard lies: beside the index.
    pub fn path_of(&self, shard: &str) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(shard)
    }

    /// Demands that every shard holds just the tensors which the index puts there.
    pub fn compare_with(&self, found: &BTreeMap<String, String>) -> Result<(), Error> {
        let mut problems = Vec::new();
        for (name, listed) in &self.weight_map {
            if found.get(name) != Some(listed) {
                problems.push(Problem::NotInShard { name: name.clone(), shard: listed.clone() });
            }
        }
        for (name, shard) in found.iter().filter(|(name, _)| !self.weight_map.contains_key(*name)) {
            problems.push(Problem::NotInIndex { name: name.clone(), shard: shard.clone() });
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Tensors { problems }) }
    }
}
