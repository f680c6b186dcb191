//! Content that nobody wrote to and that is not what it was: bit rot. It is put aside, never sent and never removed.

use std::fs;
use std::path::PathBuf;

use super::disk::{make_dir, sync_dir};
use super::{ContentStore, Result, path_in};
use crate::replica::error::{AtPath, ReplicaError};
use crate::replica::rows::{Content, Node};
use crate::tree::{Hash, Kind};

impl ContentStore {
    /// Whether the content of a file that the server has, too, is still what was agreed on, as far as that is known.
    pub(in crate::replica) fn is_as_agreed(&self, node: &Node) -> Result<bool> {
        let (Some(agreed), Content::Whole) = (node.hash, node.content) else {
            return Ok(true);
        };
        if self.stat(node.id)?.is_none() {
            // An empty file has no content; that others lack it, others tell.
            return Ok(true);
        }
        match self.hash(node.id, false, node.size) {
            // A sector that the disk gave up.
            Err(ReplicaError::Io { source, .. }) if source.raw_os_error() == Some(libc::EIO) => {
                Ok(false)
            }
            found => Ok(found? == Some(agreed)),
        }
    }

    /// The error for content that a hash on the way to the server convicted; `None` if it is as agreed.
    pub fn convict(&self, node: &Node, found: Option<Hash>) -> Option<ReplicaError> {
        let known = node.kind == Kind::File && !node.data_changed && node.size > 0;
        let rotten = known && node.hash.is_some() && found.is_some() && node.hash != found;
        rotten.then(|| ReplicaError::Rotten {
            content: path_in(&self.clean, node.id),
        })
    }

    /// Moves the content of a file that the server has, too, into `quarantine/`; where to.
    pub(in crate::replica) fn quarantine(&self, node: &Node) -> Result<PathBuf> {
        let dir = self.clean.with_file_name("quarantine");
        make_dir(&dir)?;
        let _guard = self.lock();
        let numbered = |number: u32| match number {
            0 => dir.join(node.id.to_string()),
            number => dir.join(format!("{}.{number}", node.id)),
        };
        let free = (0..u32::MAX).map(numbered).find(|path| !path.exists());
        let to = free.unwrap_or_else(|| numbered(u32::MAX));
        let from = path_in(&self.clean, node.id);
        fs::rename(&from, &to).at(&from)?;
        sync_dir(&dir)?;
        Ok(to)
    }
}
