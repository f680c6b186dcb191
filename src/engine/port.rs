//! The two doors between the engine and the mount: what the mount asks of the engine (`Fetch`), and what the
//! engine tells the mount (`Events`).

use std::ops::Range;

use crate::replica::Node;
use crate::tree::{Name, NodeId};

/// Why something that is not cached could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No link to the server, or it said nothing for `fetch_timeout`.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The server no longer has it.
    #[error("it is no longer on the server")]
    Gone,
    /// The server has another version of it than the one that is being read.
    #[error("the server has another version of it")]
    Changed,
    /// The server does not permit reading it.
    #[error("the server does not permit reading it")]
    Forbidden,
    /// This machine's disk is full.
    #[error("this machine's disk is full")]
    NoSpace,
    /// Anything else, which the log tells.
    #[error("it could not be fetched")]
    Failed,
}

/// Called once with the outcome, from a thread of the engine.
pub type Done = Box<dyn FnOnce(Result<(), FetchError>) + Send>;

/// Room on the server, for `statfs`; sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Size of the server's file system.
    pub total_bytes: u64,
    /// Free there for this user.
    pub available_bytes: u64,
}

/// What somebody who reads a file by block needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The bytes that they wait for.
    pub bytes: Range<u64>,
    /// So many more behind them are likely to be next.
    pub ahead: u64,
    /// All of the file is likely to be next.
    pub rest: bool,
}

/// What the mount asks of the engine. No method blocks.
pub trait Fetch: Send + Sync {
    /// Brings all content of a file into the content store, then calls `done`. On success the node's
    /// `content` is `Whole`, or another node has taken its place.
    fn hydrate(&self, node: NodeId, done: Done);
    /// The same, and nothing else follows from it: who asks looks into every file there is.
    fn hydrate_alone(&self, node: NodeId, done: Done);
    /// Whether a file that is not here is read by block instead: who opens it to read waits for nothing.
    fn is_by_block(&self, node: &Node) -> bool;
    /// Whether the server was asked about such a file just now, or cannot be.
    fn is_current(&self, node: NodeId) -> bool;
    /// Asks the server whether it still has the version of such a file that is known, then calls `done`. If it has another
    /// one, another node has taken its place.
    fn look(&self, node: NodeId, done: Done);
    /// Brings some bytes of a file that is read by block into its part in the content store, then calls `done`. On
    /// success they are there, or all of it is, or another node has taken its place.
    fn read(&self, node: NodeId, wanted: Wanted, done: Done);
    /// Lists a directory that was never listed, then calls `done`; on success its node is `listed`.
    fn list(&self, dir: NodeId, done: Done);
    /// Whether it would be worth knowing that a program reads this file, as it is soon after the mount.
    fn is_news(&self, file: NodeId) -> bool;
    /// A program reads it.
    fn is_read(&self, file: NodeId);
    /// Something became dirty, or a file that kept a step waiting was closed.
    fn changed(&self);
    /// The server's room as last heard.
    fn space(&self) -> Option<Space>;
    /// About how many bytes of content would make room on this disk, as things stand.
    fn evictable(&self) -> u64;
    /// Whether content should make room before so many bytes are written.
    fn is_short_of_room(&self, bytes: u64) -> bool;
    /// Lets content go, if that makes room for so many bytes on this disk, then calls `done`. Fails with `NoSpace` at once
    /// if there is none that may go.
    fn make_room(&self, bytes: u64, done: Done);
}

/// What the engine tells the mount after it changed the replica. Called on the engine's threads; must not
/// block, so the mount passes it on to a thread of its own.
pub trait Events: Send + Sync {
    /// What the directory shows under `name` is no longer what the kernel may remember.
    fn entry_changed(&self, parent: NodeId, name: &Name);
    /// The node at `name` is gone; another may stand there by now.
    fn entry_removed(&self, parent: NodeId, name: &Name, node: NodeId);
    /// The node's attributes changed. Neither its content nor its size does: what the server has instead is another
    /// node, so that nothing has to be forgotten before somebody may read.
    fn node_changed(&self, node: NodeId);
}
