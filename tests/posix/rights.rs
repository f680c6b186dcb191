//! Set-id bits and the groups of directories: privileges that are lost when they must be, and passed on when they are to be.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{CWD, FallocateFlags, FileType, Mode, mknodat};
use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

use super::both;
use crate::support::user::{ANN, BOB, as_user};

type Change = fn(&Path) -> std::io::Result<()>;

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn map_and_write(path: &Path) -> std::io::Result<()> {
    let file = open(path)?;
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a fresh mapping of a file of that length, which nobody cuts meanwhile, and one byte of it.
    #[allow(unsafe_code)]
    unsafe {
        let map = mmap(std::ptr::null_mut(), 4, prot, MapFlags::SHARED, &file, 0)?;
        map.cast::<u8>().write(b'm');
        msync(map, 4, MsyncFlags::SYNC)?;
        Ok(munmap(map, 4)?)
    }
}

/// What may take privileges from a file, or not.
const CHANGES: [(&str, Change); 13] = [
    ("write", |path| open(path)?.write_all_at(b"w", 0)),
    ("write nothing", |path| open(path)?.write(b"").map(drop)),
    ("append", |path| {
        OpenOptions::new().append(true).open(path)?.write_all(b"a")
    }),
    ("cut", |path| open(path)?.set_len(1)),
    ("cut to what it is", |path| open(path)?.set_len(4)),
    ("empty", |path| File::create(path).map(drop)),
    ("same owner", |path| chown(path, Some(ANN), Some(ANN))),
    ("other group", |path| chown(path, None, Some(BOB))),
    ("other group that is not theirs", |path| {
        chown(path, None, Some(77))
    }),
    ("other mode", |path| {
        fs::set_permissions(path, Permissions::from_mode(0o6711))
    }),
    ("read", |path| fs::read(path).map(drop)),
    ("other name", |path| {
        fs::hard_link(path, path.with_extension("x"))?;
        fs::remove_file(path.with_extension("x"))
    }),
    ("mapped", map_and_write),
];

/// The same, where the home takes them even if root does it.
const CHANGES_OF_OTHERS: [(&str, Change); 2] = [
    ("allocate", |path| {
        Ok(rustix::fs::fallocate(
            open(path)?,
            FallocateFlags::empty(),
            0,
            100,
        )?)
    }),
    ("copy a range", |path| {
        let (from, to) = (File::open(path.with_file_name("other"))?, open(path)?);
        Ok(rustix::fs::copy_file_range(&from, None, &to, None, 3).map(drop)?)
    }),
];

#[test]
fn set_id_bits_go_and_stay_as_on_a_disk() {
    let seen = both(|dir| {
        // Where everybody may make files, and link to those that they may write.
        fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.join("other"), "other").unwrap();
        let mut seen = Vec::new();
        for user in [0, ANN, BOB] {
            let changes = CHANGES_OF_OTHERS.into_iter().filter(|_| user != 0);
            for (what, change) in CHANGES.into_iter().chain(changes) {
                for mode in [0o6777, 0o6767, 0o2755, 0o1777] {
                    // A disk asks who is in the group before it takes a bit that means nothing without the group's
                    // right to run the file. The home leaves it.
                    if (user, mode) == (BOB, 0o6767) {
                        continue;
                    }
                    let path = dir.join("f");
                    fs::write(&path, "four").unwrap();
                    chown(&path, Some(ANN), Some(ANN)).unwrap();
                    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                    let done = as_user(user, &[BOB], || change(&path));
                    let meta = fs::metadata(&path).unwrap();
                    let errno = done.err().and_then(|error| error.raw_os_error());
                    seen.push((user, what, mode, errno, meta.mode(), meta.gid()));
                    fs::remove_file(&path).unwrap();
                }
            }
        }
        seen
    });
    assert!(seen.contains(&(BOB, "write", 0o6777, None, 0o100_777, ANN)));
    assert!(seen.contains(&(0, "write", 0o6777, None, 0o106_777, ANN)));
}

#[test]
fn a_directory_passes_its_group_on_and_its_bit_to_directories() {
    let seen = both(|dir| {
        let shared = dir.join("shared");
        fs::create_dir(&shared).unwrap();
        chown(&shared, Some(ANN), Some(77)).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o2777)).unwrap();
        let mut seen = Vec::new();
        for (user, groups) in [(0, &[][..]), (ANN, &[77]), (BOB, &[])] {
            as_user(user, groups, || {
                let at = |name: &str| shared.join(format!("{name} of {user}"));
                fs::create_dir(at("dir")).unwrap();
                fs::create_dir(at("dir").join("inner")).unwrap();
                File::create_new(at("file")).unwrap();
                std::os::unix::fs::symlink("nowhere", at("link")).unwrap();
                mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from(0o2770), 0).unwrap();
                for mode in [0o2770, 0o2760, 0o4770] {
                    let mut options = OpenOptions::new();
                    options.write(true).create_new(true).mode(mode);
                    options.open(at(&format!("{mode:o}"))).unwrap();
                }
                // Only who is in the group may let a file act as the group.
                let mode = Permissions::from_mode(0o2770);
                fs::set_permissions(at("file"), mode).unwrap();
            });
        }
        let mut todo = vec![shared];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                let meta = fs::symlink_metadata(&path).unwrap();
                let name = path.file_name().unwrap().to_owned();
                seen.push((name, meta.mode(), meta.uid(), meta.gid()));
                todo.extend(meta.is_dir().then_some(path));
            }
        }
        seen.sort();
        seen
    });
    assert!(seen.iter().all(|(_, _, _, group)| *group == 77));
}

#[test]
fn in_a_sticky_directory_each_removes_what_is_theirs() {
    let seen = both(|dir| {
        let shared = dir.join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o1777)).unwrap();
        let mut seen = Vec::new();
        for owner in [ANN, BOB] {
            let (file, other) = (shared.join("f"), shared.join("g"));
            as_user(owner, &[], || fs::write(&file, "x")).unwrap();
            let tries = as_user(ANN, &[], || {
                let renamed = fs::rename(&file, &other).and_then(|()| fs::rename(&other, &file));
                [renamed, fs::remove_file(&file)]
            });
            seen.push(tries.map(|tried| tried.err().and_then(|error| error.raw_os_error())));
            drop(fs::remove_file(&file));
        }
        seen
    });
    assert_eq!(seen, [[None; 2], [Some(libc::EPERM); 2]]);
}
