//! A server in memory that behaves like OpenSSH's, for tests: generic failures, whole seconds, renames by link,
//! handles that outlive what they were opened as. A foreign writer may change it behind everybody's back, and
//! any request can be made to fail, to hang or to be the last one.
//!
//! Each request takes effect when its future is first polled, so the same polls give the same server.

mod disk;
mod errno;
mod foreign;
mod handles;
mod latch;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::disk::Disk;
use self::latch::Latch;
use self::session::MemorySession;
use super::{ErrorKind, Features, Remote, Session, Stat};
use crate::tree::{RelPath, Time};

/// What is to go wrong, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trip {
    /// The request has no effect and fails like this.
    Fail(ErrorKind),
    /// All connections break; the request has no effect.
    CutBefore,
    /// The request has its effect, then all connections break, so that nobody hears of it.
    CutAfter,
    /// The request's session ends, as if its process was killed; the request has no effect.
    EndBefore,
    /// The request has its effect, then its session ends.
    EndAfter,
    /// The request has its effect, and nothing is heard in its session any more.
    Silence,
}

/// Asked before each request over a connection: `false` if whoever made the connection is dead.
pub type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

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
    held: Latch,
}

struct Shared {
    disk: Disk,
    clock: Box<dyn Fn() -> Time + Send>,
    features: Features,
    latency: Box<dyn FnMut() -> Duration + Send>,
    handles: HashMap<u64, Open>,
    next_id: u64,
    sessions: BTreeMap<u64, Latch>,
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
            latency: Box::new(|| Duration::ZERO),
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
            held: Latch::default(),
        }
    }

    /// A new session.
    pub fn session(&self) -> Arc<dyn Session> {
        self.session_through(Arc::new(|| true))
    }

    fn session_through(&self, gate: Gate) -> Arc<dyn Session> {
        let mut shared = self.lock();
        let id = shared.take_id();
        let ended = Latch::shut();
        shared.sessions.insert(id, ended.clone());
        let features = shared.features;
        Arc::new(MemorySession::new(self.clone(), id, ended, features, gate))
    }

    /// A connection of one interactive and `bulk` more sessions.
    pub fn remote(&self, bulk: usize) -> Remote {
        self.remote_through(bulk, &(Arc::new(|| true) as _))
    }

    /// The same for somebody who may die.
    pub fn remote_through(&self, bulk: usize, gate: &Gate) -> Remote {
        let session = || self.session_through(Arc::clone(gate));
        let rest = (0..bulk).map(|_| session()).collect();
        Remote::new(session(), rest, ())
    }

    /// Changes what later sessions are offered.
    pub fn set_features(&self, change: impl FnOnce(&mut Features)) {
        change(&mut self.lock().features);
    }

    /// Lets every reply take this long, in tokio's time.
    pub fn set_round_trip(&self, round_trip: Duration) {
        self.set_latency(move || round_trip);
    }

    /// Lets each reply take as long as `latency` says, in tokio's time.
    pub fn set_latency(&self, latency: impl FnMut() -> Duration + Send + 'static) {
        self.lock().latency = Box::new(latency);
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
        self.held.set_shut(held);
    }

    /// Lets the machine with the disk lose its power: all connections break, and content that was not synced is
    /// gone. The foreign writer syncs what it writes.
    pub fn crash(&self) {
        let mut shared = self.lock();
        shared.cut();
        shared.disk.lose_unsynced();
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

    /// Ends the session in which `trip` happened, or all of them.
    fn end_by(&mut self, trip: Trip, session: u64) {
        match trip {
            Trip::EndBefore | Trip::EndAfter => self.end_session(session),
            _ => self.cut(),
        }
    }

    fn end_session(&mut self, session: u64) {
        if let Some(ended) = self.sessions.remove(&session) {
            ended.set_shut(false);
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
