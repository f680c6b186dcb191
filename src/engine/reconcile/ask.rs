//! What a person has to answer before a plan is carried out.

use std::collections::{BTreeMap, BTreeSet};

use super::super::shared::{Shared, lock};
use crate::replica::{ReplicaError, View};
use crate::sync::{self, Guard, Plan, Removals, Side};
use crate::tree::{BaseEntry, Kind, Name, NodeId, Place, Version};

/// What tells an entry that was renamed with its directory from others: its own name, kind, size, mtime and target.
type Looks = (Name, Kind, u64, i64, Vec<u8>);

fn looks(name: &Name, entry: &BaseEntry) -> Looks {
    let version = &entry.version;
    let Version {
        kind,
        size,
        mtime,
        ref target,
        ..
    } = *version;
    (name.clone(), kind, size, mtime, target.clone())
}

/// What has to be answered before a plan is carried out, and what the plan removes.
pub(super) struct Asked {
    pub(super) questions: Vec<Guard>,
    pub(super) removals: Removals,
}

/// The questions that `plan` raises. A rename on another machine shows as removals and new entries; what stands
/// elsewhere by now is no removal.
pub(super) fn questions(shared: &Shared, plan: &Plan) -> Result<Asked, ReplicaError> {
    // Neither is a question answered by asking again, nor is much little because somebody removes it slowly.
    let removed = *lock(&shared.removed);
    // What is gone was known when it began.
    let known = shared.replica.counts()?.nodes + removed.replica;
    let asked = |renamed: &BTreeSet<Place>| {
        let removals = Removals::of(plan, renamed);
        let limits = &shared.options.guard;
        Asked {
            questions: sync::guard(plan, known, limits, removed + removals),
            removals,
        }
    };
    let first = asked(&BTreeSet::new());
    if !first.questions.iter().any(is_removal_here) {
        return Ok(first);
    }
    Ok(asked(&renamed(shared, sync::removed_here(plan))?))
}

pub(super) fn is_removal_here(guard: &Guard) -> bool {
    let side = Side::Replica;
    matches!(guard, Guard::MassRemoval { side: of, .. } if *of == side)
}

/// Those of the places whose entries have an equal that stays, there and here. Looks at the whole base tree, a directory
/// at a time.
fn renamed(shared: &Shared, removed: BTreeSet<Place>) -> Result<BTreeSet<Place>, ReplicaError> {
    let mut sought: BTreeMap<Looks, Vec<Place>> = BTreeMap::new();
    for place in &removed {
        // What stands here may be another than base has there: it was moved to the place.
        let base = |view: &View<'_>| {
            let here = view.child(place.parent, &place.name)?;
            let base = view.base(place)?;
            Ok::<_, ReplicaError>(base.filter(|base| here == Some(base.node)))
        };
        if let Some(entry) = shared.replica.view(base)? {
            let alike = sought.entry(looks(&place.name, &entry)).or_default();
            alike.push(place.clone());
        }
    }
    let mut renamed = BTreeSet::new();
    let mut todo = vec![NodeId::ROOT];
    while let Some(dir) = todo.pop() {
        for (name, entry) in shared.replica.view(|view| known_to_be_there(view, dir))? {
            if entry.version.kind == Kind::Dir {
                todo.push(entry.node);
            }
            let looks = looks(&name, &entry);
            if let Some(alike) = sought.get_mut(&looks)
                && !removed.contains(&Place::new(dir, name))
                && shared.replica.view(|view| is_here(view, &entry))?
            {
                renamed.extend(alike.pop());
            }
        }
    }
    Ok(renamed)
}

/// What base has in a directory and the server was not seen to have lost. A plan that deals with a directory first may
/// not yet remove what was in it.
fn known_to_be_there(view: &View<'_>, dir: NodeId) -> Result<Vec<(Name, BaseEntry)>, ReplicaError> {
    let seen: BTreeMap<_, _> = view.observations_in(dir)?.into_iter().collect();
    let mut entries = view.base_children(dir)?;
    entries.retain(|(name, entry)| {
        let seen = seen.get(name);
        seen.is_none_or(|seen| {
            let version = seen.version.as_ref();
            version.is_some_and(|version| entry.version.same_content(version))
        })
    });
    Ok(entries)
}

fn is_here(view: &View<'_>, entry: &BaseEntry) -> Result<bool, ReplicaError> {
    Ok(!view.places(entry.node)?.is_empty())
}
