//! A file that the server has in a newer version: whoever reads it sees the one or the other, whole.

use std::fs::{self, File};
use std::io::Read;
use std::mem::MaybeUninit;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::fs::inotify;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::mount::running::Program;
use crate::support::machine::{Site, assert_same, eventually};

/// Versions of one file, each of one letter and of a length that tells it, none of whole pages.
const VERSIONS: [(u8, usize); 3] = [(b'a', 3_001), (b'b', 70_003), (b'c', 20_007)];

fn version(number: usize) -> Vec<u8> {
    let (letter, len) = VERSIONS[number % VERSIONS.len()];
    vec![letter; len]
}

/// Replaces a file on the server as editors do; its time tells the versions apart.
fn publish(path: &Path, content: &[u8], mtime: u64) {
    let new = path.with_extension("new");
    fs::write(&new, content).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(mtime);
    File::options()
        .write(true)
        .open(&new)
        .unwrap()
        .set_modified(time)
        .unwrap();
    fs::rename(&new, path).unwrap();
}

#[track_caller]
fn assert_whole(content: &[u8]) {
    let first = content.first().copied();
    let of_one = content.iter().all(|byte| Some(*byte) == first);
    let known = VERSIONS
        .iter()
        .any(|(letter, len)| Some(*letter) == first && *len == content.len());
    assert!(
        of_one && known,
        "a mix: {} bytes, the first {first:?}, the last {:?}",
        content.len(),
        content.last()
    );
}

/// A file mapped into memory.
struct Map {
    at: *mut std::ffi::c_void,
    len: usize,
}

impl Map {
    fn new(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap();
        // SAFETY: a fresh mapping, gone when this is dropped.
        #[allow(unsafe_code)]
        let at = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                &file,
                0,
            )
        };
        Self {
            at: at.unwrap(),
            len,
        }
    }

    fn content(&self) -> Vec<u8> {
        // SAFETY: mapped, as long as the file, which nobody may change or cut: that is what is tested.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.at.cast::<u8>(), self.len).to_vec()
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and no slice of it is left.
        #[allow(unsafe_code)]
        let unmapped = unsafe { munmap(self.at, self.len) };
        unmapped.unwrap();
    }
}

/// Reads in pieces that are no pages, so that a change of size or content in between would show.
fn read_slowly(path: &Path) -> Vec<u8> {
    let mut file = File::open(path).unwrap();
    let mut content = Vec::new();
    let mut piece = [0; 1_000];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return content,
            read => content.extend_from_slice(&piece[..read]),
        }
        thread::yield_now();
    }
}

#[test]
fn a_reader_sees_one_version_or_the_other_and_never_a_mix() {
    let site = Site::new();
    let machine = site.machine("m");
    let on_server = site.home().join("file");
    publish(&on_server, &version(0), 1_000_000);
    machine.mount();
    let path = machine.at("file");
    // All of it is cached: attributes, pages, and mapped pages.
    assert_eq!(fs::read(&path).unwrap(), version(0));
    let first = Map::new(&path);
    assert_whole(&first.content());

    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for reader in [read_slowly, |path: &Path| Map::new(path).content()] {
            let (path, over) = (&path, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    assert_whole(&reader(path));
                }
            });
        }
        let mut inos = Vec::new();
        for number in 1..=12 {
            publish(&on_server, &version(number), 1_000_000 + number as u64);
            // Half of the versions are found by the pass, the others by whoever opens the file.
            if number % 2 == 0 {
                machine.reconcile();
                assert_whole(&fs::read(&path).unwrap());
            }
            inos.push(fs::metadata(&path).unwrap().ino());
        }
        over.store(true, Ordering::Relaxed);
        inos.dedup();
        assert!(inos.len() > 1, "each version is a file of its own");
    });
    assert_eq!(first.content(), version(0), "who has it mapped keeps it");
    drop(first);
    machine.umount();
    machine.check();
}

#[test]
fn a_file_that_changed_since_it_was_listed_is_read_whole() {
    let site = Site::new();
    let machine = site.machine("m");
    // Each in a directory of its own: who opens two of one gets the rest before it changes.
    let names = ["a/longer", "b/shorter", "c/as long"];
    for dir in ["a", "b", "c"] {
        fs::create_dir(site.home().join(dir)).unwrap();
    }
    for (number, name) in names.into_iter().enumerate() {
        publish(&site.home().join(name), &version(number), 1_000_000);
    }
    machine.mount();
    // The first pass is over, so that the readers below are the first to see a change.
    machine.reconcile();
    for (number, name) in names.into_iter().enumerate() {
        let len = fs::metadata(machine.at(name)).unwrap().len() as usize;
        assert_eq!(len, version(number).len(), "the kernel knows its size");
    }
    let newer = [version(1), version(0), vec![b'x'; version(2).len()]];
    for (content, name) in newer.iter().zip(names) {
        publish(&site.home().join(name), content, 2_000_000);
        let read = read_slowly(&machine.at(name));
        assert!(read == *content, "{name}: {} bytes", read.len());
    }
    machine.reconcile();
    assert_same(&site.home(), &machine.home());
    machine.umount();
    machine.check();
}

#[test]
fn what_stays_on_this_machine_stays_with_the_newer_version() {
    let site = Site::new();
    let machine = site.machine("m");
    let on_server = site.home().join("file");
    publish(&on_server, &version(0), 1_000_000);
    machine.mount();
    let path = machine.at("file");
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(&path, "user.note", b"mine", flags).unwrap();
    publish(&on_server, &version(1), 1_000_001);
    machine.reconcile();
    assert_whole(&fs::read(&path).unwrap());
    let mut note = [0; 4];
    rustix::fs::getxattr(&path, "user.note", &mut note[..]).unwrap();
    assert_eq!(&note, b"mine");
    machine.umount();
    machine.check();
}

#[test]
fn whoever_watches_a_file_hears_that_another_took_its_place() {
    let site = Site::new();
    let machine = site.machine("m");
    let on_server = site.home().join("file");
    publish(&on_server, &version(0), 1_000_000);
    machine.mount();
    let path = machine.at("file");
    assert_whole(&fs::read(&path).unwrap());
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, &path, inotify::WatchFlags::DELETE_SELF).unwrap();
    publish(&on_server, &version(1), 1_000_001);
    machine.reconcile();
    let mut buffer = [MaybeUninit::uninit(); 1_000];
    eventually("the watcher hears of it", || {
        let mut events = inotify::Reader::new(&watch, &mut buffer);
        let event = events.next();
        event.is_ok_and(|event| event.events().contains(inotify::ReadFlags::DELETE_SELF))
    });
    assert!(fs::read(&path).unwrap() == version(1));
    machine.umount();
}

#[test]
fn a_hard_link_keeps_its_file_when_the_other_name_gets_a_newer_version() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let (one, other) = (machine.at("one"), machine.at("other"));
    fs::write(&one, version(0)).unwrap();
    fs::hard_link(&one, &other).unwrap();
    machine.flush();
    let stat = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.ino(), meta.nlink())
    };
    assert_eq!((stat(&one), stat(&one).1), (stat(&other), 2));
    publish(&site.home().join("one"), &version(1), 1_000_000);
    machine.reconcile();
    assert!(fs::read(&one).unwrap() == version(1));
    assert!(fs::read(&other).unwrap() == version(0));
    eventually("both are files of their own", || {
        stat(&one).0 != stat(&other).0 && stat(&one).1 == 1 && stat(&other).1 == 1
    });
    fs::remove_file(site.home().join("one")).unwrap();
    machine.reconcile();
    assert_eq!(stat(&other).1, 1);
    machine.umount();
    machine.check();
}

#[test]
fn a_program_that_runs_keeps_its_code_when_the_server_has_another() {
    let site = Site::new();
    let machine = site.machine("m");
    let on_server = site.home().join("program");
    fs::copy("/bin/cat", &on_server).unwrap();
    machine.mount();
    let path = machine.at("program");
    let mut program = Program::run(&path);
    for number in 0..3 {
        publish(&on_server, &version(number), 1_000_000 + number as u64);
        machine.reconcile();
        assert_eq!(fs::read(&path).unwrap(), version(number));
        program.assert_whole();
    }
    fs::remove_file(&on_server).unwrap();
    machine.reconcile();
    assert!(!path.exists());
    program.assert_whole();
    drop(program);
    machine.umount();
    machine.check();
}
