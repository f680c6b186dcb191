//! What becomes of one place: a total function of its three states.
//!
//! - Only one side changed: the other takes it over.
//! - Both changed to the same: agree. Both changed and differ: the newest wins, the loser is kept.
//! - Removed on one side, changed on the other: the change wins, and so does a mere change of attributes of a
//!   file, since keeping too much is the safe side. A removed directory whose attributes changed is removed.
//! - Directories merge, and a directory stays where something else wants its name.
//!
//! Nothing is decided that would remove the last copy of a content: what only the server has is first
//! fetched, and what a program is writing to waits.

use crate::tree::{BaseEntry, Kind, NodeId, Place, Version};

mod case;

use super::change::{Change, local_change};
use super::{Action, LocalEntry, Policy, Prefer, Triple, Why};
use case::Case;

/// What will be left of the inside of a directory that one side removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing.
    Gone,
    /// Not known before something else is done.
    Undecided,
    /// Something.
    Stays,
}

/// What a decision needs to know about the rest of the home.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// What will be left inside the directory that stands here in the base tree or locally.
    pub inside: Fate,
    /// Whether the local node has other places.
    pub shared: bool,
    /// Whether the server has the local node's content somewhere, so that it can be fetched.
    pub fetchable: bool,
    /// Whether the server's file here is the last copy of the content of a node that stands elsewhere.
    pub lent: bool,
}

/// What is to be done at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is settled.
    Settled,
    /// This.
    Act(Action, Why),
    /// Nothing now: it depends on something that this plan does first.
    Later,
    /// Nothing until the program that writes here closes the file.
    Busy,
    /// Nothing until this node's content was fetched.
    NeedsContent(NodeId),
    /// Nothing while the server holds something there that cannot be carried.
    Obstructed,
}

use Decision::{Act, Settled};

/// Decides about one place.
pub fn decide(place: &Place, triple: &Triple, context: &Context, policy: &Policy) -> Decision {
    let case = Case::new(place, triple, context, policy);
    match (&triple.local, &triple.remote) {
        (local, Some(remote)) if !remote.kind.travels() => {
            if local.is_none() && triple.base.is_none() {
                Settled
            } else {
                Decision::Obstructed
            }
        }
        (None, None) => match triple.base {
            None => Settled,
            Some(_) => Act(Action::Agree { entry: None }, Why::BothAgree),
        },
        (None, Some(remote)) => case.gone_here(remote),
        (Some(local), None) if is_dir(&local.version) => case.directory_gone_there(local),
        (Some(local), None) => case.leaf_gone_there(local),
        (Some(local), Some(remote)) => match (is_dir(&local.version), is_dir(remote)) {
            (true, true) => case.directories(local, remote),
            (true, false) => case.directory_here(local, remote),
            (false, true) => case.directory_there(local, remote),
            (false, false) => case.leaves(local, remote),
        },
    }
}

/// Which of two versions wins: the newer in server time, or the preferred where the clocks cannot tell.
pub fn newest(local: &Version, remote: &Version, policy: &Policy) -> Prefer {
    const SECOND: i128 = 1_000_000_000;
    if local.kind != Kind::File || remote.kind != Kind::File {
        return policy.prefer;
    }
    let local_start = i128::from(local.mtime) * SECOND + i128::from(policy.clock.offset_ns);
    let remote_start = i128::from(remote.mtime) * SECOND;
    let error = i128::from(policy.clock.error_ns);
    if local_start - error >= remote_start + SECOND {
        Prefer::Local
    } else if remote_start >= local_start + SECOND + error {
        Prefer::Remote
    } else {
        policy.prefer
    }
}

fn is_dir(version: &Version) -> bool {
    version.kind == Kind::Dir
}

/// Whether `local` shows the state that the server holds as `base`, so that its content can be fetched there.
pub(super) fn holds_content_of(base: &BaseEntry, local: &LocalEntry) -> bool {
    base.node == local.node
        && (local.data_changed || local_change(Some(base), Some(local)) != Change::Modified)
}

#[cfg(test)]
mod tests;
