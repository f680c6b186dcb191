use std::io::Write;
use std::os::unix::fs::MetadataExt;

use super::super::Replica;
use super::super::index::tests::{killed, make, open, place, update};
use super::*;
use crate::tree::Version;

/// An unsent file in the root that was noted as `hint` and is called `name`.
fn unsent(replica: &Replica, hint: &str, name: &str, text: &str) -> NodeId {
    let id = make(replica, name, |node| {
        node.data_changed = true;
        node.size = text.len() as u64;
        node.mode = 0o750;
        node.mtime = Time::new(1_000_000, 5);
    });
    let hint = RelPath::parse(hint.as_bytes()).unwrap();
    let mut file = replica.content().open_unsent(id, &hint).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    id
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn every_unsent_file_gets_its_current_path_and_nothing_is_overwritten() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replica = open(&dir);
    unsent(&replica, "old", "new", "renamed");
    let backup = unsent(&replica, "new", "kept", "lost a conflict");
    replica.content().link_to_backup(backup, 0).unwrap();
    replica.content().remove(backup).unwrap();
    update(&replica, |tx| {
        let id = tx.alloc_backup()?;
        tx.unlink(&place(NodeId::ROOT, "kept"))?;
        tx.remove_node(backup)?;
        tx.add_backup(LocalBackup {
            path: RelPath::parse(b"new").unwrap(),
            version: Version::file(15, 77, 0o600),
            at: Time(0),
            why: "conflict".into(),
            id,
            unsent: true,
        })
    });
    fs::write(out.path().join("new"), "was here").unwrap();
    // In use, and with the last changes in the journal only.
    let report = rescue(dir.path(), out.path()).unwrap();
    assert_eq!(
        (report.files, report.bytes, report.unnamed),
        (2, 22, 0),
        "{report:?}"
    );
    assert_eq!((&report.index_failure, report.skipped.len()), (&None, 0));
    assert_eq!(text(&out.path().join("new")), "was here");
    assert_eq!(text(&out.path().join("new.1")), "renamed");
    assert_eq!(text(&out.path().join("new.2")), "lost a conflict");
    let found = fs::metadata(out.path().join("new.1")).unwrap();
    assert_eq!(
        (found.mtime(), found.mtime_nsec(), found.mode() & 0o777),
        (1_000_000, 5, 0o750)
    );
    assert_eq!(fs::metadata(out.path().join("new.2")).unwrap().mtime(), 77);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 3);
}

#[test]
fn without_an_index_the_notes_beside_the_files_do() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    unsent(&replica, "deep/er/file", "a", "one");
    unsent(&replica, "deep/er", "b", "in the way of a directory");
    let unnoted = unsent(&replica, "x", "c", "three");
    let copy = killed(&replica);
    for entry in fs::read_dir(copy.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
    let store = ContentStore::at(copy.path());
    for (id, path) in store.list(Which::Unsent).unwrap() {
        // Copies have no attributes.
        let hint: &[u8] = match id.0 + 2 - unnoted.0 {
            0 => b"deep/er/file",
            1 => b"deep/er",
            _ => b"../escape",
        };
        store.hints().log(id, hint).unwrap();
        assert!(path.exists());
    }
    let out = copy.path().join("out");
    let report = rescue(copy.path(), &out).unwrap();
    assert!(report.index_failure.is_some());
    assert_eq!((report.files, report.unnamed), (3, 2), "{report:?}");
    assert_eq!(
        text(&out.join("unnamed").join(unnoted.to_string())),
        "three"
    );
    assert!(!copy.path().join("escape").exists());
}

#[test]
fn a_link_that_lost_a_conflict_is_a_link_again() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let replica = open(&dir);
    replica.content().write_to_backup(b"where/to", 0).unwrap();
    update(&replica, |tx| {
        let id = tx.alloc_backup()?;
        tx.add_backup(LocalBackup {
            path: RelPath::parse(b"d/link").unwrap(),
            version: Version::symlink(b"where/to".to_vec()),
            at: Time(0),
            why: "conflict".into(),
            id,
            unsent: true,
        })
    });
    fs::write(out.path().join("d"), "in the way").unwrap();
    let report = rescue(dir.path(), out.path()).unwrap();
    assert_eq!((report.files, report.unnamed), (1, 1), "{report:?}");
    let link = fs::read_link(out.path().join("unnamed/backup-0")).unwrap();
    assert_eq!(link, Path::new("where/to"));
    let again = out.path().join("again");
    let report = rescue(dir.path(), &again).unwrap();
    assert_eq!((report.files, report.unnamed), (1, 0), "{report:?}");
    let link = fs::read_link(again.join("d/link")).unwrap();
    assert_eq!(link, Path::new("where/to"));
}
