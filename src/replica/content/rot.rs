//! Content that nobody wrote to and that is not what it was: bit rot. It is put aside, never sent and never removed.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::PathBuf;

use super::disk::{make_dir, sync_dir};
use super::{ContentStore, Result, path_in};
use crate::replica::error::{AtPath, ReplicaError};
use crate::replica::rows::{Content, Node};
use crate::tree::{Hash, Kind};

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 256 * 1024;

impl ContentStore {
    /// Whether the content of a file that the server has, too, is still what was agreed on, as far as that is known.
    pub(in crate::replica) fn is_as_agreed(&self, node: &Node) -> Result<bool> {
        let (Some(agreed), Content::Whole) = (node.hash, node.content) else {
            return Ok(true);
        };
        let mut file = match self.open_read(node.id, false) {
            // An empty file has no content; that others lack it, others tell.
            Err(ReplicaError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(true);
            }
            opened => opened?,
        };
        let (mut hasher, mut chunk) = (blake3::Hasher::new(), vec![0; CHUNK]);
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(Hash(*hasher.finalize().as_bytes()) == agreed),
                Ok(len) => drop(hasher.update(&chunk[..len])),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A sector that the disk gave up.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(false),
                Err(error) => return Err(ReplicaError::io(&path_in(&self.clean, node.id), error)),
            }
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
