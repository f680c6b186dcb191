//! What PAM's steps and the keeper say to each other: lines of JSON over a socket that root alone may open.
//!
//! One question in one line, then any number of [`Answer::Progress`] lines and a final answer.

use serde::{Deserialize, Serialize};

use super::session::{Holder, Kind};
use crate::control::{Failure, Secret, protocol::Progress};

/// The longest line, in bytes.
pub(super) const LINE_MAX_BYTES: usize = 64 * 1024;

/// What a step tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Ask {
    /// Somebody typed this password, and was let in.
    Password {
        /// It.
        password: Secret,
    },
    /// A session begins; the answer comes when the home is there.
    Open {
        /// Who lives as long as it does.
        holder: Holder,
        /// Of what kind it is.
        kind: Kind,
        /// It brought a Kerberos ticket.
        #[serde(default)]
        ticket: bool,
    },
    /// A session ends; the answer to the last one comes when all is sent, or after `logout_timeout`.
    Close {
        /// Who opened it.
        holder: Holder,
        /// Of what kind it is.
        kind: Kind,
    },
}

/// What the keeper answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Answer {
    /// How far it is. Not final.
    Progress(Progress),
    /// It is as it should be; with what to tell whoever logs in or out, if anything.
    Done {
        /// For people.
        note: Option<String>,
    },
    /// All sessions have ended, and something is not on the server yet.
    Left {
        /// How many files, directories and links; 0 if it is not known.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// The home is not there.
    Failed {
        /// Why.
        failure: Failure,
    },
}
