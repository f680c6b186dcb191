//! Changes of the base tree that touch more than one row.

use crate::replica::{ReplicaError, Tx};
use crate::tree::{BaseEntry, Kind, NodeId, Place, Time};

/// Sets what is agreed on at a place. A directory that another node, or nothing, replaces there takes all
/// that base and the observations held inside it along; what of it stands here is to be looked at again.
pub(super) fn set(
    tx: &mut Tx<'_>,
    place: &Place,
    entry: Option<BaseEntry>,
    now: Time,
) -> Result<(), ReplicaError> {
    let old = tx.base(place)?.filter(|old| old.version.kind == Kind::Dir);
    let new_node = entry.as_ref().map(|entry| entry.node);
    tx.set_base(place.clone(), entry)?;
    match old {
        Some(old) if new_node != Some(old.node) && tx.base_places(old.node)?.is_empty() => {
            forget_inside(tx, old.node, now)
        }
        _ => Ok(()),
    }
}

/// What base and the observations hold at `from` goes to `to`.
pub(super) fn move_entry(
    tx: &mut Tx<'_>,
    from: &Place,
    to: &Place,
    now: Time,
) -> Result<(), ReplicaError> {
    let entry = tx.base(from)?;
    let seen = tx.observation(from)?;
    tx.set_base(from.clone(), None)?;
    tx.observe(from.clone(), None)?;
    set(tx, to, entry, now)?;
    tx.observe(to.clone(), seen)
}

/// The directory at `place` in base is another node from now on; its children follow.
pub(super) fn rekey(
    tx: &mut Tx<'_>,
    place: &Place,
    from: NodeId,
    to: NodeId,
    now: Time,
) -> Result<(), ReplicaError> {
    for (name, entry) in tx.base_children(from)? {
        let (old, new) = (Place::new(from, name.clone()), Place::new(to, name));
        tx.set_base(old.clone(), None)?;
        set(tx, &new, Some(entry), now)?;
        tx.mark_dirty(old, now)?;
        tx.mark_dirty(new, now)?;
    }
    for (name, seen) in tx.observations_in(from)? {
        tx.observe(Place::new(from, name.clone()), None)?;
        tx.observe(Place::new(to, name), Some(seen))?;
    }
    if let Some(entry) = tx.base(place)? {
        tx.set_base(place.clone(), Some(BaseEntry { node: to, ..entry }))?;
    }
    tx.mark_dirty(place.clone(), now)
}

/// All observations inside a directory, at any depth, are void.
pub(super) fn forget_observations(tx: &mut Tx<'_>, dir: NodeId) -> Result<(), ReplicaError> {
    let mut todo = vec![dir];
    while let Some(dir) = todo.pop() {
        for (name, _) in tx.observations_in(dir)? {
            tx.observe(Place::new(dir, name), None)?;
        }
        let children = tx.base_children(dir)?.into_iter();
        let dirs = children.filter(|(_, entry)| entry.version.kind == Kind::Dir);
        todo.extend(dirs.map(|(_, entry)| entry.node));
    }
    Ok(())
}

fn forget_inside(tx: &mut Tx<'_>, dir: NodeId, now: Time) -> Result<(), ReplicaError> {
    let mut todo = vec![dir];
    while let Some(dir) = todo.pop() {
        for (name, entry) in tx.base_children(dir)? {
            let place = Place::new(dir, name);
            tx.set_base(place.clone(), None)?;
            tx.mark_dirty(place, now)?;
            if entry.version.kind == Kind::Dir && tx.base_places(entry.node)?.is_empty() {
                todo.push(entry.node);
            }
        }
        for (name, _) in tx.observations_in(dir)? {
            tx.observe(Place::new(dir, name), None)?;
        }
    }
    Ok(())
}
