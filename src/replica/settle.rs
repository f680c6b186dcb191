//! Content on its way to the disk. What the server has, too, is not synced when it comes: it could be fetched again.
//! Until it is on the disk, a mark at its node says so, and after a power loss the marked content is not believed.

use std::fs::File;

use nix::unistd::syncfs;

use super::error::{AtPath, ReplicaError};
use super::index::Replica;

/// So many files are synced one by one. For more it is cheaper to sync all that is on the disk, whoever wrote it.
const ONE_BY_ONE: usize = 64;

impl Replica {
    /// Makes the content that the server has, too, survive a power loss. May take as long as the disk needs for
    /// all that was written to it lately.
    pub fn settle(&self) -> Result<(), ReplicaError> {
        let unsynced = self.view(|view| view.unsynced())?;
        if unsynced.is_empty() {
            return Ok(());
        }
        if unsynced.len() <= ONE_BY_ONE {
            for (node, _) in &unsynced {
                self.content().sync_file(*node)?;
            }
        } else {
            let dir = self.state_dir();
            let disk = File::open(dir).at(dir)?;
            syncfs(&disk).map_err(|errno| ReplicaError::io(dir, std::io::Error::from(errno)))?;
        }
        self.update(|tx| {
            let mut unsynced = unsynced.into_iter();
            unsynced.try_for_each(|(node, stamp)| tx.clear_unsynced(node, stamp))
        })
    }
}
