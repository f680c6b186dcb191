//! From a byte stream to a connection: what all transports share, and why it may not come to be.

use std::path::PathBuf;
use std::process::Stdio;
use std::{ffi::OsStr, io};

use tokio::process::Command;

use super::{ErrorKind, Remote, RemoteError, SftpConfig, SftpSession};
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
            Self::Unreachable { .. } => false,
            Self::HostKeyUnknown { .. }
            | Self::HostKeyChanged { .. }
            | Self::HostKeyRevoked { .. }
            | Self::AuthRefused { .. }
            | Self::NoSftp { .. }
            | Self::HomeMissing { .. }
            | Self::HomeNotDirectory { .. }
            | Self::HomeRefused { .. }
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

/// Runs `program` once per session and speaks SFTP over its standard streams: OpenSSH's `sftp-server` itself, or
/// `ssh -s HOST sftp` for all that only `ssh` can do. The programs end with the connection.
pub async fn spawn_server<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: &[S],
    config: &SftpConfig,
    sessions: usize,
) -> Result<Remote, ConnectError> {
    let program = program.as_ref();
    let shown = program.to_string_lossy().into_owned();
    let path = String::from_utf8_lossy(&config.root).into_owned();
    let mut config = config.clone();
    let mut children = Vec::new();
    let mut started = Vec::new();
    for number in 0..sessions.max(1) {
        let io = |source| ConnectError::Io {
            what: shown.clone(),
            source,
        };
        let mut child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(io)?;
        let (Some(writer), Some(reader)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io(io::ErrorKind::BrokenPipe.into()));
        };
        children.push(child);
        let session = SftpSession::start(reader, writer, config.clone()).await;
        let mut session = session.map_err(|e| start_error(e, &shown))?;
        if number == 0 {
            config.root = settle_root(&mut session, &shown, &path).await?;
        }
        started.push(session);
    }
    Ok(Remote::over(started.remove(0), started, children))
}
