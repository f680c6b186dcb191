//! Making rows and content agree again after the daemon or the machine died.
//!
//! The death of the daemon leaves work only for nodes in flight. Power loss may undo updates that nobody
//! synced while the content they told of is on the disk: then every unsent file is looked at, which costs
//! what changed and not what exists.

use std::fs;

use super::content::{ContentStore, Which};
use super::error::ReplicaError;
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
    // Without a boot id, all boots are one.
    let boot = fs::read(BOOT_ID).unwrap_or_default();
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
        content.follow(id, false, || None);
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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::index::tests::{NOW, killed, make, open, place, update, view};
    use super::super::open::index_path;
    use super::*;
    use crate::tree::{Hash, RelPath};

    #[test]
    fn content_written_after_the_last_row_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let id = make(&replica, "a", |node| node.hash = Some(Hash([1; 32])));
        let hint = RelPath::parse(b"a").unwrap();
        let mut file = replica.content().open_unsent(id, &hint).unwrap();
        update(&replica, |tx| tx.mark_in_flight(id));
        file.write_all(b"more").unwrap();
        let copy = killed(&replica);
        let replica = open(&copy);
        let node = view(&replica, |view| view.node(id)).unwrap();
        assert_eq!((node.size, node.data_seq, node.hash), (4, 1, None));
        assert!(node.data_changed && node.content == Content::Whole);
        assert!(view(&replica, |view| view.is_dirty(&place(NodeId::ROOT, "a"))));
        assert!(view(&replica, |view| view.in_flight()).is_empty());
    }

    #[test]
    fn what_was_removed_while_open_is_gone_after_a_crash() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let id = make(&replica, "a", |node| node.data_changed = true);
        let hint = RelPath::parse(b"a").unwrap();
        replica.content().open_unsent(id, &hint).unwrap();
        update(&replica, |tx| {
            tx.unlink(&place(NodeId::ROOT, "a"))?;
            tx.mark_in_flight(id)?;
            let mut node = tx.node(id)?.unwrap();
            node.nlink = 0;
            tx.put_node(node)
        });
        let copy = killed(&replica);
        let replica = open(&copy);
        assert_eq!(view(&replica, |view| view.node(id)), None);
        replica.close().unwrap();
        assert!(replica.content().list(Which::Unsent).unwrap().is_empty());
    }

    #[test]
    fn power_loss_that_undid_an_update_leaves_its_content_to_be_sent() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let written = make(&replica, "written", |_| {});
        let untouched = make(&replica, "untouched", |node| node.mtime = Time(i64::MAX));
        for (id, bytes) in [(written, &b"new"[..]), (untouched, b"")] {
            let hint = RelPath::parse(b"x").unwrap();
            let mut file = replica.content().open_unsent(id, &hint).unwrap();
            file.write_all(bytes).unwrap();
        }
        replica.sync().unwrap();
        let copy = killed(&replica);
        let db = rusqlite::Connection::open(index_path(copy.path())).unwrap();
        db.execute("UPDATE meta SET value = x'00' WHERE name = ?1", [OPENED_IN])
            .unwrap();
        drop(db);
        let replica = open(&copy);
        assert!(
            view(&replica, |view| view.node(written))
                .unwrap()
                .is_unsent()
        );
        assert!(
            !view(&replica, |view| view.node(untouched))
                .unwrap()
                .is_unsent()
        );
        let unsent = replica.content().list(Which::Unsent).unwrap();
        assert_eq!(
            unsent.into_iter().map(|(id, _)| id).collect::<Vec<_>>(),
            [written]
        );
        assert_eq!(
            NOW,
            view(&replica, |view| view.node(written)).unwrap().ctime
        );
    }

    #[test]
    fn a_number_that_content_bears_is_never_given_again() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        // As if the updates that gave them had not survived, only what was written then.
        let borne: Vec<NodeId> = (20..5_000).step_by(499).map(NodeId).collect();
        for (id, clean) in borne.iter().zip([true, false].into_iter().cycle()) {
            let hint = RelPath::parse(b"x").unwrap();
            let mut file = replica.content().open_unsent(*id, &hint).unwrap();
            file.write_all(b"of another file").unwrap();
            if clean {
                replica.content().mark_sent(*id).unwrap();
            }
        }
        let given: Vec<_> = (0..5_000)
            .map(|_| update(&replica, |tx| tx.alloc_node()))
            .collect();
        assert!(given.iter().all(|id| !borne.contains(id)));
        assert!(given.windows(2).all(|two| two[0] < two[1]));
    }
}
