//! The replica's side of a step: what the server has is taken over here.
//!
//! Every function runs in one transaction of the index and checks again that the node is still as the plan
//! saw it; if not, nothing happens and the next plan decides anew. Content that makes room is linked into
//! the local backups before the row changes, and removed after.

use super::base;
use super::shared::Shared;
use crate::replica::{LocalBackup, Node, Problem, ReplicaError, Tx};
use crate::sync::Keep;
use crate::tree::{BaseEntry, Kind, NodeId, Place, RelPath, Time, Version};

mod exchange;
mod keep_content;
mod rows;

pub(super) use exchange::exchange;
use keep_content::{finish, keep_content};
pub(super) use rows::{NewNode, adopt_into, succeed};
use rows::{adopt_as, detach, overwrite, recheck, stand, touch};

/// How a step on the replica ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Applied {
    /// Done; this node stands there now.
    Done(Option<NodeId>),
    /// The replica changed since the plan was made.
    Stale,
}

/// Takes over something new, or under its old identity a directory that was removed here. Stale if a
/// program made something there in the meantime.
pub(super) fn adopt(
    shared: &Shared,
    place: &Place,
    version: &Version,
    revive: Option<NodeId>,
) -> Result<Applied, ReplicaError> {
    let now = shared.now();
    let applied = shared
        .replica
        .update(|tx| adopt_in(shared, tx, place, version, revive, now))?;
    if applied != Applied::Stale {
        shared.entry_changed(place);
        shared.node_changed(place.parent);
    }
    Ok(applied)
}

fn adopt_in(
    shared: &Shared,
    tx: &mut Tx<'_>,
    place: &Place,
    version: &Version,
    revive: Option<NodeId>,
    now: Time,
) -> Result<Applied, ReplicaError> {
    if tx.child(place.parent, &place.name)?.is_some() {
        return Ok(Applied::Stale);
    }
    let Some(mut parent) = tx.node(place.parent)? else {
        return Ok(Applied::Stale);
    };
    let mtime = if version.kind == Kind::File {
        Time::new(version.mtime, 0)
    } else {
        now
    };
    let new = NewNode { version, mtime };
    let id = match revive {
        Some(id) if tx.node(id)?.is_some() => return Ok(Applied::Stale),
        Some(id) => id,
        None => tx.alloc_node()?,
    };
    adopt_as(&shared.options, now, tx, place, &new, &mut parent, id)?;
    touch(&mut parent, now);
    tx.put_node(parent)?;
    tx.clear_dirty(place)?;
    Ok(Applied::Done(Some(id)))
}

/// The server's version replaces the node; what it replaces becomes a local backup. Another node takes its place,
/// as if a program had renamed one over it: who reads or runs the old one goes on doing so. A node that was
/// renamed here, and not on the server yet, is replaced where it stands.
pub(super) fn refresh(
    shared: &Shared,
    place: &Place,
    id: NodeId,
    seq: u64,
    version: &Version,
    keep: Keep,
) -> Result<Applied, ReplicaError> {
    let backup = keep_content(shared, place, id, seq, keep)?;
    let now = shared.now();
    let mut left = Vec::new();
    let applied = shared.replica.update(|tx| {
        refresh_in(
            shared,
            tx,
            (place, id, seq),
            version,
            backup.as_ref(),
            now,
            &mut left,
        )
    })?;
    finish(shared, &applied, backup.as_ref())?;
    tell(shared, &applied, &left);
    Ok(applied)
}

/// What no longer stands at a place: the node, and whether that was its last name.
type Left = (Place, NodeId, bool);

fn tell(shared: &Shared, applied: &Applied, left: &[Left]) {
    if *applied != Applied::Stale {
        for (place, id, last) in left {
            shared.entry_left(place, *id, *last);
        }
    }
}

fn refresh_in(
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
    if let Some(backup) = backup {
        tx.add_backup(backup.clone())?;
    }
    left.extend(detach_memory(shared, tx, &stands, now)?);
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
    main: &Place,
    now: Time,
) -> Result<Option<Left>, ReplicaError> {
    let Some(place) = main.shared_memory() else {
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

/// Takes over mode and mtime.
pub(super) fn take_attrs(
    shared: &Shared,
    place: &Place,
    id: NodeId,
    seq: u64,
    version: &Version,
) -> Result<Applied, ReplicaError> {
    let now = shared.now();
    let applied = shared.replica.update(|tx| {
        let Some((mut node, stands)) = current_or_renamed(shared, tx, place, id, seq)? else {
            return Ok(Applied::Stale);
        };
        node.mode = version.mode;
        if node.kind == Kind::File && node.server_mtime() != version.mtime {
            node.mtime = Time::new(version.mtime, 0);
        }
        node.ctime = now;
        tx.put_node(node)?;
        tx.set_base(
            place.clone(),
            Some(BaseEntry {
                node: id,
                version: version.clone(),
            }),
        )?;
        tx.observe(place.clone(), None)?;
        recheck(tx, place, now)?;
        recheck(tx, &stands, now)?;
        Ok::<_, ReplicaError>(Applied::Done(Some(id)))
    })?;
    if applied != Applied::Stale {
        shared.node_changed(id);
    }
    Ok(applied)
}

/// The server no longer has it, so it goes here too; its content stays as a backup.
pub(super) fn drop_file(
    shared: &Shared,
    place: &Place,
    id: NodeId,
    seq: u64,
    keep: Keep,
) -> Result<Applied, ReplicaError> {
    let backup = keep_content(shared, place, id, seq, keep)?;
    let now = shared.now();
    let mut left = Vec::new();
    let applied = shared.replica.update(|tx| {
        drop_in(
            shared,
            tx,
            (place, id, seq),
            backup.as_ref(),
            now,
            &mut left,
        )
    })?;
    finish(shared, &applied, backup.as_ref())?;
    tell(shared, &applied, &left);
    if applied != Applied::Stale {
        shared.node_changed(place.parent);
    }
    Ok(applied)
}

fn drop_in(
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
    left.extend(detach_memory(shared, tx, place, now)?);
    detach(tx, shared.replica.opens(), place, node, now)?;
    recheck(tx, place, now)?;
    Ok(Applied::Done(None))
}

/// Removes a directory that is empty by now; one that is not stays, and the next plan decides.
pub(super) fn drop_dir(
    shared: &Shared,
    place: &Place,
    id: NodeId,
) -> Result<Applied, ReplicaError> {
    let now = shared.now();
    let applied = shared.replica.update(|tx| {
        if tx.child(place.parent, &place.name)? != Some(id) || !tx.children(id, None, 1)?.is_empty()
        {
            return Ok(Applied::Stale);
        }
        let Some(node) = tx.node(id)? else {
            return Ok(Applied::Stale);
        };
        detach(tx, shared.replica.opens(), place, node, now)?;
        recheck(tx, place, now)?;
        Ok::<_, ReplicaError>(Applied::Done(None))
    })?;
    if applied != Applied::Stale {
        shared.entry_left(place, id, true);
        shared.node_changed(place.parent);
    }
    Ok(applied)
}

/// The directory's move is obstructed: base gets a stand-in at the old place that holds the old base
/// children, so that each child is a move of its own. See [`crate::sync::Action::Split`].
pub(super) fn split(shared: &Shared, from: &Place, dir: NodeId) -> Result<Applied, ReplicaError> {
    let now = shared.now();
    shared.replica.update(|tx| {
        if tx.base(from)?.is_none_or(|entry| entry.node != dir) {
            return Ok(Applied::Stale);
        }
        let stand_in = tx.alloc_node()?;
        base::rekey(tx, from, dir, stand_in, now)?;
        for place in tx.places(dir)? {
            tx.mark_dirty(place, now)?;
        }
        Ok(Applied::Done(Some(stand_in)))
    })
}

/// Another directory stands where base had one: what base holds in the old one belongs to the new one.
pub(super) fn unite(
    shared: &Shared,
    place: &Place,
    from: NodeId,
    node: NodeId,
) -> Result<Applied, ReplicaError> {
    let now = shared.now();
    shared.replica.update(|tx| {
        if tx.base(place)?.is_none_or(|entry| entry.node != from) {
            return Ok(Applied::Stale);
        }
        base::rekey(tx, place, from, node, now)?;
        Ok(Applied::Done(Some(node)))
    })
}

/// Shows a problem of a directory until it is solved.
pub(super) fn note_problem(shared: &Shared, dir: NodeId, message: &str) {
    let since = shared.now();
    let noted = shared.replica.update(|tx| {
        for place in tx.base_places(dir)? {
            let path = tx.base_path_of(&place)?.unwrap_or_else(RelPath::root);
            let problem = Problem {
                path,
                message: message.to_owned(),
                since,
            };
            tx.set_problem(place, Some(problem))?;
        }
        Ok::<_, ReplicaError>(())
    });
    if let Err(error) = noted {
        tracing::error!(%error, message, "a problem could not be noted");
    }
}

/// Shows that something on the server is in the way at these places.
pub(super) fn note_obstructed(shared: &Shared, places: &[Place]) -> Result<(), ReplicaError> {
    if places.is_empty() {
        return Ok(());
    }
    let since = shared.now();
    shared.replica.update(|tx| {
        for place in places {
            if tx.problem(place)?.is_some() {
                continue;
            }
            let path = tx.local_path_of(place)?;
            let path = path.or(tx.base_path_of(place)?).unwrap_or_default();
            let problem = Problem {
                path,
                message: "something that is neither file, directory nor symlink is in its place on the server: \
                          move it away there, or rename this one"
                    .into(),
                since,
            };
            tx.set_problem(place.clone(), Some(problem))?;
        }
        Ok(())
    })
}

/// The node if it is still what the plan saw, and no program writes to it.
fn current(
    shared: &Shared,
    tx: &Tx<'_>,
    place: &Place,
    id: NodeId,
    seq: u64,
) -> Result<Option<Node>, ReplicaError> {
    if tx.child(place.parent, &place.name)? != Some(id) || shared.replica.opens().writers(id) > 0 {
        return Ok(None);
    }
    Ok(tx.node(id)?.filter(|node| node.data_seq == seq))
}

/// The node and its place: where the plan saw it or, if base has it there and it was renamed here, where it
/// stands now.
fn current_or_renamed(
    shared: &Shared,
    tx: &Tx<'_>,
    place: &Place,
    id: NodeId,
    seq: u64,
) -> Result<Option<(Node, Place)>, ReplicaError> {
    let mut stands = place.clone();
    if tx.child(place.parent, &place.name)? != Some(id)
        && tx.base(place)?.is_some_and(|base| base.node == id)
        && let [only] = &tx.places(id)?[..]
    {
        stands.clone_from(only);
    }
    let node = current(shared, tx, &stands, id, seq)?;
    Ok(node.map(|node| (node, stands)))
}
