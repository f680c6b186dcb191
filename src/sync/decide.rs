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

use crate::tree::{BaseEntry, Kind, Place, Version};

mod case;

use super::change::{Change, local_change};
use super::{Action, LocalEntry, Policy, Triple, Why};
use case::Case;

mod newest;
mod question;

pub use newest::newest;
pub use question::{Context, Decision, Fate};

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
