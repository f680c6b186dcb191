//! What a replica remembers of an adoption that is not finished: which directory, and whether it is still being read.
//!
//! While it is read, the home must not be mounted: it would show a part of the directory as if it were all. Once all is
//! read, it may: what is left to do then is what any mount does with what is unsent.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::failure;
use crate::config::Target;
use crate::control::{Code, Failure};
use crate::replica::Replica;

/// Its key.
const KEY: &str = "adoption";

/// An adoption under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mark {
    source: Vec<u8>,
    /// The directory is being read.
    pub(super) importing: bool,
    /// The machine's boot in which that was begun: before it ends, nothing is known to be on the disk.
    boot: String,
    /// When it was read last, in nanoseconds.
    pub(super) began: i64,
    pub(super) files: u64,
    pub(super) known: u64,
    pub(super) scoped: u64,
    pub(super) with_acl: u64,
    pub(super) mounts: Vec<String>,
    /// What could not be read.
    pub(super) problems: Vec<String>,
}

impl Mark {
    pub(super) fn new(source: &Path) -> Self {
        Self {
            source: source.as_os_str().as_bytes().to_vec(),
            importing: true,
            boot: boot(),
            began: 0,
            files: 0,
            known: 0,
            scoped: 0,
            with_acl: 0,
            mounts: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn source(&self) -> PathBuf {
        OsString::from_vec(self.source.clone()).into()
    }

    /// Whether what was read may have been lost with the machine's power.
    pub(super) fn is_lost(&self) -> bool {
        self.importing && self.boot != boot()
    }

    /// Why something else cannot be done with the replica.
    pub(super) fn unfinished(&self, target: &Target) -> Failure {
        let source = self.source();
        let source = source.display();
        Failure::new(
            Code::StateDir,
            format!("{source} is being taken over into this home, and that is not finished"),
        )
        .remedy(format!("go on with it: roamhome adopt '{source}' {target}"))
    }
}

/// Names the machine's present boot.
fn boot() -> String {
    // Without one, all boots are the same.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// What the replica remembers.
pub(super) fn of(replica: &Replica) -> Result<Option<Mark>, Failure> {
    let stored = replica.view(|view| view.meta(KEY));
    let Some(stored) = stored.map_err(failure::replica)? else {
        return Ok(None);
    };
    serde_json::from_slice(&stored).map(Some).map_err(|error| {
        let dir = replica.state_dir().display();
        Failure::new(Code::StateDir, format!("{dir}: adoption: {error}"))
    })
}

/// Makes the replica remember, for good.
pub(super) fn set(replica: &Replica, mark: Option<&Mark>) -> Result<(), Failure> {
    let stored = mark.map(serde_json::to_vec).transpose();
    let stored = stored.map_err(|error| Failure::new(Code::General, error.to_string()))?;
    replica
        .update(|tx| tx.set_meta(KEY, stored))
        .and_then(|()| replica.sync())
        .map_err(failure::replica)
}

/// A replica into which a directory is still being read is not mounted.
pub(in crate::daemon) fn refuse_unfinished(
    replica: &Replica,
    target: &Target,
) -> Result<(), Failure> {
    match of(replica)? {
        Some(mark) if mark.importing => Err(mark.unfinished(target)),
        _ => Ok(()),
    }
}
