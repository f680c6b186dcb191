//! The errors that OpenSSH meets, and what it makes of them.

use crate::remote::RemoteError;
use crate::remote::wire::Status;
use crate::tree::RelPath;

/// The errors of the system calls behind a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Errno {
    NoEnt,
    NotDir,
    Loop,
    BadHandle,
    Perm,
    Inval,
    Exist,
    NotEmpty,
    IsDir,
    NoSpace,
    ReadOnly,
    NotSupported,
}

impl From<Errno> for Status {
    /// OpenSSH's `errno_to_portable`.
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NoEnt | Errno::NotDir | Errno::Loop | Errno::BadHandle => Self::NoSuchFile,
            Errno::Perm => Self::PermissionDenied,
            Errno::Inval => Self::BadMessage,
            Errno::Exist
            | Errno::NotEmpty
            | Errno::IsDir
            | Errno::NoSpace
            | Errno::ReadOnly
            | Errno::NotSupported => Self::Failure,
        }
    }
}

/// What a client is told.
pub(super) fn refused(errno: Errno, op: &'static str, path: &RelPath) -> RemoteError {
    crate::remote::status::error(Status::from(errno), b"", op, path)
}
