//! What is not cached, and what the engine changes behind the kernel's back.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use roamhome::engine::{Events, FetchError};
use roamhome::replica::{Node, ReplicaError};
use roamhome::tree::{Name, NodeId, Place, Time};

use crate::support::mounted::TestMount;

/// Longer than anything here takes, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_file_is_fetched_when_it_is_opened_and_only_then() {
    let mount = TestMount::new();
    mount.server.put_file(NodeId::ROOT, "far", b"hello");
    assert_eq!(fs::metadata(mount.join("far")).unwrap().len(), 5);
    assert_eq!(mount.server.requests.load(Ordering::Relaxed), 0);
    for _ in 0..2 {
        assert_eq!(fs::read(mount.join("far")).unwrap(), b"hello");
    }
    assert_eq!(mount.server.requests.load(Ordering::Relaxed), 1);
}

#[test]
fn what_is_overwritten_is_not_fetched() {
    let mount = TestMount::new();
    mount.server.put_file(NodeId::ROOT, "far", b"hello");
    fs::write(mount.join("far"), "new").unwrap();
    assert_eq!(fs::read(mount.join("far")).unwrap(), b"new");
    assert_eq!(mount.server.requests.load(Ordering::Relaxed), 0);
}

#[test]
fn a_directory_is_listed_when_somebody_looks_into_it() {
    let mount = TestMount::new();
    mount.server.put_dir(NodeId::ROOT, "d", &["one", "two"]);
    assert!(fs::symlink_metadata(mount.join("d/one")).is_ok());
    assert!(fs::symlink_metadata(mount.join("d/three")).is_err());
    assert_eq!(fs::read_dir(mount.join("d")).unwrap().count(), 2);
    assert_eq!(mount.server.requests.load(Ordering::Relaxed), 1);
}

#[test]
fn each_failure_to_fetch_has_its_errno() {
    let mount = TestMount::new();
    mount.server.put_file(NodeId::ROOT, "far", b"hello");
    mount.server.put_dir(NodeId::ROOT, "d", &["one"]);
    for (failure, errno) in [
        (FetchError::Unreachable, libc::EHOSTUNREACH),
        (FetchError::Gone, libc::ENOENT),
        (FetchError::Forbidden, libc::EACCES),
        (FetchError::NoSpace, libc::ENOSPC),
        (FetchError::Failed, libc::EIO),
    ] {
        *mount.server.failure.lock().unwrap() = Some(failure);
        for error in [
            File::open(mount.join("far")).unwrap_err(),
            fs::metadata(mount.join("d/one")).unwrap_err(),
            File::create(mount.join("d/new")).unwrap_err(),
        ] {
            assert_eq!(error.raw_os_error(), Some(errno), "{failure}");
        }
        let error = listed(&mount.join("d")).unwrap_err();
        let listing = if errno == libc::ENOENT {
            libc::ESTALE
        } else {
            errno
        };
        assert_eq!(error.raw_os_error(), Some(listing), "{failure}");
    }
    *mount.server.failure.lock().unwrap() = None;
    assert_eq!(fs::read(mount.join("far")).unwrap(), b"hello");
    assert!(fs::metadata(mount.join("d/one")).is_ok());
}

/// Names what is in `dir`, which opening alone does not look for.
fn listed(dir: &Path) -> std::io::Result<Vec<OsString>> {
    let names = fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name()));
    names.collect()
}

#[test]
fn a_stalled_server_holds_up_nobody_but_those_who_need_it() {
    let mount = TestMount::new();
    *mount.server.stalled.lock().unwrap() = Some(Vec::new());
    // More than the mount has threads.
    let readers: Vec<_> = (0..16)
        .map(|n| {
            let name = format!("far{n}");
            mount.server.put_file(NodeId::ROOT, &name, name.as_bytes());
            let path = mount.join(&name);
            thread::spawn(move || fs::read_to_string(path).unwrap())
        })
        .collect();
    while mount.server.requests.load(Ordering::Relaxed) < 16 {
        thread::yield_now();
    }
    let (done, waiting) = mpsc::channel();
    let near = mount.join("near");
    thread::spawn(move || {
        fs::write(&near, "x").unwrap();
        done.send(fs::read(&near).unwrap()).unwrap();
    });
    assert_eq!(waiting.recv_timeout(PATIENCE).unwrap(), b"x");
    mount.server.go_on();
    for (n, reader) in readers.into_iter().enumerate() {
        assert_eq!(reader.join().unwrap(), format!("far{n}"));
    }
}

#[test]
fn what_the_engine_changes_is_seen_although_the_kernel_remembers_everything() {
    let mount = TestMount::new();
    let name = Name::new(b"f").unwrap();
    fs::write(mount.join("f"), "old").unwrap();
    let id = NodeId(fs::metadata(mount.join("f")).unwrap().ino());
    let mut reader = File::open(mount.join("f")).unwrap();
    assert!(fs::metadata(mount.join("g")).is_err());
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);

    // Another file in its place; who has the old one open goes on reading that.
    let id = replace(&mount, id, &name, b"newer");
    mount.notices.entry_changed(NodeId::ROOT, &name);
    wait_for(|| fs::read(mount.join("f")).unwrap() == b"newer");
    let mut seen = String::new();
    reader.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "old");

    // And once more, where the kernel was not told of the one in between.
    let id = replace(&mount, id, &name, b"newest");
    mount.notices.entry_removed(NodeId::ROOT, &name, NodeId(77));
    wait_for(|| fs::read(mount.join("f")).unwrap() == b"newest");

    // Other attributes.
    let chmod = mount.replica.update(|tx| {
        let mut node = tx.node(id)?.unwrap();
        node.mode = 0o600;
        tx.put_node(node)
    });
    chmod.unwrap_or_else(|error: ReplicaError| panic!("{error}"));
    mount.notices.node_changed(id);
    wait_for(|| fs::metadata(mount.join("f")).unwrap().mode() & 0o777 == 0o600);

    // Another name.
    let other = Name::new(b"g").unwrap();
    mount
        .replica
        .update(|tx| {
            tx.unlink(&Place::new(NodeId::ROOT, name.clone()))?;
            tx.link(Place::new(NodeId::ROOT, other.clone()), id)
        })
        .unwrap_or_else(|error: ReplicaError| panic!("{error}"));
    mount.notices.entry_removed(NodeId::ROOT, &name, id);
    mount.notices.entry_changed(NodeId::ROOT, &other);
    wait_for(|| fs::metadata(mount.join("g")).is_ok());
    wait_for(|| fs::metadata(mount.join("f")).is_err());
    wait_for(|| {
        let mut entries = fs::read_dir(mount.path()).unwrap();
        entries.next().unwrap().unwrap().file_name() == "g" && entries.next().is_none()
    });
}

#[test]
fn more_news_than_are_remembered_reach_the_kernel() {
    let mount = TestMount::new();
    let names = ["0", "1", "2"].map(|name| Name::new(name.as_bytes()).unwrap());
    let path = |name: &Name| mount.join(&name.to_string());
    assert!(names.iter().all(|name| fs::metadata(path(name)).is_err()));
    let dir = mount.server.put_dir(NodeId::ROOT, "d", &["one"]);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 1);

    // Who looks into the directory waits for the server, and who tells of an entry there waits for them.
    *mount.server.stalled.lock().unwrap() = Some(Vec::new());
    let one = mount.join("d/one");
    let looking = thread::spawn(move || fs::metadata(one).unwrap());
    while mount.server.requests.load(Ordering::Relaxed) == 0 {
        thread::yield_now();
    }
    mount.notices.entry_changed(dir, &names[0]);
    let many = |dirs: std::ops::Range<u64>| {
        for dir in dirs {
            mount.notices.entry_changed(NodeId(dir), &names[0]);
        }
    };
    many(1_000..13_000);
    for name in &names {
        mount.server.put_file(NodeId::ROOT, &name.to_string(), b"");
        mount.notices.entry_changed(NodeId::ROOT, name);
    }
    many(13_000..25_000);
    mount.server.go_on();
    looking.join().unwrap();
    wait_for(|| names.iter().all(|name| fs::metadata(path(name)).is_ok()));
    wait_for(|| fs::read_dir(mount.path()).unwrap().count() == 1 + names.len());
}

/// What the engine does with an open file that the server has in a newer version.
fn replace(mount: &TestMount, old: NodeId, name: &Name, content: &[u8]) -> NodeId {
    let store = mount.replica.content();
    let mut staged = store.new_staging().unwrap();
    staged.file.write_all(content).unwrap();
    let update = mount.replica.update(|tx| {
        let mut node = tx.node(old)?.unwrap();
        let id = tx.alloc_node()?;
        tx.put_node(Node {
            id,
            data_changed: false,
            size: content.len() as u64,
            mtime: Time::new(5, 0),
            ..node.clone()
        })?;
        tx.link(Place::new(NodeId::ROOT, name.clone()), id)?;
        store.install(staged, id)?;
        node.nlink = 0;
        tx.mark_in_flight(old)?;
        tx.put_node(node)?;
        Ok(id)
    });
    update.unwrap_or_else(|error: ReplicaError| panic!("{error}"))
}

/// The mount's news travel on a thread of their own.
pub(super) fn wait_for(condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "the kernel was never told");
        thread::yield_now();
    }
}
