//! Programs that look into every file: nothing large is fetched for them, and they hear so at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::Ordering;

use roamhome::tree::NodeId;

use crate::support::fake::RESTRAINED_FROM;
use crate::support::mounted::TestMount;

/// A copy of a program under another name.
fn called(mount: &TestMount, name: &str, program: &str) -> PathBuf {
    let copy = mount.outside(&format!("{program}-copy")).join(name);
    fs::copy(Path::new("/bin").join(program), &copy).unwrap();
    copy
}

fn run(program: &Path, on: &Path) -> Output {
    Command::new(program).arg(on).output().unwrap()
}

#[test]
fn nothing_large_is_fetched_for_a_thumbnailer_and_it_hears_so_at_once() {
    let mount = TestMount::new();
    let large = vec![7; RESTRAINED_FROM as usize];
    mount.server.put_file(NodeId::ROOT, "large", &large);
    let requests = || mount.server.requests.load(Ordering::Relaxed);
    let thumbnailer = called(&mount, "tumblerd", "cat");

    let refused = run(&thumbnailer, &mount.join("large"));
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("Resource temporarily unavailable"), "{why}");
    assert_eq!(requests(), 0);

    // What others had fetched is read by everybody.
    assert_eq!(
        run(Path::new("/bin/cat"), &mount.join("large")).stdout,
        large
    );
    assert_eq!(run(&thumbnailer, &mount.join("large")).stdout, large);
    assert_eq!(requests(), 1);
}

#[test]
fn nothing_of_what_is_read_by_block_is_fetched_for_a_thumbnailer() {
    let mount = TestMount::new();
    mount.server.by_block_from.store(1, Ordering::Relaxed);
    let large = vec![7; RESTRAINED_FROM as usize];
    mount.server.put_file(NodeId::ROOT, "large", &large);
    let thumbnailer = called(&mount, "tumblerd", "cat");
    let refused = run(&thumbnailer, &mount.join("large"));
    assert!(!refused.status.success());
    assert_eq!(mount.server.requests.load(Ordering::Relaxed), 0);
    let cat = run(Path::new("/bin/cat"), &mount.join("large"));
    assert_eq!(cat.stdout, large);
}

#[test]
fn a_thumbnailer_gets_what_is_small_and_looks_at_names_and_sizes() {
    let mount = TestMount::new();
    let small = vec![7; RESTRAINED_FROM as usize - 1];
    mount.server.put_file(NodeId::ROOT, "small", &small);
    mount.server.put_file(NodeId::ROOT, "other", b"other");
    mount.server.put_dir(NodeId::ROOT, "d", &["one", "two"]);
    let alone = || mount.server.alone.load(Ordering::Relaxed);

    let thumbnailer = called(&mount, "tumblerd", "cat");
    assert_eq!(run(&thumbnailer, &mount.join("small")).stdout, small);
    // It tells nothing of what others will want next; others do.
    assert_eq!(alone(), 1);
    assert_eq!(fs::read(mount.join("other")).unwrap(), b"other");
    assert_eq!(alone(), 1);

    let lister = called(&mount, "tumblerd", "ls");
    let listed = run(&lister, &mount.join("d"));
    assert_eq!(String::from_utf8_lossy(&listed.stdout), "one\ntwo\n");
    let looked = run(&called(&mount, "tumblerd", "stat"), &mount.join("d/one"));
    assert!(looked.status.success());
}
