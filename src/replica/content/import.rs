//! Content that comes from files outside of the store: copied in, or shared with them where the disk can.

use std::fs::{self, File};

use super::disk::{exists, rename};
use super::{ContentStore, Result, StagingFile, make_fans, path_in};
use crate::replica::clone::{clone_file, share_file};
use crate::replica::error::{AtPath, ReplicaError};
use crate::tree::{NodeId, RelPath};

impl ContentStore {
    /// A copy of `source`, holes and all; it shares blocks with it where the disk can. Whoever writes to `source`
    /// meanwhile may tear it.
    pub fn copy_in(&self, source: &File) -> Result<StagingFile> {
        let staged = self.new_staging()?;
        clone_file(source, &staged.file).at(&staged.path)?;
        Ok(staged)
    }

    /// Whether a copy of `source` would share its blocks, and so take no room.
    pub fn shares_with(&self, source: &File) -> Result<bool> {
        Ok(share_file(source, &self.new_staging()?.file))
    }

    /// Makes `staged` the unsent content of `node`, which had none; `hint` is where it stands.
    pub fn install_unsent(&self, staged: StagingFile, node: NodeId, hint: &RelPath) -> Result<()> {
        let _guard = self.lock();
        self.hints.set(&staged.file, node, hint)?;
        rename(&staged.path, &path_in(&self.unsent, node), true, make_fans)
    }

    /// Takes a copy of a backup of another store as a backup of this one, and makes it survive a loss of power.
    pub(in crate::replica) fn copy_backup(
        &self,
        from: &Self,
        theirs: u64,
        ours: u64,
    ) -> Result<()> {
        let staged = self.copy_in(&from.open_backup(theirs)?)?;
        let path = self.backups.join(ours.to_string());
        if exists(&path)? {
            return Err(ReplicaError::io(&path, std::io::ErrorKind::AlreadyExists));
        }
        fs::rename(&staged.path, &path).at(&path)?;
        self.sync_backup(ours)
    }
}
