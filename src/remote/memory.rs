//! A server in memory that behaves like OpenSSH's, for tests: generic failures, whole seconds, renames by link,
//! handles that outlive what they were opened as. A foreign writer may change it behind everybody's back, and
//! any request can be made to fail, to hang or to be the last one.
//!
//! Each request takes effect when its future is first polled, so the same polls give the same server.

mod disk;
mod errno;
mod handles;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use self::disk::Disk;
use self::errno::Errno;
use self::session::MemorySession;
use super::wire::Status;
use super::{ErrorKind, Features, Remote, RemoteError, Session, SetStat, Stat};
use crate::tree::{Kind, RelPath, Time};

/// What is to go wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// The request has no effect and fails like this.
    Fail(ErrorKind),
    /// All connections break; the request has no effect.
    CutBefore,
    /// The request has its effect, then all connections break, so that nobody hears of it.
    CutAfter,
}

/// The state of a server, to be put back later.
#[derive(Debug, Clone)]
pub struct Snapshot(Disk);

/// A file, directory or link as the foreign writer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its attributes.
    pub stat: Stat,
    /// Content of a file, target of a link.
    pub data: Vec<u8>,
}

/// The server; clones are the same one.
#[derive(Clone)]
pub struct MemoryServer {
    shared: Arc<Mutex<Shared>>,
    /// Whether replies are held back.
    held: watch::Sender<bool>,
}

struct Shared {
    disk: Disk,
    clock: Box<dyn Fn() -> Time + Send>,
    features: Features,
    round_trip: Duration,
    handles: HashMap<u64, Open>,
    next_id: u64,
    sessions: BTreeMap<u64, watch::Sender<bool>>,
    requests: u64,
    calls: BTreeMap<&'static str, u64>,
    trips: BTreeMap<u64, Trip>,
    refusals: BTreeMap<RelPath, ErrorKind>,
}

struct Open {
    session: u64,
    inode: u64,
    write: bool,
}

impl MemoryServer {
    /// An empty home on a server whose clock is `clock`.
    pub fn new(clock: impl Fn() -> Time + Send + 'static) -> Self {
        let shared = Shared {
            disk: Disk::new(clock().secs()),
            clock: Box::new(clock),
            features: Features {
                posix_rename: true,
                hardlink: true,
                fsync: true,
                lsetstat: true,
                statvfs: true,
                copy_data: true,
                max_read: super::wire::MAX_DATA,
                max_write: super::wire::MAX_DATA,
            },
            round_trip: Duration::ZERO,
            handles: HashMap::new(),
            next_id: 0,
            sessions: BTreeMap::new(),
            requests: 0,
            calls: BTreeMap::new(),
            trips: BTreeMap::new(),
            refusals: BTreeMap::new(),
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            held: watch::Sender::new(false),
        }
    }

    /// A new session.
    pub fn session(&self) -> Arc<dyn Session> {
        let mut shared = self.lock();
        let id = shared.take_id();
        let ended = watch::Sender::new(false);
        shared.sessions.insert(id, ended.clone());
        let features = shared.features;
        Arc::new(MemorySession::new(self.clone(), id, ended, features))
    }

    /// A connection of one interactive and `bulk` more sessions.
    pub fn remote(&self, bulk: usize) -> Remote {
        let rest = (0..bulk).map(|_| self.session()).collect();
        Remote::new(self.session(), rest, ())
    }

    /// Changes what later sessions are offered.
    pub fn set_features(&self, change: impl FnOnce(&mut Features)) {
        change(&mut self.lock().features);
    }

    /// Lets every reply take this long, in tokio's time.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.lock().round_trip = round_trip;
    }

    /// Bytes that fit on the disk.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().disk.capacity = bytes;
    }

    /// Whether the server refuses all changes made over sessions.
    pub fn set_read_only(&self, read_only: bool) {
        self.lock().disk.read_only = read_only;
    }

    /// Lets the request after `skip` more go wrong.
    pub fn trip(&self, skip: u64, trip: Trip) {
        let mut shared = self.lock();
        let number = shared.requests + skip;
        shared.trips.insert(number, trip);
    }

    /// Lets every request about `path` fail, until `None`.
    pub fn refuse(&self, path: &RelPath, kind: Option<ErrorKind>) {
        let refusals = &mut self.lock().refusals;
        match kind {
            Some(kind) => refusals.insert(path.clone(), kind),
            None => refusals.remove(path),
        };
    }

    /// Holds all replies back, or lets them go. Held requests have had their effect.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        self.lock().cut();
    }

    /// How many packets were asked so far, by verb; a listing counts as OpenSSH would have been asked.
    pub fn calls(&self) -> BTreeMap<&'static str, u64> {
        self.lock().calls.clone()
    }

    /// How many requests were made so far, as [`MemoryServer::trip`] counts them.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// Files that sessions hold open.
    pub fn open_files(&self) -> usize {
        self.lock().handles.len()
    }

    /// The whole state, for [`MemoryServer::restore`].
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().disk.clone())
    }

    /// Goes back to an earlier state, breaking all connections.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut shared = self.lock();
        shared.cut();
        shared.disk = snapshot.0.clone();
        shared.disk.forget_opens();
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The foreign writer: changes that no session made. Errors are those a local program would get.
impl MemoryServer {
    /// Writes a whole file in place, making it and its directories.
    pub fn write_file(&self, path: &RelPath, data: &[u8]) -> Result<(), RemoteError> {
        self.make_parents(path)?;
        self.meddle("write", path, |disk, now| {
            let id = match disk.lookup(path, true) {
                Err(Errno::NoEnt) => disk.create_file(path, 0o644, now)?,
                found => found?,
            };
            let empty = SetStat {
                size: Some(0),
                ..SetStat::default()
            };
            disk.set(id, empty, now)?;
            disk.write(id, 0, data, now)
        })
    }

    /// Makes a directory and all above it.
    pub fn make_dir(&self, path: &RelPath) -> Result<(), RemoteError> {
        self.make_parents(path)?;
        self.meddle("mkdir", path, |disk, now| {
            match disk.mkdir(path, 0o755, now) {
                Err(Errno::Exist) => Ok(()),
                done => done,
            }
        })
    }

    fn make_parents(&self, path: &RelPath) -> Result<(), RemoteError> {
        match path.names().split_last() {
            Some((_, above)) if !above.is_empty() => {
                self.make_dir(&above.iter().cloned().collect())
            }
            _ => Ok(()),
        }
    }

    /// Makes a link.
    pub fn make_symlink(&self, path: &RelPath, target: &[u8]) -> Result<(), RemoteError> {
        self.make_parents(path)?;
        self.meddle("symlink", path, |disk, now| disk.symlink(path, target, now))
    }

    /// The content of a file.
    pub fn read_file(&self, path: &RelPath) -> Result<Vec<u8>, RemoteError> {
        self.meddle("read", path, |disk, _| {
            let id = disk.lookup(path, true)?;
            disk.read(id, 0, usize::MAX).map(|data| data.to_vec())
        })
    }

    /// Attributes, not following a link at the end.
    pub fn stat(&self, path: &RelPath) -> Result<Stat, RemoteError> {
        self.meddle("stat", path, |disk, _| disk.stat(disk.lookup(path, false)?))
    }

    /// Changes attributes.
    pub fn set_stat(&self, path: &RelPath, set: SetStat) -> Result<(), RemoteError> {
        self.meddle("setstat", path, |disk, now| {
            disk.set(disk.lookup(path, true)?, set, now)
        })
    }

    /// Removes a file, a link or a directory with all in it.
    pub fn remove(&self, path: &RelPath) -> Result<(), RemoteError> {
        if self.stat(path)?.kind != Kind::Dir {
            return self.meddle("unlink", path, |disk, now| disk.unlink(path, now));
        }
        let entries = self.meddle("list", path, |disk, _| disk.list(disk.lookup(path, false)?))?;
        for (name, _) in entries {
            self.remove(&path.join(&name))?;
        }
        match path.is_root() {
            true => Ok(()),
            false => self.meddle("rmdir", path, |disk, now| disk.rmdir(path, now)),
        }
    }

    /// `rename(2)`: replaces `to`.
    pub fn rename(&self, from: &RelPath, to: &RelPath) -> Result<(), RemoteError> {
        self.make_parents(to)?;
        self.meddle("rename", from, |disk, now| disk.rename(from, to, now))
    }

    /// All there is below the root, without the root.
    pub fn tree(&self) -> BTreeMap<RelPath, Item> {
        let mut items = BTreeMap::new();
        let disk = &self.lock().disk;
        collect(disk, &RelPath::root(), &mut items);
        items
    }

    fn meddle<T>(
        &self,
        op: &'static str,
        path: &RelPath,
        act: impl FnOnce(&mut Disk, i64) -> Result<T, Errno>,
    ) -> Result<T, RemoteError> {
        let mut shared = self.lock();
        let now = (shared.clock)().secs();
        let read_only = std::mem::take(&mut shared.disk.read_only);
        let done = act(&mut shared.disk, now);
        shared.disk.read_only = read_only;
        done.map_err(|errno| refused(errno, op, path))
    }
}

fn collect(disk: &Disk, dir: &RelPath, items: &mut BTreeMap<RelPath, Item>) {
    let entries = disk.lookup(dir, false).and_then(|id| disk.list(id));
    for (name, stat) in entries.unwrap_or_default() {
        let path = dir.join(&name);
        let data = match stat.kind {
            Kind::Symlink => disk.readlink(&path).unwrap_or_default(),
            Kind::File => {
                let content = disk.lookup(&path, false);
                let content = content.and_then(|id| disk.read(id, 0, usize::MAX));
                content.map_or_else(|_| Vec::new(), |data| data.to_vec())
            }
            _ => Vec::new(),
        };
        if stat.kind == Kind::Dir {
            collect(disk, &path, items);
        }
        items.insert(path, Item { stat, data });
    }
}

fn refused(errno: Errno, op: &'static str, path: &RelPath) -> RemoteError {
    super::status::error(Status::from(errno), b"", op, path)
}

impl Shared {
    fn take_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn cut(&mut self) {
        for session in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.end_session(session);
        }
    }

    fn end_session(&mut self, session: u64) {
        if let Some(ended) = self.sessions.remove(&session) {
            ended.send_replace(true);
        }
        let of_session = self.handles.extract_if(|_, open| open.session == session);
        let inodes: Vec<u64> = of_session.map(|(_, open)| open.inode).collect();
        inodes
            .into_iter()
            .for_each(|inode| self.disk.release(inode));
    }
}

#[cfg(test)]
mod tests;
