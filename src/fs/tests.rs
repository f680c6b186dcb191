//! The home over a real replica and a fake server, without a mount.

mod acl;
mod dirty;
mod fake;
mod import;
mod rename;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tempfile::TempDir;

use super::*;
use crate::engine::FetchError;
use crate::replica::{Content, Node, ReplicaError};
use crate::tree::{Kind, Place};
use fake::FakeServer;

const ME: Caller = Caller {
    uid: 10,
    gid: 20,
    umask: 0,
    pid: 0,
};
const ROOT: NodeId = NodeId::ROOT;

/// A home in a directory of its own; its clock ticks once for every look at it.
struct Fixture {
    home: Arc<Home>,
    replica: Arc<Replica>,
    server: Arc<FakeServer>,
    dir: TempDir,
}

fn fixture() -> Fixture {
    in_dir(tempfile::tempdir().unwrap(), Time::new(2_000, 0).0)
}

fn in_dir(dir: TempDir, start: i64) -> Fixture {
    let ticks = AtomicI64::new(start);
    let now = move || Time(ticks.fetch_add(1, Ordering::Relaxed));
    let (home, replica, server) = fake::home(dir.path(), &["/scoped/", "*.lock"], now).unwrap();
    Fixture {
        home,
        replica,
        server,
        dir,
    }
}

impl Fixture {
    /// The same home after the program was stopped and started.
    fn restart(self) -> Self {
        let Self {
            home,
            replica,
            server,
            dir,
        } = self;
        drop((home, server));
        drop(Arc::into_inner(replica).expect("nobody else has it"));
        in_dir(dir, Time::new(3_000, 0).0)
    }

    fn node(&self, id: NodeId) -> Option<Node> {
        self.replica.view(|view| view.node(id)).unwrap()
    }

    fn attr(&self, path: &str) -> Option<Attr> {
        let mut attr = self.home.attr(ROOT).unwrap();
        for part in path.split('/') {
            attr = self.home.lookup(attr.id, &name(part)).unwrap()?;
        }
        Some(attr)
    }

    fn id(&self, path: &str) -> NodeId {
        self.attr(path)
            .unwrap_or_else(|| panic!("{path} is not there"))
            .id
    }

    /// Where `path` stands.
    fn place(&self, path: &str) -> Place {
        match path.rsplit_once('/') {
            Some((dir, last)) => Place::new(self.id(dir), name(last)),
            None => Place::new(ROOT, name(path)),
        }
    }

    fn mkdir(&self, path: &str) -> NodeId {
        let Place { parent, name } = self.place(path);
        self.home.mkdir(parent, &name, 0o755, ME).unwrap().id
    }

    fn create(&self, path: &str) -> Opened {
        let Place { parent, name } = self.place(path);
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        self.home.create(parent, &name, 0o644, options, ME).unwrap()
    }

    fn write(&self, path: &str, content: &[u8]) -> NodeId {
        let opened = self.create(path);
        self.home.write(opened.handle, 0, content, false).unwrap();
        self.home.release(opened.handle).unwrap();
        opened.attr.id
    }

    fn open(&self, id: NodeId, write: bool) -> Handle {
        let options = OpenOptions {
            write,
            ..OpenOptions::default()
        };
        self.home.open(id, options, ME).unwrap().handle
    }

    fn read(&self, id: NodeId) -> Vec<u8> {
        let handle = self.open(id, false);
        let content = self.home.read(handle, 0, 1 << 20).unwrap();
        self.home.release(handle).unwrap();
        content
    }

    fn unlink(&self, path: &str) {
        let Place { parent, name } = self.place(path);
        self.home.unlink(parent, &name).unwrap();
    }

    fn rename(&self, from: &str, to: &str, mode: RenameMode) -> Result<(), FsError> {
        let (from, to) = (self.place(from), self.place(to));
        done(
            self.home
                .rename((from.parent, &from.name), (to.parent, &to.name), mode),
        )
    }

    /// The paths that are marked dirty.
    fn dirty(&self) -> BTreeSet<String> {
        self.replica
            .view(|view| {
                let dirty = view.dirty(1000)?;
                let path = |(place, _)| Ok(view.local_path_of(&place)?.unwrap().to_string());
                dirty
                    .into_iter()
                    .map(path)
                    .collect::<Result<_, ReplicaError>>()
            })
            .unwrap()
    }

    /// Makes everything clean, as the engine does after a pass.
    fn clean(&self) {
        self.replica
            .update(|tx| {
                for (place, _) in tx.dirty(1000)? {
                    tx.clear_dirty(&place)?;
                }
                Ok::<_, ReplicaError>(())
            })
            .unwrap();
    }
}

fn name(name: &str) -> Name {
    Name::new(name.as_bytes()).unwrap()
}

/// What needs nothing from the server.
fn done<T>(result: Result<T, Stop>) -> Result<T, FsError> {
    result.map_err(|stop| match stop {
        Stop::Failed(error) => error,
        Stop::Needs(need) => panic!("{need:?}"),
    })
}

fn need<T>(result: Result<T, Stop>) -> Option<Need> {
    match result {
        Err(Stop::Needs(need)) => Some(need),
        _ => None,
    }
}

fn errno<T>(result: Result<T, FsError>) -> i32 {
    result.map_or_else(|error| error.to_errno(), |_| 0)
}

#[test]
fn a_file_without_a_name_lives_until_its_last_close() {
    let fix = fixture();
    let id = fix.write("f", b"hello");
    let (reader, writer) = (fix.open(id, false), fix.open(id, true));
    fix.unlink("f");
    assert_eq!(fix.attr("f"), None);
    assert_eq!(fix.home.attr(id).unwrap().nlink, 0);
    fix.home.write(writer, 5, b" world", false).unwrap();
    fix.home.release(writer).unwrap();
    assert_eq!(fix.home.read(reader, 0, 100).unwrap(), b"hello world");
    assert!(fix.node(id).is_some());
    fix.home.release(reader).unwrap();
    assert_eq!(fix.node(id), None);
    assert_eq!(
        fix.home.attr(id).unwrap().nlink,
        0,
        "while the kernel knows it"
    );
    fix.home.forget(id);
    assert!(matches!(fix.home.attr(id), Err(FsError::Stale)));
}

#[test]
fn an_open_file_that_lost_its_name_is_written_to_only_if_a_program_took_it() {
    let fix = fixture();
    let (ours, theirs) = (fix.write("ours", b"1"), fix.write("theirs", b"2"));
    let readers = [ours, theirs].map(|id| fix.open(id, false));
    fix.unlink("ours");
    // As the engine does when the server has it no more; the kernel may not know yet.
    let taken = fix.replica.update(|tx| {
        let mut node = tx.node(theirs)?.unwrap();
        tx.unlink(&Place::new(ROOT, Name::new(b"theirs").unwrap()))?;
        node.nlink = 0;
        tx.mark_in_flight(theirs)?;
        tx.put_node(node)
    });
    taken.unwrap_or_else(|error: ReplicaError| panic!("{error}"));

    let writing = OpenOptions {
        write: true,
        ..OpenOptions::default()
    };
    let emptying = SetAttr {
        size: Some(0),
        ..SetAttr::default()
    };
    for (id, expected) in [(ours, 0), (theirs, libc::ESTALE)] {
        // Such as through /proc/self/fd.
        fix.home.release(fix.open(id, false)).unwrap();
        let opened = done(fix.home.open(id, writing, ME));
        if let Ok(opened) = &opened {
            fix.home.release(opened.handle).unwrap();
        }
        assert_eq!(errno(opened), expected);
        assert_eq!(errno(done(fix.home.set_attr(id, emptying, ME))), expected);
    }
    for reader in readers {
        fix.home.release(reader).unwrap();
    }
    assert_eq!((fix.node(ours), fix.node(theirs)), (None, None));
    // Where nothing is any more, something else may have the name.
    assert_eq!(errno(done(fix.home.open(ours, writing, ME))), libc::ENOENT);
    assert_eq!(
        errno(done(fix.home.open(theirs, writing, ME))),
        libc::ESTALE
    );
}

#[test]
fn a_restart_keeps_inode_numbers_and_times() {
    let fix = fixture();
    fix.mkdir("d");
    fix.write("d/f", b"x");
    let before = (fix.attr("d"), fix.attr("d/f"));
    let fix = fix.restart();
    assert_eq!((fix.attr("d"), fix.attr("d/f")), before);
    assert_eq!(fix.read(fix.id("d/f")), b"x");
}

#[test]
fn what_was_written_when_the_program_died_is_there_again() {
    let fix = fixture();
    let open = fix.create("open");
    fix.home
        .write(open.handle, 0, b"never closed", false)
        .unwrap();
    let gone = fix.create("gone");
    fix.home.write(gone.handle, 0, b"no name", false).unwrap();
    fix.unlink("gone");
    let fix = fix.restart();
    assert_eq!(fix.read(open.attr.id), b"never closed");
    assert_eq!(fix.node(gone.attr.id), None);
    assert!(fix.dirty().contains("open"));
}

#[test]
fn a_write_makes_content_unsent_before_its_first_byte() {
    let fix = fixture();
    let id = fix.server.put_file(ROOT, "far", b"hello");
    fix.replica
        .update(|tx| {
            let mut node = tx.node(id)?.unwrap();
            node.hash = Some(crate::tree::Hash([1; 32]));
            tx.put_node(node)
        })
        .unwrap_or_else(|error: ReplicaError| panic!("{error}"));
    assert_eq!(
        need(fix.home.open(id, OpenOptions::default(), ME)),
        Some(Need::Content(id))
    );
    fix.home
        .fetch
        .hydrate(id, Box::new(|outcome| outcome.unwrap()));
    let handle = fix.open(id, true);
    let clean = fix.node(id).unwrap();
    assert!(!clean.data_changed);
    fix.home.write(handle, 1, b"EL", false).unwrap();
    let dirty = fix.node(id).unwrap();
    assert!(dirty.data_changed && dirty.hash.is_none() && dirty.data_seq > clean.data_seq);
    assert!(dirty.mtime > clean.mtime && dirty.ctime > clean.ctime);
    let unsent = format!("unsent/{:02x}/{id}", id.0 & 0xff);
    assert_eq!(
        std::fs::read(fix.dir.path().join(unsent)).unwrap(),
        b"hELlo"
    );
    fix.home.release(handle).unwrap();
}

#[test]
fn what_is_held_still_changes_afterwards() {
    let fix = fixture();
    let id = fix.write("f", b"content");
    let handle = fix.open(id, true);
    let size = |size| SetAttr {
        size: Some(size),
        handle: Some(handle),
        ..SetAttr::default()
    };
    let changes: [&(dyn Fn() + Sync); 3] = [
        &|| assert_eq!(fix.home.write(handle, 1, b"ON", false).unwrap(), 2),
        &|| assert_eq!(done(fix.home.set_attr(id, size(3), ME)).unwrap().size, 3),
        &|| assert_eq!(done(fix.home.set_attr(id, size(0), ME)).unwrap().size, 0),
    ];
    for change in changes {
        let before = fix.node(id).unwrap();
        std::thread::scope(|scope| {
            let still = fix.replica.opens().still(id);
            scope.spawn(change);
            // Long enough for a change that does not wait.
            (0..20_000).for_each(|_| std::thread::yield_now());
            assert_eq!(fix.node(id).as_ref(), Some(&before));
            drop(still);
        });
        assert!(fix.node(id).unwrap().data_seq > before.data_seq);
    }
    fix.home.release(handle).unwrap();
}

#[test]
fn only_what_needs_content_waits_for_it() {
    let fix = fixture();
    let file = fix.server.put_file(ROOT, "far", b"hello");
    let dir = fix.server.put_dir(ROOT, "d", &["one"]);
    let near = fix.mkdir("near");
    let home = &fix.home;
    let (content, listing) = (Some(Need::Content(file)), Some(Need::Listing(dir)));
    let size = |size| SetAttr {
        size: Some(size),
        ..SetAttr::default()
    };
    let (n, far, d) = (name("n"), name("far"), name("d"));
    assert_eq!(need(home.open(file, OpenOptions::default(), ME)), content);
    assert_eq!(need(home.set_attr(file, size(3), ME)), content);
    assert_eq!(need(home.lookup(dir, &n)), listing);
    assert_eq!(need(home.read_dir(dir, 0).map(drop)), listing);
    assert_eq!(need(home.mkdir(dir, &n, 0o755, ME)), listing);
    assert_eq!(need(home.unlink(dir, &n)), listing);
    assert_eq!(need(home.rmdir(ROOT, &d)), listing);
    let replace = RenameMode::Replace;
    assert_eq!(need(home.rename((ROOT, &far), (dir, &n), replace)), listing);
    assert_eq!(
        need(home.rename((ROOT, &name("near")), (ROOT, &d), replace)),
        listing
    );
    // These need nothing.
    done(home.rename((ROOT, &far), (near, &far), replace)).unwrap();
    done(home.rename((ROOT, &d), (near, &d), replace)).unwrap();
    done(home.set_attr(
        file,
        SetAttr {
            mode: Some(0o600),
            ..SetAttr::default()
        },
        ME,
    ))
    .unwrap();
    done(home.set_attr(file, size(0), ME)).unwrap();
    assert_eq!(fix.node(file).unwrap().content, Content::Whole);
    assert_eq!(fix.read(file), b"");
}

#[test]
fn an_operation_comes_back_when_what_it_needs_is_there() {
    let fix = fixture();
    let file = fix.server.put_file(ROOT, "far", b"hello");
    let open = move |home: &Home| home.open(file, OpenOptions::default(), ME);
    let (sender, outcome) = std::sync::mpsc::channel();
    for failure in [Some(FetchError::Unreachable), None] {
        *fix.server.failure.lock().unwrap() = failure;
        *fix.server.stalled.lock().unwrap() = failure.is_none().then(Vec::new);
        let sender = sender.clone();
        fix.home
            .run(open, move |opened| sender.send(opened).unwrap());
    }
    let failed = outcome.recv().unwrap().unwrap_err();
    assert_eq!(failed.to_errno(), libc::EHOSTUNREACH);
    assert!(outcome.try_recv().is_err(), "nobody waited for the server");
    fix.server.go_on();
    let opened = outcome.recv().unwrap().unwrap();
    assert_eq!(fix.home.read(opened.handle, 1, 2).unwrap(), b"el");
    fix.home.release(opened.handle).unwrap();
    assert!(
        !fix.replica.opens().is_open(file),
        "attempts that failed hold nothing"
    );
}

#[test]
fn our_own_directory_is_hidden() {
    let fix = fixture();
    fix.server.put_dir(ROOT, ".roamhome", &[]);
    let ours = name(".roamhome");
    assert!(fix.home.lookup(ROOT, &ours).unwrap().is_none());
    assert_eq!(
        errno(done(fix.home.mkdir(ROOT, &ours, 0o755, ME))),
        libc::EPERM
    );
    assert_eq!(errno(done(fix.home.rmdir(ROOT, &ours))), libc::ENOENT);
    fix.write("f", b"x");
    assert_eq!(
        errno(fix.rename("f", ".roamhome", RenameMode::Replace)),
        libc::EPERM
    );
    assert_eq!(listed(&fix, ROOT), [".", "..", "f"]);
    fix.mkdir("d");
    fix.mkdir("d/.roamhome");
}

#[test]
fn new_entries_take_the_group_of_a_setgid_directory() {
    let fix = fixture();
    let dir = fix.mkdir("d");
    let set = SetAttr {
        mode: Some(0o2775),
        gid: Some(77),
        ..SetAttr::default()
    };
    done(fix.home.set_attr(dir, set, ME)).unwrap();
    fix.write("d/f", b"x");
    fix.mkdir("d/e");
    let shown = |path| {
        fix.attr(path)
            .map(|attr| (attr.mode, attr.gid, attr.nlink))
            .unwrap()
    };
    assert_eq!(shown("d"), (0o2775, 77, 3));
    assert_eq!(shown("d/f"), (0o644, 77, 1));
    assert_eq!(shown("d/e"), (0o2755, 77, 2));
}

#[test]
fn a_listing_loses_and_doubles_nothing_while_entries_come_and_go() {
    let fix = fixture();
    let names: Vec<String> = (0..300).map(|n| format!("f{n}")).collect();
    for name in &names {
        fix.home.release(fix.create(name).handle).unwrap();
    }
    let mut seen = Vec::new();
    let mut offset = 0;
    loop {
        let batch: Vec<_> = done(fix.home.read_dir(ROOT, offset))
            .unwrap()
            .entries(&fix.home)
            .take(7)
            .collect();
        // Somebody else begins to list it.
        drop(done(fix.home.read_dir(ROOT, 0)).unwrap());
        let Some(last) = batch.last() else {
            break;
        };
        offset = last.offset;
        for entry in batch {
            let entry = String::from_utf8(entry.name).unwrap();
            if names.contains(&entry) {
                fix.unlink(&entry);
                fix.home
                    .release(fix.create(&format!("new-{entry}")).handle)
                    .unwrap();
            }
            seen.push(entry);
        }
    }
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len());
    assert!(names.iter().all(|name| unique.contains(name)));
}

#[test]
fn looking_and_reading_write_nothing_to_the_index() {
    let fix = fixture();
    let id = fix.write("f", b"hello");
    // From now on, whoever would write fails.
    fix.replica.close().unwrap();
    assert_eq!(fix.read(id), b"hello");
    assert_eq!(fix.attr("f").unwrap().id, id);
    assert_eq!(listed(&fix, ROOT), [".", "..", "f"]);
    let mode = Some(0o600);
    let chmod = SetAttr {
        mode,
        ..SetAttr::default()
    };
    assert_eq!(errno(done(fix.home.set_attr(id, chmod, ME))), libc::EIO);
}

fn listed(fix: &Fixture, dir: NodeId) -> Vec<String> {
    let listing = done(fix.home.read_dir(dir, 0)).unwrap();
    let names = listing.entries(&fix.home);
    let names = names.map(|entry| String::from_utf8(entry.name).unwrap());
    names.collect()
}
