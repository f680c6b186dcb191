//! The daemon: one process that serves one mount.

use std::{fmt, path::PathBuf};

use crate::{
    config::{Config, Target},
    control::{Code, Failure},
};

/// A password on its way to the server. Never shown, never stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes note of it.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The password itself, for the login alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What to serve, and how. All paths are absolute; the checks that need no server have been passed.
#[derive(Debug, Clone)]
pub struct MountRequest {
    /// Which home on which server.
    pub target: Target,
    /// Where to mount it.
    pub mountpoint: PathBuf,
    /// Where the replica is kept; exists.
    pub state_dir: PathBuf,
    /// Where the control socket may be made, the preferred first.
    pub control_sockets: Vec<PathBuf>,
    /// The settings.
    pub config: Config,
    /// Logs in where no key does.
    pub password: Option<Secret>,
    /// Whether other users may look in, as far as permissions let them.
    pub allow_other: bool,
    /// Whether nothing may be changed through the mount.
    pub read_only: bool,
}

/// Serves the mount until it is unmounted. Calls `ready` once the mount serves.
pub fn run(request: MountRequest, ready: Box<dyn FnOnce() + Send>) -> Result<(), Failure> {
    drop(ready);
    Err(not_linked(&format!("mount {}", request.target)))
}

/// Checks the state directory, and repairs what it can if told to; answers what it found, for people. Damage
/// that remains is a failure.
pub fn check(state_dir: &std::path::Path, repair: bool) -> Result<Vec<String>, Failure> {
    let what = if repair { "repair" } else { "check" };
    Err(not_linked(&format!("{what} {}", state_dir.display())))
}

/// Copies each unsent file out of `state_dir` into `out_dir`; answers what it did, for people.
pub fn rescue(
    state_dir: &std::path::Path,
    out_dir: &std::path::Path,
) -> Result<Vec<String>, Failure> {
    Err(not_linked(&format!(
        "rescue {} to {}",
        state_dir.display(),
        out_dir.display()
    )))
}

/// Shows a home on a throw-away server within this process; `keep` leaves its directory there.
pub fn demo(keep: bool) -> Result<(), Failure> {
    Err(not_linked(&format!("demo (keep: {keep})")))
}

fn not_linked(what: &str) -> Failure {
    Failure::new(Code::General, format!("{what}: engine not linked"))
}
