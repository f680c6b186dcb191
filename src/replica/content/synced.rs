//! What power loss leaves of content: making it stay, and looking at what stayed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read};

use super::disk::{sync_dir, sync_parent};
use super::{ContentStore, Result, path_in};
use crate::replica::error::{AtPath, ReplicaError};
use crate::tree::{Hash, NodeId};

impl ContentStore {
    /// Makes the content of `node` and its name survive power loss, and no other content that it had come back.
    pub fn sync_file(&self, node: NodeId) -> Result<()> {
        let [unsent, clean] = [&self.unsent, &self.clean].map(|dir| path_in(dir, node));
        let unsent_dir = unsent.parent().unwrap_or(&self.unsent);
        for path in [&unsent, &clean] {
            match File::open(path) {
                Err(e) if e.kind() == ErrorKind::NotFound => continue,
                opened => opened.at(path)?.sync_data().at(path)?,
            }
            sync_parent(path)?;
            return match path == &clean && unsent_dir.exists() {
                true => sync_dir(unsent_dir),
                false => Ok(()),
            };
        }
        Ok(())
    }

    /// Makes sure that content of these nodes that was removed does not come back with a power loss.
    pub(in crate::replica) fn sync_removals(
        &self,
        nodes: impl IntoIterator<Item = NodeId>,
    ) -> Result<()> {
        let paths = |node| [&self.clean, &self.unsent].map(|dir| path_in(dir, node));
        let files = nodes.into_iter().flat_map(paths);
        let dirs: BTreeSet<_> = files
            .filter_map(|path| Some(path.parent()?.to_owned()))
            .collect();
        dirs.iter()
            .filter(|dir| dir.exists())
            .try_for_each(|dir| sync_dir(dir))
    }

    /// The hash of the content of `node`; `None` if it is missing or of another size. Sought first where a row with
    /// this `data_changed` has it.
    pub(in crate::replica) fn hash(
        &self,
        node: NodeId,
        data_changed: bool,
        size: u64,
    ) -> Result<Option<Hash>> {
        match self.stat(node)? {
            Some((found, _)) if found == size => self.hash_of_start(node, data_changed, size),
            _ => Ok(None),
        }
    }

    /// The hash of the first `len` bytes; `None` if there are fewer.
    pub(in crate::replica) fn hash_of_start(
        &self,
        node: NodeId,
        data_changed: bool,
        len: u64,
    ) -> Result<Option<Hash>> {
        let mut file = match self.open_read(node, data_changed) {
            Err(ReplicaError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(None);
            }
            opened => opened?.take(len),
        };
        let mut hasher = blake3::Hasher::new();
        hasher
            .update_reader(&mut file)
            .at(&path_in(&self.clean, node))?;
        let whole = hasher.count() == len;
        Ok(whole.then(|| Hash(*hasher.finalize().as_bytes())))
    }

    /// Makes all content survive power loss. It takes whatever else waits for the same disk along.
    pub(in crate::replica) fn sync_all(&self) -> Result<()> {
        let dir = File::open(&self.clean).at(&self.clean)?;
        rustix::fs::syncfs(dir).at(&self.clean)
    }
}
