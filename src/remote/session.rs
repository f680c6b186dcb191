//! The port to a server: one ordered SFTP v3 session, in bytes.

use async_trait::async_trait;
use bytes::Bytes;

use super::RemoteError;
use crate::tree::{Kind, Name, RelPath, Time};

/// What SFTP v3 tells about a file. Times are whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// From the type bits of the mode; `Other` if the server sends none.
    pub kind: Kind,
    /// In bytes.
    pub size: u64,
    /// Modification time, seconds since the epoch, 32 bits on the wire.
    pub mtime: i64,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner on the server.
    pub uid: u32,
    /// Group on the server.
    pub gid: u32,
}

/// What to change in `setstat`; `None` leaves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SetStat {
    /// Truncate or extend to this many bytes.
    pub size: Option<u64>,
    /// Permission bits, 07777.
    pub mode: Option<u32>,
    /// Sets atime and mtime both to these seconds.
    pub mtime: Option<i64>,
}

/// One entry of a listing. Entries `.` and `..` are left out; names that are no [`Name`] end the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    /// Its name.
    pub name: Name,
    /// How many names it has, where the server tells: OpenSSH does in the line that `ls -l` shows. A hint.
    pub links: Option<u32>,
    /// Its attributes, not following links.
    pub stat: Stat,
}

/// What `statvfs@openssh.com` tells; sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatVfs {
    /// Size of the file system.
    pub total_bytes: u64,
    /// Free for the user.
    pub available_bytes: u64,
    /// Number of inodes, 0 if unknown.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// What a server offers beyond plain SFTP v3, and its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Features {
    /// `posix-rename@openssh.com`.
    pub posix_rename: bool,
    /// `hardlink@openssh.com`.
    pub hardlink: bool,
    /// `fsync@openssh.com`.
    pub fsync: bool,
    /// `lsetstat@openssh.com`.
    pub lsetstat: bool,
    /// `statvfs@openssh.com`.
    pub statvfs: bool,
    /// `copy-data`.
    pub copy_data: bool,
    /// Longest read, in bytes.
    pub max_read: u32,
    /// Longest write, in bytes.
    pub max_write: u32,
}

/// An open file on the server; belongs to the session that opened it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileHandle {
    /// What the server calls it.
    pub id: Bytes,
    /// What it was opened as, for errors to name.
    pub path: RelPath,
}

/// One SFTP session. Paths are relative to the home's root.
///
/// Requests are sent in the order in which the futures are *first polled* and the server works on
/// them in that order, so a burst is several futures joined. Nothing is retried here. After an error for
/// which [`RemoteError::is_link_loss`] holds, every later call fails the same way.
#[async_trait]
pub trait Session: Send + Sync {
    /// What this server can do.
    fn features(&self) -> Features;
    /// All that it says it offers, with versions, in its words.
    fn extensions(&self) -> Vec<String> {
        Vec::new()
    }
    /// Whether the session has ended.
    fn is_closed(&self) -> bool;
    /// Resolves when the session has ended.
    async fn closed(&self);
    /// Ends the session.
    fn close_session(&self);
    /// Resolves when something arrives from the server, be it a part of an answer: it is at work.
    async fn heard(&self);

    /// Attributes, not following a link at the end.
    async fn lstat(&self, path: &RelPath) -> Result<Stat, RemoteError>;
    /// Sets attributes; follows links (see facts of SFTP), so never called on one.
    async fn setstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError>;
    /// Sets attributes of a link itself; `Unsupported` without `lsetstat@openssh.com`.
    async fn lsetstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError>;
    /// All entries of a directory, in the server's order. Listings without end are a protocol error.
    async fn list(&self, path: &RelPath) -> Result<Vec<DirEntry>, RemoteError>;
    /// Where a link points.
    async fn readlink(&self, path: &RelPath) -> Result<Vec<u8>, RemoteError>;
    /// Makes a link at `path` that points to `target`.
    async fn symlink(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError>;
    /// Makes a directory.
    async fn mkdir(&self, path: &RelPath, mode: u32) -> Result<(), RemoteError>;
    /// Removes an empty directory.
    async fn rmdir(&self, path: &RelPath) -> Result<(), RemoteError>;
    /// Unlinks a file or link.
    async fn remove(&self, path: &RelPath) -> Result<(), RemoteError>;
    /// `SSH_FXP_RENAME`: fails if `to` exists.
    async fn rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError>;
    /// `posix-rename@openssh.com`: replaces `to` atomically.
    async fn posix_rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError>;
    /// `hardlink@openssh.com`: a second name `to` for the file `from`.
    async fn hardlink(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError>;
    /// `statvfs@openssh.com` of the home.
    async fn statvfs(&self) -> Result<StatVfs, RemoteError>;

    /// Opens for reading.
    async fn open_read(&self, path: &RelPath) -> Result<FileHandle, RemoteError>;
    /// Opens for writing; the file must not exist (`exclusive`), or may (resuming a staged upload).
    async fn open_write(
        &self,
        path: &RelPath,
        mode: u32,
        exclusive: bool,
    ) -> Result<FileHandle, RemoteError>;
    /// Up to `len` bytes at `offset`; empty at the end of the file. May be shorter than asked, never longer.
    async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes, RemoteError>;
    /// Writes at `offset`; at most `max_write` bytes.
    async fn write(&self, handle: &FileHandle, offset: u64, data: Bytes)
    -> Result<(), RemoteError>;
    /// Attributes of an open file.
    async fn fstat(&self, handle: &FileHandle) -> Result<Stat, RemoteError>;
    /// Sets attributes of an open file.
    async fn fsetstat(&self, handle: &FileHandle, set: SetStat) -> Result<(), RemoteError>;
    /// `fsync@openssh.com`.
    async fn fsync(&self, handle: &FileHandle) -> Result<(), RemoteError>;
    /// `copy-data`: copies `len` bytes of `from` at `from_offset` to `to` at `to_offset`, on the server.
    async fn copy_data(
        &self,
        from: &FileHandle,
        from_offset: u64,
        len: u64,
        to: &FileHandle,
        to_offset: u64,
    ) -> Result<(), RemoteError>;
    /// Closes an open file.
    async fn close(&self, handle: FileHandle) -> Result<(), RemoteError>;
    /// Closes an open file without waiting, and whatever comes of it: for callers that gave up.
    fn abandon(&self, handle: FileHandle);
    /// The server's clock read by creating the file `path` exclusively and removing it: the mtime it got.
    /// Default: built from the methods above.
    async fn probe_time(&self, path: &RelPath) -> Result<Time, RemoteError> {
        let handle = self.open_write(path, 0o600, true).await?;
        let stat = self.fstat(&handle).await;
        self.close(handle).await?;
        self.remove(path).await?;
        Ok(Time::new(stat?.mtime, 0))
    }
}
