//! How to hold a session.

use std::sync::Arc;
use std::time::Duration;

use crate::remote::line::{Limits, Line};

/// How to hold a session.
#[derive(Clone)]
pub struct SftpConfig {
    /// The home's root as the server calls it; empty for the directory that logins start in.
    pub root: Vec<u8>,
    /// A server that owes a reply and says nothing for this long is given up.
    pub silence: Duration,
    /// Listings with more entries are given up.
    pub entries_max: usize,
    /// What the sessions that are started with this or its clones share.
    pub line: Arc<Line>,
}

impl std::fmt::Debug for SftpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SftpConfig")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Default for SftpConfig {
    fn default() -> Self {
        Self {
            root: Vec::new(),
            silence: Duration::from_secs(30),
            entries_max: 1_000_000,
            line: Line::new(&Limits::default()),
        }
    }
}
