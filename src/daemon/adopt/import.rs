//! Reading the directory into the replica, until a look at all of it finds nothing new.

use std::fs::File;
use std::sync::Arc;

use super::super::lifecycle::host_scope;
use super::mark::{self, Mark};
use super::{AdoptRequest, Watcher, failure, look, shown};
use crate::clock;
use crate::control::protocol::Progress;
use crate::control::{Code, Failure};
use crate::engine::{Done, Fetch, FetchError, Space, Wanted};
use crate::fs::{FsError, Home, HomeOptions, Imported, Importing, Restraint, Survey};
use crate::replica::{Node, Replica};
use crate::tree::{NodeId, Time};

/// How often all is read again when something changed meanwhile.
const ROUNDS_MAX: u32 = 3;

/// So many files are between two reports.
const REPORT_EVERY: u64 = 256;

/// Of so many problems each is named.
const PROBLEMS_MAX: usize = 1000;

/// Nobody to fetch from: what is imported needs nothing from the server.
struct Nobody;

impl Fetch for Nobody {
    fn hydrate(&self, _node: NodeId, done: Done) {
        done(Err(FetchError::Unreachable));
    }

    fn hydrate_alone(&self, node: NodeId, done: Done) {
        self.hydrate(node, done);
    }

    fn is_by_block(&self, _node: &Node) -> bool {
        false
    }

    fn is_current(&self, _node: NodeId) -> bool {
        true
    }

    fn look(&self, _node: NodeId, done: Done) {
        done(Ok(()));
    }

    fn read(&self, _node: NodeId, _wanted: Wanted, done: Done) {
        done(Err(FetchError::Unreachable));
    }

    fn list(&self, _dir: NodeId, done: Done) {
        done(Err(FetchError::Unreachable));
    }

    fn is_news(&self, _file: NodeId) -> bool {
        false
    }

    fn is_read(&self, _file: NodeId) {}

    fn changed(&self) {}

    fn space(&self) -> Option<Space> {
        None
    }

    fn evictable(&self) -> u64 {
        0
    }

    fn is_short_of_room(&self, _bytes: u64) -> bool {
        false
    }

    fn make_room(&self, _bytes: u64, done: Done) {
        done(Err(FetchError::NoSpace));
    }
}

/// A home of its own on the replica, before an engine is.
pub(super) fn home(request: &AdoptRequest, replica: &Arc<Replica>) -> Result<Home, Failure> {
    let options = HomeOptions {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        host_scoped: host_scope(&request.access.config)?,
        restraint: Restraint::default(),
        now: Box::new(clock::now),
    };
    let home = Home::new(Arc::clone(replica), Arc::new(Nobody), options);
    home.map_err(|error| Failure::new(Code::StateDir, error.to_string()))
}

/// Reads it. When this returns, all that was read survives a loss of power, and the mark says so.
pub(super) fn import(
    request: &AdoptRequest,
    replica: &Arc<Replica>,
    main: Option<&Replica>,
    mut mark: Mark,
    watcher: Watcher<'_>,
) -> Result<Mark, Failure> {
    let size = look(request, Time(i64::MAX))?;
    check_room(request, replica, &size)?;
    let home = home(request, replica)?;
    let how = Importing {
        mounts: Some(&request.mounts),
        without_scoped: main.is_some(),
        without: main,
        without_content: false,
    };
    let mut imported = Imported::default();
    for _ in 0..ROUNDS_MAX {
        mark.began = clock::now().0;
        imported = read(&home, request, how, &size, watcher)?;
        if imported.read == 0 {
            break;
        }
    }
    let settled = replica.drop_strays().and_then(|()| replica.sync_all());
    settled.map_err(failure::replica)?;
    mark.importing = false;
    mark.files = imported.files;
    mark.known = imported.known;
    mark.scoped = imported.scoped;
    mark.with_acl = imported.with_acl;
    mark.mounts = shown(&imported.mounts);
    mark.problems = problems(&imported);
    mark::set(replica, Some(&mark))?;
    Ok(mark)
}

/// One look at all of it.
pub(super) fn read(
    home: &Home,
    request: &AdoptRequest,
    how: Importing<'_>,
    size: &Survey,
    watcher: Watcher<'_>,
) -> Result<Imported, Failure> {
    let mut told = 0;
    let mut progress = |files: u64, bytes: u64| {
        if files >= told + REPORT_EVERY {
            told = files;
            watcher(&Progress {
                message: "reading".into(),
                left_files: size.files.saturating_sub(files),
                left_bytes: size.bytes.saturating_sub(bytes),
            });
        }
    };
    let imported = home.import(&request.source, how, &mut progress);
    imported.map_err(|error| {
        let source = request.source.display();
        let failure = Failure::new(Code::StateDir, format!("{source}: {error}"));
        match error {
            FsError::Replica(_) => failure.remedy("then run the same command again: it goes on"),
            _ => failure,
        }
    })
}

/// What people are told.
pub(super) fn problems(imported: &Imported) -> Vec<String> {
    let all = imported.problems.iter();
    let mut told: Vec<_> = all
        .take(PROBLEMS_MAX)
        .map(|(path, why)| format!("{}: {why}", path.display()))
        .collect();
    let more = imported.problems.len().saturating_sub(PROBLEMS_MAX);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    told
}

/// Whether there is room for a copy of all that is not here yet.
fn check_room(request: &AdoptRequest, replica: &Replica, size: &Survey) -> Result<(), Failure> {
    let sample = size.sample.as_ref().and_then(|path| File::open(path).ok());
    let shares =
        sample.is_some_and(|sample| replica.content().shares_with(&sample).is_ok_and(|s| s));
    let here = replica.counts().map_err(failure::replica)?.content_bytes;
    let needed = size.bytes.saturating_sub(here);
    let dir = replica.state_dir();
    let disk = rustix::fs::statvfs(dir).map_err(|errno| {
        let message = format!("{}: {errno}", dir.display());
        Failure::new(Code::StateDir, message)
    })?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let keep = request.access.config.cache_min_free;
    if shares || needed.saturating_add(keep) <= free {
        return Ok(());
    }
    let message = format!(
        "{}: {} of {} bytes would have to be copied, and {free} are free there, of which {keep} stay so",
        dir.display(),
        needed,
        size.bytes
    );
    Err(Failure::new(Code::StateDir, message)
        .remedy("make room, or name a state directory on another disk: --state DIR"))
}
