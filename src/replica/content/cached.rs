//! Content that the server has too, as it lies on the disk: what it takes, and when it was last used. The time of last
//! use is the file's own atime, set when the content is opened: a row for it would cost a write each time.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{
    Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fstat, futimens, lstat, open,
};
use rustix::io::Errno;

use super::disk::remove_file;
use super::{ContentStore, Result, Which, path_in};
use crate::replica::error::AtPath;
use crate::replica::evict::Cached;
use crate::tree::{NodeId, Time};

/// The time of last use is right to so many seconds.
const USED_SECS: i64 = 3600;
/// `st_blocks` counts these.
pub(super) const BLOCK: u64 = 512;

/// A content file as it was at one moment. It is held open: the number of one that is gone may be given to what takes
/// its place, and that would then pass for it.
#[derive(Debug)]
pub(in crate::replica) struct CleanFile {
    pub(in crate::replica) node: NodeId,
    held: OwnedFd,
    bytes: u64,
}

impl Cached {
    /// What lies at `path`; `None` if that is gone.
    pub(super) fn at(node: NodeId, path: &Path) -> Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            meta => {
                let meta = meta.at(path)?;
                Ok(Some(Self {
                    node,
                    bytes: meta.blocks() * BLOCK,
                    used: Time::new(meta.atime(), 0),
                }))
            }
        }
    }
}

impl ContentStore {
    /// Notes that content is used at `now`. What it is for is lost if that fails, and nothing else.
    pub fn note_use(file: &File, now: Time) {
        let is_known = |meta: &Metadata| (meta.atime() - now.secs()).abs() < USED_SECS;
        if file.metadata().is_ok_and(|meta| is_known(&meta)) {
            return;
        }
        let at = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        let times = Timestamps {
            last_access: at(now.secs(), 0),
            last_modification: at(0, UTIME_OMIT),
        };
        if let Err(error) = futimens(file, &times) {
            tracing::debug!(%error, "it is not known when content was used");
        }
    }

    /// All content that the server has too.
    pub(in crate::replica) fn list_cached(&self) -> Result<Vec<Cached>> {
        let mut found = Vec::new();
        for (node, path) in self.list(Which::Clean)? {
            found.extend(Cached::at(node, &path)?);
        }
        Ok(found)
    }

    /// The content of `node` that the server has too; `None` if there is none.
    pub(in crate::replica) fn clean_file(&self, node: NodeId) -> Result<Option<CleanFile>> {
        let path = path_in(&self.clean, node);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let held = match open(&path, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(None),
            held => held.map_err(io::Error::from).at(&path)?,
        };
        let stat = fstat(&held).map_err(io::Error::from).at(&path)?;
        Ok(Some(CleanFile {
            node,
            held,
            bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK,
        }))
    }

    /// Removes it, unless something else is in its place by now. Tells how many bytes that freed.
    pub(in crate::replica) fn remove_clean(&self, file: &CleanFile) -> Result<u64> {
        let _guard = self.lock();
        let path = path_in(&self.clean, file.node);
        let known = fstat(&file.held).map_err(io::Error::from).at(&path)?;
        let is_it = |now: Stat| (now.st_dev, now.st_ino) == (known.st_dev, known.st_ino);
        match lstat(&path) {
            Err(Errno::NOENT) => return Ok(0),
            now if !is_it(now.map_err(io::Error::from).at(&path)?) => return Ok(0),
            _ => {}
        }
        remove_file(&path)?;
        Ok(file.bytes)
    }
}
