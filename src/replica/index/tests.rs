use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use rusqlite::TransactionBehavior;
use tempfile::TempDir;

use super::super::rows::{Content, Node};
use super::super::{Commits, Opening, ReplicaError, schema, table};
use super::*;
use crate::tree::{Kind, Name, NodeId, Place, Time};

pub(in super::super) const NOW: Time = Time(1_000);

pub(in super::super) fn open(dir: &TempDir) -> Replica {
    Replica::open(dir.path(), NOW).unwrap()
}

pub(in super::super) fn file(id: NodeId) -> Node {
    Node {
        id,
        kind: Kind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        size: 0,
        atime: Time(1),
        mtime: Time(2),
        ctime: Time(3),
        nlink: 1,
        target: Vec::new(),
        content: Content::Absent,
        data_changed: false,
        data_seq: 0,
        hash: None,
        listed: false,
        scoped: false,
    }
}

pub(in super::super) fn place(parent: NodeId, name: &str) -> Place {
    Place::new(parent, Name::new(name.as_bytes()).unwrap())
}

/// Fills `len` bytes of a file with one byte after the other, as the mount does: content first, then the row.
pub(in super::super) fn fill(
    replica: &Replica,
    id: NodeId,
    file: &std::fs::File,
    (byte, len): (u8, usize),
) {
    let _writing = replica.opens().write(id);
    file.write_all_at(&vec![byte; len], 0).unwrap();
    update(replica, |tx| {
        let node = tx.node(id)?.unwrap();
        tx.put_node(Node {
            data_seq: node.data_seq + 1,
            ..node
        })
    });
}

/// A transaction of a test.
pub(in super::super) fn update<T>(
    replica: &Replica,
    f: impl FnOnce(&mut Tx<'_>) -> Result<T, ReplicaError>,
) -> T {
    replica.update(f).unwrap()
}

/// A look of a test.
pub(in super::super) fn view<T>(
    replica: &Replica,
    f: impl FnOnce(&View<'_>) -> Result<T, ReplicaError>,
) -> T {
    replica.view(f).unwrap()
}

/// Makes a file called `name` in the root, changed by `with`.
pub(in super::super) fn make(
    replica: &Replica,
    name: &str,
    with: impl FnOnce(&mut Node),
) -> NodeId {
    update(replica, |tx| {
        let id = tx.alloc_node()?;
        let mut node = file(id);
        with(&mut node);
        tx.put_node(node)?;
        tx.link(place(NodeId::ROOT, name), id)?;
        Ok(id)
    })
}

/// What SIGKILL at this moment would leave, as a directory of its own.
pub(in super::super) fn killed(replica: &Replica) -> TempDir {
    // Whoever may write to the database holds back the writer, so that all files are of one moment.
    let mut db = rusqlite::Connection::open(&replica.shared.lock().index).unwrap();
    db.busy_timeout(std::time::Duration::from_secs(60)).unwrap();
    let guard = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_tree(replica.state_dir(), copy.path());
    drop(guard);
    copy
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (source, target) = (
            entry.as_ref().unwrap().path(),
            to.join(entry.unwrap().file_name()),
        );
        if source.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(&source, &target);
        } else if !source.to_string_lossy().ends_with("-shm") {
            // A journal that is committed may be removed at any time.
            let _gone = fs::copy(&source, &target);
        }
    }
}

#[test]
fn what_was_committed_without_a_sync_is_synced_when_somebody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let opening = Opening {
        commits: Commits::Asked,
        ..Opening::new(NOW)
    };
    let replica = Replica::open_as(dir.path(), opening).unwrap();
    make(&replica, "a", |_| {});
    replica.commit().unwrap();
    // A sync that finds nothing to commit must commit something all the same, or SQLite syncs nothing.
    let log = || std::fs::read(dir.path().join("index.db-wal")).unwrap();
    let before = log();
    replica.sync().unwrap();
    assert_ne!(log(), before);
    let before = log();
    replica.sync().unwrap();
    assert_eq!(log(), before, "nothing is left to sync");
}

#[test]
fn every_statement_finds_its_rows_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let (mut db, format) = schema::open_writer(&dir.path().join("index.db")).unwrap();
    schema::migrate(&mut db, format).unwrap();
    for sql in table::all_sql() {
        for statement in [&sql.get, &sql.range] {
            let explain = format!("EXPLAIN QUERY PLAN {statement}");
            let mut explain = db.prepare(&explain).unwrap();
            let mut rows = explain.raw_query();
            let mut plan = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                plan.push(row.get::<_, String>(3).unwrap());
            }
            let good = plan.len() == 1 && plan[0].starts_with("SEARCH");
            assert!(good, "{statement}: {plan:?}");
        }
    }
}

#[test]
fn an_update_that_returned_survives_sigkill_and_one_that_failed_does_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let id = make(&replica, "a", |_| {});
    let failed: Result<(), _> = replica.update(|tx| {
        tx.unlink(&place(NodeId::ROOT, "a"))?;
        assert_eq!(tx.child(NodeId::ROOT, &Name::new(b"a").unwrap())?, None);
        let dir = dir.path().to_owned();
        Err(ReplicaError::Closed { dir })
    });
    failed.unwrap_err();
    let copy = killed(&replica);
    for replica in [replica, open(&copy)] {
        assert_eq!(view(&replica, |view| view.node(id)), Some(file(id)));
        assert_eq!(
            view(&replica, |view| view.places(id)),
            [place(NodeId::ROOT, "a")]
        );
        assert_eq!(
            view(&replica, |view| view.local_path(id))
                .unwrap()
                .to_string(),
            "a"
        );
        assert_eq!(replica.counts().unwrap().files, 1);
    }
}

#[test]
fn node_ids_are_never_given_twice() {
    let mut dir = tempfile::tempdir().unwrap();
    let mut last = NodeId(0);
    for round in 0..4 {
        let replica = open(&dir);
        let failed: Result<(), _> = replica.update(|tx| {
            last = tx.alloc_node()?.max(last);
            let dir = dir.path().to_owned();
            Err(ReplicaError::Closed { dir })
        });
        failed.unwrap_err();
        for name in ["a", "b"] {
            let id = make(&replica, name, |_| {});
            assert!(id > last && id >= NodeId::FIRST_FREE);
            last = id;
            update(&replica, |tx| tx.remove_node(id));
        }
        if round % 2 == 0 {
            dir = killed(&replica);
        }
    }
}

#[test]
fn a_full_disk_fails_the_update_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let first = make(&replica, "a", |_| {});
    {
        let mut state = replica.shared.lock();
        state.journal.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    }
    let removal = replica.update(|tx| tx.remove_node(first));
    assert!(
        matches!(removal, Err(ReplicaError::NoSpace { .. })),
        "{removal:?}"
    );
    assert!(view(&replica, |view| view.node(first)).is_some());
    // The next journal has space again.
    let second = make(&replica, "b", |_| {});
    let copy = killed(&replica);
    for replica in [replica, open(&copy)] {
        for id in [first, second] {
            assert_eq!(view(&replica, |view| view.node(id)), Some(file(id)));
        }
    }
}

#[test]
fn a_commit_that_fails_is_told_to_who_waits_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    replica.sync().unwrap();
    let mut db = rusqlite::Connection::open(dir.path().join("index.db")).unwrap();
    let guard = db
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .unwrap();
    let id = make(&replica, "a", |_| {});
    replica.sync().unwrap_err();
    let other = make(&replica, "b", |_| {});
    for id in [id, other] {
        assert!(view(&replica, |view| view.node(id)).is_some());
    }
    drop(guard);
    replica.sync().unwrap();
    drop(replica);
    assert_eq!(open(&dir).counts().unwrap().files, 2);
}

#[test]
fn those_who_update_look_and_sync_at_once_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let replica = &replica;
            scope.spawn(move || {
                for round in 0..40 {
                    let id = make(replica, &format!("{thread}-{round}"), |_| {});
                    if round % 8 == 0 {
                        replica.sync().unwrap();
                    }
                    let (node, path) = view(replica, |v| Ok((v.node(id)?, v.local_path(id)?)));
                    assert!(node.is_some() && path.is_some());
                    let all = view(replica, |v| v.children(NodeId::ROOT, None, usize::MAX)).len();
                    assert!(all > round);
                }
            });
        }
    });
    replica.close().unwrap();
    assert!(matches!(
        replica.update(|tx| tx.set_meta("x", None)),
        Err(ReplicaError::Closed { .. })
    ));
    drop(replica);
    let replica = open(&dir);
    assert_eq!(
        view(&replica, |v| v.children(NodeId::ROOT, None, 999)).len(),
        160
    );
    assert_eq!(replica.counts().unwrap().files, 160);
}

#[test]
fn a_place_stays_dirty_since_the_first_time() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let spot = place(NodeId::ROOT, "a");
    update(&replica, |tx| tx.mark_dirty(spot.clone(), Time(1)));
    update(&replica, |tx| tx.mark_dirty(spot.clone(), Time(2)));
    assert_eq!(
        view(&replica, |view| view.dirty(9)),
        [(spot.clone(), Time(1))]
    );
    assert_eq!(replica.counts().unwrap().dirty_places, 1);
    update(&replica, |tx| tx.clear_dirty(&spot));
    assert_eq!(replica.counts().unwrap().dirty_places, 0);
}

#[test]
fn a_number_that_no_column_holds_stops_no_commit() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let id = make(&replica, "endless", |node| node.size = u64::MAX);
    make(&replica, "after", |_| {});
    replica.sync().unwrap();
    replica.close().unwrap();
    drop(replica);
    let node = view(&open(&dir), |view| view.node(id)).unwrap();
    assert_eq!(node.size, i64::MAX.cast_unsigned());
}
