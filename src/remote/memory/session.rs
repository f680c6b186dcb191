//! Sessions of the memory server.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use super::disk::Disk;
use super::errno::{Errno, refused};
use super::latch::Latch;
use super::{Gate, MemoryServer, Shared, Trip};
use crate::remote::guard::Guard;
use crate::remote::{
    DirEntry, ErrorKind, Features, FileHandle, RemoteError, Session, SetStat, Stat, StatVfs,
};
use crate::tree::RelPath;

/// A connection on which nothing was heard for so long is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// Entries that OpenSSH sends in one reply.
const ENTRIES_PER_REPLY: u64 = 100;

pub(super) struct MemorySession {
    server: MemoryServer,
    id: u64,
    /// Open when the session has ended.
    ended: Latch,
    answered: Notify,
    features: Features,
    gate: Gate,
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.close_session();
    }
}

impl MemorySession {
    pub(super) fn new(
        server: MemoryServer,
        id: u64,
        ended: Latch,
        features: Features,
        gate: Gate,
    ) -> Self {
        Self {
            server,
            id,
            ended,
            answered: Notify::new(),
            features,
            gate,
        }
    }

    /// One request: takes effect at once, is answered after the round trip and unless it is held.
    async fn ask<T: Send>(
        &self,
        op: &'static str,
        path: &RelPath,
        act: impl FnOnce(&mut Shared, i64) -> Result<T, Errno> + Send,
    ) -> Result<T, RemoteError> {
        let (outcome, latency, silent) = self.perform(op, path, act);
        let outcome = outcome?;
        if latency.is_zero() && !self.server.held.is_shut() {
            return outcome;
        }
        let answered = async {
            tokio::time::sleep(latency).await;
            if silent {
                self.close_session();
            }
            self.server.held.passed().await;
        };
        tokio::select! {
            biased;
            () = self.closed() => Err(self.lost(op, path)),
            () = answered => {
                self.answered.notify_waiters();
                outcome
            }
        }
    }

    /// The effect of a request, when it is answered, and whether nothing is ever heard of it. The outer error is a
    /// lost connection.
    #[allow(clippy::type_complexity)]
    fn perform<T>(
        &self,
        op: &'static str,
        path: &RelPath,
        act: impl FnOnce(&mut Shared, i64) -> Result<T, Errno>,
    ) -> (Result<Result<T, RemoteError>, RemoteError>, Duration, bool) {
        // Declared before the lock, so dropped after it: dropping may need the lock.
        let mut unheard = None;
        let alive = (self.gate)();
        let mut shared = self.server.lock();
        let mut round_trip = (shared.latency)();
        if !alive || !shared.sessions.contains_key(&self.id) {
            return (Err(self.lost(op, path)), round_trip, false);
        }
        let trip = {
            let number = shared.requests;
            shared.trips.remove(&number)
        };
        shared.requests += 1;
        shared.count(op, 1);
        let fail = |kind| RemoteError::new(kind, op, path, "made to fail");
        if let Some(kind) = shared.refusals.get(path) {
            return (Ok(Err(fail(*kind))), round_trip, false);
        }
        let now = (shared.clock)().secs();
        let outcome = match trip {
            Some(Trip::Fail(kind)) => Ok(Err(fail(kind))),
            Some(trip @ (Trip::CutBefore | Trip::EndBefore)) => {
                shared.end_by(trip, self.id);
                Err(self.lost(op, path))
            }
            Some(trip @ (Trip::CutAfter | Trip::EndAfter)) => {
                unheard = Some(act(&mut shared, now));
                shared.end_by(trip, self.id);
                Err(self.lost(op, path))
            }
            Some(Trip::Silence) => {
                round_trip = SILENCE;
                Ok(act(&mut shared, now).map_err(|errno| refused(errno, op, path)))
            }
            None => Ok(act(&mut shared, now).map_err(|errno| refused(errno, op, path))),
        };
        drop(shared);
        drop(unheard);
        (outcome, round_trip, trip == Some(Trip::Silence))
    }

    /// Opens a file by `find`, and closes it again if nobody waits for the answer any more.
    async fn open_by(
        &self,
        path: &RelPath,
        write: bool,
        find: impl FnOnce(&mut Disk, i64) -> Result<u64, Errno> + Send,
    ) -> Result<FileHandle, RemoteError> {
        let opened = self.ask("open", path, |shared, now| {
            let inode = find(&mut shared.disk, now)?;
            let id = shared.open(self.id, inode, write)?;
            let handle = FileHandle {
                id,
                path: path.clone(),
            };
            Ok(Guard::new(self, handle))
        });
        Ok(opened.await?.keep())
    }

    /// A request that concerns the disk alone.
    async fn on_disk<T: Send>(
        &self,
        op: &'static str,
        path: &RelPath,
        act: impl FnOnce(&mut Disk, i64) -> Result<T, Errno> + Send,
    ) -> Result<T, RemoteError> {
        self.ask(op, path, |shared, now| act(&mut shared.disk, now))
            .await
    }

    fn lost(&self, op: &'static str, path: &RelPath) -> RemoteError {
        RemoteError::new(ErrorKind::Disconnected, op, path, "the connection was cut")
    }

    fn require(&self, op: &'static str, path: &RelPath, offered: bool) -> Result<(), RemoteError> {
        if offered {
            return Ok(());
        }
        let message = "the server does not offer this";
        Err(RemoteError::new(ErrorKind::Unsupported, op, path, message))
    }
}

#[async_trait]
impl Session for MemorySession {
    fn features(&self) -> Features {
        self.features
    }

    fn is_closed(&self) -> bool {
        !self.ended.is_shut()
    }

    async fn closed(&self) {
        self.ended.passed().await;
    }

    fn close_session(&self) {
        self.server.lock().end_session(self.id);
    }

    async fn heard(&self) {
        self.answered.notified().await;
    }

    async fn lstat(&self, path: &RelPath) -> Result<Stat, RemoteError> {
        self.on_disk("lstat", path, |disk, _| {
            disk.stat(disk.lookup(path, false)?)
        })
        .await
    }

    async fn setstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.on_disk("setstat", path, |disk, now| {
            disk.set(disk.lookup(path, true)?, set, now)
        })
        .await
    }

    async fn lsetstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.require("lsetstat", path, self.features.lsetstat)?;
        self.on_disk("lsetstat", path, |disk, now| {
            disk.set(disk.lookup(path, false)?, set, now)
        })
        .await
    }

    async fn list(&self, path: &RelPath) -> Result<Vec<DirEntry>, RemoteError> {
        let entries = self.ask("opendir", path, |shared, _| {
            let entries = shared.disk.list(shared.disk.lookup(path, true)?)?;
            // With `.` and `..`, and one more reply for the end.
            let replies = (entries.len() as u64 + 2).div_ceil(ENTRIES_PER_REPLY) + 1;
            shared.count("readdir", replies);
            shared.count("close", 1);
            Ok(entries)
        });
        let entries = entries.await?.into_iter();
        Ok(entries
            .map(|(name, links, stat)| DirEntry {
                name,
                links: Some(links),
                stat,
            })
            .collect())
    }

    async fn readlink(&self, path: &RelPath) -> Result<Vec<u8>, RemoteError> {
        self.on_disk("readlink", path, |disk, _| disk.readlink(path))
            .await
    }

    async fn symlink(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError> {
        self.on_disk("symlink", path, |disk, now| disk.symlink(path, target, now))
            .await
    }

    async fn mkdir(&self, path: &RelPath, mode: u32) -> Result<(), RemoteError> {
        self.on_disk("mkdir", path, |disk, now| disk.mkdir(path, mode, now))
            .await
    }

    async fn rmdir(&self, path: &RelPath) -> Result<(), RemoteError> {
        self.on_disk("rmdir", path, |disk, now| disk.rmdir(path, now))
            .await
    }

    async fn remove(&self, path: &RelPath) -> Result<(), RemoteError> {
        self.on_disk("remove", path, |disk, now| disk.unlink(path, now))
            .await
    }

    async fn rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.on_disk("rename", from, |disk, now| disk.sftp_rename(from, to, now))
            .await
    }

    async fn posix_rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.require("posix-rename", from, self.features.posix_rename)?;
        self.on_disk("posix-rename", from, |disk, now| disk.rename(from, to, now))
            .await
    }

    async fn hardlink(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.require("hardlink", from, self.features.hardlink)?;
        self.on_disk("hardlink", from, |disk, now| disk.link(from, to, now))
            .await
    }

    async fn statvfs(&self) -> Result<StatVfs, RemoteError> {
        let path = RelPath::root();
        self.require("statvfs", &path, self.features.statvfs)?;
        self.on_disk("statvfs", &path, |disk, _| Ok(disk.statvfs()))
            .await
    }

    async fn open_read(&self, path: &RelPath) -> Result<FileHandle, RemoteError> {
        self.open_by(path, false, |disk, _| disk.lookup(path, true))
            .await
    }

    async fn open_write(
        &self,
        path: &RelPath,
        mode: u32,
        exclusive: bool,
    ) -> Result<FileHandle, RemoteError> {
        self.open_by(path, true, |disk, now| {
            match disk.create_file(path, mode, now) {
                Err(Errno::Exist) if !exclusive => disk.lookup(path, true),
                created => created,
            }
        })
        .await
    }

    async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes, RemoteError> {
        let len = len.min(self.features.max_read) as usize;
        self.ask("read", &handle.path, |shared, _| {
            let inode = shared.opened(self.id, handle)?.inode;
            shared.disk.read(inode, offset, len)
        })
        .await
    }

    async fn write(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), RemoteError> {
        self.ask("write", &handle.path, |shared, now| {
            let inode = shared.writable(self.id, handle)?;
            shared.disk.write(inode, offset, &data, now)
        })
        .await
    }

    async fn fstat(&self, handle: &FileHandle) -> Result<Stat, RemoteError> {
        self.ask("fstat", &handle.path, |shared, _| {
            shared.disk.stat(shared.opened(self.id, handle)?.inode)
        })
        .await
    }

    async fn fsetstat(&self, handle: &FileHandle, set: SetStat) -> Result<(), RemoteError> {
        self.ask("fsetstat", &handle.path, |shared, now| {
            let inode = shared.writable(self.id, handle)?;
            shared.disk.set(inode, set, now)
        })
        .await
    }

    async fn fsync(&self, handle: &FileHandle) -> Result<(), RemoteError> {
        self.require("fsync", &handle.path, self.features.fsync)?;
        self.ask("fsync", &handle.path, |shared, _| {
            let inode = shared.opened(self.id, handle)?.inode;
            shared.disk.sync(inode)
        })
        .await
    }

    async fn copy_data(
        &self,
        from: &FileHandle,
        from_offset: u64,
        len: u64,
        to: &FileHandle,
        to_offset: u64,
    ) -> Result<(), RemoteError> {
        self.require("copy-data", &to.path, self.features.copy_data)?;
        self.ask("copy-data", &to.path, |shared, now| {
            let from = shared.opened(self.id, from)?.inode;
            let to = shared.writable(self.id, to)?;
            if from == to {
                return Err(Errno::Inval);
            }
            // As in OpenSSH, a length of 0 means up to the end.
            let len = if len == 0 { u64::MAX } else { len };
            let data = shared.disk.read(
                from,
                from_offset,
                usize::try_from(len).unwrap_or(usize::MAX),
            )?;
            shared.disk.write(to, to_offset, &data, now)
        })
        .await
    }

    async fn close(&self, handle: FileHandle) -> Result<(), RemoteError> {
        self.ask("close", &handle.path, |shared, _| {
            shared.close(self.id, &handle)
        })
        .await
    }

    fn abandon(&self, handle: FileHandle) {
        // A handle of a session that has ended is closed already.
        let _ = self.server.lock().close(self.id, &handle);
    }
}
