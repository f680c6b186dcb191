//! The rows of the index, as values.

use serde::{Deserialize, Serialize};

use crate::tree::{Hash, Kind, NodeId, Place, RelPath, Time, Version};

/// How much of a file's content is in the content store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Content {
    /// Nothing: a placeholder.
    Absent,
    /// Some blocks. Never written: a part is told by its files alone.
    Partial,
    /// Everything. An empty file needs no content file.
    Whole,
}

/// A node of the local tree, as `stat` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its identity and inode number.
    pub id: NodeId,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, 07777.
    pub mode: u32,
    /// Owner, on this machine only.
    pub uid: u32,
    /// Group, on this machine only.
    pub gid: u32,
    /// Bytes of content; a symlink's target length; 0 for others.
    pub size: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Number of places that name it; for directories 2 plus the number of sub-directories.
    pub nlink: u32,
    /// Where a symlink points; empty otherwise.
    pub target: Vec<u8>,
    /// For files.
    pub content: Content,
    /// Content was written since base was folded.
    pub data_changed: bool,
    /// Counts every change of content; an upload that saw it change sent a torn file.
    pub data_seq: u64,
    /// The content's hash as of the last agreement; `None` if unknown or `data_changed`.
    pub hash: Option<Hash>,
    /// For directories: whether the server's entries were ever listed (true for those made here).
    pub listed: bool,
    /// Never sent to the server.
    pub scoped: bool,
}

impl Node {
    /// Whether this is a file with content that the server should get and does not have.
    pub fn is_unsent(&self) -> bool {
        self.kind == Kind::File && self.data_changed && !self.scoped && self.nlink > 0
    }

    /// Whether this is a file with content that the server has too.
    pub(super) fn has_sent_content(&self) -> bool {
        let whole = self.content == Content::Whole && self.size > 0;
        self.kind == Kind::File && whole && !self.data_changed
    }

    /// Whether nothing tells the content of the one from the other's, both of which the server has.
    pub(super) fn has_same_content(&self, other: &Self) -> bool {
        let told = |node: &Self| (node.size, node.hash, node.data_seq);
        self.has_sent_content() && other.has_sent_content() && told(self) == told(other)
    }

    /// Whether this is a file with something in it that is on the server, too.
    pub fn is_the_servers(&self) -> bool {
        self.kind == Kind::File && !self.data_changed && !self.scoped && self.size > 0
    }

    /// What became of the content since it had `seq`.
    pub fn since(&self, seq: u64) -> Since {
        match self.data_seq.saturating_sub(seq) {
            0 => Since::Same,
            more if more % TORN == 0 => Since::Torn,
            more if more > TORN => Since::TornAndWritten,
            _ => Since::Written,
        }
    }

    /// Its mtime as a server can show it: whole seconds in 32 bits (draft-ietf-secsh-filexfer-02, section 5).
    pub fn server_mtime(&self) -> i64 {
        self.mtime.secs().clamp(0, u32::MAX.into())
    }

    /// The state that a server could show of this node.
    pub fn version(&self) -> Version {
        match self.kind {
            Kind::File => Version {
                hash: self.hash,
                ..Version::file(self.size, self.server_mtime(), self.mode)
            },
            Kind::Dir => Version::dir(self.mode),
            Kind::Symlink => Version::symlink(self.target.clone()),
            kind => Version {
                kind,
                ..Version::dir(self.mode)
            },
        }
    }
}

/// What was last seen on the server at a place, kept where it differs from base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// `None`: nothing was there.
    pub version: Option<Version>,
    /// When, in server time.
    pub seen_at: Time,
}

/// What this machine is about to make of a place on the server: written before the request that does it, gone
/// once its outcome is known. Without it, work of our own whose answer was lost would look like another machine's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The node that is to stand there.
    pub node: NodeId,
    /// Its `data_seq` then.
    pub data_seq: u64,
    /// Names the file in staging that gets the place's name, if there is one.
    pub number: u64,
    /// What the place will show.
    pub version: Version,
    /// Where it is renamed from, if it is on the server already.
    pub from: Option<Place>,
}

/// Content kept on this machine: what a remote update replaced or a conflict lost here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalBackup {
    /// Where the file stood.
    pub path: RelPath,
    /// What it was.
    pub version: Version,
    /// When it was put aside, local time.
    pub at: Time,
    /// Why, for people.
    pub why: String,
    /// The number that names its content file in `backups/`.
    pub id: u64,
    /// It holds the only copy of something a user wrote: not evictable before its retention ends.
    pub unsent: bool,
}

/// What a step of a pass did to a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DeedKind {
    /// Something stands there that did not.
    Created,
    /// Another version stands there.
    Replaced,
    /// Nothing stands there any more.
    Removed,
    /// It came there from another place.
    Moved,
    /// Mode or time are others.
    Attributes,
    /// The pass did more than is remembered; the last one.
    More,
}

/// One thing that a pass did, here or on the server, with what it takes to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// When, local time.
    pub at: Time,
    /// On the server, or here.
    pub on_server: bool,
    /// What was done.
    pub kind: DeedKind,
    /// Where.
    pub path: RelPath,
    /// Of what moved, from where; else the root.
    pub from: RelPath,
    /// What stood there before, or at `from`.
    pub before: Option<Version>,
    /// What stands there since.
    pub after: Option<Version>,
    /// The id under which what stood there is kept; empty if it is not.
    pub kept: String,
}

/// Something that a person should know, about one place, shown until solved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where.
    pub path: RelPath,
    /// What, and the remedy.
    pub message: String,
    /// Since when.
    pub since: Time,
}

/// By so much `data_seq` jumps where a power loss took content that was being sent: more than programs write.
pub(super) const TORN: u64 = 1 << 40;

/// What became of content in the meantime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Nothing.
    Same,
    /// Programs wrote to it.
    Written,
    /// A power loss left less of it.
    Torn,
    /// Programs wrote to what a power loss had left of it.
    TornAndWritten,
}

/// Numbers kept beside the rows, so that nothing has to be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) enum Counter {
    /// Every `NodeId` below this may have been given.
    ReservedNodes,
    /// Every backup id below this was given.
    Backups,
    /// Journals up to this number are in the database.
    AppliedJournal,
    /// All nodes that have a name.
    Nodes,
    /// Regular files that have one.
    Files,
    /// Directories that have one.
    Dirs,
    /// Files that travel and whose content the server does not have.
    UnsentFiles,
    /// The sizes of those.
    UnsentBytes,
    /// The sizes of all whole files.
    ContentBytes,
    /// Rows of the dirty table.
    DirtyPlaces,
    /// Passes that were begun.
    Passes,
    /// Commits that survive power loss.
    DurableCommits,
}

impl Counter {
    /// All of them.
    pub(super) const ALL: [Self; 12] = [
        Self::ReservedNodes,
        Self::Backups,
        Self::AppliedJournal,
        Self::Nodes,
        Self::Files,
        Self::Dirs,
        Self::UnsentFiles,
        Self::UnsentBytes,
        Self::ContentBytes,
        Self::DirtyPlaces,
        Self::Passes,
        Self::DurableCommits,
    ];

    /// The name in the database.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ReservedNodes => "reserved_nodes",
            Self::Backups => "backups",
            Self::AppliedJournal => "applied_journal",
            Self::Nodes => "nodes",
            Self::Files => "files",
            Self::Dirs => "dirs",
            Self::UnsentFiles => "unsent_files",
            Self::UnsentBytes => "unsent_bytes",
            Self::ContentBytes => "content_bytes",
            Self::DirtyPlaces => "dirty_places",
            Self::Passes => "passes",
            Self::DurableCommits => "durable_commits",
        }
    }

    /// What `node` adds to each counter that sums over nodes.
    pub(super) fn shares(node: Option<&Node>) -> [(Self, u64); 6] {
        let count = |holds: fn(&Node) -> bool| u64::from(node.is_some_and(holds));
        let size = node.map_or(0, |node| node.size);
        let unsent = count(Node::is_unsent);
        let whole = count(|node| node.kind == Kind::File && node.content == Content::Whole);
        [
            (Self::Nodes, count(|node| node.nlink > 0)),
            (
                Self::Files,
                count(|node| node.kind == Kind::File && node.nlink > 0),
            ),
            (
                Self::Dirs,
                count(|node| node.kind == Kind::Dir && node.nlink > 0),
            ),
            (Self::UnsentFiles, unsent),
            (Self::UnsentBytes, unsent * size),
            (Self::ContentBytes, whole * size),
        ]
    }
}

/// How much there is, for people.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Everything in the local tree.
    pub nodes: u64,
    /// Regular files.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Files whose content the server does not have.
    pub unsent_files: u64,
    /// The sizes of those.
    pub unsent_bytes: u64,
    /// The sizes of all files whose content is here.
    pub content_bytes: u64,
    /// Places that differ from what was last agreed on, in content or otherwise.
    pub dirty_places: u64,
}
