//! Single files: their times, their holes, and files without a name.

use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, SeekFrom, Timespec, Timestamps, utimensat};
use rustix::io::Errno;

use super::both;
use crate::support::mounted::TestMount;
use crate::support::user::{ANN, as_user};

/// The kernel of a FUSE mount can make one only if the library knows the request.
#[test]
fn a_file_without_a_name_is_refused_so_that_programs_make_one_with_a_name() {
    let mount = TestMount::new();
    let flags = OFlags::TMPFILE | OFlags::RDWR;
    for _ in 0..2 {
        let refused = rustix::fs::open(mount.path(), flags, Mode::RUSR | Mode::WUSR);
        assert_eq!(refused.unwrap_err(), Errno::OPNOTSUPP);
    }
    let mut file = tempfile::tempfile_in(mount.path()).unwrap();
    file.write_all(b"hello").unwrap();
    file.rewind().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
}

#[test]
fn times_are_set_left_and_taken_from_the_clock_one_by_one() {
    const NOW: i64 = 0x3fff_ffff;
    const OMIT: i64 = 0x3fff_fffe;
    let old = (1_000_000_000, 123_456_789);
    let at = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
    let seen = both(|dir| {
        let path = dir.join("f");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        let set = |access: (i64, i64), modification: (i64, i64)| {
            let times = Timestamps {
                last_access: at(access),
                last_modification: at(modification),
            };
            utimensat(CWD, &path, &times, AtFlags::empty())
        };
        let mut seen = Vec::new();
        for nanos in [
            (NOW, OMIT),
            (OMIT, NOW),
            (OMIT, OMIT),
            (NOW, NOW),
            (5, OMIT),
            (OMIT, 6),
        ] {
            for user in [0, ANN] {
                set(old, old).unwrap();
                let before = fs::metadata(&path).unwrap();
                let both = || set((7, nanos.0), (8, nanos.1));
                let done = if user == 0 {
                    both()
                } else {
                    as_user(user, &[], both)
                };
                let meta = fs::metadata(&path).unwrap();
                // What the clock says differs; that it said it does not.
                let shown = |secs, nanos| {
                    if secs > old.0 {
                        None
                    } else {
                        Some((secs, nanos))
                    }
                };
                let untouched =
                    (before.ctime(), before.ctime_nsec()) == (meta.ctime(), meta.ctime_nsec());
                seen.push((
                    done,
                    shown(meta.atime(), meta.atime_nsec()),
                    shown(meta.mtime(), meta.mtime_nsec()),
                    nanos == (OMIT, OMIT) && untouched,
                ));
            }
        }
        seen
    });
    assert_eq!(seen[0], (Ok(()), None, Some(old), false));
    assert_eq!(seen[1].0, Err(Errno::PERM));
}

#[test]
fn holes_and_data_are_where_they_are_on_a_disk() {
    let seen = both(|dir| {
        let file = File::create_new(dir.join("f")).unwrap();
        let find = |from: fn(u64) -> SeekFrom, at| rustix::fs::seek(&file, from(at));
        let all = || {
            let mut found = Vec::new();
            for at in [
                0,
                1,
                512 << 10,
                (516 << 10) + 7,
                (1 << 20) - 1,
                1 << 20,
                u64::MAX >> 1,
            ] {
                found.extend([find(SeekFrom::Data, at), find(SeekFrom::Hole, at)]);
            }
            found
        };
        let mut seen = all();
        file.set_len(1 << 20).unwrap();
        seen.extend(all());
        file.write_all_at(b"x", 512 << 10).unwrap();
        seen.extend(all());
        file.sync_all().unwrap();
        seen.extend(all());
        seen
    });
    assert!(seen.contains(&Ok(516 << 10)), "{seen:?}");
}

/// Copies between the files of `dir`, with and without asking for shared blocks.
fn copies(dir: &Path) -> (Vec<String>, u64) {
    fs::write(dir.join("f"), vec![b'x'; 3 << 20]).unwrap();
    let reflink = |how: &str, to: &str| {
        let mut command = std::process::Command::new("cp");
        let command = command.arg(format!("--reflink={how}")).args(["f", to]);
        command.current_dir(dir).status().unwrap().success()
    };
    assert!(reflink("auto", "auto") && reflink("never", "never"));
    let from = File::open(dir.join("f")).unwrap();
    let to = File::create_new(dir.join("to")).unwrap();
    let mut said = Vec::new();
    for (start, len) in [(0, 3 << 20), (3 << 20, 10), (1000, 0)] {
        let (mut at, mut end) = (start, start);
        let copied = rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut end), len);
        said.push(format!("{copied:?} {at} {end}"));
    }
    for name in ["auto", "never", "to"] {
        assert!(fs::read(dir.join(name)).unwrap() == fs::read(dir.join("f")).unwrap());
    }
    (said, to.metadata().unwrap().len())
}

#[test]
fn ranges_are_copied_as_on_a_disk() {
    assert_eq!(both(copies).1, 3 << 20);
}
