//! What real programs do to a home: databases, repositories, archives and shared memory.

use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use crate::support::mounted::TestMount;

fn run(dir: &Path, command: &[&str]) -> String {
    let output = Command::new(command[0])
        .args(&command[1..])
        .current_dir(dir)
        .envs([("GIT_CONFIG_GLOBAL", "/dev/null"), ("LC_ALL", "C")])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn git_works_and_finds_nothing_changed_after_a_new_mount() {
    let mount = TestMount::new();
    let repo = mount.join("repo");
    run(&mount.path(), &["git", "init", "-q", "repo"]);
    for n in 0..40 {
        let dir = repo.join(format!("d{}", n % 5));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("f{n}")), format!("{n}\n").repeat(n)).unwrap();
    }
    let me = ["-c", "user.name=me", "-c", "user.email=me@example.org"];
    run(&repo, &["git", "add", "-A"]);
    run(
        &repo,
        &[&["git"], &me[..], &["commit", "-qm", "x"]].concat(),
    );
    run(&repo, &["git", "mv", "d0", "e0"]);
    run(
        &repo,
        &[&["git"], &me[..], &["commit", "-qm", "y"]].concat(),
    );
    run(&repo, &["git", "gc", "-q"]);
    run(&repo, &["git", "fsck", "--strict"]);
    let stat = |repo: &Path| {
        let meta = fs::metadata(repo.join("e0/f5")).unwrap();
        (
            meta.ino(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        )
    };
    let before = stat(&repo);
    let mount = mount.remount();
    let repo = mount.join("repo");
    assert_eq!(stat(&repo), before);
    assert_eq!(run(&repo, &["git", "status", "--porcelain"]), "");
    // Neither did git have to read a file: the stat data in its index still holds.
    assert_eq!(run(&repo, &["git", "diff-files", "--name-only"]), "");
}

/// Tells the second process of the test below where to work.
const SQLITE_DIR: &str = "TEST_SQLITE_DIR";

/// In a process of its own: SQLite holds a lock of the whole process while it opens a file, and the index
/// that serves the mount would wait for that.
#[test]
fn sqlite_works_with_a_rollback_journal_and_with_a_wal() {
    if let Some(dir) = std::env::var_os(SQLITE_DIR) {
        return use_sqlite(Path::new(&dir));
    }
    let mount = TestMount::new();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "mount::programs::sqlite_works_with_a_rollback_journal_and_with_a_wal",
        ])
        .env(SQLITE_DIR, mount.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    for file in ["DELETE", "WAL"] {
        assert!(mount.join(file).exists());
    }
}

fn use_sqlite(dir: &Path) {
    for mode in ["DELETE", "WAL"] {
        let path = dir.join(mode);
        let first = Connection::open(&path).unwrap();
        let set: String = first
            .query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))
            .unwrap();
        assert_eq!(set, mode.to_lowercase());
        first
            .execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)")
            .unwrap();
        let second = Connection::open(&path).unwrap();
        for n in 0..30 {
            let (one, other) = if n % 2 == 0 {
                (&first, &second)
            } else {
                (&second, &first)
            };
            one.execute("INSERT INTO t VALUES (?, randomblob(3000))", [n])
                .unwrap();
            let seen: i64 = other
                .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
                .unwrap();
            assert_eq!(seen, n + 1);
        }
        first
            .execute_batch("DELETE FROM t WHERE n % 3 = 0; VACUUM")
            .unwrap();
        drop((first, second));
        let check: String = Connection::open(&path)
            .unwrap()
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .unwrap();
        assert_eq!(check, "ok");
    }
}

#[test]
fn a_tar_of_everything_makes_the_same_again() {
    let mount = TestMount::new();
    let tree = mount.join("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("file"), "x".repeat(100_000)).unwrap();
    fs::hard_link(tree.join("file"), tree.join("sub/link")).unwrap();
    std::os::unix::fs::symlink("../file", tree.join("sub/symlink")).unwrap();
    fs::write(tree.join(std::ffi::OsStr::from_bytes(b"\xff\n\x1b")), "odd").unwrap();
    File::create(tree.join("sparse"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    run(
        &mount.path(),
        &["touch", "-d", "1999-12-31 23:59:59.123456789", "tree/file"],
    );
    run(
        &mount.path(),
        &["touch", "-d", "1960-01-01 00:00:00.5 UTC", "tree/sparse"],
    );
    run(&mount.path(), &["mkfifo", "tree/pipe"]);
    run(
        &mount.path(),
        &["tar", "-cf", "all.tar", "--format=pax", "tree"],
    );
    fs::create_dir(mount.join("again")).unwrap();
    run(&mount.path(), &["tar", "-xpf", "all.tar", "-C", "again"]);
    run(&mount.path(), &["tar", "-df", "all.tar", "-C", "again"]);
    let old = fs::metadata(mount.join("again/tree/sparse")).unwrap();
    assert_eq!((old.mtime(), old.mtime_nsec()), (-315_619_200, 500_000_000));
    run(&mount.path(), &["rm", "-r", "tree", "again", "all.tar"]);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
}

/// A store with one name for each file in every tree that uses it, programs by way of links, and trees that get their
/// name when they are whole.
#[test]
fn a_tree_as_package_managers_make_it_runs_is_replaced_and_goes() {
    let mount = TestMount::new();
    let script = r#"
        mkdir -p store/tool/bin app
        printf '#!/bin/sh\necho "$(basename "$0") $1 runs"\n' > store/tool/bin/run
        chmod 755 store/tool/bin/run
        for n in $(seq 200); do mkdir -p store/p$n/lib; echo $n > store/p$n/lib/index; done
        install_in() {
            mkdir -p app/$1/.bin
            cp -rl store/* app/$1/
            ln -s ../tool/bin/run app/$1/.bin/tool
        }
        install_in node_modules
        app/node_modules/.bin/tool first
        install_in .new
        rm app/.new/p7/lib/index
        echo seven > app/.new/p7/lib/index
        mv app/node_modules app/.old
        mv app/.new app/node_modules
        rm -rf app/.old
        app/node_modules/.bin/tool second
        cat store/p7/lib/index app/node_modules/p7/lib/index
        stat -c %h store/p7/lib/index store/p8/lib/index
        cp -a app copy
        diff -r app copy
        find copy -type f | wc -l
        rm -r store app copy"#;
    let said = run(&mount.path(), &["sh", "-euc", script]);
    assert_eq!(
        said,
        "tool first runs\ntool second runs\n7\nseven\n1\n2\n201\n"
    );
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
}

#[test]
fn shared_memory_is_written_back_and_private_memory_is_not() {
    use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};
    let mount = TestMount::new();
    let path = mount.join("mapped");
    fs::write(&path, vec![b'.'; 10_000]).unwrap();
    for (flags, byte) in [(MapFlags::SHARED, b's'), (MapFlags::PRIVATE, b'p')] {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping of 10,000 bytes of a file of that length, which nobody truncates.
        #[allow(unsafe_code)]
        let map = unsafe {
            let at = mmap(std::ptr::null_mut(), 10_000, prot, flags, &file, 0).unwrap();
            (at, std::slice::from_raw_parts_mut(at.cast::<u8>(), 10_000))
        };
        drop(file);
        map.1[5_000] = byte;
        let mut read = [0];
        let reader = File::open(&path).unwrap();
        reader.read_exact_at(&mut read, 5_000).unwrap();
        assert_eq!(read[0], b's', "what is shared is seen at once");
        // SAFETY: the mapping from above, of which no slice is used any more.
        #[allow(unsafe_code)]
        unsafe {
            msync(map.0, 10_000, MsyncFlags::SYNC).unwrap();
            munmap(map.0, 10_000).unwrap();
        }
    }
    // A write through another name is seen by who has it mapped, too: one page cache.
    let mount = mount.remount();
    let content = fs::read(mount.join("mapped")).unwrap();
    assert_eq!((content.len(), content[5_000]), (10_000, b's'));
}

#[test]
fn a_socket_connects_and_a_pipe_without_a_name_still_has_attributes() {
    let mount = TestMount::new();
    let listener = UnixListener::bind(mount.join("socket")).unwrap();
    let client = UnixStream::connect(mount.join("socket")).unwrap();
    drop((listener.accept().unwrap(), client));
    run(&mount.path(), &["mkfifo", "pipe"]);
    let pipe = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.join("pipe"))
        .unwrap();
    fs::remove_file(mount.join("pipe")).unwrap();
    assert_eq!(pipe.metadata().unwrap().nlink(), 0);
}

#[test]
fn a_directory_that_shrinks_while_it_is_read_loses_no_entry() {
    let mount = TestMount::new();
    let dir = mount.join("many");
    fs::create_dir(&dir).unwrap();
    for n in 0..1_000 {
        File::create(dir.join(format!("{n:04}-{}", "x".repeat(100)))).unwrap();
    }
    // `rm -r` does this: removes while it reads. Twice, for the kernel's cache of the listing.
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1_000);
    for entry in fs::read_dir(&dir).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::remove_dir(&dir).unwrap();
}

#[test]
fn the_mount_says_what_it_is_and_has_room() {
    let mount = TestMount::new();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let at = mount.path();
    let line = table
        .lines()
        .find(|line| line.contains(&*at.to_string_lossy()));
    let line = line.unwrap();
    assert!(
        line.contains(" fuse.roamhome roamhome:user@server:/it's\\040a\\040test "),
        "{line}"
    );
    for option in ["nosuid", "nodev", "default_permissions", "allow_other"] {
        assert!(line.contains(option), "{line}");
    }
    let room = rustix::fs::statvfs(&at).unwrap();
    assert!(room.f_bavail > 0 && room.f_blocks >= room.f_bfree && room.f_namemax == 255);
}
