use std::io::Write;

use super::super::content::Which;
use super::super::index::tests::{NOW, killed, make, open, place, update, view};
use super::super::rows::Observation;
use super::*;
use crate::tree::{BaseEntry, Hash, Time};

const TEXT: &[u8] = b"what the server has too";

/// A file that the server has too, with its content here.
fn fetched(replica: &Replica, name: &str) -> NodeId {
    let id = make(replica, name, |node| {
        node.size = TEXT.len() as u64;
        node.content = Content::Whole;
        node.hash = Some(Hash(*blake3::hash(TEXT).as_bytes()));
    });
    let mut staged = replica.content().new_staging().unwrap();
    staged.file.write_all(TEXT).unwrap();
    replica.content().install(staged, id).unwrap();
    update(replica, |tx| {
        let version = tx.node(id)?.unwrap().version();
        let here = place(NodeId::ROOT, name);
        tx.set_base(here, Some(BaseEntry { node: id, version }))
    });
    id
}

fn is_here(replica: &Replica, id: NodeId) -> bool {
    let row = view(replica, |view| view.node(id)).unwrap().content == Content::Whole;
    let file = replica.content().open_read(id, false).is_ok();
    assert_eq!(row, file);
    row
}

#[test]
fn what_the_server_was_seen_to_hold_goes_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let names = [
        "goes",
        "pinned",
        "open",
        "dirty",
        "gone",
        "racy",
        "not agreed",
        "of another time",
    ];
    let ids = names.map(|name| fetched(&replica, name));
    let here = |nth: usize| place(NodeId::ROOT, names[nth]);
    replica.opens().inc(ids[2], false);
    update(&replica, |tx| {
        tx.set_pin(ids[1], true)?;
        let dirty = tx.node(ids[3])?.unwrap();
        tx.put_node(Node {
            data_changed: true,
            ..dirty
        })?;
        let seen_at = NOW;
        let gone = Observation {
            version: None,
            seen_at,
        };
        tx.observe(here(4), Some(gone))?;
        tx.mark_racy(here(5))?;
        tx.set_base(here(6), None)?;
        let mut other = tx.node(ids[7])?.unwrap();
        other.mtime = Time::new(77, 0);
        other.hash = None;
        tx.put_node(other)
    });
    assert!(replica.evict(&ids).unwrap() > 0);
    let left = ids.map(|id| replica.content().open_read(id, false).is_ok());
    assert_eq!(left, [false, true, true, true, true, true, true, true]);
    replica.opens().dec(ids[2], false);
    assert!(replica.evict(&ids).unwrap() > 0);
    assert!(!is_here(&replica, ids[2]));
    assert_eq!(replica.evict(&ids).unwrap(), 0);
    let dirty = replica.content().list(Which::Unsent).unwrap();
    assert_eq!(dirty.len(), 1);
}

#[test]
fn what_is_gone_is_gone_after_the_daemon_died_and_what_was_fetched_again_stays() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let id = fetched(&replica, "a");
    let old = replica.content().clean_file(id).unwrap().unwrap();
    replica.evict(&[id]).unwrap();
    assert!(!is_here(&open(&killed(&replica)), id));
    // It came back before the old one was removed.
    let mut staged = replica.content().new_staging().unwrap();
    staged.file.write_all(TEXT).unwrap();
    replica.content().install(staged, id).unwrap();
    assert_eq!(replica.content().remove_clean(&old).unwrap(), 0);
    assert!(replica.content().open_read(id, false).is_ok());
}

#[test]
fn a_pin_holds_for_what_is_in_a_directory_and_for_what_takes_a_files_place() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let [a, b, inside] = ["a", "b", "inside"].map(|name| fetched(&replica, name));
    let sub = make(&replica, "sub", |node| node.kind = Kind::Dir);
    update(&replica, |tx| {
        tx.unlink(&place(NodeId::ROOT, "inside"))?;
        tx.link(place(sub, "inside"), inside)?;
        tx.set_pin(sub, true)?;
        tx.set_pin(a, true)
    });
    assert!(view(&replica, |view| view.is_pinned(inside)));
    assert!(!view(&replica, |view| view.is_pinned(b)));
    // `b` is renamed over `a`.
    update(&replica, |tx| {
        tx.unlink(&place(NodeId::ROOT, "b"))?;
        tx.link(place(NodeId::ROOT, "a"), b)?;
        tx.remove_node(a)
    });
    let pins = |replica: &Replica| view(replica, |view| view.pins());
    assert_eq!(pins(&replica), [b, sub]);
    assert_eq!(pins(&open(&killed(&replica))), [b, sub]);
    // A directory in the place of another is another.
    let other = make(&replica, "other", |node| node.kind = Kind::Dir);
    update(&replica, |tx| tx.link(place(NodeId::ROOT, "sub"), other));
    assert_eq!(pins(&replica), [b, sub]);
    update(&replica, |tx| tx.set_pin(sub, false));
    assert!(!view(&replica, |view| view.is_pinned(inside)));
}

#[test]
fn the_time_of_last_use_is_that_of_the_last_open_and_no_time_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let id = fetched(&replica, "a");
    let file = replica.content().open_read(id, false).unwrap();
    let mtime = || file.metadata().unwrap().modified().unwrap();
    let before = mtime();
    for (at, used) in [
        (50_000, 50_000),
        (50_010, 50_000),
        (60_000, 60_000),
        (10, 10),
    ] {
        ContentStore::note_use(&file, Time::new(at, 0));
        assert_eq!(replica.cached().unwrap()[0].used, Time::new(used, 0));
    }
    assert_eq!(mtime(), before);
}
