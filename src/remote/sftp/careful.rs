//! What gets a new name, on servers whose word is not enough.
//!
//! Some replace what a rename or an exclusive creation finds in its way, and say that all is well. They are asked what is
//! there before. A burst stays in order then, too: what names a path waits for its turn, which a look and what it is for
//! share.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::MutexGuard;

use super::SftpSession;
use super::ask::{done, handle, opened};
use super::convert::{attrs, mode_attrs};
use crate::remote::wire::{OPEN_CREATE, OPEN_EXCLUSIVE, OPEN_WRITE, Request};
use crate::remote::{ErrorKind, FileHandle, RemoteError, Session};
use crate::tree::RelPath;

impl SftpSession {
    /// Waits until `path` is known to be free, where the server would not tell by itself. As long as the result is held,
    /// nothing else that names a path is asked.
    async fn make_sure_it_is_free(
        &self,
        op: &'static str,
        path: &RelPath,
    ) -> Result<Option<MutexGuard<'_, ()>>, RemoteError> {
        let Some(turns) = &self.turns else {
            return Ok(None);
        };
        let turn = turns.lock().await;
        let request = Request::Lstat(self.absolute(path));
        match self.ask_now(op, path, request, attrs).await {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Some(turn)),
            Err(error) => Err(error),
            Ok(_) => {
                let message = "something has this name";
                Err(RemoteError::new(ErrorKind::Failure, op, path, message))
            }
        }
    }

    /// A rename that replaces nothing.
    pub(super) async fn rename_to_free(
        &self,
        from: &RelPath,
        to: &RelPath,
    ) -> Result<(), RemoteError> {
        let request = Request::Rename {
            from: self.absolute(from),
            to: self.absolute(to),
        };
        match self.make_sure_it_is_free("rename", to).await? {
            Some(_turn) => self.ask_now("rename", from, request, done).await,
            None => self.ask_done("rename", from, request).await,
        }
    }

    /// Opens a file that must not exist.
    pub(super) async fn open_new(
        &self,
        path: &RelPath,
        mode: u32,
    ) -> Result<FileHandle, RemoteError> {
        let request = Request::Open {
            path: self.absolute(path),
            flags: OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE,
            attrs: mode_attrs(mode),
        };
        match self.make_sure_it_is_free("open", path).await? {
            Some(_turn) => {
                let id = self.ask_now("open", path, request, handle).await?;
                Ok(opened(&id, path))
            }
            None => self.ask_handle("open", path, request).await,
        }
    }

    /// Opens a file that may exist. One of the servers that are not trusted fills what was there with zeros.
    pub(super) async fn open_again(
        &self,
        path: &RelPath,
        mode: u32,
    ) -> Result<FileHandle, RemoteError> {
        if self.turns.is_some() {
            match self.lstat(path).await {
                Ok(stat) if stat.size > 0 => {
                    let message = "this server may empty a file that is opened again";
                    let kind = ErrorKind::Unsupported;
                    return Err(RemoteError::new(kind, "open", path, message));
                }
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let request = Request::Open {
            path: self.absolute(path),
            flags: OPEN_WRITE | OPEN_CREATE,
            attrs: mode_attrs(mode),
        };
        self.ask_handle("open", path, request).await
    }

    /// Makes a link, and looks where it points to: a server that makes a relative link absolute would break it for all
    /// other machines, so nothing of it stays.
    pub(super) async fn make_link(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError> {
        let bent = || {
            let message =
                "the server makes relative links absolute, which would break it elsewhere";
            RemoteError::new(ErrorKind::Unsupported, "symlink", path, message)
        };
        let is_relative = !target.starts_with(b"/");
        if is_relative && self.bends_links.load(Ordering::Relaxed) {
            return Err(bent());
        }
        let request = Request::Symlink {
            target: Bytes::copy_from_slice(target),
            link: self.absolute(path),
        };
        let made = self.ask_done("symlink", path, request);
        let (made, read) = futures_util::join!(made, self.readlink(path));
        made?;
        match read {
            Ok(read) if is_relative && read.starts_with(b"/") => {
                self.bends_links.store(true, Ordering::Relaxed);
                self.remove(path).await?;
                Err(bent())
            }
            Err(error) if error.is_link_loss() => Err(error),
            _ => Ok(()),
        }
    }
}
