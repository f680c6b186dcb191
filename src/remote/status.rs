//! What a server's status means. OpenSSH says FAILURE for nearly everything, so little can be told apart.

use super::wire::Status;
use super::{ErrorKind, RemoteError};
use crate::tree::RelPath;

/// How much of a server's message is kept.
const MESSAGE_CHARS: usize = 200;

/// The error that `status`, which is not `Ok`, stands for.
pub(super) fn error(
    status: Status,
    message: &[u8],
    op: &'static str,
    path: &RelPath,
) -> RemoteError {
    let kind = match status {
        Status::NoSuchFile => ErrorKind::NotFound,
        Status::PermissionDenied => ErrorKind::PermissionDenied,
        Status::OpUnsupported => ErrorKind::Unsupported,
        Status::NoConnection | Status::ConnectionLost => ErrorKind::Disconnected,
        Status::Ok | Status::Eof | Status::Failure | Status::BadMessage => ErrorKind::Failure,
    };
    RemoteError::new(kind, op, path, printable(message, kind))
}

/// The server's words without what could disturb a terminal, or ours if it has none.
fn printable(message: &[u8], kind: ErrorKind) -> String {
    let words = String::from_utf8_lossy(message);
    let words = words.chars().filter(|c| !c.is_control());
    let words: String = words.take(MESSAGE_CHARS).collect();
    if !words.is_empty() {
        return words;
    }
    match kind {
        ErrorKind::NotFound => "no such file",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::Unsupported => "the server cannot do this",
        ErrorKind::Disconnected => "the server lost its connection",
        ErrorKind::Failure | ErrorKind::Timeout | ErrorKind::Protocol => "failure",
    }
    .to_owned()
}
