//! Two programs at one file: memory, locks, and lines at its end.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use crate::support::mounted::TestMount;

const PAGES: usize = 4 * 4096;

/// Another program, in Python, with the path of a file as `path`.
fn program(path: &Path, text: &str) -> Command {
    let begin = "import fcntl, mmap, os, sys\npath = sys.argv[1]\n";
    let mut command = Command::new("python3");
    command.arg("-c").arg(format!("{begin}{text}")).arg(path);
    command
}

/// Whether another program runs through.
fn succeeds(path: &Path, text: &str) -> bool {
    let mut command = program(path, text);
    command.stderr(Stdio::null()).status().unwrap().success()
}

/// A file that is mapped, shared.
struct Map(*mut std::ffi::c_void);

impl Map {
    fn new(file: &File) -> Self {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping, which nobody takes for a reference.
        #[allow(unsafe_code)]
        let map = unsafe { mmap(std::ptr::null_mut(), PAGES, prot, MapFlags::SHARED, file, 0) };
        Self(map.unwrap())
    }

    fn get(&self, at: usize) -> u8 {
        assert!(at < PAGES);
        // SAFETY: within the mapping of a file that is as long.
        #[allow(unsafe_code)]
        unsafe {
            self.0.cast::<u8>().add(at).read_volatile()
        }
    }

    fn put(&self, at: usize, byte: u8) {
        assert!(at < PAGES);
        // SAFETY: as above.
        #[allow(unsafe_code)]
        unsafe {
            self.0.cast::<u8>().add(at).write_volatile(byte);
        }
    }

    fn sync(&self) {
        // SAFETY: the mapping from above.
        #[allow(unsafe_code)]
        unsafe { msync(self.0, PAGES, MsyncFlags::SYNC) }.unwrap();
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: nobody has a reference into it.
        #[allow(unsafe_code)]
        unsafe { munmap(self.0, PAGES) }.unwrap();
    }
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .unwrap()
}

#[test]
fn memory_that_two_programs_map_and_what_they_read_and_write_is_one() {
    let mount = TestMount::new();
    let path = mount.join("f");
    fs::write(&path, vec![b'.'; PAGES]).unwrap();
    let file = open(&path);
    let map = Map::new(&file);
    // By memory and by system calls, here and there.
    map.put(1, b'a');
    file.write_all_at(b"b", 4097).unwrap();
    let there = "
f = open(path, 'r+b', buffering=0)
m = mmap.mmap(f.fileno(), 0)
assert m[1:2] == b'a' and m[4097:4098] == b'b'
assert os.pread(f.fileno(), 1, 1) == b'a' and os.pread(f.fileno(), 1, 4097) == b'b'
m[2] = ord('c')
os.pwrite(f.fileno(), b'd', 4098)
assert m[4098:4099] == b'd' and os.pread(f.fileno(), 1, 2) == b'c'
os._exit(0)";
    assert!(succeeds(&path, there));
    let mut read = [0; 2];
    file.read_exact_at(&mut read[..1], 2).unwrap();
    file.read_exact_at(&mut read[1..], 4098).unwrap();
    assert_eq!((map.get(2), map.get(4098), &read), (b'c', b'd', b"cd"));

    // What is cut off and given back is zeros in memory, too.
    assert!(succeeds(
        &path,
        "os.truncate(path, 4096)\nos.truncate(path, 4 * 4096)"
    ));
    assert_eq!((map.get(2), map.get(4098)), (b'c', 0));
    map.put(5000, b'e');
    map.sync();
    let mount = {
        drop((map, file));
        mount.remount()
    };
    let content = fs::read(mount.join("f")).unwrap();
    assert_eq!(
        (content.len(), content[2], content[4098], content[5000]),
        (PAGES, b'c', 0, b'e')
    );
}

#[test]
fn a_change_by_memory_changes_the_time_of_the_file() {
    let mount = TestMount::new();
    let path = mount.join("f");
    fs::write(&path, vec![b'.'; PAGES]).unwrap();
    let file = open(&path);
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    for (number, end) in [Map::sync as fn(&Map), |_| {}].into_iter().enumerate() {
        let map = Map::new(&file);
        file.set_modified(old).unwrap();
        let before = file.metadata().unwrap();
        map.put(number, b'x');
        end(&map);
        drop(map);
        file.sync_all().unwrap();
        let after = file.metadata().unwrap();
        assert!(after.modified().unwrap() > old);
        assert!((after.ctime(), after.ctime_nsec()) > (before.ctime(), before.ctime_nsec()));
    }
    let seen = fs::metadata(&path).unwrap().modified().unwrap();
    drop(file);
    let mount = mount.remount();
    assert_eq!(
        fs::metadata(mount.join("f")).unwrap().modified().unwrap(),
        seen
    );
}

#[test]
fn locks_of_both_kinds_hold_between_programs_and_hold_up_nobody_else() {
    let mount = TestMount::new();
    let path = mount.join("f");
    let file = open(&path);
    let try_flock = "f = open(path)\nfcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)";
    let try_fcntl = "f = open(path, 'r+b')\nfcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 5)";
    let try_shared = "f = open(path)\nfcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)";
    assert!(succeeds(&path, try_flock) && succeeds(&path, try_fcntl));
    flock(&file, FlockOperation::LockExclusive).unwrap();
    // They are two kinds, and know nothing of each other.
    assert!(
        !succeeds(&path, try_flock) && !succeeds(&path, try_shared) && succeeds(&path, try_fcntl)
    );
    flock(&file, FlockOperation::LockShared).unwrap();
    assert!(!succeeds(&path, try_flock) && succeeds(&path, try_shared));
    fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    assert!(!succeeds(&path, try_fcntl));

    // More who wait than the mount has threads: everybody else goes on.
    let wait = |text: &str| program(&path, text).stdin(Stdio::null()).spawn().unwrap();
    let waiting: Vec<Child> = (0..6)
        .flat_map(|_| {
            [
                wait("f = open(path)\nfcntl.flock(f, fcntl.LOCK_EX)"),
                wait("f = open(path, 'r+b')\nfcntl.lockf(f, fcntl.LOCK_EX)"),
            ]
        })
        .collect();
    for n in 0..50 {
        fs::write(mount.join(&format!("other {n}")), "x").unwrap();
    }
    flock(&file, FlockOperation::Unlock).unwrap();
    fcntl_lock(&file, FlockOperation::Unlock).unwrap();
    for mut child in waiting {
        assert!(child.wait().unwrap().success());
    }
    // Who dies holds nothing any more.
    assert!(succeeds(
        &path,
        "f = open(path, 'r+b')\nfcntl.lockf(f, fcntl.LOCK_EX)\nfcntl.flock(f, fcntl.LOCK_EX)\nos._exit(0)"
    ));
    assert!(succeeds(&path, try_flock) && succeeds(&path, try_fcntl));
}

#[test]
fn lines_that_two_programs_append_stay_whole() {
    const LINES: usize = 300;
    let mount = TestMount::new();
    let path = mount.join("log");
    let append = |letter: char| {
        let text = format!(
            "f = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)\n\
             for n in range({LINES}): assert os.write(f, b'{letter}' * (1 + n * 7 % 5000) + b'\\n')"
        );
        program(&path, &text).spawn().unwrap()
    };
    for mut child in ['a', 'b', 'c'].map(append) {
        assert!(child.wait().unwrap().success());
    }
    let text = fs::read_to_string(&path).unwrap();
    let mut number = [0; 3];
    for line in text.lines() {
        let letter = line.as_bytes()[0];
        assert!(line.bytes().all(|byte| byte == letter), "{line}");
        let n = &mut number[usize::from(letter - b'a')];
        assert_eq!(line.len(), 1 + *n * 7 % 5000);
        *n += 1;
    }
    assert_eq!(number, [LINES; 3]);
}
