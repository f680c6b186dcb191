//! Two machines and one server, without kernel or network: what a user writes here is there after the
//! passes, and what loses is kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use roamhome::engine::{KeptWhere, PassError, Scope, Side};
use roamhome::fs::FsError;
use roamhome::remote::{ErrorKind, Features, MemoryServer};
use roamhome::tree::{Kind, RelPath};

use crate::support::client::Client;
use crate::support::field::{Field, path_of};

impl Field {
    /// What a plain SFTP client sees, without what is ours.
    fn server_tree(&self) -> Vec<String> {
        let ours = |path: &RelPath| path.to_string().starts_with(".roamhome");
        let tree = self.server.tree();
        tree.keys()
            .filter(|path| !path.is_root() && !ours(path))
            .map(ToString::to_string)
            .collect()
    }
}

fn kept(client: &Client, which: KeptWhere, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let items = client.block_on(client.engine.kept(which)).unwrap().items;
    let content = |(i, id): (usize, &String)| {
        let to = dir.join(format!("kept-{i}-{}", std::process::id()));
        client
            .block_on(client.engine.restore_kept(id, &to))
            .unwrap();
        let data = std::fs::read(&to).unwrap();
        std::fs::remove_file(&to).unwrap();
        data
    };
    items
        .iter()
        .enumerate()
        .map(|(i, item)| (item.path.to_string(), content((i, &item.id))))
        .collect()
}

#[test]
fn what_is_written_here_is_there_after_two_passes() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.mkdir("docs");
    a.write("docs/letter.txt", b"dear all");
    a.write("empty", b"");
    a.symlink("docs/letter.txt", "link");
    a.write("docs/.~lock.letter.lock", b"host-scoped");
    assert_eq!(a.flush(), 0);
    assert_eq!(field.on_server("docs/letter.txt"), b"dear all");
    b.sync();
    assert_eq!(b.read("docs/letter.txt").unwrap(), b"dear all");
    assert_eq!(b.read("empty").unwrap(), b"");
    assert_eq!(
        field.server_tree(),
        ["docs", "docs/letter.txt", "empty", "link"]
    );
    let mut ours = a.tree();
    ours.retain(|(path, ..)| !path.ends_with(".lock"));
    assert_eq!(ours, b.tree());
    assert_eq!(a.sync().done + b.sync().done, 0);
}

#[test]
fn a_pass_counts_the_directories_of_the_home_and_no_other() {
    let field = Field::new();
    let a = field.client("a");
    a.mkdir("d");
    a.mkdir("d/e");
    a.write("one", b"1");
    a.write("two", b"2");
    a.flush();
    // A swap goes by way of a directory of ours.
    a.rename("one", "x");
    a.rename("two", "one");
    a.rename("x", "two");
    a.flush();
    assert_eq!(a.sync().directories, 3);
    field
        .server
        .refuse(&path_of("d"), Some(ErrorKind::PermissionDenied));
    assert_eq!(a.sync().directories, 1);
}

#[test]
fn an_edit_replaces_the_servers_version_and_reaches_the_other_machine() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.write("f", b"one");
    a.flush();
    b.sync();
    assert_eq!(b.read("f").unwrap(), b"one");
    field.clock.advance(10);
    b.write("f", b"second");
    assert_eq!(b.flush(), 0);
    a.sync();
    assert_eq!(a.read("f").unwrap(), b"second");
    assert_eq!(field.on_server("f"), b"second");
}

#[test]
fn both_edit_offline_and_the_newest_wins_while_the_loser_is_a_backup() {
    for newer_first in [true, false] {
        let field = Field::new();
        let (a, b) = (field.client("a"), field.client("b"));
        a.write("f", b"base");
        a.flush();
        b.sync();
        b.read("f").unwrap();
        a.offline();
        b.offline();
        field.clock.advance(100);
        a.write("f", b"older edit");
        field.clock.advance(100);
        b.write("f", b"the newer edit");
        let (first, second) = if newer_first { (&b, &a) } else { (&a, &b) };
        first.online();
        first.sync();
        second.online();
        second.sync();
        first.sync();
        assert_eq!(a.read("f").unwrap(), b"the newer edit", "{newer_first}");
        assert_eq!(b.read("f").unwrap(), b"the newer edit", "{newer_first}");
        let mut all = kept(&a, KeptWhere::Backups, field.dir.path());
        all.extend(kept(&b, KeptWhere::Backups, field.dir.path()));
        assert!(
            all.contains(&("f".into(), b"older edit".to_vec())),
            "{newer_first}: {all:?}"
        );
    }
}

#[test]
fn a_conflict_is_listed_on_both_machines_until_each_has_decided() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.write("f", b"base");
    a.flush();
    b.sync();
    b.offline();
    field.clock.advance(100);
    a.write("f", b"older edit");
    a.flush();
    field.clock.advance(100);
    b.write("f", b"the newer edit");
    b.online();
    b.sync();
    a.sync();
    let conflicts = |client: &Client| client.block_on(client.engine.conflicts()).unwrap();
    for (client, lost, found_here) in [(&a, Side::Mine, false), (&b, Side::Theirs, true)] {
        let mine = lost == Side::Mine;
        let found = conflicts(client);
        let [conflict] = found.conflicts.as_slice() else {
            panic!("{found:?}");
        };
        assert_eq!(conflict.path, path_of("f"));
        assert_eq!((conflict.lost, conflict.found_here), (lost, found_here));
        let current = conflict.current.as_ref().unwrap();
        assert_eq!((conflict.kept.size, current.size), (10, 14));
        // From which machine the other one came.
        let hosts = (conflict.kept.host.as_deref(), current.host.as_deref());
        let expected = if mine {
            (None, Some("b"))
        } else {
            (Some("a"), None)
        };
        assert_eq!(hosts, expected);
        assert!(conflict.on_server && !found.only_here);
        // A person may be told without asking the server.
        assert_eq!(client.engine.status().unwrap().conflicts, 1);
    }
    let id = conflicts(&b).conflicts[0].id.clone();
    b.engine.resolve_conflict(&id).unwrap();
    assert_eq!(conflicts(&b).conflicts, []);
    assert_eq!(b.engine.status().unwrap().conflicts, 0);
    assert_eq!(conflicts(&a).conflicts.len(), 1);
    // Deciding removes nothing.
    let lost = ("f".to_owned(), b"older edit".to_vec());
    assert!(kept(&b, KeptWhere::Backups, field.dir.path()).contains(&lost));

    // What loses here is a conflict here alone, with the link or without.
    a.offline();
    field.clock.advance(100);
    a.write("f", b"loses");
    field.clock.advance(100);
    b.write("f", b"wins once more");
    b.flush();
    a.online();
    a.sync();
    a.offline();
    let found = conflicts(&a);
    assert!(found.only_here);
    assert_eq!(found.conflicts[0].lost, Side::Mine);
    assert!(found.conflicts[0].id.starts_with("local-"));
    assert_eq!(a.engine.status().unwrap().conflicts, 2);
    assert_eq!(conflicts(&b).conflicts, []);
}

#[test]
fn a_renamed_directory_is_one_rename_on_the_server() {
    let field = Field::new();
    let a = field.client("a");
    a.mkdir("old");
    for i in 0..50 {
        a.write(&format!("old/{i}"), b"content");
    }
    a.flush();
    let before = field.server.calls();
    a.rename("old", "new");
    assert_eq!(a.flush(), 0);
    let after = field.server.calls();
    let count =
        |verb: &str| after.get(verb).copied().unwrap_or(0) - before.get(verb).copied().unwrap_or(0);
    // What is written and removed is what this machine tells the others.
    assert_eq!(
        (count("rename"), count("write"), count("remove")),
        (1, 1, 1),
        "{after:?}"
    );
    assert_eq!(field.server_tree().len(), 51);
    assert_eq!(field.on_server("new/49"), b"content");
}

#[test]
fn a_deleted_file_is_in_the_trash_and_gone_from_the_other_machine() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.mkdir("d");
    a.write("d/f", b"precious");
    a.flush();
    b.sync();
    b.read("d/f").unwrap();
    a.unlink("d/f");
    a.rmdir("d");
    assert_eq!(a.flush(), 0);
    assert_eq!(field.server_tree(), Vec::<String>::new());
    let trash = kept(&a, KeptWhere::Trash, field.dir.path());
    assert_eq!(trash, [("d/f".to_owned(), b"precious".to_vec())]);
    b.sync();
    assert_eq!(b.tree(), []);
}

#[test]
fn where_a_link_pointed_that_lost_its_place_is_kept() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    for link in ["replaced", "removed", "lost"] {
        a.symlink(&format!("{link} target"), link);
    }
    a.flush();
    b.sync();
    // What the server has now makes room for it here, and what both changed is lost on one side.
    a.unlink("replaced");
    a.symlink("elsewhere", "replaced");
    a.unlink("removed");
    a.unlink("lost");
    a.symlink("a's", "lost");
    a.flush();
    b.unlink("lost");
    b.symlink("b's", "lost");
    b.symlink("b's alone", "d");
    field.server.make_dir(&path_of("d")).unwrap();
    b.sync();
    let mut backups = kept(&b, KeptWhere::Backups, field.dir.path());
    backups.sort();
    let of = |path: &str, target: &[u8]| (path.to_owned(), target.to_vec());
    assert_eq!(
        backups,
        [
            of("d", b"b's alone"),
            of("lost", b"a's"),
            of("removed", b"removed target"),
            of("replaced", b"replaced target"),
        ]
    );
    let trash = kept(&b, KeptWhere::Trash, field.dir.path());
    assert!(
        trash.contains(&of("removed", b"removed target")),
        "{trash:?}"
    );
    b.block_on(b.engine.keep_current(&path_of("replaced")))
        .unwrap();
    let backups = kept(&b, KeptWhere::Backups, field.dir.path());
    assert!(
        backups.contains(&of("replaced", b"elsewhere")),
        "{backups:?}"
    );
}

#[test]
fn what_a_restore_is_about_to_replace_is_kept_although_it_was_never_read_here() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.write("f", b"precious");
    a.flush();
    b.sync();
    b.block_on(b.engine.keep_current(&path_of("f"))).unwrap();
    let backups = kept(&b, KeptWhere::Backups, field.dir.path());
    assert_eq!(backups, [("f".to_owned(), b"precious".to_vec())]);
    // Offline it cannot be had, so nothing may be put in its place.
    a.write("g", b"precious, too");
    a.flush();
    b.sync();
    b.offline();
    let refused = b.block_on(b.engine.keep_current(&path_of("g")));
    assert!(matches!(refused, Err(PassError::Offline(_))), "{refused:?}");
    b.block_on(b.engine.keep_current(&path_of("nothing")))
        .unwrap();
}

#[test]
fn swapped_names_and_renames_over_existing_files_arrive() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    for (name, data) in [("a", "A"), ("b", "B"), ("c", "C"), ("d", "D")] {
        a.write(name, data.as_bytes());
    }
    a.flush();
    b.sync();
    a.rename("a", "t");
    a.rename("b", "a");
    a.rename("t", "b");
    a.rename("c", "d");
    assert_eq!(a.flush(), 0);
    b.sync();
    assert_eq!(b.tree(), a.tree());
    assert_eq!(field.on_server("a"), b"B");
    assert_eq!(field.on_server("b"), b"A");
    assert_eq!(field.on_server("d"), b"C");
    assert_eq!(field.server_tree(), ["a", "b", "d"]);
}

#[test]
fn an_editors_save_never_sends_the_temporary_name() {
    let field = Field::new();
    let a = field.client("a");
    a.write("f", b"one");
    a.flush();
    a.write(".f.tmp", b"two");
    a.rename(".f.tmp", "f");
    a.flush();
    assert_eq!(field.on_server("f"), b"two");
    assert_eq!(field.server_tree(), ["f"]);
}

#[test]
fn hard_links_are_files_of_their_own_on_the_server() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.write("f", b"one");
    a.link("f", "g");
    a.flush();
    a.write("g", b"both change");
    assert_eq!(a.flush(), 0);
    b.sync();
    assert_eq!(b.read("f").unwrap(), b"both change");
    assert_eq!(b.read("g").unwrap(), b"both change");
    assert_eq!(a.sync().done, 0);
}

#[test]
fn whoever_waits_for_a_fetch_that_panics_gets_an_error_and_the_next_one_works() {
    let field = Field::new();
    let a = field.client("a");
    a.mkdir("d");
    a.write("d/far", b"far");
    a.flush();
    let b = field.client("b");
    for path in ["d/far", "d/far"] {
        field.clock.turn();
        let error = b.read(path).unwrap_err();
        assert_eq!(error.to_errno(), libc::EIO, "{error}");
        field.clock.turn();
        // Listed by now, but not fetched.
        assert!(b.read("d/none").is_err());
    }
    assert_eq!(b.read("d/far").unwrap(), b"far");
}

#[test]
fn a_pass_that_panics_is_an_error_and_the_next_one_works() {
    let field = Field::new();
    let a = field.client("a");
    a.write("f", b"waits");
    field.clock.turn();
    let all = Scope::Full {
        now: true,
        force_guard: false,
    };
    let failed = a.block_on(a.engine.pass(all));
    field.clock.turn();
    let error = failed.unwrap_err();
    assert!(error.to_string().contains("fault"), "{error}");
    a.sync();
    assert_eq!(field.on_server("f"), b"waits");
}

#[test]
fn offline_everything_cached_works_and_the_rest_fails_at_once() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.mkdir("d");
    a.write("d/seen", b"seen");
    a.write("d/unseen", b"unseen");
    a.flush();
    b.sync();
    assert_eq!(b.read("d/seen").unwrap(), b"seen");
    b.offline();
    assert_eq!(b.read("d/seen").unwrap(), b"seen");
    assert!(matches!(b.read("d/unseen"), Err(FsError::Fetch(_))));
    b.write("d/new", b"made offline");
    b.rename("d", "e");
    b.online();
    assert_eq!(b.flush(), 0);
    a.sync();
    assert_eq!(a.read("e/new").unwrap(), b"made offline");
    assert_eq!(a.tree(), b.tree());
}

#[test]
fn a_foreign_writers_changes_are_taken_over() {
    let field = Field::new();
    let a = field.client("a");
    a.write("f", b"one");
    a.mkdir("d");
    a.flush();
    field.clock.advance(60);
    field.server.write_file(&path_of("f"), b"foreign").unwrap();
    field.server.write_file(&path_of("d/new"), b"new").unwrap();
    field.server.make_dir(&path_of("x")).unwrap();
    field.server.write_file(&path_of("x/y"), b"deep").unwrap();
    a.sync();
    assert_eq!(a.read("f").unwrap(), b"foreign");
    assert_eq!(a.read("d/new").unwrap(), b"new");
    assert_eq!(a.read("x/y").unwrap(), b"deep");
    field.server.remove(&path_of("f")).unwrap();
    a.sync();
    assert!(matches!(a.read("f"), Err(FsError::NotFound)));
    let backups = kept(&a, KeptWhere::Backups, field.dir.path());
    assert!(
        backups.contains(&("f".into(), b"foreign".to_vec())),
        "{backups:?}"
    );
}

#[test]
fn a_modification_beats_a_removal_and_new_files_hold_their_directory() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.mkdir("d");
    a.write("d/f", b"one");
    a.write("d/g", b"g");
    a.flush();
    b.sync();
    b.tree();
    a.offline();
    b.offline();
    field.clock.advance(10);
    a.unlink("d/f");
    a.unlink("d/g");
    a.rmdir("d");
    b.write("d/f", b"changed");
    b.write("d/h", b"h");
    a.online();
    a.sync();
    b.online();
    b.sync();
    a.sync();
    assert_eq!(a.tree(), b.tree());
    assert_eq!(a.read("d/f").unwrap(), b"changed");
    assert_eq!(a.read("d/h").unwrap(), b"h");
    assert!(matches!(a.read("d/g"), Err(FsError::NotFound)));
}

#[test]
fn kinds_that_meet_under_one_name_never_stop_a_pass() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.write("x", b"file");
    a.write("other", b"other");
    a.offline();
    b.mkdir("x");
    b.write("x/in", b"inside");
    b.flush();
    a.online();
    a.sync();
    b.sync();
    assert_eq!(a.tree(), b.tree());
    assert_eq!(a.read("x/in").unwrap(), b"inside");
    assert_eq!(b.read("other").unwrap(), b"other");
    let backups = kept(&a, KeptWhere::Backups, field.dir.path());
    assert!(
        backups.contains(&("x".into(), b"file".to_vec())),
        "{backups:?}"
    );
}

#[test]
fn a_server_without_extensions_serves_as_well() {
    let field = Field::new();
    field.server.set_features(|features| {
        *features = Features {
            posix_rename: false,
            hardlink: false,
            fsync: false,
            lsetstat: false,
            statvfs: false,
            copy_data: false,
            max_read: 1024,
            max_write: 1024,
        };
    });
    let (a, b) = (field.client("a"), field.client("b"));
    let long = vec![b'x'; 5000];
    a.mkdir("d");
    a.write("d/f", &long);
    a.flush();
    b.sync();
    assert_eq!(b.read("d/f").unwrap(), long);
    field.clock.advance(10);
    a.offline();
    b.write("d/f", b"edited");
    b.rename("d", "e");
    assert_eq!(b.flush(), 0);
    field.clock.advance(10);
    a.write("d/f", b"the newest edit");
    a.online();
    a.sync();
    b.sync();
    a.sync();
    assert_eq!(a.tree(), b.tree());
    assert_eq!(a.sync().done + b.sync().done, 0);
    assert_eq!(field.on_server("d/f"), b"the newest edit");
    assert_eq!(field.on_server("e/f"), b"edited");
    // What was replaced aside stays for its retention.
    let backups = kept(&b, KeptWhere::Backups, field.dir.path());
    assert!(backups.contains(&("e/f".into(), long)));
}

#[test]
fn what_is_kept_goes_after_its_retention_and_not_before() {
    const DAY: i64 = 86_400;
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.write("gone", b"removed on purpose");
    a.write("f", b"one");
    a.flush();
    b.sync();
    b.read("f").unwrap();
    a.unlink("gone");
    field.clock.advance(10);
    a.write("f", b"the next");
    a.flush();
    b.sync();
    let shelves = || {
        let count = |client, which| kept(client, which, field.dir.path()).len();
        (count(&a, KeptWhere::Trash), count(&b, KeptWhere::Backups))
    };
    assert_eq!(shelves(), (1, 1), "the trash, and what b showed before");
    field.clock.advance(29 * DAY);
    a.sync();
    b.sync();
    assert_eq!(shelves(), (1, 1));
    field.clock.advance(2 * DAY);
    a.sync();
    b.sync();
    assert_eq!(shelves(), (0, 0));
    assert_eq!(b.read("f").unwrap(), b"the next");
}

#[test]
fn a_file_that_is_replaced_again_and_again_does_not_fill_the_disks() {
    const DAY: i64 = 86_400;
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.write("f", b"0");
    a.write("rare", b"deleted once");
    a.flush();
    b.sync();
    a.unlink("rare");
    for i in 1..30_u8 {
        b.read("f").unwrap();
        field.clock.advance(10);
        a.unlink("f");
        a.flush();
        a.write("f", &vec![i; usize::from(i)]);
        a.flush();
        b.sync();
    }
    let shelf = |client: &Client, which| {
        let items = client.block_on(client.engine.kept(which)).unwrap().items;
        let all: Vec<_> = items.iter().map(|item| item.path.to_string()).collect();
        let sizes: Vec<_> = items
            .iter()
            .filter(|item| item.path == path_of("f"))
            .map(|item| item.size)
            .collect();
        (all.len(), sizes)
    };
    assert_eq!(shelf(&a, KeptWhere::Trash).0, 30);
    assert!(shelf(&b, KeptWhere::Backups).1.len() > 20);
    field.clock.advance(DAY);
    a.sync();
    b.sync();
    let (all, sizes) = shelf(&a, KeptWhere::Trash);
    assert_eq!(
        (all, sizes.len()),
        (21, 20),
        "the latest of one, and all of another"
    );
    assert_eq!(sizes.iter().min(), Some(&9));
    let (_, sizes) = shelf(&b, KeptWhere::Backups);
    assert_eq!(sizes.len(), 20);
    assert_eq!(sizes.iter().min(), Some(&9));
    assert_eq!(b.read("f").unwrap().len(), 29);
}

#[test]
fn what_passes_did_is_remembered_with_what_they_put_aside_until_retention_ends() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    a.mkdir("d");
    a.write("d/f", b"one");
    a.write("old", b"moves");
    a.flush();
    b.sync();
    b.read("d/f").unwrap();
    field.clock.advance(10);
    a.write("d/f", b"another");
    a.rename("old", "new");
    a.flush();
    b.sync();
    a.unlink("d/f");
    a.flush();
    b.sync();
    let deeds = |client: &Client| {
        let mut all = Vec::new();
        for pass in client.engine.passes().unwrap().iter().rev() {
            let deeds = client.engine.deeds(pass.id).unwrap();
            let what = |deed: &roamhome::replica::Deed| {
                let shelf = match deed.kept.as_str() {
                    "" => "-",
                    kept if kept.starts_with("local-") => "here",
                    _ => "server",
                };
                format!("{:?} {} {} {shelf}", deed.kind, deed.path, deed.on_server)
            };
            let mut deeds: Vec<_> = deeds.iter().map(what).collect();
            deeds.sort();
            all.push(deeds.join(", "));
        }
        all
    };
    assert_eq!(
        deeds(&a),
        [
            "Created d true -, Created d/f true -, Created old true -",
            "Moved new true -, Replaced d/f true server",
            "Removed d/f true server",
        ]
    );
    // Whether what b found first was listed or taken over depends on when it came up.
    let of_b = deeds(&b);
    assert_eq!(
        of_b[of_b.len() - 2..],
        [
            "Created new false -, Removed old false -, Replaced d/f false here",
            "Removed d/f false -",
        ]
    );
    let counts = &a.engine.passes().unwrap()[1];
    assert_eq!((counts.moved, counts.replaced, counts.more), (1, 1, false));
    // What is told to be kept in the trash is there under that id.
    let pass = a.engine.passes().unwrap()[0].id;
    let id = a.engine.deeds(pass).unwrap()[0].kept.clone();
    let trash = a.block_on(a.engine.kept(KeptWhere::Trash)).unwrap();
    assert_eq!(trash.items[0].id, id);
    field.clock.advance(31 * 86_400);
    a.sync();
    assert_eq!(deeds(&a), [""; 0]);
}

#[test]
fn an_emptied_or_exchanged_server_deletes_nothing_here() {
    let field = Field::new();
    let a = field.client("a");
    for i in 0..10 {
        a.write(&format!("f{i}"), b"x");
    }
    a.flush();
    let full = field.server.snapshot();
    let empty = MemoryServer::new(|| roamhome::tree::Time::new(1_700_000_000, 0)).snapshot();
    field.server.restore(&empty);
    a.reconnect();
    let report = a.pass(Scope::Full {
        now: true,
        force_guard: false,
    });
    assert!(!report.guards.is_empty());
    assert_eq!(report.done, 0);
    assert_eq!(a.tree().len(), 10);
    // Back again: as if nothing had happened.
    field.server.restore(&full);
    a.reconnect();
    assert_eq!(a.sync().done, 0);
    // Or a person says that it is to be filled again.
    field.server.restore(&empty);
    a.reconnect();
    let report = a.pass(Scope::Full {
        now: true,
        force_guard: true,
    });
    assert_eq!(report.guards, []);
    assert_eq!(field.server_tree().len(), 10);
    assert_eq!(a.sync().done, 0);
}

#[test]
fn what_stands_in_the_homes_place_is_not_read() {
    let field = Field::new();
    let [a, b] = ["a", "b"].map(|name| field.client(name));
    a.mkdir("d");
    a.write("d/f", b"of this home");
    a.flush();
    b.sync();
    let full = field.server.snapshot();
    field.server.remove(&RelPath::root()).unwrap();
    let other = path_of("d/f");
    field.server.write_file(&other, b"of that home").unwrap();
    b.reconnect();
    assert!(b.read("d/f").is_err());
    field.server.restore(&full);
    b.reconnect();
    b.sync();
    assert_eq!(b.read("d/f").unwrap(), b"of this home");
}

#[test]
fn the_pass_that_finds_the_home_back_has_what_it_needs_of_it() {
    let field = Field::new();
    // The server cannot copy, so a second name takes the content through here.
    field
        .server
        .set_features(|features| features.copy_data = false);
    let [a, b] = ["a", "b"].map(|name| field.client(name));
    a.write("f", b"of this home");
    a.flush();
    b.sync();
    b.link("f", "g");
    let [name, away] = [".roamhome/home.toml", ".roamhome/away"].map(path_of);
    field.server.rename(&name, &away).unwrap();
    let full_pass = || {
        b.pass(Scope::Full {
            now: true,
            force_guard: false,
        })
    };
    assert_ne!(full_pass().guards, []);
    // The connection is the same all the time.
    field.server.rename(&away, &name).unwrap();
    let report = full_pass();
    assert_eq!((report.guards.len(), report.failed), (0, 0));
    assert_eq!(field.on_server("g"), b"of this home");
}

#[test]
fn a_server_rolled_back_gets_our_newer_files_and_deletes_nothing() {
    let field = Field::new();
    let a = field.client("a");
    a.write("old", b"one");
    a.flush();
    let old = field.server.snapshot();
    field.clock.advance(100);
    a.write("old", b"one and more");
    a.write("new", b"new");
    a.flush();
    field.server.restore(&old);
    a.reconnect();
    let report = a.pass(Scope::Full {
        now: true,
        force_guard: false,
    });
    assert!(!report.guards.is_empty());
    assert_eq!(a.read("new").unwrap(), b"new");
    a.pass(Scope::Full {
        now: true,
        force_guard: true,
    });
    assert_eq!(field.on_server("new"), b"new");
    assert_eq!(field.on_server("old"), b"one and more");
    assert_eq!(a.sync().done, 0);
}

#[test]
fn a_racing_writer_between_look_and_rename_is_kept() {
    let field = Field::new();
    let a = field.client("a");
    a.write("f", b"base");
    a.flush();
    field.clock.advance(10);
    // Changed on the server after our last look: the write-back finds it and decides anew.
    field
        .server
        .write_file(&path_of("f"), b"theirs, unseen")
        .unwrap();
    field.clock.advance(10);
    a.write("f", b"ours");
    a.flush();
    a.sync();
    let on_server = field.on_server("f");
    assert_eq!(on_server, b"ours");
    let backups = kept(&a, KeptWhere::Backups, field.dir.path());
    assert!(
        backups.contains(&("f".into(), b"theirs, unseen".to_vec())),
        "{backups:?}"
    );
}

#[test]
fn a_restart_keeps_what_is_unsent_and_sends_it() {
    let field = Field::new();
    {
        let a = field.client("a");
        a.write("sent", b"sent");
        a.flush();
        a.offline();
        a.write("unsent", b"unsent");
        a.rename("sent", "moved");
    }
    let a = field.client("a");
    assert_eq!(a.flush(), 0);
    assert_eq!(field.server_tree(), ["moved", "unsent"]);
    assert!(a.tree().iter().all(|(_, kind, _)| *kind == Kind::File));
}

#[test]
fn passes_are_counted_across_restarts() {
    let field = Field::new();
    let last = field.client("a").sync().id;
    let a = field.client("a");
    let ids = [a.sync().id, a.sync().id];
    assert!(last >= 1 && ids[0] > last);
    assert_eq!(ids[1], ids[0] + 1);
}

#[test]
fn a_change_of_equal_size_within_the_same_second_is_found() {
    let field = Field::new();
    let a = field.client("a");
    field.server.write_file(&path_of("f"), b"one").unwrap();
    a.sync();
    assert_eq!(a.read("f").unwrap(), b"one");
    field.server.write_file(&path_of("f"), b"two").unwrap();
    a.sync();
    assert_eq!(a.read("f").unwrap(), b"two");
}

/// Ends a thread that looks whether it should.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Passes while somebody writes to `f` without pause, each after `max_dirty_age`; what the server has then is
/// what `f` held at one moment: one byte all over, or nothing.
fn sends_what_is_never_left_alone(write: impl Fn(&Client, &[u8]) + Sync) {
    let field = Field::new();
    let a = field.client("a");
    a.sync();
    field.server.set_round_trip(Duration::from_millis(20));
    let done = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    std::thread::scope(|scope| {
        // However this ends.
        let _stop = Stop(&done);
        scope.spawn(|| {
            for byte in (1..=255).cycle() {
                write(&a, &vec![byte; 100_000]);
                written.fetch_add(1, Ordering::SeqCst);
                if done.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        while written.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        let mut overtaken = 0;
        for _ in 0..5 {
            field.clock.advance(31);
            let report = a.pass(Scope::Push { now: false });
            assert_eq!(report.done, 1, "{report:?}");
            overtaken += report.overtaken;
            let data = field.on_server("f");
            assert!(data.iter().all(|byte| *byte == data[0]), "it is torn");
            // Its next version has time.
            assert_eq!(a.pass(Scope::Push { now: false }).done, 0);
        }
        assert!(overtaken > 0);
    });
    assert_eq!(a.flush(), 0);
    assert_eq!(field.on_server("f"), a.read("f").unwrap());
    assert_eq!(kept(&a, KeptWhere::Backups, field.dir.path()), []);
    assert_eq!(a.sync().done, 0);
}

#[test]
fn a_file_that_is_held_open_and_written_to_without_pause_is_sent() {
    let handle = OnceLock::new();
    sends_what_is_never_left_alone(|client, data| {
        let handle = handle.get_or_init(|| client.open_to_write("f"));
        client.write_open(*handle, data);
    });
}

#[test]
fn a_file_that_is_opened_and_written_to_again_and_again_is_sent() {
    sends_what_is_never_left_alone(|client, data| client.write("f", data));
}

#[test]
fn a_large_directory_that_another_machine_renamed_is_no_mass_removal() {
    let field = Field::new();
    let (a, b) = (field.client("a"), field.client("b"));
    for dir in ["old", "old/sub"] {
        a.mkdir(dir);
        for i in 0..150 {
            a.write(&format!("{dir}/f{i}"), format!("{dir} {i}").as_bytes());
        }
    }
    a.flush();
    b.sync();
    a.rename("old", "new");
    a.flush();
    let report = b.sync();
    assert_eq!(report.guards, []);
    assert_eq!(b.tree(), a.tree());
    // What does not stand anywhere else is asked for as ever.
    field
        .server
        .rename(&path_of("new/sub"), &path_of(".roamhome/gone"))
        .unwrap();
    field.server.write_file(&path_of("f0"), b"new").unwrap();
    let report = b.pass(Scope::Full {
        now: true,
        force_guard: false,
    });
    assert_eq!(report.guards.len(), 1, "{report:?}");
    assert_eq!(b.read("new/sub/f0").unwrap(), b"old/sub 0");
}

/// What an idle client asks in an hour: the arithmetic of `doc/SCALING.md` rests on it.
#[test]
fn an_unchanged_home_costs_one_listing_for_each_directory_and_nothing_for_its_files() {
    for files in [2, 40] {
        let field = Field::new();
        let a = field.client("a");
        for dir in 0..20 {
            a.mkdir(&format!("d{dir}"));
            for file in 0..files {
                a.write(&format!("d{dir}/f{file}"), b"content");
            }
        }
        a.flush();
        field.clock.advance(10);
        // What was young when it was sent is compared once more.
        a.sync();
        a.sync();
        let before = field.server.calls();
        a.sync();
        let calls = since(&field.server.calls(), &before);
        // The root, 20 directories, the way station, and three of ours; the home is asked whether it is ours.
        let expected = [
            ("close", 25),
            ("lstat", 1),
            ("open", 1),
            ("opendir", 25),
            ("read", 1),
            ("readdir", 48),
            ("statvfs", 1),
        ];
        assert_eq!(calls, BTreeMap::from(expected), "{files} files");
    }
}

fn since(
    after: &BTreeMap<&'static str, u64>,
    before: &BTreeMap<&'static str, u64>,
) -> BTreeMap<&'static str, u64> {
    let of = |verb: &&'static str| before.get(*verb).copied().unwrap_or(0);
    let grown = after.iter().map(|(verb, count)| (*verb, count - of(verb)));
    grown.filter(|(_, count)| *count > 0).collect()
}
