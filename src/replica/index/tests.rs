use super::super::rows::{Content, Node};
use super::super::table;
use super::super::{ReplicaError, schema};
use super::*;
use crate::tree::{Kind, Name, NodeId, Place, Time};

type Done = Result<(), ReplicaError>;

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

/// Makes a file called `name` in the root.
pub(in super::super) fn make_file(replica: &Replica, name: &str) -> NodeId {
    let make = |tx: &mut Tx<'_>| {
        let id = tx.alloc_node()?;
        tx.put_node(file(id))?;
        tx.link(place(NodeId::ROOT, name), id)?;
        Ok::<_, ReplicaError>(id)
    };
    replica.update(make).unwrap()
}

#[test]
fn every_statement_finds_its_rows_by_an_index() {
    let dir = tempfile::tempdir().unwrap();
    let db = schema::open_writer(&dir.path().join("index.db")).unwrap();
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
fn rows_are_there_before_and_after_a_commit_and_a_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::open(dir.path(), Time(0)).unwrap();
    let id = make_file(&replica, "a");
    let check = |replica: &Replica| {
        let view = |view: &View<'_>| {
            assert_eq!(view.node(id)?, Some(file(id)));
            assert_eq!(view.places(id)?, [place(NodeId::ROOT, "a")]);
            assert_eq!(view.children(NodeId::ROOT, None, 9)?.len(), 1);
            assert_eq!(view.local_path(id)?.unwrap().to_string(), "a");
            Ok(())
        };
        let done: Done = replica.view(view);
        done.unwrap();
        assert_eq!(replica.counts().unwrap().files, 1);
    };
    check(&replica);
    replica.sync().unwrap();
    check(&replica);
    drop(replica);
    check(&Replica::open(dir.path(), Time(0)).unwrap());
}
