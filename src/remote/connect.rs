//! From a byte stream to a connection: what all transports share, and why it may not come to be.

use std::io;
use std::path::PathBuf;

use super::{ErrorKind, RemoteError, SftpSession};
use crate::tree::Kind;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server cannot be reached, or went away; try later.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable {
        /// Whom we tried.
        host: String,
        /// What we met.
        reason: String,
    },
    /// Nobody said that this is the right server.
    #[error("the host key of {host} is unknown: {fingerprint}")]
    HostKeyUnknown {
        /// The server.
        host: String,
        /// Its key's SHA256 fingerprint.
        fingerprint: String,
        /// What to do.
        remedy: String,
    },
    /// The server is not the one it was, or somebody stands between.
    #[error("the host key of {host} has changed to {fingerprint}, which is not the one in {}:{line}", file.display())]
    HostKeyChanged {
        /// The server.
        host: String,
        /// The new key's SHA256 fingerprint.
        fingerprint: String,
        /// Where the old key is.
        file: PathBuf,
        /// On which line.
        line: usize,
        /// What to do.
        remedy: String,
    },
    /// The server's key is one that nobody is to trust any more.
    #[error("the host key of {host}, {fingerprint}, is revoked by {}:{line}", file.display())]
    HostKeyRevoked {
        /// The server.
        host: String,
        /// Its key's SHA256 fingerprint.
        fingerprint: String,
        /// Where that is said.
        file: PathBuf,
        /// On which line.
        line: usize,
    },
    /// `ssh` does not trust the server.
    #[error("ssh does not trust the host key of {host}: {reason}")]
    HostKeyRefused {
        /// The server.
        host: String,
        /// What ssh said.
        reason: String,
    },
    /// A certificate vouches for the server, and does not hold.
    #[error("the host certificate of {host} does not hold: {reason}")]
    HostCertificate {
        /// The server.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server does not let us in.
    #[error("{host} refuses {user}; tried {}", or_nothing(tried))]
    AuthRefused {
        /// The server.
        host: String,
        /// As whom.
        user: String,
        /// By what means.
        tried: Vec<String>,
        /// A key that could not be tried for want of its passphrase.
        locked: Option<PathBuf>,
    },
    /// The server lets us in but serves no files.
    #[error("{host} offers no SFTP: {reason}")]
    NoSftp {
        /// The server.
        host: String,
        /// What it said.
        reason: String,
    },
    /// There is no such directory on the server.
    #[error("{path} is not there on the server")]
    HomeMissing {
        /// The directory.
        path: String,
    },
    /// The home is something else than a directory.
    #[error("{path} is not a directory on the server")]
    HomeNotDirectory {
        /// The path.
        path: String,
    },
    /// The home's directory may not be looked at.
    #[error("{path} may not be read on the server")]
    HomeRefused {
        /// The path.
        path: String,
    },
    /// The home is on a disk of this machine, which is not there; try later.
    #[error("{path}: {reason}")]
    Away {
        /// The directory.
        path: String,
        /// How that is known.
        reason: String,
    },
    /// The program that is to connect cannot be run.
    #[error("{program} cannot be run: {source}")]
    Program {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The program that is to connect does not do what it is told.
    #[error("{program} refuses its options or its configuration: {reason}")]
    Refusing {
        /// Its name.
        program: String,
        /// What it said.
        reason: String,
    },
    /// Something here stands in the way.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What came of it.
        source: io::Error,
    },
}

fn or_nothing(tried: &[String]) -> String {
    match tried {
        [] => "nothing, since there is neither key nor password".to_owned(),
        tried => tried.join(", "),
    }
}

impl ConnectError {
    /// Whether trying again is useless before somebody did something.
    pub fn needs_person(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Away { .. } => false,
            Self::HostKeyUnknown { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::HostKeyRefused { .. }
            | Self::HostCertificate { .. }
            | Self::AuthRefused { .. }
            | Self::NoSftp { .. }
            | Self::HomeMissing { .. }
            | Self::HomeNotDirectory { .. }
            | Self::HomeRefused { .. }
            | Self::Program { .. }
            | Self::Refusing { .. }
            | Self::Io { .. } => true,
        }
    }
}

/// Makes sure that the session's root is a directory, and takes its resolved path as root from now on.
pub(super) async fn settle_root(
    session: &mut SftpSession,
    host: &str,
    shown: &str,
) -> Result<Vec<u8>, ConnectError> {
    let refused = |error: RemoteError| root_error(error, host, shown);
    let root = session.resolve_root().await.map_err(refused)?;
    session.set_root(root.clone());
    let stat = session.stat_root().await.map_err(refused)?;
    if stat.kind != Kind::Dir {
        return Err(ConnectError::HomeNotDirectory {
            path: shown.to_owned(),
        });
    }
    Ok(root)
}

/// Why a server gets one session, if it does. ProFTPD serves all channels of a connection in one process, which puts the
/// parts of a request together in one buffer, whichever channel they come from: what is sent on two channels at once gets
/// mixed up, bytes of one request become content of another, and at the first length that makes no sense it gives up.
pub(super) fn only_session(first: &SftpSession, ident: &[u8]) -> Option<&'static str> {
    let is_proftpd = first.is_proftpd() || ident.starts_with(b"SSH-2.0-mod_sftp");
    is_proftpd.then_some("ProFTPD mixes up what comes over several at once")
}

fn root_error(error: RemoteError, host: &str, shown: &str) -> ConnectError {
    let path = shown.to_owned();
    match error.kind {
        ErrorKind::NotFound | ErrorKind::Failure => ConnectError::HomeMissing { path },
        ErrorKind::PermissionDenied => ConnectError::HomeRefused { path },
        ErrorKind::Unsupported | ErrorKind::Protocol => no_sftp(host, error),
        ErrorKind::Disconnected | ErrorKind::Timeout => unreachable(host, error),
    }
}

/// A session that did not start.
pub(super) fn start_error(error: RemoteError, host: &str) -> ConnectError {
    match error.kind {
        ErrorKind::Protocol | ErrorKind::Unsupported => no_sftp(host, error),
        _ => unreachable(host, error),
    }
}

pub(super) fn no_sftp(host: &str, reason: impl ToString) -> ConnectError {
    ConnectError::NoSftp {
        host: host.to_owned(),
        reason: reason.to_string(),
    }
}

pub(super) fn unreachable(host: &str, reason: impl ToString) -> ConnectError {
    ConnectError::Unreachable {
        host: host.to_owned(),
        reason: reason.to_string(),
    }
}
