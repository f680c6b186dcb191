//! How much room there is: on the server as last heard, but never more than this machine's disk can take.

use super::{FsError, Home};

/// Room for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All there is, in bytes.
    pub total_bytes: u64,
    /// What is free, in bytes.
    pub available_bytes: u64,
    /// How many files there can be.
    pub files: u64,
    /// How many more there can be.
    pub files_free: u64,
}

impl Home {
    /// The room for files.
    pub fn room(&self) -> Result<Room, FsError> {
        let disk = rustix::fs::statvfs(self.replica.state_dir())
            .map_err(|error| FsError::Content(error.into()))?;
        let local_available = disk.f_bavail.saturating_mul(disk.f_frsize);
        let (total_bytes, available_bytes) = match self.fetch.space() {
            Some(space) => (space.total_bytes, space.available_bytes),
            None => (disk.f_blocks.saturating_mul(disk.f_frsize), local_available),
        };
        Ok(Room {
            total_bytes,
            available_bytes: available_bytes.min(local_available),
            files: disk.f_files,
            files_free: disk.f_ffree,
        })
    }
}
