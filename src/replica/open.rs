//! Opening a replica: who may, what the last run left, and what was in flight when it died.

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Instant;

use rusqlite::Connection;
use rustix::fs::FlockOperation;

use super::content::{ContentStore, disk};
use super::direct::Directs;
use super::error::{AtPath, ReplicaError};
use super::index::{Phase, Replica, Seat, Shared, State};
use super::journal::{self, Journal, Replayed};
use super::opens::Opens;
use super::rows::Counter;
use super::settling::Settling;
use super::stored::Stored;
use super::table::{self, Counters};
use super::view::View;
use super::writer::{self, Writer};
use super::{recover, schema};
use crate::tree::{Kind, NodeId, Time};

/// How a replica is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The wall clock's time.
    pub now: Time,
    /// Names the machine's present boot: between two boots, what was not synced may be gone. Empty if unknown.
    pub boot: Vec<u8>,
    /// When changes get from the journal into the database.
    pub commits: Commits,
}

/// When changes get from the journal into the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commits {
    /// A little later, by a thread of the replica's own.
    Behind,
    /// When somebody calls [`Replica::commit`] or [`Replica::sync`], who does it himself: what happens, and in
    /// which order, is then up to the caller alone.
    Asked,
}

impl Opening {
    /// As the daemon opens it.
    pub fn new(now: Time) -> Self {
        Self {
            now,
            boot: recover::boot(),
            commits: Commits::Behind,
        }
    }
}

type Result<T> = std::result::Result<T, ReplicaError>;

/// The index's file.
pub(super) fn index_path(state_dir: &Path) -> PathBuf {
    state_dir.join("index.db")
}

fn lock_path(state_dir: &Path) -> PathBuf {
    state_dir.join("lock")
}

impl Replica {
    /// The process that has the replica in `state_dir` open, as far as it can be told.
    pub fn holder(state_dir: &Path) -> Option<u32> {
        let mut lock = File::open(lock_path(state_dir)).ok()?;
        let free = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared);
        if free != Err(rustix::io::Errno::WOULDBLOCK) {
            return None;
        }
        let mut pid = String::new();
        lock.read_to_string(&mut pid).ok()?;
        pid.trim().parse().ok()
    }

    /// Whether there is a replica in `state_dir`.
    pub fn is_known(state_dir: &Path) -> bool {
        index_path(state_dir).exists()
    }

    /// Opens the replica as the daemon does.
    pub fn open(state_dir: &Path, now: Time) -> Result<Self> {
        Self::open_as(state_dir, Opening::new(now))
    }

    /// Opens the replica in `state_dir`, or makes one there with a root directory. Takes what a killed
    /// daemon had acknowledged out of its journals, and looks at the content of files it was writing.
    pub fn open_as(state_dir: &Path, opening: Opening) -> Result<Self> {
        Self::open_locked(Arc::new(take_directory(state_dir)?), state_dir, opening)
    }

    /// The same for who has the lock already.
    pub(super) fn open_locked(lock: Arc<Lock>, state_dir: &Path, opening: Opening) -> Result<Self> {
        let store = ContentStore::open(state_dir, opening.now)?;
        let index = index_path(state_dir);
        let (db, state) = load(state_dir)?;
        disk::sync_parent(&index)?;
        for node in state.pending.nodes().filter(|node| node.kind == Kind::File) {
            store.follow(node.id, node.data_changed, || None);
        }
        let shared = Arc::new(Shared {
            state_dir: state_dir.to_owned(),
            content: store,
            opens: Opens::default(),
            directs: Directs::default(),
            state: Mutex::new(state),
            work: Condvar::new(),
            tried: Condvar::new(),
        });
        let graves = recover::recover(&shared, opening.now, opening.boot)?;
        let unsynced = View::new(&shared.lock()).unsynced()?;
        let writer = Writer {
            shared: Arc::clone(&shared),
            db,
            graves,
            last_durable: Instant::now(),
            rows: 0,
            settling: Settling::new(unsynced),
            unfinished: None,
        };
        let seat = match opening.commits {
            Commits::Asked => Seat::Here(Box::new(writer)),
            Commits::Behind => {
                let thread = thread::Builder::new().name("index".into());
                Seat::Behind(thread.spawn(|| writer.run()).at(state_dir)?)
            }
        };
        let replica = Self {
            shared,
            writer: Mutex::new(seat),
            _lock: lock,
        };
        // From here on the disk knows that the home is open, whatever it forgets. A full one may not: then the
        // home is readable at least.
        if let Err(error) = replica.sync() {
            tracing::warn!(%error, "after a power loss, the next start may not know that there was one");
        }
        Ok(replica)
    }
}

/// Nobody else has the replica as long as this lives.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a command that another thread is starting has a copy of the descriptor for a moment.
        if let Err(error) = rustix::fs::flock(&self.0, FlockOperation::Unlock) {
            tracing::warn!(%error, "the state directory stays locked until this process ends");
        }
    }
}

/// Makes sure that the directory is there and ours, and locks it.
pub(super) fn take_directory(state_dir: &Path) -> Result<Lock> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(state_dir).at(state_dir)?;
    if fs::metadata(state_dir).at(state_dir)?.uid() != rustix::process::geteuid().as_raw() {
        return Err(ReplicaError::WrongOwner {
            dir: state_dir.to_owned(),
        });
    }
    let path = lock_path(state_dir);
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    let mut lock = options.open(&path).at(&path)?;
    if let Err(error) = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(ReplicaError::io(&path, error));
        }
        let mut pid = String::new();
        if lock.read_to_string(&mut pid).is_err() || pid.trim().is_empty() {
            pid = "?".into();
        }
        return Err(ReplicaError::InUse {
            dir: state_dir.to_owned(),
            pid: pid.trim().to_owned(),
        });
    }
    lock.set_len(0).at(&path)?;
    // On a full disk a lock without a number is good enough.
    match writeln!(lock, "{}", std::process::id()) {
        Err(e) if e.kind() != ErrorKind::StorageFull => Err(ReplicaError::io(&path, e)),
        _ => Ok(Lock(lock)),
    }
}

/// The database, and the state as it and the journals tell it, with a new journal.
pub(super) fn load(state_dir: &Path) -> Result<(Connection, State)> {
    let index = index_path(state_dir);
    let sql = |e| ReplicaError::sql(&index, e);
    let is_there = index.exists();
    if !is_there {
        refuse_loss(state_dir, "it is missing, and what belongs to it is there")?;
    }
    let (mut db, format) = schema::open_writer(&index)?;
    if format == 0 && is_there {
        refuse_loss(state_dir, "it is empty, and what belongs to it is there")?;
    }
    let applied = match format {
        0 => None,
        _ => table::get::<Counters>(&db, &Counter::AppliedJournal).map_err(sql)?,
    };
    // First: where they cannot be read, the version that wrote them still finds the index as it left it.
    let mut replayed = journal::replay(state_dir, applied.unwrap_or_default())?;
    schema::migrate(&mut db, format).map_err(sql)?;
    if replayed.broken {
        settle(state_dir, &mut db, &mut replayed)?;
    }
    let stored = table::get::<Counters>(&db, &Counter::ReservedNodes).map_err(sql)?;
    let reserved = replayed
        .changes
        .counter_put(Counter::ReservedNodes)
        .or(stored);
    let state = State {
        pending: replayed.changes,
        committing: Arc::default(),
        journal: Journal::create(state_dir, replayed.last + 1, replayed.last_len)?,
        stored: Stored::new(schema::open_reader(&index)?),
        index,
        next_node: Cell::new(reserved.unwrap_or_default().max(NodeId::FIRST_FREE.0)),
        // Even if nothing is pending, the last run's commits may not be durable.
        updates: 1,
        durable: 0,
        wanted: 0,
        requests: 0,
        failure: None,
        failures: 0,
        phase: Phase::Running,
    };
    Ok((db, state))
}

/// An index that is made anew would give numbers again that content bears.
fn refuse_loss(state_dir: &Path, detail: &str) -> Result<()> {
    if !ContentStore::at(state_dir).has_any()? && journal::numbers(state_dir)?.is_empty() {
        return Ok(());
    }
    Err(ReplicaError::Damaged {
        what: index_path(state_dir),
        detail: detail.to_owned(),
    })
}

/// Commits what could be replayed at once and drops the journals that could not: new ones must not follow
/// them, or the next start would take them for missing links, too.
fn settle(state_dir: &Path, db: &mut Connection, replayed: &mut Replayed) -> Result<()> {
    let changes = std::mem::take(&mut replayed.changes);
    writer::write(db, &changes, replayed.last, true)
        .map_err(|e| ReplicaError::sql(&index_path(state_dir), e))?;
    journal::remove_up_to(state_dir, replayed.last)?;
    replayed.changes = changes;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::index::tests::{NOW, killed, make, open};
    use super::super::rescue::rescue;
    use super::super::table::Changes;
    use super::*;
    use crate::tree::RelPath;

    fn refused(state_dir: &Path) -> ReplicaError {
        match Replica::open(state_dir, NOW) {
            Ok(_) => panic!("it opened"),
            Err(error) => error,
        }
    }

    #[test]
    fn a_new_replica_has_a_root_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("deep/state");
        assert!(!Replica::is_known(&state_dir));
        let replica = Replica::open(&state_dir, NOW).unwrap();
        assert!(Replica::is_known(&state_dir));
        assert_eq!(replica.counts().unwrap().dirs, 1);
        for entry in fs::read_dir(&state_dir).unwrap() {
            let found = entry.unwrap().metadata().unwrap();
            let owned = found.permissions().mode() & 0o077 == 0;
            assert!(
                owned || found.is_file(),
                "the directory itself keeps others out"
            );
        }
        let mode = fs::metadata(&state_dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_replica_in_use_says_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let own = std::process::id().to_string();
        assert!(matches!(refused(dir.path()), ReplicaError::InUse { pid, .. } if pid == own));
        assert_eq!(Replica::holder(dir.path()), Some(std::process::id()));
        drop(replica);
        assert_eq!(Replica::holder(dir.path()), None);
        open(&dir);
    }

    #[test]
    fn a_replica_is_free_once_it_is_closed_whoever_inherited_its_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let _inherited = replica._lock.0.try_clone().unwrap();
        drop(replica);
        open(&dir);
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(&dir));
        let index = index_path(dir.path());
        let db = Connection::open(&index).unwrap();
        db.pragma_update(None, "user_version", schema::FORMAT + 1)
            .unwrap();
        drop(db);
        let before = fs::read(&index).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, ReplicaError::TooNew { .. }), "{error}");
        assert_eq!(fs::read(&index).unwrap(), before);
    }

    #[test]
    fn what_another_version_acknowledged_is_refused_and_left_for_it_or_for_rescue() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let id = make(&replica, "unsent", |node| node.data_changed = true);
        let hint = RelPath::parse(b"unsent").unwrap();
        replica.content().open_unsent(id, &hint).unwrap();
        let copy = killed(&replica);
        let journal = copy.path().join("journal.9");
        let mut other = Journal::create(copy.path(), 9, 0).unwrap();
        other.append(&Changes::default()).unwrap();
        let mut bytes = fs::read(&journal).unwrap();
        bytes[3] = b'0';
        fs::write(&journal, &bytes).unwrap();
        for _ in 0..2 {
            let error = refused(copy.path());
            assert!(
                matches!(error, ReplicaError::OtherVersion { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("roamhome rescue"), "{error}");
        }
        assert_eq!(fs::read(&journal).unwrap(), bytes);
        let report = rescue(copy.path(), &copy.path().join("out")).unwrap();
        assert_eq!(report.files, 1, "{report:?}");
        let why = report.index_failure.unwrap();
        assert!(why.contains("another version"), "{why}");
    }

    #[test]
    fn a_damaged_index_points_to_rescue() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(&dir));
        fs::write(index_path(dir.path()), [b'x'; 9000]).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, ReplicaError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains("roamhome rescue"), "{error}");
    }
}
