//! What is left of a disk whose machine lost its power: every name, and of each file what was synced last.

use std::sync::Arc;

use super::{Disk, Kind, Result};

impl Disk {
    /// The content of a file survives a loss of power from now on.
    pub(in crate::remote::memory) fn sync(&mut self, id: u64) -> Result<()> {
        let inode = self.inode_mut(id)?;
        inode.synced = Arc::clone(&inode.data);
        Ok(())
    }

    /// The machine starts again after it lost its power.
    pub(in crate::remote::memory) fn lose_unsynced(&mut self) {
        self.forget_opens();
        for inode in self.inodes.values_mut() {
            if inode.kind == Kind::File {
                inode.data = Arc::clone(&inode.synced);
            }
        }
        self.used = self
            .inodes
            .values()
            .map(|inode| inode.data.len() as u64)
            .sum();
    }
}
