//! What programs do, counted in requests of the kernel: each costs more than most of what it asks for.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::mounted::{ALL_BY_KERNEL, TestMount};
use crate::support::user::{ANN, as_user};

/// Where the kernel traces requests; in an instance of our own nobody else is counted.
const TRACING: &str = "/sys/kernel/tracing";

/// As long as the kernel may take to send what nobody waits for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts the requests of one mount.
struct Trace {
    instance: PathBuf,
}

impl Trace {
    fn of(mount: &TestMount) -> Self {
        if !Path::new(TRACING).join("events").exists() {
            let mounted = Command::new("mount")
                .args(["-t", "tracefs", "nodev", TRACING])
                .status();
            assert!(mounted.unwrap().success(), "the kernel traces nothing");
        }
        let name = format!(
            "roamhome-{}-{:?}",
            std::process::id(),
            thread::current().id()
        );
        let instance = Path::new(TRACING).join("instances").join(name);
        fs::create_dir(&instance).unwrap();
        let trace = Self { instance };
        let device = rustix::fs::minor(fs::metadata(mount.path()).unwrap().dev());
        let event = "events/fuse/fuse_request_send";
        trace.tell(
            &format!("{event}/filter"),
            &format!("connection == {device}"),
        );
        trace.tell(&format!("{event}/enable"), "1");
        trace
    }

    fn tell(&self, file: &str, value: &str) {
        fs::write(self.instance.join(file), value).unwrap();
    }

    /// What `work` asks for, once it is as many as `expected`, or after a while.
    #[track_caller]
    fn assert(&self, expected: &[(&str, u32)], work: impl FnOnce()) {
        self.tell("trace", "");
        work();
        let expected: BTreeMap<_, _> = expected
            .iter()
            .map(|(kind, n)| ((*kind).to_owned(), *n))
            .collect();
        let until = Instant::now() + PATIENCE;
        while self.count().values().sum::<u32>() < expected.values().sum() && Instant::now() < until
        {
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(self.count(), expected);
    }

    fn count(&self) -> BTreeMap<String, u32> {
        let text = fs::read_to_string(self.instance.join("trace")).unwrap();
        let mut counts = BTreeMap::new();
        for line in text.lines() {
            let kind = line
                .split_once("(FUSE_")
                .and_then(|(_, rest)| rest.split_once(')'));
            if let Some((kind, _)) = kind {
                *counts.entry(kind.to_owned()).or_default() += 1;
            }
        }
        counts
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        self.tell("events/fuse/fuse_request_send/enable", "0");
        fs::remove_dir(&self.instance).unwrap();
    }
}

fn list(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().map(Result::unwrap).count()
}

fn read(path: &Path) {
    let mut data = Vec::new();
    File::open(path).unwrap().read_to_end(&mut data).unwrap();
}

#[test]
fn what_was_looked_at_before_is_looked_at_without_a_request() {
    let mount = TestMount::new();
    let dir = mount.join("d");
    fs::create_dir(&dir).unwrap();
    for n in 0..100 {
        fs::write(dir.join(format!("f{n}")), "x").unwrap();
    }
    std::os::unix::fs::symlink("target", dir.join("link")).unwrap();
    let look = || {
        assert_eq!(list(&dir), 101);
        for n in 0..100 {
            assert_eq!(fs::metadata(dir.join(format!("f{n}"))).unwrap().len(), 1);
        }
        assert!(fs::symlink_metadata(dir.join("none")).is_err());
        fs::read_link(dir.join("link")).unwrap();
    };
    // The second time the directory is looked at, for it was read since.
    look();
    look();
    Trace::of(&mount).assert(&[], look);
}

#[test]
fn a_directory_is_listed_without_being_opened() {
    let mount = TestMount::new();
    mount
        .server
        .put_dir(roamhome::tree::NodeId::ROOT, "d", &["one", "two"]);
    let dir = mount.join("d");
    assert!(fs::metadata(&dir).unwrap().is_dir());
    // The kernel asks once whether it has to open directories.
    list(&mount.path());
    let trace = Trace::of(&mount);
    // With what is in it, and its end.
    trace.assert(&[("READDIRPLUS", 1), ("READDIR", 1)], || {
        assert_eq!(list(&dir), 2)
    });
    // It was read since.
    trace.assert(&[("GETATTR", 1)], || assert_eq!(list(&dir), 2));
    trace.assert(&[], || assert_eq!(list(&dir), 2));
}

#[test]
fn what_changes_a_directory_costs_a_look_at_it_and_no_more() {
    let mount = TestMount::new();
    let new = mount.join("new");
    fs::write(&new, "x").unwrap();
    fs::remove_file(&new).unwrap();
    let trace = Trace::of(&mount);
    // The trace looked at the directory itself.
    let made = [("LOOKUP", 1), ("CREATE", 1), ("RELEASE", 1)];
    trace.assert(&made, || drop(File::create_new(&new).unwrap()));
    // May this user go on in there, although it changed?
    let look = ("GETATTR", 1);
    trace.assert(&[look, ("UNLINK", 1)], || fs::remove_file(&new).unwrap());
    let made = [look, ("LOOKUP", 1), ("MKDIR", 1)];
    trace.assert(&made, || fs::create_dir(&new).unwrap());
    trace.assert(&[look, ("RMDIR", 1)], || fs::remove_dir(&new).unwrap());
}

#[test]
fn a_warm_file_is_read_without_a_request_for_its_content() {
    let mount = TestMount::new();
    fs::write(mount.join("f"), "hello").unwrap();
    read(&mount.join("f"));
    fs::metadata(mount.join("f")).unwrap();
    let trace = Trace::of(&mount);
    trace.assert(&[("OPEN", 1), ("RELEASE", 1)], || read(&mount.join("f")));
}

/// Whether there is an access control list is asked for those whom the owner's bits do not mean, once.
#[test]
fn lists_that_there_are_not_are_asked_for_once_and_never_for_the_owner() {
    let mount = TestMount::new();
    let (dir, file) = (mount.join("d"), mount.join("d/f"));
    fs::create_dir(&dir).unwrap();
    fs::write(&file, "x").unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    let look = || assert_eq!(fs::metadata(&file).unwrap().len(), 1);
    look();
    let trace = Trace::of(&mount);
    trace.assert(&[], look);
    let mine = [("OPEN", 1), ("READ", 1), ("RELEASE", 1)];
    trace.assert(&mine, || read(&file));
    look();

    // Of the directory once. The kernel met the home's root before it was told of lists, and never remembers its own.
    let home = ("GETXATTR", 1);
    trace.assert(&[("GETXATTR", 2)], || as_user(ANN, &[], look));
    trace.assert(&[home], || as_user(ANN, &[], look));
    let open = [("OPEN", 1), ("RELEASE", 1), home];
    trace.assert(&[open[0], open[1], ("GETXATTR", 2)], || {
        as_user(ANN, &[], || read(&file));
    });
    trace.assert(&open, || as_user(ANN, &[], || read(&file)));

    // After each change of a directory once more, with its attributes.
    let new = mount.join("d/new");
    let made = [("LOOKUP", 1), ("CREATE", 1), ("RELEASE", 1), home];
    trace.assert(&made, || {
        as_user(ANN, &[], || drop(File::create_new(&new).unwrap()))
    });
    let removed = [("GETATTR", 1), ("GETXATTR", 2), ("UNLINK", 1)];
    trace.assert(&removed, || {
        as_user(ANN, &[], || fs::remove_file(&new).unwrap())
    });

    // Nobody's bits but the owner's: there is nothing to ask.
    fs::set_permissions(mount.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let shut = || assert!(as_user(ANN, &[], || fs::metadata(&file).is_err()));
    // Before it refuses, the kernel looks whether the mode is another by now.
    trace.assert(&[("GETATTR", 1)], shut);
}

#[test]
fn what_a_program_asks_of_lists_the_kernel_remembers() {
    let mount = TestMount::new();
    let file = mount.join("f");
    fs::write(&file, "x").unwrap();
    fs::metadata(&file).unwrap();
    let ask = || {
        let list = rustix::fs::lgetxattr(&file, "system.posix_acl_access", &mut [0; 64][..]);
        assert_eq!(list, Err(rustix::io::Errno::NODATA));
    };
    let trace = Trace::of(&mount);
    trace.assert(&[("GETXATTR", 1)], ask);
    trace.assert(&[], ask);
}

#[test]
fn what_the_kernel_reads_and_writes_by_itself_costs_no_request_for_content() {
    let mount = TestMount::with(ALL_BY_KERNEL);
    let path = mount.join("f");
    fs::write(&path, vec![1; 3 << 20]).unwrap();
    fs::metadata(&path).unwrap();
    let trace = Trace::of(&mount);
    trace.assert(&[("OPEN", 1), ("RELEASE", 1)], || {
        let file = File::open(&path).unwrap();
        let mut bytes = [0; 4096];
        for at in (0..3 << 20).step_by(64 << 10) {
            file.read_exact_at(&mut bytes, at).unwrap();
        }
    });
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    // The first write looks whether it takes away what a program may do.
    file.write_all_at(b"x", 0).unwrap();
    trace.assert(&[], || {
        for at in 0..100 {
            file.write_all_at(b"y", at * 30_000).unwrap();
        }
    });
}
