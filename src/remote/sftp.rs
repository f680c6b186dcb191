//! The [`Session`] that speaks SFTP over a byte stream.
//!
//! What the server sends is not trusted: a reply of the wrong type, more data than asked for, a name that is no
//! `Name` or a listing without end is a protocol error and ends the session.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use self::ask::failed;
pub use self::config::SftpConfig;
use self::convert::{
    attrs, data_limit, extended, features, is_proftpd, mode_attrs, names, offered, offers,
    set_attrs,
};
use self::stripe::Stripes;
use super::StatVfs;
use super::conn::{Conn, Fault, Owned};
use super::guard::Guard;
use super::line::Class;
use super::wire::{
    Attrs, Extended, Limits as LengthLimits, OPEN_READ, Reply, Request, Status, Vfs, extension,
};
use super::{DirEntry, ErrorKind, Features, FileHandle, RemoteError, Session, SetStat, Stat};
use crate::tree::RelPath;

mod ask;
mod careful;
mod config;
mod convert;
#[cfg(test)]
mod fuzz;
mod list;
mod probe;
mod stripe;
#[cfg(test)]
mod tests;
mod unfollowed;

/// An SFTP session over a byte stream; ends when dropped.
pub struct SftpSession {
    conn: Arc<Owned>,
    class: Class,
    features: Features,
    extensions: Vec<String>,
    /// For servers that replace what a rename or an exclusive creation finds in its way, and say that all is well. Whoever
    /// writes a server with `fsync@openssh.com` has read OpenSSH's documents; of others that is not known.
    turns: Option<Arc<Mutex<()>>>,
    /// Relative links come back as absolute ones.
    bends_links: Arc<AtomicBool>,
    root: Vec<u8>,
    entries_max: usize,
    /// Whether the server tells its limits: a question that costs it nothing.
    asks_limits: bool,
    is_proftpd: bool,
    stripes: Stripes,
}

impl SftpSession {
    /// Greets the server at the other end and asks for its limits. Must be called within a tokio runtime.
    pub async fn start<R, W>(reader: R, writer: W, config: SftpConfig) -> Result<Self, RemoteError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let greeting = config.silence;
        Self::greet(reader, writer, config, greeting).await
    }

    /// The same, with another time for the greeting: somebody may have to type a password before.
    pub async fn greet<R, W>(
        reader: R,
        writer: W,
        config: SftpConfig,
        greeting: Duration,
    ) -> Result<Self, RemoteError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let started = Conn::start(reader, writer, greeting, config.silence, config.line).await;
        let (conn, version) = started.map_err(|f| failed("init", &RelPath::root(), f))?;
        let mut session = Self {
            conn: Arc::new(Owned(conn)),
            class: Class::Work,
            features: features(&version),
            extensions: offered(&version),
            turns: (!features(&version).fsync).then(Arc::default),
            bends_links: Arc::default(),
            root: config.root,
            entries_max: config.entries_max,
            asks_limits: offers(&version, extension::LIMITS),
            is_proftpd: is_proftpd(&version),
            stripes: Stripes::default(),
        };
        if session.asks_limits {
            let limits = session.limits().await?;
            session.features.max_read = data_limit(limits.read);
            session.features.max_write = data_limit(limits.write);
        }
        Ok(session)
    }

    /// The same session, for requests of another class.
    pub(super) fn asking(&self, class: Class) -> Self {
        Self {
            conn: Arc::clone(&self.conn),
            class,
            features: self.features,
            extensions: self.extensions.clone(),
            turns: self.turns.clone(),
            bends_links: Arc::clone(&self.bends_links),
            root: self.root.clone(),
            entries_max: self.entries_max,
            asks_limits: self.asks_limits,
            is_proftpd: self.is_proftpd,
            stripes: Stripes::default(),
        }
    }

    /// Whether the server, by what it offers, is ProFTPD.
    pub(super) fn is_proftpd(&self) -> bool {
        self.is_proftpd
    }

    /// The root as an absolute path without links, as the server resolves it.
    pub async fn resolve_root(&self) -> Result<Vec<u8>, RemoteError> {
        let path = RelPath::root();
        let request = Request::Realpath(self.absolute(&path));
        let names = self.ask("realpath", &path, request, names).await?;
        match &names[..] {
            [only] if !only.name.is_empty() && !only.name.contains(&0) => Ok(only.name.to_vec()),
            _ => Err(self.nonsense("realpath", &path, "not one path")),
        }
    }

    /// Takes another directory as the home's root.
    pub fn set_root(&mut self, root: Vec<u8>) {
        self.root = root;
    }

    /// Attributes of the home's root, following links.
    pub async fn stat_root(&self) -> Result<Stat, RemoteError> {
        let path = RelPath::root();
        let request = Request::Stat(self.absolute(&path));
        self.ask("stat", &path, request, attrs).await
    }

    async fn limits(&self) -> Result<LengthLimits, RemoteError> {
        let path = RelPath::root();
        let request = Request::Extended(Extended::Limits);
        let data = self.ask("limits", &path, request, extended).await?;
        LengthLimits::decode(data).map_err(|e| self.nonsense("limits", &path, e))
    }

    /// `path` as the server calls it.
    fn absolute(&self, path: &RelPath) -> Bytes {
        let mut whole = self.root.clone();
        if path.is_root() {
            if whole.is_empty() {
                whole.push(b'.');
            }
        } else {
            if !whole.is_empty() && !whole.ends_with(b"/") {
                whole.push(b'/');
            }
            whole.extend(path.to_bytes());
        }
        whole.into()
    }
}

#[async_trait]
impl Session for SftpSession {
    fn features(&self) -> Features {
        self.features
    }

    fn extensions(&self) -> Vec<String> {
        self.extensions.clone()
    }

    fn is_closed(&self) -> bool {
        self.conn.is_ended()
    }

    async fn closed(&self) {
        self.conn.ended().await;
    }

    fn close_session(&self) {
        self.conn.end(Fault::disconnected("the session was ended"));
    }

    async fn heard(&self) {
        self.conn.arrival().await;
    }

    async fn lstat(&self, path: &RelPath) -> Result<Stat, RemoteError> {
        let request = Request::Lstat(self.absolute(path));
        self.ask("lstat", path, request, attrs).await
    }

    async fn setstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        let request = Request::Setstat(self.absolute(path), set_attrs(set));
        self.ask_done("setstat", path, request).await
    }

    async fn lsetstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.set_unfollowed(path, set).await
    }

    async fn list(&self, path: &RelPath) -> Result<Vec<DirEntry>, RemoteError> {
        let request = Request::Opendir(self.absolute(path));
        let handle = self.ask_handle("opendir", path, request).await?;
        let handle = Guard::new(self, handle);
        self.read_entries(handle.get()).await
    }

    async fn readlink(&self, path: &RelPath) -> Result<Vec<u8>, RemoteError> {
        let request = Request::Readlink(self.absolute(path));
        let names = self.ask("readlink", path, request, names).await?;
        match &names[..] {
            [only] if only.name.is_empty() || only.name.contains(&0) => {
                let message = "the link points nowhere";
                Err(RemoteError::new(
                    ErrorKind::Failure,
                    "readlink",
                    path,
                    message,
                ))
            }
            [only] => Ok(only.name.to_vec()),
            _ => Err(self.nonsense("readlink", path, "not one target")),
        }
    }

    async fn symlink(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError> {
        self.make_link(path, target).await
    }

    async fn mkdir(&self, path: &RelPath, mode: u32) -> Result<(), RemoteError> {
        let request = Request::Mkdir(self.absolute(path), mode_attrs(mode));
        self.ask_done("mkdir", path, request).await
    }

    async fn rmdir(&self, path: &RelPath) -> Result<(), RemoteError> {
        let request = Request::Rmdir(self.absolute(path));
        self.ask_done("rmdir", path, request).await
    }

    async fn remove(&self, path: &RelPath) -> Result<(), RemoteError> {
        let request = Request::Remove(self.absolute(path));
        self.ask_done("remove", path, request).await
    }

    async fn rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.rename_to_free(from, to).await
    }

    async fn posix_rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        let request = Extended::PosixRename {
            from: self.absolute(from),
            to: self.absolute(to),
        };
        self.extended("posix-rename", from, self.features.posix_rename, request)
            .await
    }

    async fn hardlink(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        let request = Extended::Hardlink {
            from: self.absolute(from),
            to: self.absolute(to),
        };
        self.extended("hardlink", from, self.features.hardlink, request)
            .await
    }

    async fn statvfs(&self) -> Result<StatVfs, RemoteError> {
        let path = RelPath::root();
        self.require("statvfs", &path, self.features.statvfs)?;
        let request = Request::Extended(Extended::Statvfs(self.absolute(&path)));
        let data = self.ask("statvfs", &path, request, extended).await?;
        let vfs = Vfs::decode(data).map_err(|e| self.nonsense("statvfs", &path, e))?;
        Ok(StatVfs {
            total_bytes: vfs.blocks.saturating_mul(vfs.fragment_size),
            available_bytes: vfs.blocks_available.saturating_mul(vfs.fragment_size),
            files: vfs.files,
            files_free: vfs.files_free,
        })
    }

    async fn open_read(&self, path: &RelPath) -> Result<FileHandle, RemoteError> {
        let request = Request::Open {
            path: self.absolute(path),
            flags: OPEN_READ,
            attrs: Attrs::default(),
        };
        self.ask_handle("open", path, request).await
    }

    async fn open_write(
        &self,
        path: &RelPath,
        mode: u32,
        exclusive: bool,
    ) -> Result<FileHandle, RemoteError> {
        let handle = match exclusive {
            true => self.open_new(path, mode).await?,
            false => self.open_again(path, mode).await?,
        };
        let opened = Guard::new(self, handle);
        self.widen(path, opened.get()).await;
        Ok(opened.keep())
    }

    async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes, RemoteError> {
        let request = Request::Read {
            handle: handle.id.clone(),
            offset,
            len,
        };
        let pick = |reply| match reply {
            Reply::Data(data) => Ok(data),
            Reply::Status(Status::Eof, _) => Ok(Bytes::new()),
            other => Err(other),
        };
        let data = self.ask("read", &handle.path, request, pick).await?;
        if data.len() > len as usize {
            return Err(self.nonsense("read", &handle.path, "more data than asked for"));
        }
        Ok(data)
    }

    async fn write(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), RemoteError> {
        self.write_striped(handle, offset, data).await
    }

    async fn fstat(&self, handle: &FileHandle) -> Result<Stat, RemoteError> {
        let request = Request::Fstat(handle.id.clone());
        self.ask("fstat", &handle.path, request, attrs).await
    }

    async fn fsetstat(&self, handle: &FileHandle, set: SetStat) -> Result<(), RemoteError> {
        let request = Request::Fsetstat(handle.id.clone(), set_attrs(set));
        let done = self.ask_done("fsetstat", &handle.path, request);
        self.after_writes(handle, true, done).await
    }

    async fn fsync(&self, handle: &FileHandle) -> Result<(), RemoteError> {
        let request = Extended::Fsync(handle.id.clone());
        let done = self.extended("fsync", &handle.path, self.features.fsync, request);
        self.after_writes(handle, false, done).await
    }

    async fn copy_data(
        &self,
        from: &FileHandle,
        from_offset: u64,
        len: u64,
        to: &FileHandle,
        to_offset: u64,
    ) -> Result<(), RemoteError> {
        let request = Extended::CopyData {
            from: from.id.clone(),
            from_offset,
            len,
            to: to.id.clone(),
            to_offset,
        };
        self.extended("copy-data", &to.path, self.features.copy_data, request)
            .await
    }

    async fn close(&self, handle: FileHandle) -> Result<(), RemoteError> {
        let request = Request::Close(handle.id.clone());
        let done = self.ask_done("close", &handle.path, request);
        let closed = self.after_writes(&handle, true, done).await;
        self.forget_striped(&handle);
        closed
    }

    fn abandon(&self, handle: FileHandle) {
        self.forget_striped(&handle);
        self.conn.forget(self.class, Request::Close(handle.id));
    }
}
