//! What a person has to answer before a plan is carried out.

use std::collections::{BTreeSet, HashMap};

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

/// Those of the places whose entries have an equal on the server that stays. Looks at the whole base tree, a
/// directory at a time.
fn renamed(shared: &Shared, removed: BTreeSet<Place>) -> Result<BTreeSet<Place>, ReplicaError> {
    let mut elsewhere: HashMap<Looks, u64> = HashMap::new();
    let mut todo = vec![NodeId::ROOT];
    while let Some(dir) = todo.pop() {
        let children = |view: &View<'_>| view.base_children(dir);
        for (name, entry) in shared.replica.view::<_, ReplicaError>(children)? {
            if entry.version.kind == Kind::Dir {
                todo.push(entry.node);
            }
            if !removed.contains(&Place::new(dir, name.clone())) {
                *elsewhere.entry(looks(&name, &entry)).or_default() += 1;
            }
        }
    }
    let mut renamed = BTreeSet::new();
    for place in removed {
        let entry = shared
            .replica
            .view::<_, ReplicaError>(|view| view.base(&place))?;
        let equals = entry.and_then(|entry| elsewhere.get_mut(&looks(&place.name, &entry)));
        if let Some(left) = equals.filter(|left| **left > 0) {
            *left -= 1;
            renamed.insert(place);
        }
    }
    Ok(renamed)
}
