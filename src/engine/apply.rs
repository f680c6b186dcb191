//! The replica's side of a step: what the server has is taken over here.
//!
//! Every function runs in one transaction of the index and checks again that the node is still as the plan
//! saw it; if not, nothing happens and the next plan decides anew. Content that makes room is linked into
//! the local backups before the row changes, and removed after.

use super::base;
use super::deeds;
use super::shared::Shared;
use crate::replica::{DeedKind, Node, Problem, ReplicaError, Tx};
use crate::tree::{BaseEntry, Kind, NodeId, Place, RelPath, Time, Version};

mod exchange;
mod keep_content;
mod leaf;
mod rows;

pub(super) use exchange::exchange;
pub(super) use leaf::{drop_file, refresh};
pub(super) use rows::{NewNode, adopt_into, succeed};
use rows::{adopt_as, detach, recheck, touch};

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
    deeds::here(
        shared,
        tx,
        (DeedKind::Created, place),
        (None, Some(version)),
        None,
    )?;
    Ok(Applied::Done(Some(id)))
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
        deeds::here(
            shared,
            tx,
            (DeedKind::Attributes, &stands),
            (Some(&node), Some(version)),
            None,
        )?;
        node.mode = version.mode;
        if node.kind == Kind::File && node.server_mtime() != version.mtime {
            node.mtime = Time::new(version.mtime, 0);
        }
        node.ctime = now;
        tx.put_node(node)?;
        base::set(
            tx,
            place,
            Some(BaseEntry {
                node: id,
                version: version.clone(),
            }),
            now,
        )?;
        tx.observe(place.clone(), None)?;
        recheck(tx, place, now)?;
        // Its other names have them, too, and not on the server.
        for name in tx.places(id)? {
            recheck(tx, &name, now)?;
        }
        Ok::<_, ReplicaError>(Applied::Done(Some(id)))
    })?;
    if applied != Applied::Stale {
        shared.node_changed(id);
    }
    Ok(applied)
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
        deeds::here(
            shared,
            tx,
            (DeedKind::Removed, place),
            (Some(&node), None),
            None,
        )?;
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

const OBSTRUCTED: &str = "something that is neither file, directory nor symlink is in its place on the server: move it \
                          away there, or rename this one";

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
            tx.note_problem(place, OBSTRUCTED.into(), since)?;
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
