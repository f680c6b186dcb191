//! A directory of this machine as a [`Session`], with OpenSSH's semantics: what the demo serves.
//!
//! Requests are done at once, on the caller's thread. Links inside the directory are followed like OpenSSH does,
//! so this is as open as a login of the same user would be.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{
    DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use rustix::io::Errno;
use tokio::sync::watch;

use super::wire::{MAX_DATA, Status};
use super::{DirEntry, Features, FileHandle, RemoteError, Session, SetStat, Stat, StatVfs, status};
use crate::tree::{Kind, Name, RelPath};

/// The directory, as one session.
pub struct LocalSession {
    root: PathBuf,
    files: Mutex<HashMap<Bytes, Arc<File>>>,
    next_file: AtomicU64,
    ended: watch::Sender<bool>,
}

impl LocalSession {
    /// A session whose home is `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
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
}

/// OpenSSH's `errno_to_portable`, with the path.
fn told<T>(op: &'static str, path: &RelPath, result: io::Result<T>) -> Result<T, RemoteError> {
    result.map_err(|error| {
        let code = match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP) => Status::NoSuchFile,
            Some(Errno::PERM | Errno::ACCESS | Errno::FAULT) => Status::PermissionDenied,
            Some(Errno::NAMETOOLONG | Errno::INVAL) => Status::BadMessage,
            Some(Errno::NOSYS) => Status::OpUnsupported,
            _ => Status::Failure,
        };
        status::error(code, b"", op, path)
    })
}

fn stat(meta: &Metadata) -> Stat {
    let kind = meta.file_type();
    Stat {
        kind: if kind.is_file() {
            Kind::File
        } else if kind.is_dir() {
            Kind::Dir
        } else if kind.is_symlink() {
            Kind::Symlink
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_socket() {
            Kind::Socket
        } else {
            Kind::Other
        },
        size: meta.size(),
        mtime: meta.mtime(),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
    }
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec {
        tv_sec: mtime,
        tv_nsec: 0,
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

fn set_file(file: &File, set: SetStat) -> io::Result<()> {
    if let Some(size) = set.size {
        file.set_len(size)?;
    }
    if let Some(mode) = set.mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    if let Some(mtime) = set.mtime {
        rustix::fs::futimens(file, &times(mtime))?;
    }
    Ok(())
}

fn set_path(path: &Path, set: SetStat, flags: AtFlags) -> io::Result<()> {
    if let Some(size) = set.size {
        OpenOptions::new().write(true).open(path)?.set_len(size)?;
    }
    if let Some(mode) = set.mode {
        rustix::fs::chmodat(CWD, path, mode.into(), flags)?;
    }
    if let Some(mtime) = set.mtime {
        utimensat(CWD, path, &times(mtime), flags)?;
    }
    Ok(())
}

fn list(path: &Path) -> io::Result<Vec<DirEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // What vanishes while we look is not there.
        let (Ok(meta), Ok(name)) = (entry.metadata(), Name::new(entry.file_name().as_bytes()))
        else {
            continue;
        };
        entries.push(DirEntry {
            name,
            stat: stat(&meta),
        });
    }
    Ok(entries)
}

/// `SSH_FXP_RENAME` as OpenSSH does it: link and unlink for files, so that nothing is replaced.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(from)?.is_file() {
        fs::hard_link(from, to)?;
        fs::remove_file(from)
    } else if fs::metadata(to).is_ok() {
        Err(Errno::EXIST.into())
    } else {
        fs::rename(from, to)
    }
}

fn read(file: &File, offset: u64, len: u32) -> io::Result<Bytes> {
    let mut data = vec![0; len.min(MAX_DATA) as usize];
    let read = file.read_at(&mut data, offset)?;
    data.truncate(read);
    Ok(data.into())
}

fn copy(from: &File, mut at: u64, len: u64, to: &File, mut to_at: u64) -> io::Result<()> {
    // As in OpenSSH, 0 means up to the end.
    let mut left = if len == 0 { u64::MAX } else { len };
    while left > 0 {
        let data = read(from, at, left.min(u64::from(MAX_DATA)) as u32)?;
        if data.is_empty() {
            break;
        }
        to.write_all_at(&data, to_at)?;
        let copied = data.len() as u64;
        at += copied;
        to_at += copied;
        left -= copied;
    }
    Ok(())
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
        let meta = fs::symlink_metadata(self.at(path));
        told("lstat", path, meta).map(|meta| stat(&meta))
    }

    async fn setstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        told(
            "setstat",
            path,
            set_path(&self.at(path), set, AtFlags::empty()),
        )
    }

    async fn lsetstat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        let done = set_path(&self.at(path), set, AtFlags::SYMLINK_NOFOLLOW);
        told("lsetstat", path, done)
    }

    async fn list(&self, path: &RelPath) -> Result<Vec<DirEntry>, RemoteError> {
        told("opendir", path, list(&self.at(path)))
    }

    async fn readlink(&self, path: &RelPath) -> Result<Vec<u8>, RemoteError> {
        let target = fs::read_link(self.at(path));
        told("readlink", path, target).map(|t| t.into_os_string().into_vec())
    }

    async fn symlink(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError> {
        told(
            "symlink",
            path,
            symlink(OsStr::from_bytes(target), self.at(path)),
        )
    }

    async fn mkdir(&self, path: &RelPath, mode: u32) -> Result<(), RemoteError> {
        let made = fs::DirBuilder::new().mode(mode).create(self.at(path));
        told("mkdir", path, made)
    }

    async fn rmdir(&self, path: &RelPath) -> Result<(), RemoteError> {
        told("rmdir", path, fs::remove_dir(self.at(path)))
    }

    async fn remove(&self, path: &RelPath) -> Result<(), RemoteError> {
        told("remove", path, fs::remove_file(self.at(path)))
    }

    async fn rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        told("rename", from, rename(&self.at(from), &self.at(to)))
    }

    async fn posix_rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        told("posix-rename", from, fs::rename(self.at(from), self.at(to)))
    }

    async fn hardlink(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        told("hardlink", from, fs::hard_link(self.at(from), self.at(to)))
    }

    async fn statvfs(&self) -> Result<StatVfs, RemoteError> {
        let vfs = rustix::fs::statvfs(&self.root).map_err(io::Error::from);
        let vfs = told("statvfs", &RelPath::root(), vfs)?;
        Ok(StatVfs {
            total_bytes: vfs.f_blocks.saturating_mul(vfs.f_frsize),
            available_bytes: vfs.f_bavail.saturating_mul(vfs.f_frsize),
            files: vfs.f_files,
            files_free: vfs.f_ffree,
        })
    }

    async fn open_read(&self, path: &RelPath) -> Result<FileHandle, RemoteError> {
        let file = told("open", path, File::open(self.at(path)))?;
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
        let file = told("open", path, options.open(self.at(path)))?;
        Ok(self.keep(file, path))
    }

    async fn read(&self, handle: &FileHandle, offset: u64, len: u32) -> Result<Bytes, RemoteError> {
        let data = self.file(handle).and_then(|file| read(&file, offset, len));
        told("read", &handle.path, data)
    }

    async fn write(
        &self,
        handle: &FileHandle,
        offset: u64,
        data: Bytes,
    ) -> Result<(), RemoteError> {
        let written = self
            .file(handle)
            .and_then(|file| file.write_all_at(&data, offset));
        told("write", &handle.path, written)
    }

    async fn fstat(&self, handle: &FileHandle) -> Result<Stat, RemoteError> {
        let meta = self.file(handle).and_then(|file| file.metadata());
        told("fstat", &handle.path, meta).map(|meta| stat(&meta))
    }

    async fn fsetstat(&self, handle: &FileHandle, set: SetStat) -> Result<(), RemoteError> {
        let done = self.file(handle).and_then(|file| set_file(&file, set));
        told("fsetstat", &handle.path, done)
    }

    async fn fsync(&self, handle: &FileHandle) -> Result<(), RemoteError> {
        let done = self.file(handle).and_then(|file| file.sync_all());
        told("fsync", &handle.path, done)
    }

    async fn copy_data(
        &self,
        from: &FileHandle,
        from_offset: u64,
        len: u64,
        to: &FileHandle,
        to_offset: u64,
    ) -> Result<(), RemoteError> {
        let files = self.file(from).and_then(|f| Ok((f, self.file(to)?)));
        let done = files.and_then(|(from, to)| copy(&from, from_offset, len, &to, to_offset));
        told("copy-data", &to.path, done)
    }

    async fn close(&self, handle: FileHandle) -> Result<(), RemoteError> {
        let closed = self.files().remove(&handle.id);
        let closed = closed.map(drop).ok_or_else(|| Errno::BADF.into());
        told("close", &handle.path, closed)
    }

    fn abandon(&self, handle: FileHandle) {
        self.files().remove(&handle.id);
    }
}
