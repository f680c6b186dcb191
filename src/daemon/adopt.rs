//! Taking an existing directory of this machine over into a home: all of it is read into a replica while nothing is
//! sent, and then the usual passes merge that with the server.
//!
//! Where this machine has no replica of the home yet, it is this one from then on. Where it has one, that stays as it is,
//! and the directory is merged by way of another one inside of it that goes when all is sent.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::link::Connector;
use super::{Access, failure, fresh};
use crate::clock;
use crate::control::protocol::Progress;
use crate::control::{Code, Failure};
use crate::fs::{Survey, survey};
use crate::replica::{Replica, ReplicaError};
use crate::tree::{NodeId, Time};

mod dry_run;
mod import;
mod mark;
mod merge;

use mark::Mark;
pub(super) use mark::refuse_unfinished;

/// Inside a state directory: the replica by way of which a directory is merged, and the one of a dry run.
const BESIDE: &str = "adoption";
const DRY_RUN: &str = "dry-run";

/// A clock of the kernel may be so far behind the one that is asked, in nanoseconds.
const CLOCK_GRAIN: i64 = 20_000_000;

/// What to take over, and how. All paths are absolute and without links.
#[derive(Debug, Clone)]
pub struct AdoptRequest {
    /// Which home, and how to get there.
    pub access: Access,
    /// The directory.
    pub source: PathBuf,
    /// Where something is mounted in it.
    pub mounts: BTreeSet<PathBuf>,
    /// Where this machine's replica of the home is or will be; exists.
    pub state_dir: PathBuf,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Adopted {
    /// Files of the directory, by name.
    pub files: u64,
    /// Files that this machine's replica had already.
    pub known: u64,
    /// Files that were sent, in this run.
    pub sent: u64,
    /// Their sizes.
    pub sent_bytes: u64,
    /// Files that the server had already, as found in this run.
    pub equal: u64,
    /// Conflicts: of each, one version is kept.
    pub conflicts: u64,
    /// Files and directories with access control lists, which stay on this machine.
    pub with_acl: u64,
    /// What stays on its machine and was left out, since this machine has a replica already.
    pub scoped: u64,
    /// Where something is mounted: left out.
    pub mounts: Vec<String>,
    /// What could not be taken over or sent, and why.
    pub problems: Vec<String>,
    /// How much changed in the directory after it was read.
    pub changed: u64,
    /// Some of that.
    pub changed_paths: Vec<String>,
}

/// What would come of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Foretold {
    /// The steps, a line each.
    pub lines: Vec<String>,
    /// Files that would be sent.
    pub sent: u64,
    /// Their sizes.
    pub sent_bytes: u64,
    /// Files that would be compared, having equal sizes.
    pub compared: u64,
    /// What would be taken over from the server.
    pub taken: u64,
    /// Conflicts.
    pub conflicts: u64,
    /// Files of the directory, by name.
    pub files: u64,
    /// Their sizes.
    pub bytes: u64,
    /// Where something is mounted: left out.
    pub mounts: Vec<String>,
    /// What could not be taken over, and why.
    pub problems: Vec<String>,
}

/// Whom to tell how far it is.
pub type Watcher<'a> = &'a mut dyn FnMut(&Progress);

/// Takes the directory over. Done again after it was cut off, it goes on.
pub fn adopt(request: &AdoptRequest, watcher: Watcher<'_>) -> Result<Adopted, Failure> {
    let runtime = runtime()?;
    let place = Workplace::find(request)?;
    // The machine's key is with its own replica.
    let connector = Arc::new(Connector::new(&request.access, &request.state_dir));
    let prepared = runtime.block_on(connector.prepare());
    prepared.inspect_err(|_| place.forget_new(request))?;
    let (replica, mark) = place.open(request)?;
    let replica = Arc::new(replica);
    let mark = match mark.importing {
        true => import::import(request, &replica, place.main.as_ref(), mark, watcher)?,
        false => mark,
    };
    let merged = merge::merge(&runtime, &replica, connector, request, watcher);
    let outcome = merged.and_then(|mut adopted| {
        adopted.tell(&mark);
        adopted.look_again(request, &mark)?;
        if adopted.problems.len() == mark.problems.len() {
            place.finish(&replica)?;
        }
        Ok(adopted)
    });
    let closed = replica.close().map_err(failure::replica);
    if outcome.is_ok() {
        place.clear_away(&replica)?;
    }
    let adopted = outcome?;
    closed.map(|()| adopted)
}

/// Finds out what would come of it. Nothing is written to the server, and nothing stays here.
pub fn foretell(request: &AdoptRequest, watcher: Watcher<'_>) -> Result<Foretold, Failure> {
    let Workplace { main, new, .. } = Workplace::find(request)?;
    let dir = request.state_dir.join(DRY_RUN);
    empty(&dir)?;
    let foretold = dry_run::foretell(&runtime()?, request, &dir, main.as_ref(), watcher);
    // It is empty, or found and emptied by the next one.
    drop(fs::remove_dir_all(&dir));
    if new {
        fresh::forget_empty(&request.state_dir);
    }
    foretold
}

fn runtime() -> Result<Runtime, Failure> {
    Runtime::new().map_err(|error| Failure::new(Code::General, error.to_string()))
}

/// Makes the directory, with nothing in it.
fn empty(dir: &Path) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(Code::StateDir, format!("{}: {error}", dir.display()));
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    fs::create_dir(dir).map_err(failed)
}

/// Where the directory is merged.
struct Workplace {
    dir: PathBuf,
    /// This machine's replica, if it is another one. While it is open, the home is not mounted.
    main: Option<Replica>,
    /// There was no replica here at all.
    new: bool,
}

impl Workplace {
    fn find(request: &AdoptRequest) -> Result<Self, Failure> {
        let dir = &request.state_dir;
        if !Replica::is_known(dir) {
            fresh::check(dir)?;
            return Ok(Self {
                dir: dir.clone(),
                main: None,
                new: true,
            });
        }
        let replica = Replica::open(dir, clock::now()).map_err(failure::replica)?;
        let begun = mark::of(&replica)?.is_some() || is_untouched(&replica)?;
        Ok(match begun {
            true => Self {
                dir: dir.clone(),
                main: None,
                new: false,
            },
            false => Self {
                dir: dir.join(BESIDE),
                main: Some(replica),
                new: false,
            },
        })
    }

    /// Opens the replica, with what is known of an adoption that was begun.
    fn open(&self, request: &AdoptRequest) -> Result<(Replica, Mark), Failure> {
        if self.main.is_some() && !Replica::is_known(&self.dir) {
            empty(&self.dir)?;
        }
        let replica = Replica::open(&self.dir, clock::now()).map_err(failure::replica)?;
        let found = mark::of(&replica)?;
        let mark = match found {
            Some(found) if found.source() != request.source => {
                return Err(found.unfinished(&request.access.target));
            }
            Some(found) if !found.is_lost() => return Ok((replica, found)),
            Some(found) => {
                // The power was lost: what was read may not be what is on the disk.
                replica.close().map_err(failure::replica)?;
                drop(replica);
                wipe(&self.dir)?;
                let replica = Replica::open(&self.dir, clock::now()).map_err(failure::replica)?;
                let mark = Mark::new(&found.source());
                mark::set(&replica, Some(&mark))?;
                return Ok((replica, mark));
            }
            None => Mark::new(&request.source),
        };
        mark::set(&replica, Some(&mark))?;
        Ok((replica, mark))
    }

    /// A first attempt failed before anything was made.
    fn forget_new(&self, request: &AdoptRequest) {
        if self.new {
            fresh::forget_empty(&request.state_dir);
        }
    }

    /// All is sent: what this machine alone keeps moves to its own replica, or the adoption is simply over.
    fn finish(&self, replica: &Replica) -> Result<(), Failure> {
        if let Some(main) = &self.main {
            main.take_backups(replica).map_err(failure::replica)?;
        }
        mark::set(replica, None)
    }

    /// Removes the replica beside this machine's own, once it is finished.
    fn clear_away(&self, replica: &Replica) -> Result<(), Failure> {
        if self.main.is_some() && mark::of(replica)?.is_none() {
            fs::remove_dir_all(&self.dir).map_err(|error| {
                let message = format!("{}: {error}", self.dir.display());
                Failure::new(Code::StateDir, message)
            })?;
        }
        Ok(())
    }
}

/// Whether nothing ever came into the replica, as after a first mount that was killed.
fn is_untouched(replica: &Replica) -> Result<bool, Failure> {
    let untouched = replica.view::<_, ReplicaError>(|view| {
        let root = view.node(NodeId::ROOT)?;
        let listed = root.is_some_and(|root| root.listed);
        Ok(!listed && view.children(NodeId::ROOT, None, 1)?.is_empty())
    });
    untouched.map_err(failure::replica)
}

/// What a replica consists of, its lock and log aside; the machine's key and others are none of it.
fn is_of_replica(name: &str) -> bool {
    matches!(
        name,
        "content" | "unsent" | "staging" | "backups" | "chunks" | "partial"
    ) || name.starts_with("index.db")
        || name.starts_with("journal.")
}

/// Removes a replica and leaves what else is in its state directory.
fn wipe(dir: &Path) -> Result<(), Failure> {
    let failed =
        |error: io::Error| Failure::new(Code::StateDir, format!("{}: {error}", dir.display()));
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if !entry.file_name().to_str().is_some_and(is_of_replica) {
            continue;
        }
        match entry.file_type().map_err(failed)?.is_dir() {
            true => fs::remove_dir_all(path).map_err(failed)?,
            false => fs::remove_file(path).map_err(failed)?,
        }
    }
    Ok(())
}

impl Adopted {
    /// Adds what is known from reading the directory.
    fn tell(&mut self, mark: &Mark) {
        self.files = mark.files;
        self.known = mark.known;
        self.scoped = mark.scoped;
        self.with_acl = mark.with_acl;
        self.mounts = mark.mounts.clone();
        self.problems.splice(0..0, mark.problems.iter().cloned());
    }

    /// Looks what changed in the directory since it was read.
    fn look_again(&mut self, request: &AdoptRequest, mark: &Mark) -> Result<(), Failure> {
        let since = Time(mark.began.saturating_sub(CLOCK_GRAIN));
        let Survey {
            changed,
            changed_paths,
            ..
        } = look(request, since)?;
        self.changed = changed;
        self.changed_paths = shown(&changed_paths);
        Ok(())
    }
}

/// Paths as people see them.
fn shown(paths: &[PathBuf]) -> Vec<String> {
    let paths = paths.iter();
    paths.map(|path| path.display().to_string()).collect()
}

fn look(request: &AdoptRequest, since: Time) -> Result<Survey, Failure> {
    survey(&request.source, &request.mounts, since).map_err(|error| {
        let message = format!("{}: {error}", request.source.display());
        Failure::new(Code::General, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_goes_without_what_else_is_in_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["machine_key", "daemon.log"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let replica = Replica::open(dir.path(), Time(0)).unwrap();
        let mark = Mark::new(Path::new("/old"));
        mark::set(&replica, Some(&mark)).unwrap();
        assert!(!is_untouched_by_marks(&replica));
        drop(replica);
        wipe(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        left.sort();
        assert_eq!(left, ["daemon.log", "lock", "machine_key"]);
        let replica = Replica::open(dir.path(), Time(0)).unwrap();
        assert!(is_untouched_by_marks(&replica) && is_untouched(&replica).unwrap());
    }

    fn is_untouched_by_marks(replica: &Replica) -> bool {
        mark::of(replica).unwrap().is_none()
    }
}
