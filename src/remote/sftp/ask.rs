//! One request and its reply, and what a wrong reply leads to.

use bytes::Bytes;

use super::SftpSession;
use crate::remote::conn::Fault;
use crate::remote::wire::{Extended, Reply, Request, Status};
use crate::remote::{ErrorKind, FileHandle, RemoteError, status};
use crate::tree::RelPath;

impl SftpSession {
    /// Sends `request` and takes what is expected out of the reply; `pick` hands back what it did not expect.
    pub(super) async fn ask<T>(
        &self,
        op: &'static str,
        path: &RelPath,
        request: Request,
        pick: impl FnOnce(Reply) -> Result<T, Reply>,
    ) -> Result<T, RemoteError> {
        let reply = self.conn.call(self.class, request).await;
        match pick(reply.map_err(|f| failed(op, path, f))?) {
            Ok(value) => Ok(value),
            Err(Reply::Status(status, message)) if status != Status::Ok => {
                let error = status::error(status, &message, op, path);
                if error.is_link_loss() {
                    self.conn.end(Fault::disconnected(&error.message));
                }
                Err(error)
            }
            Err(_) => Err(self.nonsense(op, path, "a reply of the wrong type")),
        }
    }

    pub(super) async fn ask_done(
        &self,
        op: &'static str,
        path: &RelPath,
        request: Request,
    ) -> Result<(), RemoteError> {
        let done = |reply| match reply {
            Reply::Status(Status::Ok, _) => Ok(()),
            other => Err(other),
        };
        self.ask(op, path, request, done).await
    }

    pub(super) async fn ask_handle(
        &self,
        op: &'static str,
        path: &RelPath,
        request: Request,
    ) -> Result<FileHandle, RemoteError> {
        let handle = |reply| match reply {
            Reply::Handle(handle) => Ok(handle),
            other => Err(other),
        };
        let id = self.ask(op, path, request, handle).await?;
        // A copy, since the slice would keep the whole receive buffer alive while the file is open.
        Ok(FileHandle {
            id: Bytes::copy_from_slice(&id),
            path: path.clone(),
        })
    }

    /// Ends the session because of what the server sent.
    pub(super) fn nonsense(
        &self,
        op: &'static str,
        path: &RelPath,
        what: impl ToString,
    ) -> RemoteError {
        let fault = Fault::protocol(what);
        self.conn.end(fault.clone());
        failed(op, path, fault)
    }

    pub(super) async fn extended(
        &self,
        op: &'static str,
        path: &RelPath,
        offered: bool,
        request: Extended,
    ) -> Result<(), RemoteError> {
        self.require(op, path, offered)?;
        self.ask_done(op, path, Request::Extended(request)).await
    }

    pub(super) fn require(
        &self,
        op: &'static str,
        path: &RelPath,
        offered: bool,
    ) -> Result<(), RemoteError> {
        if offered {
            return Ok(());
        }
        let message = "the server does not offer this";
        Err(RemoteError::new(ErrorKind::Unsupported, op, path, message))
    }
}

pub(super) fn failed(op: &'static str, path: &RelPath, fault: Fault) -> RemoteError {
    RemoteError::new(fault.kind, op, path, fault.message)
}
