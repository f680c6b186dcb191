//! How an engine is set up, and the door through which it gets a connection.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::remote::Remote;
use crate::replica::RoomLimits;
use crate::sync::{GuardLimits, Prefer};
use crate::tree::Time;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LinkError {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// Trying again would not help: a person has to act.
    pub needs_person: bool,
}

/// Makes connections; called again after each loss.
#[async_trait]
pub trait Connect: Send + Sync {
    /// Connects, authenticates and opens the home's directory.
    async fn connect(&self) -> Result<Remote, LinkError>;
}

/// How changed files are published over existing ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Publish {
    /// Link the old version into the backups, then rename over it: the name never vanishes.
    #[default]
    Link,
    /// Move the old version aside, then create: closes the last race with foreign programs at the price
    /// of a moment without the name.
    Aside,
}

/// How what is large is sent and fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Large {
    /// Transfers of at least so many bytes go on where they were cut off.
    pub resume_from: u64,
    /// Of files of at least so many bytes it is remembered what they consist of.
    pub delta_from: u64,
    /// The server copies what it has of a new version, if it can.
    pub delta: bool,
    /// The mean length of the pieces by which that is told, in bytes: a power of two, 256 at least.
    pub chunk: u32,
    /// After so many bytes the server is asked to make durable what it has of an upload.
    pub sync_every: u64,
    /// After so many bytes it is noted how far a download came.
    pub note_every: u64,
    /// Files of at least so many bytes are read by block.
    pub by_block_from: u64,
    /// The least length of a block, in bytes.
    pub block: u32,
}

impl Default for Large {
    fn default() -> Self {
        Self {
            resume_from: 8 << 20,
            delta_from: 1 << 20,
            delta: true,
            chunk: 32 << 10,
            sync_every: 32 << 20,
            note_every: 4 << 20,
            by_block_from: 8 << 20,
            block: 128 << 10,
        }
    }
}

/// Everything that may differ between engines.
#[derive(Clone)]
pub struct EngineOptions {
    /// This machine's name, for people on the others.
    pub host: String,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> Time + Send + Sync>,
    /// Numbers that differ between machines and starts; nobody has to be kept from guessing them.
    pub random: Arc<dyn Fn() -> io::Result<u64> + Send + Sync>,
    /// Longest wait for a link that is coming up, and then for a server that says nothing.
    pub fetch_timeout: Duration,
    /// A file is written back when it was left alone for so long.
    pub quiet_period: Duration,
    /// A file held open for writing longer than this is written back as a snapshot.
    pub max_dirty_age: Duration,
    /// A full pass runs at least so often.
    pub reconcile_interval: Duration,
    /// Trash and backups older than this are removed.
    pub retention: Duration,
    /// The oldest of them are removed when they take more bytes than this, on each side.
    pub retention_size: u64,
    /// So many versions of one file are kept at most, on each side.
    pub kept_per_file: usize,
    /// Decides conflicts whose times overlap.
    pub prefer: Prefer,
    /// Keep what a write-back replaced as a backup, too.
    pub keep_replaced: bool,
    /// How changed files are published.
    pub publish: Publish,
    /// Ask the server to fsync each upload.
    pub server_fsync: bool,
    /// How what is large is sent and fetched.
    pub large: Large,
    /// Uploads and downloads at once.
    pub transfers_at_once: usize,
    /// Directory listings at once.
    pub listings_at_once: usize,
    /// How much room content may take on this machine's disk.
    pub room: RoomLimits,
    /// When a pass must ask first.
    pub guard: GuardLimits,
    /// For how long after the mount it is remembered for the next login what programs read, and whether what was
    /// remembered is fetched; `None`: neither.
    pub boost: Option<Duration>,
    /// Owner of what the server brings.
    pub uid: u32,
    /// Group of what the server brings.
    pub gid: u32,
    /// Only dry runs are made, and nothing is written to the server: no passes by themselves, and not even what makes
    /// a directory a home. Its replica is thrown away afterwards.
    pub only_look: bool,
}

impl EngineOptions {
    /// The defaults of the configuration, with this clock and owner, and without a boost: there is no login.
    pub fn new(now: Arc<dyn Fn() -> Time + Send + Sync>, uid: u32, gid: u32) -> Self {
        Self {
            host: "another machine".to_owned(),
            now,
            random: Arc::new(|| Ok(getrandom::u64()?)),
            fetch_timeout: Duration::from_secs(30),
            quiet_period: Duration::from_secs(1),
            max_dirty_age: Duration::from_secs(30),
            reconcile_interval: Duration::from_secs(300),
            retention: Duration::from_secs(30 * 86_400),
            retention_size: 10 << 30,
            kept_per_file: 20,
            prefer: Prefer::default(),
            keep_replaced: false,
            publish: Publish::default(),
            server_fsync: true,
            large: Large::default(),
            transfers_at_once: 768,
            listings_at_once: 192,
            room: RoomLimits::default(),
            guard: GuardLimits::default(),
            boost: None,
            uid,
            gid,
            only_look: false,
        }
    }
}
