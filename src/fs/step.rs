//! Operations that may need the network: they never wait for it.
//!
//! Such an operation changes nothing before it has all that it needs; if something lacks, it stops with a
//! [`Need`]. `Home::run` asks the engine for it and does the whole operation again when it is there, on the
//! engine's thread, so that no thread of the mount is ever held up.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use super::{FsError, Home};
use crate::engine::{FetchError, Wanted};
use crate::replica::ReplicaError;
use crate::tree::NodeId;

/// How often one operation may find that it needs something again: another machine could replace a file
/// just as often as it is fetched.
const MOST_ATTEMPTS: u32 = 16;

/// Something that is on the server only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// A file's content.
    Content(NodeId),
    /// A file's content, for a program that does not tell what others will want.
    ContentAlone(NodeId),
    /// The word of the server that a file that is read by block is what it was.
    Look(NodeId),
    /// Some bytes of a file that is read by block.
    Bytes(NodeId, Wanted),
    /// A directory's entries.
    Listing(NodeId),
    /// So many bytes on this machine's disk.
    Room(u64),
}

/// Why an operation stopped.
#[derive(Debug)]
pub enum Stop {
    /// To be done again when this is here.
    Needs(Need),
    /// It failed.
    Failed(FsError),
}

impl From<Need> for Stop {
    fn from(need: Need) -> Self {
        Self::Needs(need)
    }
}

impl From<FsError> for Stop {
    fn from(error: FsError) -> Self {
        Self::Failed(error)
    }
}

impl From<ReplicaError> for Stop {
    fn from(error: ReplicaError) -> Self {
        Self::Failed(error.into())
    }
}

impl Home {
    /// Does `operation`, fetching what it needs first, and then calls `done`: at once on this thread if
    /// nothing had to be fetched, else later on a thread of the engine. After a panic `done` is only dropped.
    pub fn run<T: 'static>(
        self: &Arc<Self>,
        operation: impl Fn(&Self) -> Result<T, Stop> + Send + 'static,
        done: impl FnOnce(Result<T, FsError>) + Send + 'static,
    ) {
        attempt(Arc::clone(self), operation, done, MOST_ATTEMPTS);
    }
}

fn attempt<T: 'static>(
    home: Arc<Home>,
    operation: impl Fn(&Home) -> Result<T, Stop> + Send + 'static,
    done: impl FnOnce(Result<T, FsError>) + Send + 'static,
    attempts_left: u32,
) {
    contain(|| try_once(home, operation, done, attempts_left));
}

/// Does `f`. If that panics, the thread survives, and what `f` owned is dropped: for a reply to the kernel that
/// means EIO.
pub fn contain(f: impl FnOnce()) {
    // What operations share is whole at every moment: transactions take effect together, or not at all.
    if panic::catch_unwind(AssertUnwindSafe(f)).is_err() {
        tracing::error!("an operation panicked; whoever waits for it gets EIO");
    }
}

fn try_once<T: 'static>(
    home: Arc<Home>,
    operation: impl Fn(&Home) -> Result<T, Stop> + Send + 'static,
    done: impl FnOnce(Result<T, FsError>) + Send + 'static,
    attempts_left: u32,
) {
    let need = match operation(&home) {
        Ok(value) => return done(Ok(value)),
        Err(Stop::Failed(error)) => return done(Err(error)),
        Err(Stop::Needs(_)) if attempts_left == 0 => {
            return done(Err(FsError::Fetch(FetchError::Failed)));
        }
        Err(Stop::Needs(need)) => need,
    };
    let fetch = Arc::clone(&home.fetch);
    let is_for_room = matches!(need, Need::Room(_));
    let fetched = Box::new(move |outcome: Result<(), FetchError>| match outcome {
        Ok(()) => attempt(home, operation, done, attempts_left - 1),
        // There may be enough all the same; if not, the disk says so.
        Err(_) if is_for_room => {
            attempt(home, operation, done, attempts_left - 1);
        }
        Err(error) => done(Err(error.into())),
    });
    match need {
        Need::Content(node) => fetch.hydrate(node, fetched),
        Need::ContentAlone(node) => fetch.hydrate_alone(node, fetched),
        Need::Look(node) => fetch.look(node, fetched),
        Need::Bytes(node, wanted) => fetch.read(node, wanted, fetched),
        Need::Listing(dir) => fetch.list(dir, fetched),
        Need::Room(bytes) => fetch.make_room(bytes, fetched),
    }
}
