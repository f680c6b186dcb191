//! What every command ends with when it fails: a message, a remedy and a distinct exit status. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a command failed, as its exit status tells scripts. The numbers are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Anything that has no number of its own.
    General = 1,
    /// The command line or a configuration file is wrong.
    Usage = 2,
    /// Something is not on the server yet.
    Unsent = 3,
    /// The server cannot be reached.
    Unreachable = 4,
    /// The server's host key is unknown or changed.
    HostKey = 5,
    /// The server refused to let the user in.
    Authentication = 6,
    /// The path on the server is missing, no directory, or not writable.
    ServerPath = 7,
    /// The mount point is missing, not empty, busy or not mounted.
    Mountpoint = 8,
    /// The state directory is in use, somebody else's, full, damaged or of a newer version.
    StateDir = 9,
    /// This machine lacks FUSE.
    NoFuse = 10,
    /// The directory on the server is another home than the one kept here.
    Identity = 11,
    /// A pass would remove or change so much that a person has to agree.
    Guard = 12,
    /// No daemon serves such a mount.
    NotRunning = 13,
}

impl Code {
    /// All codes with what they mean, for `--help`.
    pub const TABLE: [(Self, &'static str); 13] = [
        (Self::General, "any other failure"),
        (Self::Usage, "wrong command line or configuration"),
        (
            Self::Unsent,
            "something is not on the server yet, or was not taken back; the output says what",
        ),
        (Self::Unreachable, "the server cannot be reached"),
        (
            Self::HostKey,
            "the server's host key is unknown or has changed",
        ),
        (Self::Authentication, "the server refused the login"),
        (
            Self::ServerPath,
            "the path on the server is missing, no directory or not writable",
        ),
        (
            Self::Mountpoint,
            "the mount point is missing, not empty, busy or not mounted",
        ),
        (
            Self::StateDir,
            "the state directory is in use, not yours, full, damaged or too new",
        ),
        (Self::NoFuse, "FUSE is not available on this machine"),
        (
            Self::Identity,
            "the server's directory is not the home that is kept here",
        ),
        (
            Self::Guard,
            "the pass would remove much and waits for --force-guard",
        ),
        (Self::NotRunning, "no roamhome serves this mount"),
    ];

    /// The exit status.
    pub fn status(self) -> u8 {
        self as u8
    }
}

/// A failure as the user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What happened, with the thing that it happened to. No trailing period.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// For scripts.
    pub code: Code,
}

impl Failure {
    /// A failure without a remedy.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            remedy: None,
            code,
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_statuses_are_distinct_documented_and_stable() {
        let statuses: Vec<_> = Code::TABLE.iter().map(|(code, _)| code.status()).collect();
        assert_eq!(statuses, (1..=13).collect::<Vec<u8>>());
        assert_eq!(Code::Unsent.status(), 3);
        assert_eq!(Code::Guard.status(), 12);
    }
}
