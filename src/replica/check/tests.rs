use std::fs;
use std::io::Write;

use tempfile::TempDir;

use super::super::content::Which;
use super::super::index::tests::{NOW, make, open, place, update, view};
use super::super::rows::{Content, LocalBackup, Node};
use super::*;
use crate::tree::{Kind, Name, Place, RelPath, Version};

/// Checks, repairs, checks again; returns what was found first.
fn repair(dir: &TempDir) -> Vec<String> {
    let found = check(dir.path(), false, NOW).unwrap();
    assert!(found.findings.iter().all(|finding| !finding.repaired));
    let repaired = check(dir.path(), true, NOW).unwrap();
    let all = |report: &CheckReport| -> Vec<String> {
        report
            .findings
            .iter()
            .map(|finding| finding.what.clone())
            .collect()
    };
    let left: Vec<String> = repaired
        .findings
        .iter()
        .filter(|f| !f.repaired)
        .map(|f| f.what.clone())
        .collect();
    assert_eq!(all(&check(dir.path(), false, NOW).unwrap()), left);
    all(&found)
}

/// One finding that says `what`, repaired.
fn assert_repairs(dir: &TempDir, what: &str) {
    let found = repair(dir);
    assert!(found.len() == 1 && found[0].contains(what), "{found:?}");
    assert!(check(dir.path(), false, NOW).unwrap().findings.is_empty());
}

fn edit(replica: &Replica, id: NodeId, with: impl FnOnce(&mut Node)) {
    update(replica, |tx| {
        let mut node = tx.node(id)?.unwrap();
        with(&mut node);
        tx.put_node(node)
    });
}

/// A file with content, clean or unsent.
fn make_whole(replica: &Replica, name: &str, unsent: bool) -> NodeId {
    let id = make(replica, name, |node| {
        node.content = Content::Whole;
        node.size = 4;
        node.data_changed = unsent;
    });
    let store = replica.content();
    let hint = RelPath::parse(name.as_bytes()).unwrap();
    store
        .open_unsent(id, &hint)
        .unwrap()
        .write_all(b"text")
        .unwrap();
    if unsent {
        update(replica, |tx| {
            tx.mark_dirty(place(NodeId::ROOT, name), Time(5))
        });
    } else {
        store.mark_sent(id).unwrap();
    }
    id
}

fn make_dir(replica: &Replica, at: Place) -> NodeId {
    update(replica, |tx| {
        let id = tx.alloc_node()?;
        tx.put_node(super::super::recover::new_node(id, Kind::Dir, Time(0)))?;
        if let Some(mut parent) = tx.node(at.parent)? {
            parent.nlink += 1;
            tx.put_node(parent)?;
        }
        tx.link(at, id)?;
        Ok(id)
    })
}

#[test]
fn a_sound_replica_has_no_findings() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    make_whole(&replica, "clean", false);
    make_whole(&replica, "unsent", true);
    let sub = make_dir(&replica, place(NodeId::ROOT, "dir"));
    make_dir(&replica, place(sub, "sub"));
    let gone = make_whole(&replica, "gone", true);
    update(&replica, |tx| {
        tx.unlink(&place(NodeId::ROOT, "gone"))?;
        tx.clear_dirty(&place(NodeId::ROOT, "gone"))?;
        tx.remove_node(gone)
    });
    assert!(matches!(
        check(dir.path(), true, NOW),
        Err(ReplicaError::InUse { .. })
    ));
    drop(replica);
    let report = check(dir.path(), false, NOW).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!((report.nodes, report.content_files), (5, 2));
}

#[test]
fn broken_links_and_wrong_counts_are_set_right() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let file = make(&replica, "file", |_| {});
    let sub = make_dir(&replica, place(NodeId::ROOT, "dir"));
    update(&replica, |tx| {
        tx.link(place(NodeId::ROOT, "dangling"), NodeId(9_999))?;
        tx.link(place(NodeId(9_998), "nowhere"), file)?;
        tx.link(place(file, "in a file"), file)?;
        tx.set_counter(Counter::Files, 77);
        tx.link(place(sub, "again"), sub)
    });
    edit(&replica, file, |node| node.nlink = 9);
    drop(replica);
    let found = repair(&dir);
    assert_eq!(found.len(), 7, "{found:#?}");
    let replica = open(&dir);
    assert_eq!(
        view(&replica, |v| v.children(NodeId::ROOT, None, 9)).len(),
        2
    );
    assert_eq!(view(&replica, |v| v.node(file)).unwrap().nlink, 1);
    assert_eq!(
        view(&replica, |v| v.local_path(sub)).unwrap().to_string(),
        "dir"
    );
}

#[test]
fn what_nothing_leads_to_is_put_in_the_root_with_all_below() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let lost = make_dir(&replica, place(NodeId::ROOT, "lost"));
    let below = make_dir(&replica, place(lost, "below"));
    let one = make_dir(&replica, place(NodeId::ROOT, "one"));
    let two = make_dir(&replica, place(one, "two"));
    update(&replica, |tx| {
        tx.unlink(&place(NodeId::ROOT, "lost"))?;
        tx.unlink(&place(NodeId::ROOT, "one"))?;
        tx.link(place(two, "one"), one)
    });
    drop(replica);
    assert!(repair(&dir).len() > 1);
    let replica = open(&dir);
    let path = |id| view(&replica, |v| v.local_path(id)).unwrap().to_string();
    assert_eq!(path(below), format!("recovered-{lost}/below"));
    assert_eq!(path(two), format!("recovered-{one}/two"));
    let name = Name::new(format!("recovered-{one}").as_bytes()).unwrap();
    assert!(view(&replica, |v| v.is_dirty(&Place::new(NodeId::ROOT, name))));
}

#[test]
fn missing_or_short_clean_content_is_fetched_again() {
    for short in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let id = make_whole(&replica, "a", false);
        let (_, path) = replica.content().list(Which::Clean).unwrap().remove(0);
        match short {
            true => fs::write(path, "tex").unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
        drop(replica);
        assert_repairs(&dir, if short { "3 here" } else { "missing" });
        let node = view(&open(&dir), |v| v.node(id)).unwrap();
        assert_eq!((node.content, node.data_changed), (Content::Absent, false));
    }
}

#[test]
fn missing_unsent_content_is_told_and_its_row_kept() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let id = make_whole(&replica, "a", true);
    replica.content().remove(id).unwrap();
    drop(replica);
    let found = repair(&dir);
    assert!(
        found.len() == 1 && found[0].contains("unsent content is missing"),
        "{found:?}"
    );
    assert!(view(&open(&dir), |v| v.node(id)).unwrap().is_unsent());
}

#[test]
fn unsent_content_of_another_size_than_its_row_counts() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let id = make_whole(&replica, "a", true);
    edit(&replica, id, |node| node.size = 9);
    drop(replica);
    assert_repairs(&dir, "4 unsent");
    let node = view(&open(&dir), |v| v.node(id)).unwrap();
    assert_eq!((node.size, node.data_seq), (4, 1));

    // Nor is it where unsent content is.
    let replica = open(&dir);
    edit(&replica, id, |node| node.size = 9);
    replica.content().mark_sent(id).unwrap();
    drop(replica);
    assert_repairs(&dir, "4 unsent");
    let replica = open(&dir);
    assert!(replica.content().has_unsent(id) && !replica.content().has_clean(id));
}

#[test]
fn content_in_the_wrong_directory_is_moved_or_sent() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let unsent = make_whole(&replica, "a", true);
    replica.content().mark_sent(unsent).unwrap();
    drop(replica);
    assert_repairs(&dir, "among what the server has");

    let replica = open(&dir);
    let sent = make_whole(&replica, "b", false);
    edit(&replica, sent, |node| {
        node.mtime = Time(i64::MAX);
        node.hash = Some(crate::tree::Hash(*blake3::hash(b"text").as_bytes()));
    });
    replica
        .content()
        .open_unsent(sent, &RelPath::root())
        .unwrap();
    drop(replica);
    assert_repairs(&dir, "among the unsent");

    let replica = open(&dir);
    edit(&replica, sent, |node| node.mtime = Time(0));
    replica
        .content()
        .open_unsent(sent, &RelPath::root())
        .unwrap();
    drop(replica);
    assert_repairs(&dir, "the index does not know");
    let replica = open(&dir);
    assert!(view(&replica, |v| v.node(sent)).unwrap().is_unsent());
    assert!(view(&replica, |v| v.is_dirty(&place(NodeId::ROOT, "b"))));
}

#[test]
fn content_without_a_row_goes_if_clean_and_comes_back_if_unsent() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let sub = make_dir(&replica, place(NodeId::ROOT, "dir"));
    let store = replica.content();
    let mut ids = (0..4).map(|_| update(&replica, |tx| tx.alloc_node()));
    let clean = ids.next().unwrap();
    store.open_unsent(clean, &RelPath::root()).unwrap();
    store.mark_sent(clean).unwrap();
    let hints: [&[u8]; 3] = [b"dir/new", b"dir", b"no/such"];
    let strays: Vec<NodeId> = hints
        .into_iter()
        .zip(ids)
        .map(|(hint, id)| {
            let hint = RelPath::parse(hint).unwrap();
            store
                .open_unsent(id, &hint)
                .unwrap()
                .write_all(b"text")
                .unwrap();
            id
        })
        .collect();
    drop(replica);
    assert_eq!(repair(&dir).len(), 4);
    let replica = open(&dir);
    let path = |id| view(&replica, |v| v.local_path(id)).unwrap().to_string();
    assert_eq!(view(&replica, |v| v.places(strays[0])), [place(sub, "new")]);
    for stray in &strays[1..] {
        assert_eq!(path(*stray), format!("recovered-{stray}"));
    }
    for stray in strays {
        assert!(view(&replica, |v| v.node(stray)).unwrap().is_unsent());
    }
    replica.content().open_read(clean, false).unwrap_err();
}

#[test]
fn forgotten_dirty_places_and_backups_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let id = make_whole(&replica, "a", true);
    update(&replica, |tx| tx.clear_dirty(&place(NodeId::ROOT, "a")));
    drop(replica);
    assert_repairs(&dir, "not on the list of what to send");

    let replica = open(&dir);
    replica.content().link_to_backup(id, 50).unwrap();
    update(&replica, |tx| {
        tx.add_backup(LocalBackup {
            path: RelPath::root(),
            version: Version::file(0, 0, 0),
            at: Time(0),
            why: "lost".into(),
            id: 51,
            unsent: false,
        })
    });
    drop(replica);
    assert_eq!(repair(&dir).len(), 2);
    open(&dir).content().open_backup(50).unwrap();
}

/// A home with something of everything, closed, with a zeroed page in the midst of its tables.
fn damaged() -> (TempDir, NodeId, NodeId) {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let sub = make_dir(&replica, place(NodeId::ROOT, "dir"));
    make_whole(&replica, "clean", false);
    let unsent = make_whole(&replica, "unsent", true);
    update(&replica, |tx| {
        for name in ["unsent", "clean", "dir"] {
            let entry = crate::tree::BaseEntry {
                node: unsent,
                version: Version::file(0, 0, 0),
            };
            tx.set_base(place(NodeId::ROOT, name), Some(entry))?;
        }
        tx.unlink(&place(NodeId::ROOT, "unsent"))?;
        tx.link(place(sub, "unsent"), unsent)?;
        tx.set_xattr(unsent, b"user.a", Some(b"b".to_vec()))?;
        tx.set_meta(super::super::view::CLIENT_ID, Some(vec![7; 8]))
    });
    replica.content().link_to_backup(unsent, 3).unwrap();
    drop(replica);
    (dir, sub, unsent)
}

fn harm(dir: &TempDir, table: &str) {
    let index = super::super::open::index_path(dir.path());
    let db = rusqlite::Connection::open(&index).unwrap();
    let page: u32 = db
        .query_row(
            "SELECT rootpage FROM sqlite_schema WHERE name = ?1",
            [table],
            |row| row.get(0),
        )
        .unwrap();
    drop(db);
    let mut bytes = fs::read(&index).unwrap();
    let end = page as usize * 4096;
    bytes[end - 4096..end].fill(0xa5);
    fs::write(&index, bytes).unwrap();
}

#[test]
fn rows_that_mean_nothing_are_damage_although_the_database_is_sound() {
    let (dir, _, unsent) = damaged();
    let index = super::super::open::index_path(dir.path());
    let db = rusqlite::Connection::open(&index).unwrap();
    // A page of another table, as the disk may put it there.
    db.execute("INSERT INTO racy VALUES (1, 5)", []).unwrap();
    drop(db);
    let found = check(dir.path(), false, NOW).unwrap();
    assert!(
        found.findings[0].what.contains("the index is damaged"),
        "{found:?}"
    );
    assert!(check(dir.path(), true, NOW).unwrap().is_sound());
    assert_eq!(check(dir.path(), false, NOW).unwrap().findings, []);
    let replica = open(&dir);
    assert!(view(&replica, |v| v.node(unsent)).unwrap().is_unsent());
}

#[test]
fn a_damaged_index_is_made_anew_the_old_one_is_kept_and_nothing_counts_as_agreed_on() {
    for table in ["base", "link", "node", "dirty", "counter", "backup"] {
        let (dir, sub, unsent) = damaged();
        harm(&dir, table);
        match check(dir.path(), false, NOW) {
            Ok(report) => assert!(!report.is_sound(), "{table}"),
            Err(error) => assert!(error.to_string().contains("--repair"), "{table}: {error}"),
        }
        let repaired = check(dir.path(), true, NOW).unwrap();
        assert!(repaired.is_sound(), "{table}: {repaired:?}");
        assert!(
            repaired.findings[0].what.contains("damaged-1"),
            "{repaired:?}"
        );
        assert_eq!(
            check(dir.path(), false, NOW).unwrap().findings,
            [],
            "{table}"
        );
        let kept = fs::read(dir.path().join("damaged-1/index.db")).unwrap();
        assert!(kept.windows(1000).any(|part| part == [0xa5; 1000]));
        let replica = open(&dir);
        assert!(view(&replica, |v| v.node(unsent)).unwrap().is_unsent());
        assert!(view(&replica, |v| v.base_children(NodeId::ROOT)).is_empty());
        replica.content().open_backup(3).unwrap();
        assert!(
            view(&replica, |v| v.backups())
                .iter()
                .any(|row| row.id == 3)
        );
        if table != "node" {
            let path = view(&replica, |v| v.local_path(unsent)).unwrap();
            assert_eq!(path.to_string(), "dir/unsent", "{table}");
            assert!(view(&replica, |v| v.is_dirty(&place(sub, "unsent"))));
            assert!(view(&replica, |v| v.xattr(unsent, b"user.a")).is_some());
        }
        let next = update(&replica, |tx| tx.alloc_node());
        assert!(next > unsent, "{table}");
    }
}

#[test]
fn a_lost_index_is_damage_and_no_new_home() {
    for empty in [true, false] {
        let (dir, _, unsent) = damaged();
        let index = super::super::open::index_path(dir.path());
        match empty {
            true => fs::write(&index, "").unwrap(),
            false => fs::remove_file(&index).unwrap(),
        }
        for _ in 0..2 {
            let refused = Replica::open(dir.path(), NOW).map(drop).unwrap_err();
            assert!(matches!(refused, ReplicaError::Damaged { .. }), "{refused}");
            check(dir.path(), false, NOW).unwrap_err();
        }
        assert!(check(dir.path(), true, NOW).unwrap().is_sound());
        let replica = open(&dir);
        assert!(view(&replica, |v| v.node(unsent)).unwrap().is_unsent());
        // What it was called was noted beside it when it was written.
        let path = view(&replica, |v| v.local_path(unsent)).unwrap();
        assert_eq!(path.to_string(), "unsent");
    }
}

#[test]
fn a_repair_that_was_cut_off_goes_on_with_what_it_moved() {
    let (dir, _, unsent) = damaged();
    let part = dir.path().join("damaged-1.part");
    fs::create_dir(&part).unwrap();
    let index = super::super::open::index_path(dir.path());
    fs::rename(&index, super::super::open::index_path(&part)).unwrap();
    assert!(check(dir.path(), true, NOW).unwrap().is_sound());
    let path = view(&open(&dir), |v| v.local_path(unsent)).unwrap();
    assert_eq!(path.to_string(), "dir/unsent");
    assert!(dir.path().join("damaged-1/index.db").exists());
    harm(&dir, "link");
    assert!(check(dir.path(), true, NOW).unwrap().is_sound());
    assert!(dir.path().join("damaged-2/index.db").exists());
}

#[test]
fn content_that_rotted_is_told_put_aside_and_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let hash = |text: &[u8]| Some(crate::tree::Hash(*blake3::hash(text).as_bytes()));
    let rotten = make_whole(&replica, "rotten", false);
    let sound = make_whole(&replica, "sound", false);
    let unsent = make_whole(&replica, "unsent", true);
    for id in [rotten, sound] {
        edit(&replica, id, |node| node.hash = hash(b"text"));
    }
    // What is unsent has no agreed hash that could convict it.
    edit(&replica, unsent, |node| node.hash = None);
    let clean = replica.content().list(Which::Clean).unwrap();
    let (_, path) = clean.into_iter().find(|(id, _)| *id == rotten).unwrap();
    fs::write(path, "tExt").unwrap();
    drop(replica);
    assert_eq!(check(dir.path(), true, NOW).unwrap().findings, []);
    let told = check_content(dir.path(), false, NOW).unwrap();
    assert!(!told.is_sound() && told.findings.len() == 1, "{told:?}");
    assert!(
        told.findings[0]
            .what
            .contains("rotten: its content has rotted")
    );
    let repaired = check_content(dir.path(), true, NOW).unwrap();
    let what = &repaired.findings[0].what;
    assert!(repaired.is_sound() && what.contains("quarantine"), "{what}");
    assert_eq!(check_content(dir.path(), false, NOW).unwrap().findings, []);
    let kept = dir.path().join(format!("quarantine/{rotten}"));
    assert_eq!(fs::read(kept).unwrap(), b"tExt");
    let replica = open(&dir);
    let content = |id| view(&replica, |v| v.node(id)).unwrap().content;
    assert_eq!(
        [rotten, sound, unsent].map(content),
        [Content::Absent, Content::Whole, Content::Whole]
    );
}

#[test]
fn a_row_that_calls_unsent_content_sent_is_believed_only_if_the_hash_agrees() {
    for (hash, sent) in [
        (Some(*b"text"), true),
        (Some(*b"past"), false),
        (None, false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let replica = open(&dir);
        let id = make_whole(&replica, "a", false);
        edit(&replica, id, |node| {
            node.mtime = Time(i64::MAX);
            node.hash = hash.map(|text| crate::tree::Hash(*blake3::hash(&text).as_bytes()));
        });
        replica.content().open_unsent(id, &RelPath::root()).unwrap();
        drop(replica);
        repair(&dir);
        let node = view(&open(&dir), |v| v.node(id)).unwrap();
        assert_eq!(node.data_changed, !sent, "{hash:?}");
    }
}

#[test]
fn what_lost_its_name_with_the_index_comes_back_only_if_the_server_lacks_it() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let lost = make_dir(&replica, place(NodeId::ROOT, "lost"));
    let below = make_dir(&replica, place(lost, "below"));
    for (name, to) in [("placeholder", lost), ("cached", lost), ("unsent", below)] {
        let id = match name {
            "placeholder" => make(&replica, name, |node| node.size = 9),
            name => make_whole(&replica, name, name == "unsent"),
        };
        update(&replica, |tx| {
            tx.unlink(&place(NodeId::ROOT, name))?;
            tx.link(place(to, name), id)
        });
    }
    update(&replica, |tx| tx.unlink(&place(NodeId::ROOT, "lost")));
    drop(replica);
    harm(&dir, "counter");
    assert!(check(dir.path(), true, NOW).unwrap().is_sound());
    let replica = open(&dir);
    let children = |id| view(&replica, |v| v.children(id, None, 9));
    let [(name, found)] = &children(NodeId::ROOT)[..] else {
        panic!("{:?}", children(NodeId::ROOT));
    };
    assert_eq!(
        (name.to_string(), *found),
        (format!("recovered-{lost}"), lost)
    );
    assert_eq!(children(lost).len(), 1);
    assert_eq!(children(below).len(), 1);
}

#[test]
fn content_of_a_node_that_has_a_row_is_never_removed_as_a_removed_ones() {
    let dir = tempfile::tempdir().unwrap();
    let replica = open(&dir);
    let id = make_whole(&replica, "a", true);
    drop(replica);
    let db = rusqlite::Connection::open(super::super::open::index_path(dir.path())).unwrap();
    let doom = "INSERT INTO doomed VALUES (?1)";
    db.execute(doom, [id.0.cast_signed()]).unwrap();
    drop(db);
    drop(open(&dir));
    assert_repairs(&dir, "called removed, but it is there");
    let replica = open(&dir);
    replica.content().open_read(id, true).unwrap();
    assert!(view(&replica, |v| v.node(id)).unwrap().is_unsent());
}
