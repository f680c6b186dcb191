//! Making rows and content agree again after the daemon or the machine died.
//!
//! The death of the daemon leaves work only for nodes in flight. Power loss may undo updates that nobody
//! synced while the content they told of is on the disk: then every unsent file is looked at, which costs
//! what changed and not what exists.

use std::fs;
use std::path::Path;

use super::content::{ContentStore, Which};
use super::error::{AtPath, ReplicaError};
use super::index::Shared;
use super::rows::{Content, Node};
use super::tx::Tx;
use super::view::View;
use crate::tree::{Kind, NodeId, Time};

type Result<T> = std::result::Result<T, ReplicaError>;

/// The boot in which the replica was opened last; nothing after it was closed.
const OPENED_IN: &str = "opened_in_boot";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Looks at what may not agree. Returns the removed nodes whose content is still there.
pub(super) fn recover(shared: &Shared, now: Time) -> Result<Vec<NodeId>> {
    let mut state = shared.lock();
    let content = &shared.content;
    for id in View::new(&state).in_flight()? {
        shared.update_locked(&mut state, |tx| settle_in_flight(tx, content, id, now))?;
    }
    let boot = fs::read(BOOT_ID).at(Path::new(BOOT_ID))?;
    let opened_in = View::new(&state).meta(OPENED_IN)?;
    if opened_in.is_some_and(|opened_in| opened_in != boot) {
        tracing::warn!("the machine went down while the home was open; looking at unsent files");
        for (id, _) in content.list(Which::Unsent)? {
            shared.update_locked(&mut state, |tx| settle_unsent(tx, content, id, now))?;
        }
    }
    shared.update_locked(&mut state, |tx| {
        tx.set_meta(OPENED_IN, Some(boot))?;
        if tx.node(NodeId::ROOT)?.is_none() {
            tx.put_node(new_node(NodeId::ROOT, Kind::Dir, now))?;
        }
        Ok::<_, ReplicaError>(())
    })?;
    View::new(&state).doomed()
}

/// Notes that nothing will have to be looked at.
pub(super) fn note_closing(shared: &Shared) -> Result<()> {
    let mut state = shared.lock();
    shared.update_locked(&mut state, |tx| tx.set_meta(OPENED_IN, None))
}

fn settle_in_flight(tx: &mut Tx<'_>, content: &ContentStore, id: NodeId, now: Time) -> Result<()> {
    tx.clear_in_flight(id)?;
    match (tx.node(id)?, content.stat(id)?) {
        (Some(node), _) if node.nlink == 0 => tx.remove_node(id),
        (Some(_), Some(state)) => renew(tx, id, state, now),
        _ => Ok(()),
    }
}

/// Content without a row stays for `check` and `rescue`.
fn settle_unsent(tx: &mut Tx<'_>, content: &ContentStore, id: NodeId, now: Time) -> Result<()> {
    let (Some(node), Some((size, mtime))) = (tx.node(id)?, content.stat(id)?) else {
        return Ok(());
    };
    if node.size != size || !node.data_changed && mtime > node.mtime {
        return renew(tx, id, (size, mtime), now);
    }
    if !node.data_changed {
        content.follow(id, false, None);
    }
    Ok(())
}

/// Lets a row say what its content file is, and that the server does not have it.
pub(super) fn renew(
    tx: &mut Tx<'_>,
    id: NodeId,
    (size, mtime): (u64, Time),
    now: Time,
) -> Result<()> {
    let Some(node) = tx.node(id)? else {
        return Ok(());
    };
    if !node.scoped {
        for place in tx.places(id)? {
            tx.mark_dirty(place, now)?;
        }
    }
    tx.put_node(Node {
        size,
        mtime,
        ctime: now,
        content: Content::Whole,
        data_changed: true,
        data_seq: node.data_seq + 1,
        hash: None,
        ..node
    })
}

/// A node of the daemon's user that nobody else may read.
pub(super) fn new_node(id: NodeId, kind: Kind, now: Time) -> Node {
    let is_dir = kind == Kind::Dir;
    Node {
        id,
        kind,
        mode: if is_dir { 0o700 } else { 0o600 },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        size: 0,
        atime: now,
        mtime: now,
        ctime: now,
        nlink: if is_dir { 2 } else { 1 },
        target: Vec::new(),
        content: Content::Absent,
        data_changed: false,
        data_seq: 0,
        hash: None,
        listed: false,
        scoped: false,
    }
}
