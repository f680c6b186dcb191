//! What the planner reads and what it answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::tree::{BaseEntry, NodeId, Place, Version};

/// What the mount shows at a place. Host-scoped nodes are not shown to the planner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalEntry {
    /// The node there.
    pub node: NodeId,
    /// Kind, size, mtime in seconds, mode, target; the hash where known.
    pub version: Version,
    /// Whether content was written since the base was folded. Meaningless for directories. With hard links
    /// it may be cleared once the first link is published: size, mtime and hash tell for the others.
    pub data_changed: bool,
    /// Whether all content is in the content store, so that it could be uploaded.
    pub whole: bool,
    /// Whether a program has it open for writing, so that a remote change has to wait.
    pub busy: bool,
    /// For directories: whether something host-scoped lies inside, so that it must stay.
    pub holds_scoped: bool,
}

/// One place that may differ, with its three states.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Triple {
    /// The merge ancestor; `None` if replica and server never agreed on anything there.
    pub base: Option<BaseEntry>,
    /// The replica's state.
    pub local: Option<LocalEntry>,
    /// The server's state as last observed (equal to `base` where nothing else was observed).
    pub remote: Option<Version>,
}

/// Where a directory stands in the two trees that have nodes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DirState {
    /// Its place in the base tree, which is also where it lies on the server; `None` if not there.
    pub base: Option<Place>,
    /// Its place in the local tree; `None` if it was removed.
    pub local: Option<Place>,
}

/// All that one planning needs.
///
/// Closed by the caller: `dirs` holds every directory that is a place's parent, and their parents up to the
/// root, in both trees; where a directory is gone on one side, all its children on the other are triples
/// too; where a node of a triple stands elsewhere in base or local, that place is a triple too. Places whose
/// parent is [`NodeId::STAGING`] (moves cut short) are places like others; that directory belongs to this
/// replica alone, and whatever it shows there under a name that a `Move` gave is a triple, with or without base, and so
/// are the places of the node that the name tells ([`staged_node`](super::staged_node)). It is listed before any plan that follows a `Move` of which nobody heard how it ended.
#[derive(Debug, Clone, Default)]
pub struct Input {
    /// The places that may differ.
    pub triples: BTreeMap<Place, Triple>,
    /// The directories involved. The root maps to a state with both `None`.
    pub dirs: BTreeMap<NodeId, DirState>,
    /// The triples that belong to a database with companions, or to one in use, each with the database's place:
    /// itself, its log and its journal.
    pub databases: BTreeMap<Place, Place>,
}

/// This machine's clock against the server's: `server = local + offset_ns`, give or take `error_ns`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClockOffset {
    /// To be added to a local time, in nanoseconds.
    pub offset_ns: i64,
    /// Half the width of the interval in which the offset surely lies, in nanoseconds.
    pub error_ns: i64,
}

/// Which side wins where time does not decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    /// This machine.
    #[default]
    Local,
    /// The server.
    Remote,
}

/// The rules that a user may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Policy {
    /// Decides conflicts whose times overlap.
    pub prefer: Prefer,
    /// Corrects local times in conflicts.
    pub clock: ClockOffset,
}

/// What becomes of a version that makes room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keep {
    /// It was our base and its user replaced it: policy may forget it.
    Replaced,
    /// It lost a conflict: it is a backup until its retention ends.
    Backup,
    /// It was deleted on purpose: it goes to the trash.
    Trash,
}

/// Why a step is planned; shown by `--dry-run` and in the journal of passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Only this machine changed it.
    LocalChange,
    /// Only the server changed it.
    RemoteChange,
    /// Both changed it to the same.
    BothAgree,
    /// Both changed it, and this machine's version is newer or preferred.
    ConflictLocalWins,
    /// Both changed it, and the server's version is newer or preferred.
    ConflictRemoteWins,
    /// One side removed it, the other changed it: the change stays.
    ChangeBeatsRemoval,
    /// A directory and something else met under one name: the directory stays.
    DirectoryStays,
}

/// One thing to do. "On the server" steps name what they expect to find there; finding anything else is a
/// new observation, never an overwrite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// On the server: rename what stands at `from` (in the base tree) to the step's place. `replaces` is the
    /// version that may stand there and is replaced; `None` means that nothing may.
    /// Not to be tried unless the base tree still has the node at `from`: an earlier move may have failed.
    Move {
        /// The node that moves.
        node: NodeId,
        /// Where it stands on the server now.
        from: Place,
        /// What is expected at `from`.
        expected: Version,
        /// What the rename replaces.
        replaces: Option<Version>,
        /// Whether others would take it for what stands there, or stood there when the plan began.
        alike: bool,
    },
    /// On neither: what stood at `from` in the base tree is gone there and stands at the step's place on the
    /// server, as if moved: an earlier `Move` whose answer was lost, or the same move by somebody else.
    Moved {
        /// The node of the base tree.
        node: NodeId,
        /// Its place in the base tree.
        from: Place,
        /// What the server has at `from` now.
        left: Option<Version>,
        /// What the server has at the step's place.
        version: Version,
    },
    /// On the replica only: the directory's move is obstructed, so its children move one by one. The base
    /// tree gets a stand-in directory at `from` that holds the old base children.
    Split {
        /// The local directory.
        node: NodeId,
        /// Its place in the base tree.
        from: Place,
    },
    /// On the replica only: the directory was removed and another one stands in its place, while the server
    /// still has one. What the base tree and the observations hold in `from` belongs to `node` from now on.
    Unite {
        /// The directory that the base tree has at the place.
        from: NodeId,
        /// The local directory.
        node: NodeId,
    },
    /// On the server: make the directory.
    MakeDir {
        /// The local directory.
        node: NodeId,
    },
    /// On the server: send a file or symlink. `replaces` is the version expected there.
    Publish {
        /// The local node.
        node: NodeId,
        /// `None`: create, and fail if anything is there.
        replaces: Option<Version>,
        /// What becomes of the replaced version.
        keep: Keep,
    },
    /// On the server: set mode and mtime of what is there as `expected`.
    SetAttr {
        /// The local node.
        node: NodeId,
        /// The version whose attributes change.
        expected: Version,
    },
    /// On the server: move a file or symlink aside.
    Remove {
        /// What is expected there.
        expected: Version,
        /// Where it goes.
        keep: Keep,
    },
    /// On the server: remove the directory if it is empty.
    RemoveDir,
    /// On the replica: take over something new from the server. Content comes later, on demand.
    Adopt {
        /// What the server has.
        version: Version,
        /// The base tree's directory that was removed here and comes back under its old identity, since
        /// something in it stays; `None`: a new node.
        revive: Option<NodeId>,
    },
    /// On the replica: the server's version replaces the node's content and attributes.
    Refresh {
        /// The local node.
        node: NodeId,
        /// What the server has.
        version: Version,
        /// `Backup` if unsent changes lose a conflict.
        keep: Keep,
    },
    /// On the replica: take over mode and mtime only.
    TakeAttrs {
        /// The local node.
        node: NodeId,
        /// What the server has.
        version: Version,
    },
    /// On the replica: remove a file or symlink.
    Drop {
        /// The local node.
        node: NodeId,
        /// What becomes of its content.
        keep: Keep,
    },
    /// On the replica: remove the directory if it is empty.
    DropDir {
        /// The local directory.
        node: NodeId,
    },
    /// On neither: both sides are equal, and base takes note. `None`: the place is empty on both sides.
    Agree {
        /// The common state.
        entry: Option<BaseEntry>,
    },
    /// Both changed to files of equal size: fetch the server's content and compare; equal is `Agree`, else
    /// the step in `otherwise`.
    Compare {
        /// The local node.
        node: NodeId,
        /// What the server has.
        version: Version,
        /// What to do when they differ.
        otherwise: Box<Step>,
    },
}

impl Action {
    /// Whether it changes the server, and so checks there what it expects.
    pub fn is_on_server(&self) -> bool {
        matches!(
            self,
            Self::Move { .. }
                | Self::MakeDir { .. }
                | Self::Publish { .. }
                | Self::SetAttr { .. }
                | Self::Remove { .. }
                | Self::RemoveDir
        )
    }
}

/// An action, where, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The place. On the server it is found by way of the base tree as the steps before have left it. A step
    /// whose directory is not in the base tree (an earlier one failed) is not to be tried, unless it only
    /// removes something from the replica.
    pub place: Place,
    /// What to do.
    pub action: Action,
    /// For people.
    pub why: Why,
}

/// Steps that do not depend on each other: any order, any number at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Phase {
    /// Ordered by place.
    pub steps: Vec<Step>,
}

/// What a pass will do. A phase starts when the one before has ended. Steps whose precondition an earlier
/// failure broke fail by themselves; the next pass plans again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// In order.
    pub phases: Vec<Phase>,
    /// Places that wait for a program to close its file.
    pub waiting: Vec<Place>,
    /// Files whose content must be fetched from their place in the base tree before anything can be planned
    /// for them: only the server has it, and what is to be done would remove it there.
    pub needs_content: Vec<NodeId>,
    /// Places where the server holds something that cannot be carried, such as a device, in the way.
    pub obstructed: Vec<Place>,
}

impl Plan {
    /// Whether there is nothing to do now.
    pub fn is_empty(&self) -> bool {
        self.phases.is_empty()
    }

    /// All steps in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.phases.iter().flat_map(|phase| &phase.steps)
    }
}
