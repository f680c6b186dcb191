//! One request and its reply, and what a wrong reply leads to.

use std::pin::pin;
use std::task::Poll;

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
        let turns = self.turns.as_ref().filter(|_| names_a_path(&request));
        let Some(turns) = turns else {
            return self.ask_now(op, path, request, pick).await;
        };
        let turn = turns.lock().await;
        let mut asked = pin!(self.ask_now(op, path, request, pick));
        // It is sent when it is first polled, and the next need not wait for its answer.
        let first = std::future::poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await;
        drop(turn);
        match first {
            Poll::Ready(done) => done,
            Poll::Pending => asked.await,
        }
    }

    /// The same as `ask`, for who has the turn.
    pub(super) async fn ask_now<T>(
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
        self.ask(op, path, request, done).await
    }

    pub(super) async fn ask_handle(
        &self,
        op: &'static str,
        path: &RelPath,
        request: Request,
    ) -> Result<FileHandle, RemoteError> {
        let id = self.ask(op, path, request, handle).await?;
        Ok(opened(&id, path))
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

pub(super) fn done(reply: Reply) -> Result<(), Reply> {
    match reply {
        Reply::Status(Status::Ok, _) => Ok(()),
        other => Err(other),
    }
}

pub(super) fn handle(reply: Reply) -> Result<Bytes, Reply> {
    match reply {
        Reply::Handle(handle) => Ok(handle),
        other => Err(other),
    }
}

/// A copy, since the slice would keep the whole receive buffer alive while the file is open.
pub(super) fn opened(id: &Bytes, path: &RelPath) -> FileHandle {
    FileHandle {
        id: Bytes::copy_from_slice(id),
        path: path.clone(),
    }
}

/// Whether it looks at or changes names, rather than what is open.
fn names_a_path(request: &Request) -> bool {
    !matches!(
        request,
        Request::Read { .. }
            | Request::Write { .. }
            | Request::Close(_)
            | Request::Fstat(_)
            | Request::Fsetstat(..)
            | Request::Readdir(_)
            | Request::Extended(Extended::Fsync(_) | Extended::CopyData { .. } | Extended::Limits)
    )
}

pub(super) fn failed(op: &'static str, path: &RelPath, fault: Fault) -> RemoteError {
    RemoteError::new(fault.kind, op, path, fault.message)
}
