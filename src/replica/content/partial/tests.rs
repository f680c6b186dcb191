//! Parts as a daemon fills them, and as the next one finds them.

use std::fs;
use std::os::unix::fs::FileExt;

use super::*;
use crate::replica::Replica;
use crate::replica::index::tests::{killed, make, open, place, update, view};
use crate::replica::open::index_path;
use crate::tree::{BaseEntry, Hash, RelPath};

const SIZE: u64 = 1000;
const BLOCK: u32 = 100;

/// A file that the server has, and nothing of which is here.
fn far(replica: &Replica, name: &str) -> (NodeId, PartOf) {
    let id = make(replica, name, |node| {
        node.size = SIZE;
        node.hash = Some(Hash([7; 32]));
    });
    let mtime = update(replica, |tx| {
        let version = tx.node(id)?.unwrap().version();
        let mtime = version.mtime;
        let entry = BaseEntry { node: id, version };
        tx.set_base(place(NodeId::ROOT, name), Some(entry))?;
        Ok::<_, ReplicaError>(mtime)
    });
    let of = PartOf {
        seq: 0,
        size: SIZE,
        mtime,
    };
    (id, of)
}

/// Brings bytes of it, all of which are its node's number.
fn bring(replica: &Replica, (id, of): (NodeId, PartOf), bytes: Range<u64>) -> Arc<Partial> {
    let partial = replica.begin_partial(id, of, BLOCK).unwrap().unwrap();
    let data = vec![id.0 as u8; (bytes.end - bytes.start) as usize];
    partial.put(bytes.start, &data).unwrap();
    partial.note(&bytes).unwrap();
    partial
}

fn here(replica: &Replica, id: NodeId) -> u64 {
    let partial = replica.content().partial(id).unwrap();
    assert_eq!(partial.is_some(), replica.content().has_part(id));
    partial.map_or(0, |partial| partial.present())
}

fn files(dir: &std::path::Path) -> usize {
    fs::read_dir(dir.join("partial")).unwrap().count()
}

#[test]
fn what_a_killed_daemon_left_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let [one, other] = ["one", "other"].map(|name| far(&replica, name));
    bring(&replica, one, 200..500);
    drop(bring(&replica, one, 900..1000));
    bring(&replica, other, 0..100);
    // Written, but not noted.
    let partial = replica.content().partial(other.0).unwrap().unwrap();
    partial.put(500, &[9; 100]).unwrap();
    assert_eq!(replica.counts().unwrap().content_bytes, 500);
    let copy = killed(&replica);
    let replica = open(&copy);
    assert_eq!((here(&replica, one.0), here(&replica, other.0)), (400, 100));
    assert_eq!(replica.counts().unwrap().content_bytes, 500);
    let partial = bring(&replica, one, 0..200);
    assert_eq!(partial.missing(&(0..SIZE)), [500..900]);
    let mut read = [0; 500];
    partial.file().read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, [one.0.0 as u8; 500]);
}

#[test]
fn a_power_loss_takes_all_of_it_and_an_orderly_end_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let far = far(&replica, "a");
    bring(&replica, far, 0..300);
    replica.sync().unwrap();
    let copy = killed(&replica);
    let db = rusqlite::Connection::open(index_path(copy.path())).unwrap();
    db.execute(
        "UPDATE meta SET value = x'00' WHERE name = 'opened_in_boot'",
        [],
    )
    .unwrap();
    drop(db);
    assert_eq!(here(&open(&copy), far.0), 0);
    assert_eq!(files(copy.path()), 0);
    replica.close().unwrap();
    drop(replica);
    assert_eq!(here(&open(&dir), far.0), 300);
}

#[test]
fn it_goes_when_its_row_stands_for_something_else() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let names = ["changed", "removed", "another", "agreed", "whole", "stays"];
    let all = names.map(|name| far(&replica, name));
    let parts = all.map(|far| bring(&replica, far, 0..300));
    let [changed, removed, another, agreed, whole, stays] = all.map(|(id, _)| id);
    let hint = RelPath::parse(b"changed").unwrap();
    replica.content().open_anew(changed, &hint).unwrap();
    update(&replica, |tx| tx.remove_node(removed));
    replica.end_part(another, Ended::Changed).unwrap();
    let staged = parts[4].to_install().unwrap();
    replica.content().install(staged, whole).unwrap();
    update(&replica, |tx| {
        let mut node = tx.node(whole)?.unwrap();
        node.content = Content::Whole;
        tx.put_node(node)?;
        // What a start finds.
        let mut node = tx.node(agreed)?.unwrap();
        node.data_seq += 1;
        tx.put_node(node)
    });
    let ended = parts.each_ref().map(|part| part.ended());
    let (over, changed_end) = (Some(Ended::Over), Some(Ended::Changed));
    assert_eq!(ended, [over, None, changed_end, None, over, None]);
    replica.close().unwrap();
    drop(replica);
    let replica = open(&dir);
    let left = all.map(|(id, _)| here(&replica, id));
    assert_eq!(left, [0, 0, 0, 0, 0, 300]);
    assert_eq!(files(dir.path()), 2);
    assert!(replica.content().open_read(whole, false).is_ok());
    // Of what is here nothing is begun.
    assert!(
        replica
            .begin_partial(whole, all[4].1, BLOCK)
            .unwrap()
            .is_none()
    );
    assert!(view(&replica, |view| view.node(stays)).is_some());
}

#[test]
fn what_makes_no_sense_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let all = ["a", "b", "c", "d"].map(|name| far(&replica, name));
    drop(all.map(|far| bring(&replica, far, 0..300)));
    replica.close().unwrap();
    drop(replica);
    let at = |nth: usize, end: &str| {
        let name = format!("{}{end}", all[nth].0);
        dir.path().join("partial").join(name)
    };
    fs::write(at(0, ".map"), b"RHP1").unwrap();
    fs::remove_file(at(1, "")).unwrap();
    let mut map = fs::read(at(2, ".map")).unwrap();
    // A content of so many bytes has more blocks than these.
    map[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(at(2, ".map"), map).unwrap();
    fs::write(dir.path().join("partial/what"), b"?").unwrap();
    let replica = open(&dir);
    let left = all.map(|(id, _)| here(&replica, id));
    assert_eq!(left, [0, 0, 0, 300]);
    assert_eq!(files(dir.path()), 2);
}

#[test]
fn it_makes_room_unless_it_is_open_or_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let all = ["goes", "open", "pinned"].map(|name| far(&replica, name));
    drop(all.map(|far| bring(&replica, far, 0..300)));
    let [goes, opened, pinned] = all.map(|(id, _)| id);
    replica.opens().inc(opened, false);
    update(&replica, |tx| tx.set_pin(pinned, true));
    assert_eq!(replica.cached().unwrap().len(), 3);
    assert!(replica.evict_parts(&[goes, opened, pinned]).unwrap() > 0);
    let left = all.map(|(id, _)| here(&replica, id));
    assert_eq!(left, [0, 300, 300]);
    assert_eq!(replica.cached().unwrap().len(), 2);
}
