//! How much room there is: on the server as last heard, but never more than this machine's disk can take. And room that
//! content makes for what is written.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{FsError, Home, Need, Stop};

/// When so many bytes were written, it is looked whether there is room for more.
const LOOK_EVERY: u64 = 1024 * 1024;

/// An operation waits for room so often: others write as well.
const ROOM_MAX: u32 = 3;

/// Room for files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All there is, in bytes.
    pub total_bytes: u64,
    /// What of it is not taken, in bytes.
    pub free_bytes: u64,
    /// What can be written here now, in bytes.
    pub available_bytes: u64,
    /// How many files there can be.
    pub files: u64,
    /// How many more there can be.
    pub files_free: u64,
}

impl Home {
    /// The room for files. Content that the server has too takes none that is needed for anything else.
    pub fn room(&self) -> Result<Room, FsError> {
        let disk = rustix::fs::statvfs(self.replica.state_dir())
            .map_err(|error| FsError::Content(error.into()))?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        let here = bytes(disk.f_bavail).saturating_add(self.fetch.evictable());
        let (total_bytes, free_bytes) = match self.fetch.space() {
            Some(space) => (space.total_bytes, space.available_bytes),
            None => (bytes(disk.f_blocks), here),
        };
        Ok(Room {
            total_bytes,
            free_bytes,
            available_bytes: free_bytes.min(here),
            files: disk.f_files,
            files_free: disk.f_ffree,
        })
    }

    /// Does what writes `bytes` to this disk, and then calls `done`. Where the disk is nearly full, content that the server
    /// has makes room first; the index needs some itself to let it go. Where it is full, that is tried, too.
    pub fn run_with_room<T: 'static>(
        self: &Arc<Self>,
        bytes: u64,
        operation: impl Fn(&Self) -> Result<T, FsError> + Send + 'static,
        done: impl FnOnce(Result<T, FsError>) + Send + 'static,
    ) {
        let waited = Cell::new(0);
        let operation = move |home: &Self| {
            let wait = || {
                waited.set(waited.get() + 1);
                Stop::Needs(Need::Room(bytes))
            };
            if waited.get() == 0 && home.fetch.is_short_of_room(bytes) {
                return Err(wait());
            }
            operation(home).map_err(|error| match error.is_full() && waited.get() < ROOM_MAX {
                true => wait(),
                false => error.into(),
            })
        };
        self.run(operation, done);
    }

    /// Whether there may be too little room for what is to be written. Looks only now and then, since that is asked often.
    pub fn is_short_of_room(&self, bytes: u64) -> bool {
        if self.unlooked.fetch_add(bytes, Ordering::Relaxed) + bytes < LOOK_EVERY {
            return false;
        }
        self.unlooked.store(0, Ordering::Relaxed);
        self.fetch.is_short_of_room(bytes)
    }
}
