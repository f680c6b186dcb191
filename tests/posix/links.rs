//! Names and their number: hard links by way of descriptors, renames with flags, and what is open without a name.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, XattrFlags, linkat, openat, renameat_with,
};
use rustix::io::Errno;

use super::both;
use crate::support::mounted::TestMount;

fn nlink(path: &Path) -> u64 {
    fs::symlink_metadata(path).unwrap().nlink()
}

#[test]
fn an_open_file_gets_a_name_by_its_descriptor_unless_it_has_lost_its_last_one() {
    let seen = both(|dir| {
        fs::write(dir.join("f"), "x").unwrap();
        let file = File::open(dir.join("f")).unwrap();
        let proc = format!("/proc/self/fd/{}", file.as_raw_fd());
        let by_descriptor = |to: &str| linkat(&file, "", CWD, dir.join(to), AtFlags::EMPTY_PATH);
        let by_proc = |to: &str| linkat(CWD, &proc, CWD, dir.join(to), AtFlags::SYMLINK_FOLLOW);
        let mut seen = vec![by_descriptor("a"), by_proc("b"), by_proc("b")];
        assert_eq!(file.metadata().unwrap().nlink(), 3);
        for name in ["a", "f", "b"] {
            fs::remove_file(dir.join(name)).unwrap();
        }
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        seen.extend([by_descriptor("c"), by_proc("c")]);
        std::os::unix::fs::symlink("nowhere", dir.join("s")).unwrap();
        seen.push(linkat(
            CWD,
            dir.join("s"),
            CWD,
            dir.join("t"),
            AtFlags::empty(),
        ));
        assert_eq!(nlink(&dir.join("t")), 2);
        seen
    });
    assert_eq!(seen[..3], [Ok(()), Ok(()), Err(Errno::EXIST)]);
    assert_eq!(seen[3..5], [Err(Errno::NOENT); 2]);
}

#[test]
fn a_file_without_a_name_is_a_file_in_all_else() {
    let _seen = both(|dir| {
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.join("f"))
            .unwrap();
        fs::remove_file(dir.join("f")).unwrap();
        file.write_all_at(b"hello", 0).unwrap();
        file.set_len(4).unwrap();
        file.set_permissions(PermissionsExt::from_mode(0o640))
            .unwrap();
        rustix::fs::fsetxattr(&file, "user.a", b"b", XattrFlags::empty()).unwrap();
        file.sync_all().unwrap();
        let mut value = [0; 8];
        let len = rustix::fs::fgetxattr(&file, "user.a", &mut value[..]);
        // Another one opens it by way of the first, as `/dev/stdin` is opened.
        let again = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
        let meta = file.metadata().unwrap();
        (len, again, meta.len(), meta.mode(), meta.nlink())
    });
}

#[test]
fn a_removed_directory_is_empty_and_takes_nothing() {
    let seen = both(|dir| {
        fs::create_dir_all(dir.join("d/e")).unwrap();
        let open = File::open(dir.join("d/e")).unwrap();
        fs::remove_dir(dir.join("d/e")).unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let created = openat(&open, "x", flags, Mode::RWXU).map(drop);
        let made = rustix::fs::mkdirat(&open, "x", Mode::RWXU);
        let above = openat(&open, "..", OFlags::RDONLY, Mode::empty()).map(drop);
        (
            created,
            made,
            above,
            open.metadata().unwrap().nlink(),
            nlink(&dir.join("d")),
        )
    });
    assert_eq!(seen.0, Err(Errno::NOENT));
}

#[test]
fn names_are_counted_right_whatever_happens_to_them_and_after_a_new_mount() {
    let count = |dir: &Path| {
        let names = ["f", "g", "d", "d/f", "other", "other/e", "left"];
        let count = |name| {
            fs::symlink_metadata(dir.join(name))
                .map(|meta| meta.nlink())
                .ok()
        };
        names.map(count)
    };
    let work = |dir: &Path| {
        fs::create_dir_all(dir.join("d/e")).unwrap();
        fs::create_dir_all(dir.join("d/gone")).unwrap();
        fs::create_dir(dir.join("other")).unwrap();
        fs::write(dir.join("f"), "x").unwrap();
        fs::write(dir.join("g"), "y").unwrap();
        for name in ["d/f", "d/e/f", "other/f"] {
            fs::hard_link(dir.join("f"), dir.join(name)).unwrap();
        }
        let (open, replaced) = (
            File::open(dir.join("f")).unwrap(),
            File::open(dir.join("g")).unwrap(),
        );
        let mut seen = vec![count(dir)];
        fs::rename(dir.join("d/e"), dir.join("other/e")).unwrap();
        fs::remove_dir(dir.join("d/gone")).unwrap();
        seen.push(count(dir));
        fs::rename(dir.join("other/f"), dir.join("g")).unwrap();
        // Both names are one file's already: nothing happens.
        fs::rename(dir.join("d/f"), dir.join("f")).unwrap();
        seen.push(count(dir));
        fs::remove_file(dir.join("d/f")).unwrap();
        renameat_with(
            CWD,
            dir.join("other"),
            CWD,
            dir.join("f"),
            RenameFlags::EXCHANGE,
        )
        .unwrap();
        fs::rename(dir.join("f"), dir.join("left")).unwrap();
        seen.push(count(dir));
        let open = [&open, &replaced].map(|file| file.metadata().unwrap().nlink());
        (seen, open)
    };
    let mount = TestMount::new();
    let disk = mount.outside("disk");
    let expected = work(&disk);
    assert_eq!(work(&mount.path()), expected);
    assert_eq!(expected.1, [3, 0]);
    let mount = mount.remount();
    assert_eq!(count(&mount.path()), count(&disk));
}

#[test]
fn renames_keep_replace_and_exchange_as_they_are_told() {
    let seen = both(|dir| {
        fs::write(dir.join("a"), "a").unwrap();
        fs::write(dir.join("b"), "b").unwrap();
        fs::create_dir_all(dir.join("d/e")).unwrap();
        let rename = |from: &str, to: &str, flags| {
            renameat_with(CWD, dir.join(from), CWD, dir.join(to), flags)
        };
        let (keep, exchange) = (RenameFlags::NOREPLACE, RenameFlags::EXCHANGE);
        let seen = vec![
            rename("a", "b", keep),
            rename("a", "new", keep),
            rename("new", "a", keep),
            rename("a", "none", exchange),
            rename("a", "b", exchange),
            rename("a", "d", exchange),
            rename("d", "a/e", exchange),
            rename("a", "a/e", exchange),
            rename("a", "a/e/f", keep),
            rename("a", "b", keep | exchange),
        ];
        let read = |name: &str| fs::read_to_string(dir.join(name)).map_err(|error| error.kind());
        (seen, read("a"), read("b"), read("d"))
    });
    assert_eq!(seen.0[..2], [Err(Errno::EXIST), Ok(())]);
    // A disk leaves a device that only overlays understand; where there are no devices there is none.
    let mount = TestMount::new();
    fs::write(mount.join("a"), "a").unwrap();
    let whiteout = renameat_with(
        CWD,
        mount.join("a"),
        CWD,
        mount.join("b"),
        RenameFlags::WHITEOUT,
    );
    assert_eq!(whiteout, Err(Errno::INVAL));
    assert_eq!(fs::read(mount.join("a")).unwrap(), b"a");
}
