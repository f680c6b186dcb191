//! Files and symlinks that are replaced by the server's, or go since the server has none.

use super::super::base;
use super::super::deeds;
use super::super::shared::Shared;
use super::keep_content::{finish, keep_content};
use super::rows::{NewNode, detach, overwrite, recheck, stand, succeed};
use super::{Applied, current, current_or_renamed};
use crate::replica::{DeedKind, LocalBackup, Node, ReplicaError, Tx};
use crate::sync::Keep;
use crate::tree::{BaseEntry, Kind, NodeId, Place, Time, Version};

/// The server's version replaces the node; what it replaces becomes a local backup. Another node takes its place,
/// as if a program had renamed one over it: who reads or runs the old one goes on doing so. A node that was
/// renamed here, and not on the server yet, is replaced where it stands.
pub(in crate::engine) fn refresh(
    shared: &Shared,
    place: &Place,
    id: NodeId,
    seq: u64,
    version: &Version,
    keep: Keep,
) -> Result<Applied, ReplicaError> {
    let what = (place, id, seq);
    keeping(shared, what, keep, |tx, backup, now, left| {
        refresh_in(shared, tx, what, version, backup, now, left)
    })
}

/// Does something to a node whose content it keeps as `keep` says, and tells the kernel what left its place.
fn keeping(
    shared: &Shared,
    (place, id, seq): (&Place, NodeId, u64),
    keep: Keep,
    act: impl FnOnce(
        &mut Tx<'_>,
        Option<&LocalBackup>,
        Time,
        &mut Vec<Left>,
    ) -> Result<Applied, ReplicaError>,
) -> Result<Applied, ReplicaError> {
    let backup = keep_content(shared, place, id, seq, keep)?;
    let now = shared.now();
    let mut left = Vec::new();
    let applied = shared
        .replica
        .update(|tx| act(tx, backup.as_ref(), now, &mut left))?;
    finish(shared, &applied, backup.as_ref())?;
    tell(shared, &applied, &left);
    Ok(applied)
}

/// What no longer stands at a place: the node, and whether that was its last name.
pub(super) type Left = (Place, NodeId, bool);

pub(super) fn tell(shared: &Shared, applied: &Applied, left: &[Left]) {
    if *applied != Applied::Stale {
        for (place, id, last) in left {
            shared.entry_left(place, *id, *last);
        }
    }
}

pub(super) fn refresh_in(
    shared: &Shared,
    tx: &mut Tx<'_>,
    (place, id, seq): (&Place, NodeId, u64),
    version: &Version,
    backup: Option<&LocalBackup>,
    now: Time,
    left: &mut Vec<Left>,
) -> Result<Applied, ReplicaError> {
    let opens = shared.replica.opens();
    let Some((node, stands)) = current_or_renamed(shared, tx, place, id, seq)? else {
        return Ok(Applied::Stale);
    };
    left.push((stands.clone(), id, node.nlink <= 1));
    deeds::here(
        shared,
        tx,
        (DeedKind::Replaced, &stands),
        (Some(&node), Some(version)),
        backup,
    )?;
    if let Some(backup) = backup {
        tx.add_backup(backup.clone())?;
    }
    left.extend(detach_memory(shared, tx, &node, &stands, now)?);
    let new_id = if node.kind == version.kind && node.nlink == 1 {
        let next = succeed(tx, opens, node, now)?;
        let new_id = next.id;
        overwrite(tx, next, version, now)?;
        new_id
    } else {
        detach(tx, opens, &stands, node, now)?;
        let Some(mut parent) = tx.node(stands.parent)? else {
            return Ok(Applied::Stale);
        };
        let new = NewNode {
            version,
            mtime: Time::new(version.mtime, 0),
        };
        let new_id = tx.alloc_node()?;
        let options = &shared.options;
        stand(
            options,
            now,
            tx,
            &stands,
            &new,
            &mut parent,
            (new_id, false),
        )?;
        tx.put_node(parent)?;
        new_id
    };
    base::set(
        tx,
        place,
        Some(BaseEntry {
            node: new_id,
            version: version.clone(),
        }),
        now,
    )?;
    tx.observe(place.clone(), None)?;
    recheck(tx, place, now)?;
    recheck(tx, &stands, now)?;
    Ok(Applied::Done(Some(new_id)))
}

/// The shared memory of a database that is replaced is no index of the new one's log. Who has it open keeps it.
fn detach_memory(
    shared: &Shared,
    tx: &mut Tx<'_>,
    main: &Node,
    stands: &Place,
    now: Time,
) -> Result<Option<Left>, ReplicaError> {
    let Some(place) = stands
        .shared_memory()
        .filter(|_| shared.replica.is_database(main))
    else {
        return Ok(None);
    };
    let id = tx.child(place.parent, &place.name)?;
    let node = id.map(|id| tx.node(id)).transpose()?.flatten();
    // Of a database it is host-scoped; anything else that is called like this is nothing of ours.
    let Some(node) = node.filter(|node| node.kind == Kind::File && node.scoped) else {
        return Ok(None);
    };
    let left = (place.clone(), node.id, node.nlink <= 1);
    detach(tx, shared.replica.opens(), &place, node, now)?;
    Ok(Some(left))
}

/// The server no longer has it, so it goes here too; its content stays as a backup.
pub(in crate::engine) fn drop_file(
    shared: &Shared,
    place: &Place,
    id: NodeId,
    seq: u64,
    keep: Keep,
) -> Result<Applied, ReplicaError> {
    let what = (place, id, seq);
    let applied = keeping(shared, what, keep, |tx, backup, now, left| {
        drop_in(shared, tx, what, backup, now, left)
    })?;
    if applied != Applied::Stale {
        shared.node_changed(place.parent);
    }
    Ok(applied)
}

pub(super) fn drop_in(
    shared: &Shared,
    tx: &mut Tx<'_>,
    (place, id, seq): (&Place, NodeId, u64),
    backup: Option<&LocalBackup>,
    now: Time,
    left: &mut Vec<Left>,
) -> Result<Applied, ReplicaError> {
    let Some(node) = current(shared, tx, place, id, seq)? else {
        return Ok(Applied::Stale);
    };
    if let Some(backup) = backup {
        tx.add_backup(backup.clone())?;
    }
    left.push((place.clone(), id, node.nlink <= 1));
    deeds::here(
        shared,
        tx,
        (DeedKind::Removed, place),
        (Some(&node), None),
        backup,
    )?;
    left.extend(detach_memory(shared, tx, &node, place, now)?);
    detach(tx, shared.replica.opens(), place, node, now)?;
    recheck(tx, place, now)?;
    Ok(Applied::Done(None))
}
