//! What the steps do to the rows of the index, inside their transactions.

use super::super::{EngineOptions, base, gather};
use crate::replica::{Content, Node, Opens, ReplicaError, Tx};
use crate::tree::{BaseEntry, Kind, NodeId, Place, Time, Version};

/// Something that the server has and the replica has not.
pub(in crate::engine) struct NewNode<'a> {
    pub(in crate::engine) version: &'a Version,
    pub(in crate::engine) mtime: Time,
}

/// Puts a placeholder for a new file, directory or symlink at `place`, and base with it.
pub(in crate::engine) fn adopt_into(
    options: &EngineOptions,
    now: Time,
    tx: &mut Tx<'_>,
    place: &Place,
    new: &NewNode<'_>,
    parent: &mut Node,
) -> Result<NodeId, ReplicaError> {
    let id = tx.alloc_node()?;
    adopt_as(options, now, tx, place, new, parent, id)?;
    Ok(id)
}

pub(super) fn adopt_as(
    options: &EngineOptions,
    now: Time,
    tx: &mut Tx<'_>,
    place: &Place,
    new: &NewNode<'_>,
    parent: &mut Node,
    id: NodeId,
) -> Result<(), ReplicaError> {
    // A directory that comes back keeps what base holds in it, so it is not a new one to look into.
    let revived = tx.base(place)?.is_some_and(|base| base.node == id);
    stand(options, now, tx, place, new, parent, (id, revived))?;
    base::set(
        tx,
        place,
        Some(BaseEntry {
            node: id,
            version: new.version.clone(),
        }),
        now,
    )?;
    tx.observe(place.clone(), None)
}

/// Lets a new node, which may be `listed` already, stand at `place`.
pub(super) fn stand(
    options: &EngineOptions,
    now: Time,
    tx: &mut Tx<'_>,
    place: &Place,
    new: &NewNode<'_>,
    parent: &mut Node,
    (id, listed): (NodeId, bool),
) -> Result<(), ReplicaError> {
    let node = Node {
        id,
        kind: new.version.kind,
        mode: if new.version.kind == Kind::Symlink {
            0o777
        } else {
            new.version.mode
        },
        uid: options.uid,
        gid: options.gid,
        size: match new.version.kind {
            Kind::Symlink => new.version.target.len() as u64,
            _ => new.version.size,
        },
        atime: new.mtime,
        mtime: new.mtime,
        ctime: now,
        nlink: if new.version.kind == Kind::Dir { 2 } else { 1 },
        target: new.version.target.clone(),
        content: if new.version.size == 0 {
            Content::Whole
        } else {
            Content::Absent
        },
        data_changed: false,
        data_seq: 0,
        hash: None,
        listed,
        scoped: false,
    };
    if node.kind == Kind::Dir {
        parent.nlink += 1;
    }
    tx.put_node(node)?;
    tx.link(place.clone(), id)
}

/// Gives all that `node` has but its content, its places above all, to another node. What the kernel and programs
/// know of a file's size and content stays true for the old one: they find either the one or the other, whole.
pub(in crate::engine) fn succeed(
    tx: &mut Tx<'_>,
    opens: &Opens,
    node: Node,
    now: Time,
) -> Result<Node, ReplicaError> {
    let (old, id) = (node.id, tx.alloc_node()?);
    let next = Node { id, ..node.clone() };
    tx.put_node(next.clone())?;
    for (name, value) in tx.xattrs(old)? {
        tx.set_xattr(id, &name, Some(value))?;
    }
    for place in tx.places(old)? {
        tx.link(place, id)?;
    }
    for place in tx.base_places(old)? {
        if let Some(entry) = tx.base(&place)? {
            tx.set_base(place, Some(BaseEntry { node: id, ..entry }))?;
        }
    }
    leave(tx, opens, node, now)?;
    Ok(next)
}

/// Makes the successor of a node what the server has.
pub(super) fn overwrite(
    tx: &mut Tx<'_>,
    mut node: Node,
    version: &Version,
    now: Time,
) -> Result<(), ReplicaError> {
    node.size = version.size.max(version.target.len() as u64);
    node.mtime = if node.kind == Kind::File {
        Time::new(version.mtime, 0)
    } else {
        now
    };
    node.ctime = now;
    if node.kind != Kind::Symlink {
        node.mode = version.mode;
    }
    node.target.clone_from(&version.target);
    node.content = if version.size == 0 {
        Content::Whole
    } else {
        Content::Absent
    };
    node.data_changed = false;
    node.data_seq += 1;
    node.hash = None;
    tx.put_node(node)
}

/// Takes the node out of the tree; it lives on while a program has it open.
pub(super) fn detach(
    tx: &mut Tx<'_>,
    opens: &Opens,
    place: &Place,
    mut node: Node,
    now: Time,
) -> Result<(), ReplicaError> {
    tx.unlink(place)?;
    if let Some(mut parent) = tx.node(place.parent)? {
        if node.kind == Kind::Dir {
            parent.nlink = parent.nlink.saturating_sub(1);
        }
        touch(&mut parent, now);
        tx.put_node(parent)?;
    }
    let last = node.kind == Kind::Dir || node.nlink <= 1;
    if !last {
        node.nlink = node.nlink.saturating_sub(1);
        node.ctime = now;
        return tx.put_node(node);
    }
    leave(tx, opens, node, now)
}

/// The end of a node without a place, once no program has it open.
fn leave(tx: &mut Tx<'_>, opens: &Opens, mut node: Node, now: Time) -> Result<(), ReplicaError> {
    if opens.is_open(node.id) {
        node.nlink = 0;
        node.ctime = now;
        tx.mark_in_flight(node.id)?;
        return tx.put_node(node);
    }
    tx.remove_node(node.id)
}

/// Computes again whether something is left to send, or to agree on.
pub(super) fn recheck(tx: &mut Tx<'_>, place: &Place, now: Time) -> Result<(), ReplicaError> {
    if gather::is_clean(tx, place)? {
        tx.clear_dirty(place)
    } else {
        tx.mark_dirty(place.clone(), now)
    }
}

pub(super) fn touch(dir: &mut Node, now: Time) {
    dir.mtime = now;
    dir.ctime = now;
}
