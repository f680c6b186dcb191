//! What is asked of a pass, and what it answers.

use super::super::scan::ScanError;
use super::foresee::Foreseen;
use crate::replica::ReplicaError;
use crate::sync::Guard;
use crate::tree::Time;

/// What a pass covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Write back what is dirty.
    Push {
        /// Do not wait for files to be left alone: send them as they are now.
        now: bool,
    },
    /// Look at the whole server first.
    Full {
        /// Do not wait for files to be left alone.
        now: bool,
        /// A person answered the guards' questions with yes.
        force_guard: bool,
    },
}

/// What a pass did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PassReport {
    /// Counts the passes of this replica, from 1, whatever restarts come between.
    pub id: u64,
    /// When it ended, local time.
    pub at: Time,
    /// Whether the server was looked at.
    pub full: bool,
    /// Directories listed.
    pub directories: u64,
    /// Steps that were done.
    pub done: u64,
    /// Steps that failed or found something else; they are planned again.
    pub failed: u64,
    /// Conflicts among the steps done.
    pub conflicts: u64,
    /// Questions that kept the pass from doing its work.
    pub guards: Vec<Guard>,
    /// Files that programs went on writing to after they were sent.
    pub overtaken: u64,
    /// Places that wait for a program to close a file.
    pub waiting: u64,
}

/// Why a pass did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// There is no link.
    #[error("the server cannot be reached: {0}")]
    Offline(String),
    /// The link or the replica failed on the way; what was done is folded.
    #[error("{0}")]
    Failed(String),
    /// The engine stops.
    #[error("the daemon is stopping")]
    Stopping,
}

impl From<ScanError> for PassError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Remote(error) if error.is_link_loss() => Self::Offline(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<ReplicaError> for PassError {
    fn from(error: ReplicaError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// What a pass would do.
#[derive(Debug, Clone, Default)]
pub struct DryRun {
    /// A line for each step.
    pub lines: Vec<String>,
    /// Questions that it would ask first.
    pub guards: Vec<Guard>,
    /// The same in numbers.
    pub foreseen: Foreseen,
}
