//! The foreign writer, who changes the memory server behind everybody's back, and those who look at it.

use std::collections::BTreeMap;

use super::disk::Disk;
use super::errno::{Errno, refused};
use super::{Item, MemoryServer, Snapshot};
use crate::remote::{RemoteError, SetStat, Stat};
use crate::tree::{Kind, RelPath};

impl Snapshot {
    /// All there is in it, as [`MemoryServer::tree`] tells it.
    pub fn tree(&self) -> BTreeMap<RelPath, Item> {
        tree(&self.0)
    }
}

/// The foreign writer: changes that no session made. Errors are those a local program would get.
impl MemoryServer {
    /// Writes a whole file in place, making it and its directories.
    pub fn write_file(&self, path: &RelPath, data: &[u8]) -> Result<(), RemoteError> {
        self.make_parents(path)?;
        self.meddle("write", path, |disk, now| {
            let id = match disk.lookup(path, true) {
                Err(Errno::NoEnt) => disk.create_file(path, 0o644, now)?,
                found => found?,
            };
            let empty = SetStat {
                size: Some(0),
                ..SetStat::default()
            };
            disk.set(id, empty, now)?;
            disk.write(id, 0, data, now)?;
            disk.sync(id)
        })
    }

    /// Makes a directory and all above it.
    pub fn make_dir(&self, path: &RelPath) -> Result<(), RemoteError> {
        self.make_parents(path)?;
        self.meddle("mkdir", path, |disk, now| {
            match disk.mkdir(path, 0o755, now) {
                Err(Errno::Exist) => Ok(()),
                done => done,
            }
        })
    }

    fn make_parents(&self, path: &RelPath) -> Result<(), RemoteError> {
        match path.names().split_last() {
            Some((_, above)) if !above.is_empty() => {
                self.make_dir(&above.iter().cloned().collect())
            }
            _ => Ok(()),
        }
    }

    /// Makes a link.
    pub fn make_symlink(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError> {
        self.make_parents(path)?;
        self.meddle("symlink", path, |disk, now| disk.symlink(path, target, now))
    }

    /// The content of a file.
    pub fn read_file(&self, path: &RelPath) -> Result<Vec<u8>, RemoteError> {
        self.meddle("read", path, |disk, _| {
            let id = disk.lookup(path, true)?;
            disk.read(id, 0, usize::MAX).map(|data| data.to_vec())
        })
    }

    /// Attributes, not following a link at the end.
    pub fn stat(&self, path: &RelPath) -> Result<Stat, RemoteError> {
        self.meddle("stat", path, |disk, _| disk.stat(disk.lookup(path, false)?))
    }

    /// Changes attributes.
    pub fn set_stat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.meddle("setstat", path, |disk, now| {
            disk.set(disk.lookup(path, true)?, set, now)
        })
    }

    /// Removes a file, a link or a directory with all in it.
    pub fn remove(&self, path: &RelPath) -> Result<(), RemoteError> {
        if self.stat(path)?.kind != Kind::Dir {
            return self.meddle("unlink", path, |disk, now| disk.unlink(path, now));
        }
        let entries = self.meddle("list", path, |disk, _| disk.list(disk.lookup(path, false)?))?;
        for (name, ..) in entries {
            self.remove(&path.join(&name))?;
        }
        match path.is_root() {
            true => Ok(()),
            false => self.meddle("rmdir", path, |disk, now| disk.rmdir(path, now)),
        }
    }

    /// `rename(2)`: replaces `to`.
    pub fn rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.make_parents(to)?;
        self.meddle("rename", from, |disk, now| disk.rename(from, to, now))
    }

    /// All there is below the root, without the root.
    pub fn tree(&self) -> BTreeMap<RelPath, Item> {
        tree(&self.lock().disk)
    }

    /// Shows `see` the same, content or target last, in no order and without copying it.
    pub fn look(&self, mut see: impl FnMut(&RelPath, Stat, &[u8])) {
        self.lock().disk.look(&mut see);
    }

    fn meddle<T>(
        &self,
        op: &'static str,
        path: &RelPath,
        act: impl FnOnce(&mut Disk, i64) -> Result<T, Errno>,
    ) -> Result<T, RemoteError> {
        let mut shared = self.lock();
        let now = (shared.clock)().secs();
        let read_only = std::mem::take(&mut shared.disk.read_only);
        let done = act(&mut shared.disk, now);
        shared.disk.read_only = read_only;
        done.map_err(|errno| refused(errno, op, path))
    }
}

fn tree(disk: &Disk) -> BTreeMap<RelPath, Item> {
    let mut items = BTreeMap::new();
    disk.look(&mut |path, stat, data| {
        let data = data.to_vec();
        items.insert(path.clone(), Item { stat, data });
    });
    items
}
