//! The daemon: one process that serves one mount.

mod answers;
mod conflicts;
mod failure;
mod fresh;
mod lifecycle;
mod link;
mod network;
mod restore;
mod undo;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::clock;
use crate::config::{Config, Target};
use crate::control::{Code, Failure};
use crate::replica;

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

/// What a person types to log in where no key does, or to unlock one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// The password of the account on the server.
    pub password: Option<Secret>,
    /// The passphrase of a private key.
    pub passphrase: Option<Secret>,
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
    /// Log in where no key does.
    pub secrets: Secrets,
    /// Whether other users may look in, as far as permissions let them.
    pub allow_other: bool,
    /// Whether nothing may be changed through the mount.
    pub read_only: bool,
}

/// A key that would be tried for `request` but is locked, and not opened by its passphrase.
pub fn locked_identity(request: &MountRequest) -> Option<PathBuf> {
    link::Connector::new(request).locked_identity(request.secrets.passphrase.as_ref())
}

/// Serves the mount until it is unmounted. Calls `ready` once the mount serves.
pub fn run(request: MountRequest, ready: Box<dyn FnOnce() + Send>) -> Result<(), Failure> {
    lifecycle::run(request, ready)
}

/// The process that has the state directory, if any.
pub fn holder(state_dir: &Path) -> Option<u32> {
    replica::Replica::holder(state_dir)
}

/// Checks the state directory, and repairs what it can if told to; answers what it found, for people. Damage
/// that remains is a failure. With `content`, all content is read as well.
pub fn check(state_dir: &Path, repair: bool, content: bool) -> Result<Vec<String>, Failure> {
    let check = match content {
        true => replica::check_content,
        false => replica::check,
    };
    let report = check(state_dir, repair, clock::now()).map_err(failure::replica)?;
    let mut lines: Vec<String> = report
        .findings
        .iter()
        .map(|finding| match finding.repaired {
            true => format!("repaired: {}", finding.what),
            false => format!("found: {}", finding.what),
        })
        .collect();
    lines.push(format!(
        "{} nodes and {} content files checked",
        report.nodes, report.content_files
    ));
    if report.is_sound() {
        return Ok(lines);
    }
    let remedy = match repair {
        false => "`roamhome check --repair` repairs what it can",
        true => "`roamhome rescue STATE_DIR OUT_DIR` copies all unsent files out",
    };
    Err(Failure::new(Code::StateDir, lines.join("\n")).remedy(remedy))
}

/// Copies each unsent file out of `state_dir` into `out_dir`; answers what it did, for people.
pub fn rescue(state_dir: &Path, out_dir: &Path) -> Result<Vec<String>, Failure> {
    let report = replica::rescue(state_dir, out_dir).map_err(failure::replica)?;
    let mut lines = vec![format!(
        "{} unsent files, {} bytes, copied to {}",
        report.files,
        report.bytes,
        out_dir.display()
    )];
    if report.unnamed > 0 {
        lines.push(format!(
            "{} of them have lost their names: see unnamed/",
            report.unnamed
        ));
    }
    lines.extend(
        report
            .index_failure
            .map(|why| format!("the index could not be read: {why}")),
    );
    lines.extend(
        report
            .skipped
            .iter()
            .map(|skipped| format!("skipped: {skipped:?}")),
    );
    Ok(lines)
}
