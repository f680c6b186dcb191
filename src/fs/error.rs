//! Why an operation on the home failed, and the one place where that becomes an errno.

use std::io;

use crate::engine::FetchError;
use crate::replica::ReplicaError;
use crate::tree::NameError;

/// A failed operation on the home.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// There is no such entry or node.
    #[error("no such file or directory")]
    NotFound,
    /// The node is gone, or another has its places: the path is to be looked up again.
    #[error("the file is no longer what its path leads to")]
    Stale,
    /// The name is taken.
    #[error("the name exists already")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// Something other than a directory was needed.
    #[error("is a directory")]
    IsADirectory,
    /// The directory still has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The bytes are not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The operation makes no sense with these arguments.
    #[error("invalid argument")]
    Invalid,
    /// Nobody may do this here.
    #[error("the operation is not permitted")]
    NotPermitted,
    /// A directory that is not empty would cease to travel: it has to be copied, as between two disks.
    #[error("a directory that travels cannot be renamed to one that stays on this machine")]
    CrossesScope,
    /// The mount takes no writes any more.
    #[error("the home is mounted read-only")]
    ReadOnly,
    /// The file is a program that runs.
    #[error("the program runs")]
    Running,
    /// The node has as many names as it can have.
    #[error("too many links")]
    TooManyLinks,
    /// The node has no such extended attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The home does not offer this.
    #[error("not supported")]
    NotSupported,
    /// The handle is not open, or not for this.
    #[error("bad file handle")]
    BadHandle,
    /// There is no data at or behind the offset.
    #[error("no data behind the offset")]
    NoData,
    /// It is not here, and for this program it is not fetched.
    #[error("it is not on this machine, and not fetched for this program")]
    Restrained,
    /// What was to be fetched could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The index or the content store failed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// An operation on an open content file failed.
    #[error("content file: {0}")]
    Content(#[from] io::Error),
}

impl FsError {
    /// What a program gets to see. A failure of the server or of the replica is never told as a verdict on
    /// the operation itself.
    #[deny(clippy::wildcard_enum_match_arm)]
    pub fn to_errno(&self) -> i32 {
        match self {
            Self::NotFound => libc::ENOENT,
            // The kernel takes care that programs see this only if the path leads here again.
            Self::Stale | Self::Fetch(FetchError::Changed) => libc::ESTALE,
            Self::Exists => libc::EEXIST,
            Self::NotADirectory => libc::ENOTDIR,
            Self::IsADirectory => libc::EISDIR,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::Name(NameError::TooLong) => libc::ENAMETOOLONG,
            Self::Name(NameError::Empty) => libc::ENOENT,
            Self::Name(NameError::Dots | NameError::ForbiddenByte) | Self::Invalid => libc::EINVAL,
            Self::NotPermitted => libc::EPERM,
            Self::CrossesScope => libc::EXDEV,
            Self::ReadOnly => libc::EROFS,
            Self::Running => libc::ETXTBSY,
            Self::TooManyLinks => libc::EMLINK,
            Self::NoAttribute => libc::ENODATA,
            Self::NotSupported => libc::EOPNOTSUPP,
            Self::BadHandle => libc::EBADF,
            Self::NoData => libc::ENXIO,
            // The one that says "not now": what is refused for good is often remembered.
            Self::Restrained => libc::EAGAIN,
            Self::Fetch(FetchError::Unreachable) => libc::EHOSTUNREACH,
            // ESTALE would make the kernel look the path up again, and then hide this from the program.
            Self::Fetch(FetchError::Gone) => libc::ENOENT,
            Self::Fetch(FetchError::Forbidden) => libc::EACCES,
            Self::Fetch(FetchError::NoSpace) | Self::Replica(ReplicaError::NoSpace { .. }) => {
                libc::ENOSPC
            }
            Self::Fetch(FetchError::Failed)
            | Self::Replica(
                ReplicaError::InUse { .. }
                | ReplicaError::Closed { .. }
                | ReplicaError::TooNew { .. }
                | ReplicaError::WrongOwner { .. }
                | ReplicaError::OtherVersion { .. }
                | ReplicaError::Damaged { .. }
                | ReplicaError::Rotten { .. }
                | ReplicaError::Io { .. }
                | ReplicaError::Sql { .. },
            ) => libc::EIO,
            // Such as ENOSPC, EDQUOT, EFBIG, or EOPNOTSUPP for a mode of fallocate: the disk's own verdict.
            Self::Content(error) => error.raw_os_error().unwrap_or(libc::EIO),
        }
    }

    /// Whether this machine's disk is full.
    pub fn is_full(&self) -> bool {
        self.to_errno() == libc::ENOSPC
    }

    /// Whether something is broken, so that the log should tell.
    pub fn is_fault(&self) -> bool {
        self.to_errno() == libc::EIO
    }
}
