//! What can go wrong with the replica, with the path it happened to and the remedy where there is one.

use std::io;
use std::path::{Path, PathBuf};

/// A failed operation on the index or the content store.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// Another process has the state directory.
    #[error("{dir} is in use by process {pid}: unmount it first (`roamhome umount`)", dir = .dir.display())]
    InUse {
        /// The state directory.
        dir: PathBuf,
        /// Who holds it; `?` if it did not say.
        pid: String,
    },
    /// The replica was closed; nothing can be written to it any more.
    #[error("{dir} was closed", dir = .dir.display())]
    Closed {
        /// The state directory.
        dir: PathBuf,
    },
    /// A newer roamhome wrote the index.
    #[error(
        "{path} has format {found}, this program knows up to {known}: use the newer roamhome again",
        path = .path.display()
    )]
    TooNew {
        /// The index.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format known here.
        known: u32,
    },
    /// The state directory belongs to another user.
    #[error("{dir} belongs to another user: run as its owner", dir = .dir.display())]
    WrongOwner {
        /// The state directory.
        dir: PathBuf,
    },
    /// What is stored makes no sense.
    #[error(
        "{what} is damaged ({detail}): save what was never sent with `roamhome rescue STATE_DIR OUT_DIR`, \
         then make the index anew with `roamhome check --state STATE_DIR --repair`",
        what = .what.display()
    )]
    Damaged {
        /// The damaged file.
        what: PathBuf,
        /// How it was noticed.
        detail: String,
    },
    /// Content is no longer what was agreed on with the server, although nobody wrote to it.
    #[error(
        "{content} has rotted on the disk: unmount, then let `roamhome check --content --repair` put it aside, and it is \
         fetched again",
        content = .content.display()
    )]
    Rotten {
        /// The content file.
        content: PathBuf,
    },
    /// A version of roamhome that keeps its journals in another form wrote this one and was killed.
    #[error(
        "{journal} was written by another version of roamhome, which was killed: mount and unmount with that one, \
         or save what was never sent with `roamhome rescue STATE_DIR OUT_DIR`, then move the state directory away and start again",
        journal = .journal.display()
    )]
    OtherVersion {
        /// The journal.
        journal: PathBuf,
    },
    /// The disk or the quota is full.
    #[error("no space left for {path}: free some space on this disk", path = .path.display())]
    NoSpace {
        /// What was being written.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The database failed.
    #[error("{path}: {source}", path = .path.display())]
    Sql {
        /// The database.
        path: PathBuf,
        /// The reason.
        source: rusqlite::Error,
    },
}

impl ReplicaError {
    /// An I/O error at `path`, told apart from a full disk.
    pub(crate) fn io(path: &Path, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.to_owned(), source.into());
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { path },
            _ => Self::Io { path, source },
        }
    }

    /// A database error of the index at `path`, told apart from a full disk and from damage. All SQL is our own and
    /// fits our schema, so what a sound index would never object to is damage as well.
    pub(super) fn sql(path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::Error as Sqlite;
        use rusqlite::ErrorCode::{
            ConstraintViolation, DatabaseCorrupt, DiskFull, NotADatabase, TooBig, TypeMismatch,
            Unknown,
        };
        let path = path.to_owned();
        match (&source, source.sqlite_error_code()) {
            (_, Some(DiskFull)) => Self::NoSpace { path },
            (_, Some(DatabaseCorrupt | NotADatabase | ConstraintViolation | TypeMismatch))
            | (_, Some(TooBig | Unknown))
            | (Sqlite::FromSqlConversionFailure(..), _)
            | (Sqlite::IntegralValueOutOfRange(..), _)
            | (Sqlite::InvalidColumnType(..), _)
            | (Sqlite::Utf8Error(..) | Sqlite::SqlInputError { .. }, _) => Self::Damaged {
                what: path,
                detail: source.to_string(),
            },
            _ => Self::Sql { path, source },
        }
    }

    /// The same error again, for each of several who wait for one commit.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::InUse { dir, pid } => Self::InUse {
                dir: dir.clone(),
                pid: pid.clone(),
            },
            Self::Closed { dir } => Self::Closed { dir: dir.clone() },
            Self::TooNew { path, found, known } => Self::TooNew {
                path: path.clone(),
                found: *found,
                known: *known,
            },
            Self::WrongOwner { dir } => Self::WrongOwner { dir: dir.clone() },
            Self::Damaged { what, detail } => Self::Damaged {
                what: what.clone(),
                detail: detail.clone(),
            },
            Self::Rotten { content } => Self::Rotten {
                content: content.clone(),
            },
            Self::OtherVersion { journal } => Self::OtherVersion {
                journal: journal.clone(),
            },
            Self::NoSpace { path } => Self::NoSpace { path: path.clone() },
            Self::Io { path, source } => Self::Io {
                path: path.clone(),
                source: match source.raw_os_error() {
                    Some(errno) => io::Error::from_raw_os_error(errno),
                    None => io::Error::new(source.kind(), source.to_string()),
                },
            },
            Self::Sql { path, source } => Self::Io {
                path: path.clone(),
                source: io::Error::other(source.to_string()),
            },
        }
    }
}

/// Names the path in the errors of file operations.
pub(super) trait AtPath<T> {
    /// Says that the error, if any, happened to `path`.
    fn at(self, path: &Path) -> Result<T, ReplicaError>;
}

impl<T, E: Into<io::Error>> AtPath<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T, ReplicaError> {
        self.map_err(|source| ReplicaError::io(path, source))
    }
}
