//! Which files the content store holds, for those who look at all of them: `check` and `rescue`.

use std::path::{Path, PathBuf};

use super::disk::{exists, read_dir};
use super::{ContentStore, Result, path_in};
use crate::tree::NodeId;

/// A directory of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::replica) enum Which {
    Clean,
    Unsent,
}

impl ContentStore {
    /// The content files there are, of one kind, in no order.
    pub(in crate::replica) fn list(&self, which: Which) -> Result<Vec<(NodeId, PathBuf)>> {
        let root = match which {
            Which::Clean => &self.clean,
            Which::Unsent => &self.unsent,
        };
        let mut found = Vec::new();
        for fan in read_dir(root)? {
            if !fan.is_dir() {
                continue;
            }
            for path in read_dir(&fan)? {
                found.extend(number(&path).map(|id| (NodeId(id), path)));
            }
        }
        Ok(found)
    }

    /// Whether there is a file with this number.
    pub(in crate::replica) fn is_borne(&self, node: NodeId) -> Result<bool> {
        Ok(exists(&path_in(&self.unsent, node))? || exists(&path_in(&self.clean, node))?)
    }

    /// The files in `backups/`.
    pub(in crate::replica) fn list_backups(&self) -> Result<Vec<(u64, PathBuf)>> {
        let paths = read_dir(&self.backups)?.into_iter();
        Ok(paths
            .filter_map(|path| Some((number(&path)?, path)))
            .collect())
    }

    /// Whether there is a file of any kind.
    pub(in crate::replica) fn has_any(&self) -> Result<bool> {
        Ok(!self.list_backups()?.is_empty()
            || !self.list(Which::Unsent)?.is_empty()
            || !self.list(Which::Clean)?.is_empty())
    }
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.parse().ok()
}
