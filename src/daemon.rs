//! The daemon: one process that serves one mount.

mod adopt;
mod answers;
mod authorized;
mod conflicts;
mod content;
pub mod doctor;
mod enrol;
mod failure;
mod freeze;
mod fresh;
mod lifecycle;
mod link;
mod network;
mod restore;
mod secrets;
mod sleep;
mod undo;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock;
use crate::config::{Config, Target, Way};
use crate::control::{Code, Failure};
use crate::remote::{self, ErrorKind};
use crate::replica;

pub use self::adopt::{AdoptRequest, Adopted, Foretold, Watcher, adopt, foretell};
pub use self::secrets::{Ask, Asker, Secrets};
pub use crate::control::Secret;
pub use crate::fuse::{Broker, Place, Unmount};

/// The command that serves a directory of this machine to the daemon, without its argument.
pub const SERVE_COMMAND: &str = "serve-directory";
/// Its flag for a directory in which there was a home before.
pub const SERVE_KNOWN: &str = "known";

/// Where a home is, and what it takes to get in.
#[derive(Debug, Clone)]
pub struct Access {
    /// Which home.
    pub target: Target,
    /// How it is reached.
    pub way: Way,
    /// Who logs in where nobody is named.
    pub user: String,
    /// The settings.
    pub config: Config,
    /// Log in where no key does.
    pub secrets: Secrets,
    /// Whom the login may ask.
    pub asker: Asker,
    /// Where the replica is, with this machine's key, if it has one.
    pub state_dir: Option<PathBuf>,
    /// Whether the home is mounted for a login: then nothing that lies in it helps to reach it, and what was learnt of
    /// servers is in the state directory.
    pub for_login: bool,
}

/// What to serve, and how. All paths are absolute; the checks that need no server have been passed.
#[derive(Debug, Clone)]
pub struct MountRequest {
    /// Which home, and how to get there.
    pub access: Access,
    /// Where to mount it.
    pub mountpoint: PathBuf,
    /// Where the replica is kept; exists.
    pub state_dir: PathBuf,
    /// Where the control socket may be made, the preferred first.
    pub control_sockets: Vec<PathBuf>,
    /// Whether other users may look in, as far as permissions let them.
    pub allow_other: bool,
    /// Whether nothing may be changed through the mount.
    pub read_only: bool,
    /// Who mounts and unmounts, if not this process.
    pub broker: Option<Arc<Broker>>,
}

/// A key that would be tried but is locked, and not opened by its passphrase.
pub fn locked_identity(access: &Access) -> Option<PathBuf> {
    link::locked_identity(access)
}

/// Serves a directory of this machine on standard input and output to the daemon that started this process. `known` is
/// whether there was a home in it.
pub fn serve_directory(directory: &Path, known: bool) -> Result<(), Failure> {
    remote::serve_directory(directory, known).map_err(|error| match error.kind {
        ErrorKind::Disconnected => Failure::new(Code::Unreachable, error.message),
        _ => Failure::new(Code::ServerPath, error.message),
    })
}

/// Answers a question of `ssh`, if that is what this process was started for; whether there was an answer.
pub fn answer_ssh() -> Option<bool> {
    remote::answer_ssh()
}

/// Serves the mount until it is unmounted. Calls `ready` once the mount serves.
pub fn run(request: MountRequest, ready: Box<dyn FnOnce() + Send>) -> Result<(), Failure> {
    lifecycle::run(request, ready)
}

/// The lines of the home's `authorized_keys` that let people in, as the daemon saw them last; empty if there are none.
pub fn authorized_keys(state_dir: &Path) -> std::io::Result<Vec<u8>> {
    authorized::read(state_dir)
}

/// Whether a home was mounted here before, with its replica in `state_dir`.
pub fn is_known(state_dir: &Path) -> bool {
    replica::Replica::is_known(state_dir)
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
