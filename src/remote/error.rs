//! What can go wrong on the server's side. Callers branch on `kind` only.

use crate::tree::RelPath;

/// What an error means to the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The path, or a directory on the way to it, is not there.
    NotFound,
    /// The server does not permit it.
    PermissionDenied,
    /// SFTP's generic failure, which servers use for EEXIST, ENOTEMPTY, ENOSPC, EISDIR and all else.
    Failure,
    /// The server lacks this operation or extension.
    Unsupported,
    /// The connection is gone; nothing is known about the request's effect.
    Disconnected,
    /// The server did not answer in time; the connection was given up.
    Timeout,
    /// The server sent nonsense; the connection was given up.
    Protocol,
}

/// A failed request: what was asked, about what, and how it failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{op} {path}: {message}")]
pub struct RemoteError {
    /// What kind of failure.
    pub kind: ErrorKind,
    /// The request, such as `open`.
    pub op: &'static str,
    /// What it was about.
    pub path: RelPath,
    /// The server's words, or ours.
    pub message: String,
}

impl RemoteError {
    /// An error of `kind` that happened to `path`.
    pub fn new(
        kind: ErrorKind,
        op: &'static str,
        path: &RelPath,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            op,
            path: path.clone(),
            message: message.into(),
        }
    }

    /// Whether the link is gone, so that nothing else needs to be tried on it.
    pub fn is_link_loss(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Disconnected | ErrorKind::Timeout | ErrorKind::Protocol
        )
    }
}
