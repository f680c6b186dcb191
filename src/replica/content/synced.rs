//! What power loss leaves of content: making it stay, and looking at what stayed.

use std::fs::File;
use std::io::ErrorKind;

use super::disk::sync_parent;
use super::{ContentStore, Result, path_in};
use crate::replica::error::AtPath;
use crate::tree::{Hash, NodeId};

impl ContentStore {
    /// Makes the content of `node` and its name survive power loss.
    pub fn sync_file(&self, node: NodeId) -> Result<()> {
        for dir in [&self.unsent, &self.clean] {
            let path = path_in(dir, node);
            match File::open(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                opened => opened.at(&path)?.sync_data().at(&path)?,
            }
            return sync_parent(&path);
        }
        Ok(())
    }

    /// The hash of the content of `node`; `None` if it is missing or of another size.
    pub(in crate::replica) fn hash(&self, node: NodeId, size: u64) -> Result<Option<Hash>> {
        if self.stat(node)?.is_none_or(|(found, _)| found != size) {
            return Ok(None);
        }
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(self.open_read(node, false)?)
            .at(&path_in(&self.clean, node))?;
        Ok(Some(Hash(*hasher.finalize().as_bytes())))
    }

    /// Makes all content survive power loss. It takes whatever else waits for the same disk along.
    pub(in crate::replica) fn sync_all(&self) -> Result<()> {
        let dir = File::open(&self.clean).at(&self.clean)?;
        rustix::fs::syncfs(dir).at(&self.clean)
    }
}
