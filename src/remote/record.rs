//! Counts what is asked of a server, so that cost can be asserted without a clock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use super::{DirEntry, Features, FileHandle, RemoteError, Session, SetStat, Stat, StatVfs, layout};
use crate::tree::RelPath;

/// How often each verb of [`Session`] was called, and how many bytes of content were moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Calls by verb, such as `lstat`.
    pub by_verb: BTreeMap<&'static str, u64>,
    /// Bytes of content that were read.
    pub bytes_read: u64,
    /// Bytes of content that were written.
    pub bytes_written: u64,
    /// Bytes of notes that were written: what machines tell each other in `.roamhome/feed/`.
    pub bytes_noted: u64,
}

impl Calls {
    /// Calls of one verb.
    pub fn of(&self, verb: &str) -> u64 {
        self.by_verb.get(verb).copied().unwrap_or(0)
    }

    /// Calls of all verbs.
    pub fn total(&self) -> u64 {
        self.by_verb.values().sum()
    }

    /// What happened since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let by_verb = self
            .by_verb
            .iter()
            .map(|(verb, n)| (*verb, n - earlier.of(verb)));
        Self {
            by_verb: by_verb.filter(|(_, n)| *n > 0).collect(),
            bytes_read: self.bytes_read - earlier.bytes_read,
            bytes_written: self.bytes_written - earlier.bytes_written,
            bytes_noted: self.bytes_noted - earlier.bytes_noted,
        }
    }
}

/// The counters that the recorded sessions of one connection share.
#[derive(Debug, Clone, Default)]
pub(super) struct Counters(Arc<Mutex<Calls>>);

impl Counters {
    pub(super) fn snapshot(&self) -> Calls {
        self.with(|calls| calls.clone())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Calls) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, verb: &'static str) {
        self.with(|calls| *calls.by_verb.entry(verb).or_default() += 1);
    }
}

/// A session whose calls are counted.
pub(super) struct Recorded {
    pub(super) session: Arc<dyn Session>,
    pub(super) counters: Counters,
}

#[async_trait]
impl Session for Recorded {
    fn features(&self) -> Features {
        self.session.features()
    }

    fn extensions(&self) -> Vec<String> {
        self.session.extensions()
    }

    fn is_closed(&self) -> bool {
        self.session.is_closed()
    }

    async fn closed(&self) {
        self.session.closed().await;
    }

    fn close_session(&self) {
        self.session.close_session();
    }

    async fn heard(&self) {
        self.session.heard().await;
    }

    async fn lstat(&self, path: &RelPath) -> Result<Stat, RemoteError> {
        self.counters.count("lstat");
        self.session.lstat(path).await
    }

    async fn setstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.counters.count("setstat");
        self.session.setstat(path, set).await
    }

    async fn lsetstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.counters.count("lsetstat");
        self.session.lsetstat(path, set).await
    }

    async fn list(&self, path: &RelPath) -> Result<Vec<DirEntry>, RemoteError> {
        self.counters.count("list");
        self.session.list(path).await
    }

    async fn readlink(&self, path: &RelPath) -> Result<Vec<u8>, RemoteError> {
        self.counters.count("readlink");
        self.session.readlink(path).await
    }

    async fn symlink(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError> {
        self.counters.count("symlink");
        self.session.symlink(path, target).await
    }

    async fn mkdir(&self, path: &RelPath, mode: u32) -> Result<(), RemoteError> {
        self.counters.count("mkdir");
        self.session.mkdir(path, mode).await
    }

    async fn rmdir(&self, path: &RelPath) -> Result<(), RemoteError> {
        self.counters.count("rmdir");
        self.session.rmdir(path).await
    }

    async fn remove(&self, path: &RelPath) -> Result<(), RemoteError> {
        self.counters.count("remove");
        self.session.remove(path).await
    }

    async fn rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.counters.count("rename");
        self.session.rename(from, to).await
    }

    async fn posix_rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.counters.count("posix_rename");
        self.session.posix_rename(from, to).await
    }

    async fn hardlink(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.counters.count("hardlink");
        self.session.hardlink(from, to).await
    }

    async fn statvfs(&self) -> Result<StatVfs, RemoteError> {
        self.counters.count("statvfs");
        self.session.statvfs().await
    }

    async fn open_read(&self, path: &RelPath) -> Result<FileHandle, RemoteError> {
        self.counters.count("open_read");
        self.session.open_read(path).await
    }

    async fn open_write(
        &self,
        path: &RelPath,
        mode: u32,
        exclusive: bool,
    ) -> Result<FileHandle, RemoteError> {
        self.counters.count("open_write");
        self.session.open_write(path, mode, exclusive).await
    }

    async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes, RemoteError> {
        self.counters.count("read");
        let data = self.session.read(handle, offset, len).await?;
        self.counters
            .with(|calls| calls.bytes_read += data.len() as u64);
        Ok(data)
    }

    async fn write(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), RemoteError> {
        self.counters.count("write");
        let is_note = handle.path.names().starts_with(layout::feed().names());
        self.counters.with(|calls| {
            *match is_note {
                true => &mut calls.bytes_noted,
                false => &mut calls.bytes_written,
            } += data.len() as u64;
        });
        self.session.write(handle, offset, data).await
    }

    async fn fstat(&self, handle: &FileHandle) -> Result<Stat, RemoteError> {
        self.counters.count("fstat");
        self.session.fstat(handle).await
    }

    async fn fsetstat(&self, handle: &FileHandle, set: SetStat) -> Result<(), RemoteError> {
        self.counters.count("fsetstat");
        self.session.fsetstat(handle, set).await
    }

    async fn fsync(&self, handle: &FileHandle) -> Result<(), RemoteError> {
        self.counters.count("fsync");
        self.session.fsync(handle).await
    }

    async fn copy_data(
        &self,
        from: &FileHandle,
        from_offset: u64,
        len: u64,
        to: &FileHandle,
        to_offset: u64,
    ) -> Result<(), RemoteError> {
        self.counters.count("copy_data");
        let copied = self
            .session
            .copy_data(from, from_offset, len, to, to_offset);
        copied.await
    }

    async fn close(&self, handle: FileHandle) -> Result<(), RemoteError> {
        self.counters.count("close");
        self.session.close(handle).await
    }

    fn abandon(&self, handle: FileHandle) {
        self.counters.count("close");
        self.session.abandon(handle);
    }
}
