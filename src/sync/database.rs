//! A database, its log and its journal have one fate: a log or journal of one side beside a database of the other
//! would spoil it.
//!
//! - Only one side changed anything: the other takes all of it over, once no program has any of it open.
//! - Both did: the side whose database is newer wins for all of them or, if not both changed the database itself,
//!   the side that changed any of them last. All that the loser has is kept.
//! - One side removed the database, the other changed any of them: the change wins.

use std::collections::BTreeMap;

use crate::tree::{BaseEntry, Kind, Place, Version};

use super::change::{Change, local_change, remote_change};
use super::{Action, Keep, LocalEntry, Policy, Prefer, Step, Triple, Why, newest};

/// What is decided about a place alone.
pub(super) type Acts = BTreeMap<Place, (Action, Why)>;

/// What becomes of the whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// What is decided about each place does not harm the others.
    Separate,
    /// Nothing until programs close what they have open.
    Waits,
    /// This, instead of what was decided about each.
    Together(Acts),
}

/// One of them, with what both sides did to it.
struct Member<'a> {
    place: &'a Place,
    base: Option<&'a BaseEntry>,
    local: Option<&'a LocalEntry>,
    remote: Option<&'a Version>,
    here: Change,
    there: Change,
}

impl<'a> Member<'a> {
    fn new(place: &'a Place, triple: &'a Triple) -> Self {
        let Triple {
            base,
            local,
            remote,
        } = triple;
        Self {
            place,
            base: base.as_ref(),
            local: local.as_ref(),
            remote: remote.as_ref(),
            here: local_change(base.as_ref(), local.as_ref()),
            there: remote_change(base.as_ref(), remote.as_ref()),
        }
    }

    fn is_file(&self) -> bool {
        let local = self.local.map(|local| local.version.kind);
        let kinds = [local, self.remote.map(|remote| remote.kind)];
        kinds.into_iter().flatten().all(|kind| kind == Kind::File)
    }
}

/// Decides about the places of one database, which is the first. `acts` is what was decided about each alone.
pub(super) fn judge(places: &[(&Place, &Triple)], acts: &Acts, policy: &Policy) -> Verdict {
    let members: Vec<_> = places.iter().map(|(p, t)| Member::new(p, t)).collect();
    let Some(main) = members.first() else {
        return Verdict::Separate;
    };
    let changed_here = members.iter().any(|one| one.here.brings_content());
    let changed_there = members.iter().any(|one| one.there.brings_content());
    let gone_there = main.there == Change::Removed;
    if !members.iter().all(Member::is_file) || !(changed_there || gone_there) {
        return Verdict::Separate;
    }
    let is_busy = |one: &Member| one.local.is_some_and(|local| local.busy);
    if members.iter().any(is_busy) {
        return Verdict::Waits;
    }
    if !changed_here {
        return Verdict::Separate;
    }
    let all_here = members.iter().filter_map(|one| one.local).all(|l| l.whole);
    let winner = match (all_here, gone_there) {
        (false, _) => Prefer::Remote,
        (true, true) => Prefer::Local,
        (true, false) => newer(&members, policy),
    };
    if gone_there && winner == Prefer::Remote {
        return Verdict::Separate;
    }
    let decided = members.iter().filter_map(|one| {
        let act = fate(one, winner, acts.get(one.place))?;
        Some((one.place.clone(), act))
    });
    Verdict::Together(decided.collect())
}

/// Which side has the newer database.
fn newer(members: &[Member<'_>], policy: &Policy) -> Prefer {
    let both = |one: &&Member| one.here.brings_content() && one.there.brings_content();
    if let Some(Member {
        local: Some(local),
        remote: Some(remote),
        ..
    }) = members.first().filter(both)
    {
        return newest(&local.version, remote, policy);
    }
    let here = members.iter().filter(|one| one.here.brings_content());
    let here = here.filter_map(|one| one.local.map(|local| &local.version));
    let there = members.iter().filter(|one| one.there.brings_content());
    let there = there.filter_map(|one| one.remote);
    let last = |version: &&Version| version.mtime;
    match (here.max_by_key(last), there.max_by_key(last)) {
        (Some(here), Some(there)) => newest(here, there, policy),
        _ => policy.prefer,
    }
}

/// What becomes of one of them when `winner` wins. Where both sides may be equal, that is found out first.
fn fate(one: &Member<'_>, winner: Prefer, alone: Option<&(Action, Why)>) -> Option<(Action, Why)> {
    let why = match winner {
        Prefer::Local => Why::ConflictLocalWins,
        Prefer::Remote => Why::ConflictRemoteWins,
    };
    let keep = Keep::Backup;
    let action = match (winner, one.local, one.remote) {
        (_, None, None) => {
            one.base?;
            return Some((Action::Agree { entry: None }, Why::BothAgree));
        }
        (Prefer::Local, Some(local), remote) => Action::Publish {
            node: local.node,
            replaces: remote.cloned(),
            keep,
        },
        (Prefer::Local, None, Some(remote)) => Action::Remove {
            expected: remote.clone(),
            keep,
        },
        (Prefer::Remote, Some(local), Some(remote)) => Action::Refresh {
            node: local.node,
            version: remote.clone(),
            keep,
        },
        (Prefer::Remote, Some(local), None) => Action::Drop {
            node: local.node,
            keep,
        },
        (Prefer::Remote, None, Some(remote)) => Action::Adopt {
            version: remote.clone(),
            revive: None,
        },
    };
    match alone {
        Some(agreed @ (Action::Agree { .. }, _)) => Some(agreed.clone()),
        Some((Action::Compare { node, version, .. }, _)) => {
            let otherwise = Step {
                place: one.place.clone(),
                action,
                why,
            };
            let compare = Action::Compare {
                node: *node,
                version: version.clone(),
                otherwise: Box::new(otherwise),
            };
            Some((compare, why))
        }
        _ => Some((action, why)),
    }
}

#[cfg(test)]
mod tests;
