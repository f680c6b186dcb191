use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

use super::super::index::tests::{NOW, make, open, update};
use super::super::rows::Content;
use super::*;
use crate::replica::Replica;

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

fn read(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

fn staged(store: &ContentStore, text: &str) -> StagingFile {
    let mut staged = store.new_staging().unwrap();
    staged.file.write_all(text.as_bytes()).unwrap();
    staged
}

fn ids(store: &ContentStore, which: Which) -> Vec<NodeId> {
    store
        .list(which)
        .unwrap()
        .into_iter()
        .map(|(id, _)| id)
        .collect()
}

const NODE: NodeId = NodeId(300);

#[test]
fn writing_takes_content_out_of_the_reach_of_eviction() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path(), NOW).unwrap();
    store.install(staged(&store, "from server"), NODE).unwrap();
    let reader = store.open_read(NODE, false).unwrap();
    drop(store.open_unsent(NODE, &path("a")).unwrap());
    assert_eq!(
        (ids(&store, Which::Clean), ids(&store, Which::Unsent)),
        (vec![], vec![NODE])
    );
    store.evict(NODE).unwrap();
    drop(store.open_unsent(NODE, &path("a")).unwrap());
    assert_eq!(read(store.open_read(NODE, false).unwrap()), "from server");
    assert_eq!(read(reader), "from server");
    store.sync_file(NODE).unwrap();
    store.mark_sent(NODE).unwrap();
    store.evict(NODE).unwrap();
    let gone = store.open_read(NODE, false);
    assert!(
        matches!(gone, Err(ReplicaError::Io { source, .. }) if source.kind() == ErrorKind::NotFound)
    );
}

#[test]
fn a_download_never_replaces_unsent_content() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path(), NOW).unwrap();
    store
        .open_unsent(NODE, &path("a"))
        .unwrap()
        .write_all(b"mine")
        .unwrap();
    store.install(staged(&store, "theirs"), NODE).unwrap_err();
    assert_eq!(read(store.open_read(NODE, false).unwrap()), "mine");
    store.link_to_backup(NODE, 7).unwrap();
    store.remove(NODE).unwrap();
    store.install(staged(&store, "theirs"), NODE).unwrap();
    assert_eq!(read(store.open_read(NODE, false).unwrap()), "theirs");
    assert_eq!(read(store.open_backup(7).unwrap()), "mine");
    store.link_to_backup(NODE, 8).unwrap();
    assert_eq!(read(store.open_backup(8).unwrap()), "theirs");
    store.remove_backup(7).unwrap();
    store.open_backup(7).unwrap_err();
    assert_eq!(fs::read_dir(dir.path().join("staging")).unwrap().count(), 0);
}

#[test]
fn a_snapshot_stays_as_it_was_and_keeps_holes() {
    const LEN: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path(), NOW).unwrap();
    let file = store.open_unsent(NODE, &path("a")).unwrap();
    file.set_len(LEN).unwrap();
    file.write_all_at(b"middle", LEN / 2).unwrap();
    let snapshot = store.copy(NODE).unwrap();
    file.write_all_at(b"change", LEN / 2).unwrap();
    let mut bytes = [0; 6];
    snapshot.file.read_exact_at(&mut bytes, LEN / 2).unwrap();
    assert_eq!(&bytes, b"middle");
    let found = snapshot.file.metadata().unwrap();
    assert_eq!(found.len(), LEN);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
}

#[test]
fn a_hint_is_found_where_the_disk_has_attributes_and_where_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path(), NOW).unwrap();
    let file = store.open_unsent(NODE, &path("old")).unwrap();
    store.set_hint(NODE, &path("dir/\u{e9} new\n")).unwrap();
    let logged = store.hints().logged().unwrap().remove(&NODE);
    assert_eq!(
        Hints::of_file(&file).or(logged),
        Some(path("dir/\u{e9} new\n"))
    );
    store.hints().log(NodeId(5), b"first").unwrap();
    store.hints().log(NodeId(5), b"a b\n/c").unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(dir.path().join("unsent/paths.log"))
        .unwrap()
        .write_all(b"6 torn")
        .unwrap();
    let logged = store.hints().logged().unwrap();
    assert_eq!(logged.get(&NodeId(5)), Some(&path("a b\n/c")));
    assert_eq!(logged.get(&NodeId(6)), None);
    for _ in 0..300 {
        store
            .hints()
            .log(NodeId(5), &b"gone/".repeat(1000))
            .unwrap();
        store.hints().log(NODE, b"kept").unwrap();
    }
    let store = ContentStore::open(dir.path(), NOW).unwrap();
    let logged = store.hints().logged().unwrap();
    assert_eq!(
        logged.into_iter().collect::<Vec<_>>(),
        [(NODE, path("kept"))]
    );
}

#[test]
fn content_follows_its_row() {
    let dir = tempfile::tempdir().unwrap();
    let replica: Replica = open(&dir);
    let store = replica.content();
    let id = make(&replica, "a", |node| node.content = Content::Whole);
    store.install(staged(store, "text"), id).unwrap();
    for changed in [true, false] {
        update(&replica, |tx| {
            let mut node = tx.node(id)?.unwrap();
            node.data_changed = changed;
            tx.put_node(node)
        });
        let which = if changed { Which::Unsent } else { Which::Clean };
        assert_eq!(ids(store, which), [id]);
    }
    update(&replica, |tx| tx.remove_node(id));
    assert_eq!(
        read(store.open_read(id, true).unwrap()),
        "text",
        "until the removal is durable"
    );
    replica.close().unwrap();
    store.open_read(id, true).unwrap_err();
}

#[test]
fn a_download_that_somebody_is_at_work_on_is_not_cleared_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = ContentStore::open(dir.path(), NOW).unwrap();
    let mut download = store.begin_download("key").unwrap();
    download.file.write_all(b"half").unwrap();
    let at_work = |transfer: &str| (transfer != "down-key").then_some(());
    store.expire_transfers(NOW, &at_work).unwrap();
    store.install(download, NODE).unwrap();
    assert_eq!(read(store.open_read(NODE, false).unwrap()), "half");
    // Nobody is, and nobody could go on with it.
    let left = store.begin_download("key").unwrap();
    let path = left.path.clone();
    left.keep();
    store.expire_transfers(NOW, &|_| Some(())).unwrap();
    assert!(!path.exists());
}
