//! Large files that are read by block, as programs see them.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use roamhome::engine::FetchError;
use roamhome::tree::NodeId;
use rustix::fs::{Advice, SeekFrom as Seeks};
use rustix::mm::{MapFlags, ProtFlags};

use crate::support::mounted::TestMount;
use crate::support::rng::noise;

/// Longer than anything here takes, shorter than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(20);

const MIB: usize = 1 << 20;
const SIZE: usize = 16 * MIB;
const PAGE: usize = 4096;

/// A mount with a file that is read by block.
fn mounted() -> (TestMount, Vec<u8>) {
    let mount = TestMount::new();
    mount
        .server
        .by_block_from
        .store(MIB as u64, Ordering::Relaxed);
    let content = noise(SIZE, 1);
    mount.server.put_file(NodeId::ROOT, "far", &content);
    (mount, content)
}

/// Bytes that were asked for so far.
fn asked(mount: &TestMount) -> u64 {
    let wanted = mount.server.wanted.lock().unwrap();
    let bytes = wanted.iter().map(|wanted| &wanted.bytes);
    bytes.map(|bytes| bytes.end - bytes.start).sum()
}

fn state(mount: &TestMount) -> String {
    let mut value = [0; 64];
    let path = mount.join("far");
    let len = rustix::fs::getxattr(&path, c"user.roamhome.state", &mut value).unwrap();
    String::from_utf8_lossy(&value[..len]).into_owned()
}

#[test]
fn a_large_file_is_opened_at_once_and_little_is_fetched_of_it() {
    let (mount, content) = mounted();
    let file = File::open(mount.join("far")).unwrap();
    assert_eq!(mount.server.requests.load(Ordering::Relaxed), 0);
    assert_eq!(state(&mount), "remote");
    let mut read = [0; 100];
    for at in [SIZE - 100, 5 * MIB + 3, 9 * MIB] {
        file.read_exact_at(&mut read, at as u64).unwrap();
        assert_eq!(read[..], content[at..at + 100]);
    }
    assert!(asked(&mount) <= 3 * MIB as u64, "{}", asked(&mount));
    assert_eq!(state(&mount), "partial");
    // All of it.
    assert!(fs::read(mount.join("far")).unwrap() == content);
}

#[test]
#[allow(unsafe_code)] // There is no mapping without.
fn mapped_pages_are_fetched_as_they_are_touched() {
    let (mount, content) = mounted();
    let file = File::open(mount.join("far")).unwrap();
    // SAFETY: a new mapping of a file that nobody cuts, unmapped below, and read as bytes only.
    let seen: Vec<u8> = unsafe {
        let at = rustix::mm::mmap(
            std::ptr::null_mut(),
            SIZE,
            ProtFlags::READ,
            MapFlags::SHARED,
            &file,
            0,
        )
        .unwrap();
        let bytes = std::slice::from_raw_parts(at.cast::<u8>(), SIZE);
        let seen = [7 * MIB, 3 * MIB, SIZE - 1].map(|at| bytes[at]);
        rustix::mm::munmap(at, SIZE).unwrap();
        seen.to_vec()
    };
    assert_eq!(seen, [7 * MIB, 3 * MIB, SIZE - 1].map(|at| content[at]));
    assert!(asked(&mount) <= 4 * MIB as u64, "{}", asked(&mount));
}

#[test]
fn what_is_missing_is_no_hole() {
    let (mount, _) = mounted();
    let file = File::open(mount.join("far")).unwrap();
    file.read_exact_at(&mut [0; 10], 8 << 20).unwrap();
    let seek = |to| rustix::fs::seek(&file, to);
    for at in [0, 8 << 20, SIZE as u64 - 1] {
        assert_eq!(seek(Seeks::Data(at)), Ok(at));
        assert_eq!(seek(Seeks::Hole(at)), Ok(SIZE as u64));
    }
    let behind = seek(Seeks::Data(SIZE as u64));
    assert_eq!(behind, Err(rustix::io::Errno::NXIO));
}

#[test]
fn a_copy_of_what_is_not_here_is_a_copy_of_all() {
    let (mount, content) = mounted();
    let from = File::open(mount.join("far")).unwrap();
    let mut to = File::create(mount.join("copy")).unwrap();
    let mut left = SIZE;
    while left > 0 {
        let copied = rustix::fs::copy_file_range(&from, None, &to, None, left).unwrap();
        assert!(copied > 0);
        left -= copied;
    }
    to.flush().unwrap();
    assert!(fs::read(mount.join("copy")).unwrap() == content);
}

#[test]
fn each_failure_to_fetch_a_block_has_its_errno() {
    let (mount, content) = mounted();
    let file = File::open(mount.join("far")).unwrap();
    let mut read = [0; PAGE];
    file.read_exact_at(&mut read, 0).unwrap();
    for (failure, errno) in [
        (FetchError::Unreachable, libc::EHOSTUNREACH),
        (FetchError::Gone, libc::ENOENT),
        (FetchError::Changed, libc::ESTALE),
        (FetchError::Forbidden, libc::EACCES),
        (FetchError::NoSpace, libc::ENOSPC),
        (FetchError::Failed, libc::EIO),
    ] {
        *mount.server.failure.lock().unwrap() = Some(failure);
        let error = file.read_exact_at(&mut read, 9 << 20).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(errno), "{failure}");
        // What is here is read, and the file is opened.
        let mut other = File::open(mount.join("far")).unwrap();
        other.read_exact(&mut read).unwrap();
        assert_eq!(read[..], content[..PAGE]);
    }
    *mount.server.failure.lock().unwrap() = None;
    file.read_exact_at(&mut read, 9 << 20).unwrap();
    assert_eq!(read[..], content[9 * MIB..][..PAGE]);
}

#[test]
fn who_writes_or_runs_it_waits_for_all_and_readers_see_what_is_written() {
    let (mount, content) = mounted();
    let reader = File::open(mount.join("far")).unwrap();
    let mut read = [0; PAGE];
    reader.read_exact_at(&mut read, 0).unwrap();
    let mut options = OpenOptions::new();
    let mut writer = options.write(true).open(mount.join("far")).unwrap();
    writer.seek(SeekFrom::Start(5)).unwrap();
    writer.write_all(b"written").unwrap();
    reader.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read[..5], content[..5]);
    assert_eq!(&read[5..12], b"written");
    assert_eq!(read[12..], content[12..PAGE]);
    reader.read_exact_at(&mut read, 12 << 20).unwrap();
    assert_eq!(read[..], content[12 * MIB..][..PAGE]);
    assert_eq!(state(&mount), "dirty");
}

#[test]
fn readers_who_wait_for_a_stalled_server_hold_up_nobody_else() {
    let (mount, _) = mounted();
    let near = noise(SIZE, 2);
    fs::write(mount.join("near"), &near).unwrap();
    let file = File::open(mount.join("near")).unwrap();
    file.sync_all().unwrap();
    // From now on the kernel has to ask, and reads ahead.
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    *mount.server.stalled.lock().unwrap() = Some(Vec::new());
    let before = mount.server.requests.load(Ordering::Relaxed);
    let readers: Vec<_> = (0..48)
        .map(|n| {
            let name = format!("far{n}");
            mount.server.put_file(NodeId::ROOT, &name, &noise(MIB, n));
            let path = mount.join(&name);
            thread::spawn(move || fs::read(path).unwrap() == noise(MIB, n))
        })
        .collect();
    while mount.server.requests.load(Ordering::Relaxed) < before + 48 {
        thread::yield_now();
    }
    let (done, waiting) = mpsc::channel();
    thread::spawn(move || {
        let mut file = file;
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        done.send(read).unwrap();
    });
    let read = waiting.recv_timeout(PATIENCE);
    mount.server.go_on();
    for reader in readers {
        assert!(reader.join().unwrap());
    }
    assert!(read.unwrap() == near);
}
