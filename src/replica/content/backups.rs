//! Content that is kept: the files in `backups/`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::disk::{exists, remove_file, sync_dir};
use super::{ContentStore, Result, path_in};
use crate::replica::error::AtPath;
use crate::tree::NodeId;

impl ContentStore {
    /// Gives the content of `node` a second name as a backup. The caller sees to it that nobody writes to it
    /// any more.
    pub fn link_to_backup(&self, node: NodeId, id: u64) -> Result<()> {
        let _guard = self.lock();
        let backup = self.backups.join(id.to_string());
        for dir in [&self.unsent, &self.clean] {
            let path = path_in(dir, node);
            if exists(&path)? {
                return fs::hard_link(&path, &backup).at(&backup);
            }
        }
        File::create(&backup).map(drop).at(&backup)
    }

    /// Copies the content of `node` to a backup.
    pub fn copy_to_backup(&self, node: NodeId, id: u64) -> Result<()> {
        let staged = self.copy(node)?;
        fs::rename(&staged.path, self.backups.join(id.to_string())).at(&staged.path)
    }

    /// Makes a backup survive a loss of power.
    pub fn sync_backup(&self, id: u64) -> Result<()> {
        let path = self.backups.join(id.to_string());
        File::open(&path)
            .and_then(|file| file.sync_data())
            .at(&path)?;
        sync_dir(&self.backups)
    }

    /// Makes a backup of `content`, such as a symlink's target.
    pub fn write_to_backup(&self, content: &[u8], id: u64) -> Result<()> {
        let staged = self.new_staging()?;
        staged.file.write_all_at(content, 0).at(&staged.path)?;
        fs::rename(&staged.path, self.backups.join(id.to_string())).at(&staged.path)
    }

    /// A backup's content.
    pub fn open_backup(&self, id: u64) -> Result<File> {
        let path = self.backups.join(id.to_string());
        File::open(&path).at(&path)
    }

    /// Removes a backup's content.
    pub fn remove_backup(&self, id: u64) -> Result<()> {
        remove_file(&self.backups.join(id.to_string()))
    }
}
