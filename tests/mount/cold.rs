//! What is not cached, and what the engine changes behind the kernel's back.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use roamhome::engine::{Events, FetchError};
use roamhome::replica::ReplicaError;
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
            fs::read_dir(mount.join("d")).unwrap_err(),
            File::create(mount.join("d/new")).unwrap_err(),
        ] {
            assert_eq!(error.raw_os_error(), Some(errno), "{failure}");
        }
    }
    *mount.server.failure.lock().unwrap() = None;
    assert_eq!(fs::read(mount.join("far")).unwrap(), b"hello");
    assert!(fs::metadata(mount.join("d/one")).is_ok());
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

    // New content, of the same node.
    replace(&mount, id, b"newer");
    mount.notices.node_changed(id, true);
    wait_for(|| fs::read(mount.join("f")).unwrap() == b"newer");
    let mut seen = String::new();
    reader.read_to_string(&mut seen).unwrap();
    assert_eq!(seen, "newer");

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

fn replace(mount: &TestMount, id: NodeId, content: &[u8]) {
    let store = mount.replica.content();
    let mut staged = store.new_staging().unwrap();
    staged.file.write_all(content).unwrap();
    let update = mount.replica.update(|tx| {
        let mut node = tx.node(id)?.unwrap();
        node.data_changed = false;
        node.size = content.len() as u64;
        node.mtime = Time::new(5, 0);
        tx.put_node(node)
    });
    update.unwrap_or_else(|error: ReplicaError| panic!("{error}"));
    store.install(staged, id).unwrap();
}

/// The mount's news travel on a thread of their own.
fn wait_for(condition: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "the kernel was never told");
        thread::yield_now();
    }
}
