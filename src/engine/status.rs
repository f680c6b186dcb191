//! What the engine tells about itself: transfers under way, the link, what is unsent, the last pass.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::cache::{self, RoomView};
use super::keep;
use super::link::LinkView;
use super::reconcile::PassReport;
use super::shared::{Shared, lock};
use crate::remote::LineFacts;
use crate::replica::{Counts, Problem, ReplicaError};
use crate::sync::Guard;
use crate::tree::{RelPath, Time};

/// One file under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferView {
    /// Which file.
    pub path: RelPath,
    /// To the server, or from it.
    pub upload: bool,
    /// Bytes moved so far.
    pub done_bytes: u64,
    /// Bytes in all; 0 if not known yet.
    pub total_bytes: u64,
}

/// Everything that `roamhome status` shows.
#[derive(Debug, Clone)]
pub struct EngineStatus {
    /// The link.
    pub link: LinkView,
    /// What is known of the line, while it is up.
    pub line: Option<LineFacts>,
    /// Files under way.
    pub transfers: Vec<TransferView>,
    /// What the replica holds and what of it is unsent.
    pub counts: Counts,
    /// When the oldest unsent change was made.
    pub oldest_unsent: Option<Time>,
    /// The last pass that ended.
    pub last_pass: Option<PassReport>,
    /// Shown until solved.
    pub problems: Vec<Problem>,
    /// Versions kept on this machine.
    pub backups: u64,
    /// The room on this machine's disk, as far as it can be told.
    pub room: Option<RoomView>,
    /// Conflicts that nobody has decided about.
    pub conflicts: u64,
    /// Questions that hold passes up until a person answers.
    pub guards: Vec<Guard>,
    /// What the server lacks, and what that costs, while there is a link; for people.
    pub lacks: Vec<String>,
}

/// What passes did to files, all together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files that were sent.
    pub sent: u64,
    /// Their sizes.
    pub sent_bytes: u64,
    /// Files that turned out to be the same on both sides.
    pub equal: u64,
}

/// The files under way; a [`Progress`] takes itself off the list when it ends.
#[derive(Default)]
pub(super) struct Transfers {
    list: Arc<Mutex<BTreeMap<u64, Transfer>>>,
    next: AtomicU64,
    /// Bytes of all transfers so far.
    moved: Arc<AtomicU64>,
}

struct Transfer {
    path: RelPath,
    upload: bool,
    total: u64,
    done: Arc<AtomicU64>,
}

/// One file under way, as the transfer itself reports it.
pub(super) struct Progress {
    list: Arc<Mutex<BTreeMap<u64, Transfer>>>,
    key: u64,
    done: Arc<AtomicU64>,
    moved: Arc<AtomicU64>,
}

impl Transfers {
    pub(super) fn start(&self, path: RelPath, upload: bool, total: u64) -> Progress {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let done = Arc::new(AtomicU64::new(0));
        let transfer = Transfer {
            path,
            upload,
            total,
            done: Arc::clone(&done),
        };
        lock(&self.list).insert(key, transfer);
        Progress {
            list: Arc::clone(&self.list),
            key,
            done,
            moved: Arc::clone(&self.moved),
        }
    }

    /// The same for one that goes on where it was cut off.
    pub(super) fn start_at(&self, path: &RelPath, upload: bool, total: u64, at: u64) -> Progress {
        let progress = self.start(path.clone(), upload, total);
        progress.advance(at);
        progress
    }

    /// How many bytes all transfers moved so far: while it grows, something is under way.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn view(&self) -> Vec<TransferView> {
        lock(&self.list)
            .values()
            .map(|transfer| TransferView {
                path: transfer.path.clone(),
                upload: transfer.upload,
                done_bytes: transfer.done.load(Ordering::Relaxed),
                total_bytes: transfer.total,
            })
            .collect()
    }
}

impl Progress {
    pub(super) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
        self.moved.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        lock(&self.list).remove(&self.key);
    }
}

/// Collects the status from memory and the index; asks the server nothing.
pub(super) fn status(shared: &Shared) -> Result<EngineStatus, ReplicaError> {
    let (oldest_unsent, problems, backups) = shared.replica.view(|view| {
        let oldest = view
            .dirty(usize::MAX)?
            .into_iter()
            .map(|(_, since)| since)
            .min();
        let problems = view
            .problems()?
            .into_iter()
            .map(|(_, problem)| problem)
            .collect();
        Ok::<_, ReplicaError>((oldest, problems, view.backups()?.len() as u64))
    })?;
    let mut problems: Vec<Problem> = problems;
    problems.extend(shared.replica.trouble().map(|error| Problem {
        path: RelPath::root(),
        message: error.to_string(),
        since: shared.now(),
    }));
    Ok(EngineStatus {
        link: shared.link.borrow().clone(),
        line: shared.online().and_then(|remote| remote.line()),
        transfers: shared.transfers.view(),
        counts: shared.replica.counts()?,
        oldest_unsent,
        last_pass: lock(&shared.last_pass).clone(),
        problems,
        backups,
        room: cache::room::view(shared).ok(),
        conflicts: keep::conflicts::known(shared)?.len() as u64,
        guards: lock(&shared.guards).clone(),
        lacks: lacks(shared),
    })
}

fn lacks(shared: &Shared) -> Vec<String> {
    let features = shared.online().map(|remote| remote.features());
    let lacks_copy = features.is_some_and(|features| !features.copy_data);
    let cost = "copy-data: of large files that changed, all is sent";
    lacks_copy.then(|| cost.to_owned()).into_iter().collect()
}
