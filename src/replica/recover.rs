//! Making rows and content agree again after the daemon or the machine died.
//!
//! The death of the daemon leaves work only for nodes in flight. Power loss may undo updates that nobody
//! synced while the content they told of is on the disk: then every unsent file is looked at, which costs
//! what changed and not what exists.

use std::fs;

use super::content::ContentStore;
use super::error::ReplicaError;
use super::index::Shared;
use super::rows::{Content, Node};
use super::tx::Tx;
use super::view::View;
use crate::tree::{Kind, NodeId, Place, Time};

mod power_loss;

use power_loss::{BeingSent, Look};

type Result<T> = std::result::Result<T, ReplicaError>;

/// The boot in which the replica was opened last; nothing after it was closed.
const OPENED_IN: &str = "opened_in_boot";
/// So many files are synced one by one at the end. For more it is cheaper to sync all that is on the disk, whoever
/// wrote it.
const ONE_BY_ONE: usize = 64;
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Names the machine's present boot. Without one, all boots are the same.
pub(super) fn boot() -> Vec<u8> {
    fs::read(BOOT_ID).unwrap_or_default()
}

/// Looks at what may not agree. `boot` names the present boot. Returns the removed nodes whose content is still there.
pub(super) fn recover(shared: &Shared, now: Time, boot: Vec<u8>) -> Result<Vec<NodeId>> {
    let mut state = shared.lock();
    let content = &shared.content;
    let opened_in = View::new(&state).meta(OPENED_IN)?;
    let lost_power = opened_in.is_some_and(|opened_in| opened_in != boot);
    let being_sent = BeingSent::read(&View::new(&state))?;
    let mut look = Look::new(content, being_sent, now);
    if lost_power {
        content.drop_all_parts()?;
        shared.update_locked(&mut state, |tx| power_loss::skip_kept(tx, content))?;
    }
    for id in View::new(&state).in_flight()? {
        shared.update_locked(&mut state, |tx| match lost_power {
            true => look.in_flight(tx, id),
            false => settle_in_flight(tx, content, id, now),
        })?;
    }
    if lost_power {
        tracing::warn!(
            "the machine went down while the home was open; looking at what was on its way"
        );
        shared.update_locked(&mut state, |tx| look.all(tx))?;
        look.end()?;
    }
    shared.update_locked(&mut state, |tx| {
        tx.set_meta(OPENED_IN, Some(boot))?;
        if tx.node(NodeId::ROOT)?.is_none() {
            tx.put_node(new_node(NodeId::ROOT, Kind::Dir, now))?;
        }
        Ok::<_, ReplicaError>(())
    })?;
    let view = View::new(&state);
    content.drop_unfit_parts(&view)?;
    view.doomed()
}

/// Notes that nothing will have to be looked at, once all content is on the disk.
pub(super) fn note_closing(shared: &Shared) -> Result<()> {
    let (unsynced, dirty) = {
        let state = shared.lock();
        let view = View::new(&state);
        (view.unsynced()?, view.dirty(ONE_BY_ONE + 1)?)
    };
    if unsynced.len() + dirty.len() > ONE_BY_ONE {
        shared.content.sync_all()?;
    } else {
        sync_each(shared, &unsynced, &dirty)?;
        shared.content.sync_parts()?;
    }
    let mut state = shared.lock();
    shared.update_locked(&mut state, |tx| {
        for (id, since) in unsynced {
            tx.settle(id, since)?;
        }
        tx.set_meta(OPENED_IN, None)
    })
}

/// Syncs the content of some nodes and of what stands at some places.
fn sync_each(shared: &Shared, unsynced: &[(NodeId, u64)], dirty: &[(Place, Time)]) -> Result<()> {
    let mut nodes: Vec<NodeId> = unsynced.iter().map(|(id, _)| *id).collect();
    for (place, _) in dirty {
        nodes.extend(View::new(&shared.lock()).child(place.parent, &place.name)?);
    }
    nodes
        .into_iter()
        .try_for_each(|id| shared.content.sync_file(id))
}

fn settle_in_flight(tx: &mut Tx<'_>, content: &ContentStore, id: NodeId, now: Time) -> Result<()> {
    match (tx.node(id)?, content.stat(id)?) {
        // It goes when nobody has it any more.
        (Some(node), _) if node.nlink == 0 => tx.remove_node(id)?,
        // A program that outlived the daemon goes on writing to it by the kernel.
        (Some(_), Some(state)) if content.is_used(id)? => return renew(tx, id, state, now),
        // The kernel was to write to it, and did not.
        (Some(node), Some(state)) if is_as_agreed(&node, state) => {
            content.follow(id, false, || None);
        }
        (Some(_), Some(state)) => renew(tx, id, state, now)?,
        _ => {}
    }
    tx.clear_in_flight(id)
}

/// Whether the content file shows the very time that it was given when the kernel was to write to it.
fn is_as_agreed(node: &Node, (size, mtime): (u64, Time)) -> bool {
    !node.data_changed && (size, mtime) == (node.size, node.mtime)
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

    use super::super::Replica;
    use super::super::content::Which;
    use super::super::index::tests::{NOW, killed, make, open, place, update, view};
    use super::super::open::index_path;
    use super::*;
    use crate::tree::{BaseEntry, Hash, RelPath};

    /// What the next boot finds.
    fn without_power(replica: &Replica) -> tempfile::TempDir {
        replica.sync().unwrap();
        let copy = killed(replica);
        let db = rusqlite::Connection::open(index_path(copy.path())).unwrap();
        db.execute("UPDATE meta SET value = x'00' WHERE name = ?1", [OPENED_IN])
            .unwrap();
        copy
    }

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
        let copy = without_power(&replica);
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
    /// A file that the server has too, and what the disk holds of it.
    fn fetched(replica: &Replica, name: &str, on_disk: Option<&str>) -> NodeId {
        let id = make(replica, name, |node| {
            node.size = 4;
            node.content = Content::Whole;
            node.hash = Some(Hash(*blake3::hash(b"data").as_bytes()));
        });
        if let Some(text) = on_disk {
            let mut staged = replica.content().new_staging().unwrap();
            staged.file.write_all(text.as_bytes()).unwrap();
            replica.content().install(staged, id).unwrap();
        }
        id
    }

    #[test]
    fn content_that_power_loss_took_and_the_server_has_is_fetched_again() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let disk = [Some("data"), Some(""), Some("da\0\0"), None];
        let ids = disk.map(|on_disk| fetched(&replica, &format!("{on_disk:?}"), on_disk));
        let safe = fetched(&replica, "synced", Some("data"));
        replica.sync_content(safe).unwrap();
        let unsynced = view(&replica, |view| view.unsynced());
        assert_eq!(unsynced.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
        let copy = killed(&replica);
        let kill = open(&copy);
        assert_eq!(view(&kill, |view| view.unsynced()), unsynced);
        let copy = without_power(&replica);
        let replica = open(&copy);
        let content = ids.map(|id| view(&replica, |view| view.node(id)).unwrap().content);
        let (whole, absent) = (Content::Whole, Content::Absent);
        assert_eq!(content, [whole, absent, absent, absent]);
        assert_eq!(
            view(&replica, |view| view.node(safe)).unwrap().content,
            whole
        );
        assert_eq!(replica.content().list(Which::Clean).unwrap().len(), 2);
    }

    #[test]
    fn after_an_orderly_end_power_loss_takes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        fetched(&replica, "a", Some("data"));
        replica.close().unwrap();
        drop(replica);
        assert!(view(&open(&dir), |view| view.unsynced()).is_empty());
    }

    #[test]
    fn unsent_content_that_power_loss_moved_cut_or_took_is_what_its_row_says() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let on_disk = [Some("data"), Some("da"), None, None, Some("data")];
        let ids = [0, 1, 2, 3, 4].map(|nth: usize| {
            let id = fetched(&replica, &format!("{nth}"), on_disk[nth]);
            let here = place(NodeId::ROOT, &format!("{nth}"));
            update(&replica, |tx| {
                let node = tx.node(id)?.unwrap();
                if nth >= 3 {
                    let version = node.version();
                    tx.set_base(here.clone(), Some(BaseEntry { node: id, version }))?;
                }
                tx.mark_dirty(here, NOW)?;
                tx.put_node(Node {
                    data_changed: true,
                    hash: None,
                    ..node
                })
            });
            // The rename is lost.
            if on_disk[nth].is_some() {
                replica.content().mark_sent(id).unwrap();
            }
            id
        });
        let copy = without_power(&replica);
        let replica = open(&copy);
        let rows = ids.map(|id| view(&replica, |view| view.node(id)).unwrap());
        assert_eq!(rows.each_ref().map(|row| row.size), [4, 2, 0, 4, 4]);
        let unsent = rows.each_ref().map(|row| row.data_changed);
        assert_eq!(unsent, [true, true, true, false, false]);
        assert_eq!(rows[3].content, Content::Absent, "the server has it");
        assert_eq!(rows[4].content, Content::Whole, "so has this machine");
        let files = replica.content().list(Which::Unsent).unwrap();
        assert_eq!(files.len(), 2);
    }

    #[test]
    fn what_power_loss_left_is_kept_beside_what_an_earlier_one_left() {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let id = fetched(&replica, "a", Some("data"));
        let hint = RelPath::parse(b"a").unwrap();
        let mut file = replica.content().open_unsent(id, &hint).unwrap();
        update(&replica, |tx| tx.mark_in_flight(id));
        file.write_all(b"more").unwrap();
        // It was kept before, when the power went again and took the row.
        for number in 0..2 {
            replica.content().link_to_backup(id, number).unwrap();
        }
        let copy = without_power(&replica);
        let replica = open(&copy);
        let kept = view(&replica, |view| view.backups());
        assert_eq!(kept.iter().map(|kept| kept.id).collect::<Vec<_>>(), [2]);
        assert_eq!(replica.content().list_backups().unwrap().len(), 3);
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
