//! A directory of this machine as a [`Session`], with OpenSSH's semantics: what the demo serves, and homes on disks of
//! this machine.
//!
//! Requests are done at once, on the caller's thread. Links inside the directory are followed like OpenSSH does,
//! so this is as open as a login of the same user would be.

mod act;
mod disk;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::AtFlags;
use rustix::io::Errno;
use tokio::sync::watch;

use self::act::{copy, list, read, rename, set_file, set_path, stat};
use self::disk::Presence;
pub use self::disk::serve_directory;
use super::wire::{MAX_DATA, Status};
use super::{DirEntry, Features, FileHandle, RemoteError, Session, SetStat, Stat, StatVfs, status};
use crate::tree::RelPath;

/// The directory, as one session.
pub struct LocalSession {
    root: PathBuf,
    /// Which directory it was at first, where it may go away.
    presence: Option<Presence>,
    files: Mutex<HashMap<Bytes, Arc<File>>>,
    next_file: AtomicU64,
    ended: watch::Sender<bool>,
}

impl LocalSession {
    /// A session whose home is `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            presence: None,
            files: Mutex::default(),
            next_file: AtomicU64::new(0),
            ended: watch::Sender::new(false),
        }
    }

    fn at(&self, path: &RelPath) -> PathBuf {
        self.root.join(OsStr::from_bytes(&path.to_bytes()))
    }

    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<Bytes, Arc<File>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, file: File, path: &RelPath) -> FileHandle {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        let id = Bytes::copy_from_slice(&number.to_be_bytes());
        self.files().insert(id.clone(), Arc::new(file));
        FileHandle {
            id,
            path: path.clone(),
        }
    }

    fn file(&self, handle: &FileHandle) -> io::Result<Arc<File>> {
        let file = self.files().get(&handle.id).cloned();
        file.ok_or_else(|| Errno::BADF.into())
    }

    /// Does something with the directory, which has to be the same one before and after: where a disk was taken away, an
    /// empty directory may be left in its place.
    fn told<T>(
        &self,
        op: &'static str,
        path: &RelPath,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, RemoteError> {
        let here = || match &self.presence {
            Some(presence) => presence.check(&self.root),
            None => Ok(()),
        };
        let done = here().and_then(|()| {
            let done = act();
            here().and(done)
        });
        done.map_err(|error| {
            let error = portable(&error, op, path);
            if error.is_link_loss() {
                self.close_session();
            }
            error
        })
    }
}

/// OpenSSH's `errno_to_portable`, with the path; what only a lost disk says ends the session.
fn portable(error: &io::Error, op: &'static str, path: &RelPath) -> RemoteError {
    let code = match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP) => Status::NoSuchFile,
        Some(Errno::PERM | Errno::ACCESS | Errno::FAULT | Errno::ROFS) => Status::PermissionDenied,
        Some(Errno::NAMETOOLONG | Errno::INVAL) => Status::BadMessage,
        Some(Errno::NOSYS) => Status::OpUnsupported,
        Some(error) if disk::is_gone(error) => Status::ConnectionLost,
        _ => Status::Failure,
    };
    status::error(code, error.to_string().as_bytes(), op, path)
}

#[async_trait]
impl Session for LocalSession {
    fn features(&self) -> Features {
        Features {
            posix_rename: true,
            hardlink: true,
            fsync: true,
            lsetstat: true,
            statvfs: true,
            copy_data: true,
            max_read: MAX_DATA,
            max_write: MAX_DATA,
        }
    }

    fn is_closed(&self) -> bool {
        *self.ended.borrow()
    }

    async fn closed(&self) {
        // The sender lives in `self`, so this cannot fail.
        drop(self.ended.subscribe().wait_for(|ended| *ended).await);
    }

    fn close_session(&self) {
        self.files().clear();
        self.ended.send_replace(true);
    }

    async fn heard(&self) {
        // Nobody ever waits for an answer.
        std::future::pending().await
    }

    async fn lstat(&self, path: &RelPath) -> Result<Stat, RemoteError> {
        self.told("lstat", path, || fs::symlink_metadata(self.at(path)))
            .map(|meta| stat(&meta))
    }

    async fn setstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.told("setstat", path, || {
            set_path(&self.at(path), set, AtFlags::empty())
        })
    }

    async fn lsetstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.told("lsetstat", path, || {
            set_path(&self.at(path), set, AtFlags::SYMLINK_NOFOLLOW)
        })
    }

    async fn list(&self, path: &RelPath) -> Result<Vec<DirEntry>, RemoteError> {
        self.told("opendir", path, || list(&self.at(path)))
    }

    async fn readlink(&self, path: &RelPath) -> Result<Vec<u8>, RemoteError> {
        let target = self.told("readlink", path, || fs::read_link(self.at(path)));
        target.map(|t| t.into_os_string().into_vec())
    }

    async fn symlink(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError> {
        self.told("symlink", path, || {
            symlink(OsStr::from_bytes(target), self.at(path))
        })
    }

    async fn mkdir(&self, path: &RelPath, mode: u32) -> Result<(), RemoteError> {
        self.told("mkdir", path, || {
            fs::DirBuilder::new().mode(mode).create(self.at(path))
        })
    }

    async fn rmdir(&self, path: &RelPath) -> Result<(), RemoteError> {
        self.told("rmdir", path, || fs::remove_dir(self.at(path)))
    }

    async fn remove(&self, path: &RelPath) -> Result<(), RemoteError> {
        self.told("remove", path, || fs::remove_file(self.at(path)))
    }

    async fn rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.told("rename", from, || rename(&self.at(from), &self.at(to)))
    }

    async fn posix_rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.told("posix-rename", from, || {
            fs::rename(self.at(from), self.at(to))
        })
    }

    async fn hardlink(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.told("hardlink", from, || {
            fs::hard_link(self.at(from), self.at(to))
        })
    }

    async fn statvfs(&self) -> Result<StatVfs, RemoteError> {
        let vfs = self.told("statvfs", &RelPath::root(), || {
            Ok(rustix::fs::statvfs(&self.root)?)
        })?;
        Ok(StatVfs {
            total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
            available_bytes: vfs.f_bavail.saturating_mul(vfs.f_frsize),
            files: vfs.f_files,
            files_free: vfs.f_ffree,
        })
    }

    async fn open_read(&self, path: &RelPath) -> Result<FileHandle, RemoteError> {
        let file = self.told("open", path, || File::open(self.at(path)))?;
        Ok(self.keep(file, path))
    }

    async fn open_write(
        &self,
        path: &RelPath,
        mode: u32,
        exclusive: bool,
    ) -> Result<FileHandle, RemoteError> {
        let mut options = OpenOptions::new();
        options.write(true).mode(mode);
        match exclusive {
            true => options.create_new(true),
            false => options.create(true),
        };
        let file = self.told("open", path, || options.open(self.at(path)))?;
        Ok(self.keep(file, path))
    }

    async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes, RemoteError> {
        self.told("read", &handle.path, || {
            read(&*self.file(handle)?, offset, len)
        })
    }

    async fn write(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), RemoteError> {
        self.told("write", &handle.path, || {
            self.file(handle)?.write_all_at(&data, offset)
        })
    }

    async fn fstat(&self, handle: &FileHandle) -> Result<Stat, RemoteError> {
        self.told("fstat", &handle.path, || self.file(handle)?.metadata())
            .map(|meta| stat(&meta))
    }

    async fn fsetstat(&self, handle: &FileHandle, set: SetStat) -> Result<(), RemoteError> {
        self.told("fsetstat", &handle.path, || {
            set_file(&*self.file(handle)?, set)
        })
    }

    async fn fsync(&self, handle: &FileHandle) -> Result<(), RemoteError> {
        self.told("fsync", &handle.path, || self.file(handle)?.sync_all())
    }

    async fn copy_data(
        &self,
        from: &FileHandle,
        from_offset: u64,
        len: u64,
        to: &FileHandle,
        to_offset: u64,
    ) -> Result<(), RemoteError> {
        self.told("copy-data", &to.path, || {
            let (from, to) = (self.file(from)?, self.file(to)?);
            copy(&from, from_offset, len, &to, to_offset)
        })
    }

    async fn close(&self, handle: FileHandle) -> Result<(), RemoteError> {
        self.told("close", &handle.path, || {
            let closed = self.files().remove(&handle.id);
            closed.map(drop).ok_or_else(|| Errno::BADF.into())
        })
    }

    fn abandon(&self, handle: FileHandle) {
        self.files().remove(&handle.id);
    }
}
