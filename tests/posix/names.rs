//! The longest names, the longest paths, and the deepest trees.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, linkat, mkdirat, openat, readlinkat, renameat, statat, symlinkat,
};

use rustix::io::Errno;

use super::both;
use crate::support::mounted::TestMount;

/// The longest path that a system call takes; the zero byte at its end counts.
const LONGEST_PATH: usize = 4095;

fn open_dir(at: &OwnedFd, name: &str) -> OwnedFd {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn root(dir: &Path) -> OwnedFd {
    rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

#[test]
fn names_of_255_bytes_are_names_and_longer_ones_are_refused() {
    both(|dir| {
        fs::write(dir.join("f"), "x").unwrap();
        let dir = root(dir);
        let names = [
            "n".repeat(255),
            "é".repeat(127) + "n",
            "n".repeat(256),
            "é".repeat(128),
        ];
        let mut seen = Vec::new();
        for name in &names {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            let number = openat(&dir, name, flags, Mode::RUSR).map(drop);
            let looked = statat(&dir, name, AtFlags::empty()).map(|stat| stat.st_size);
            let removed = rustix::fs::unlinkat(&dir, name, AtFlags::empty());
            let made = mkdirat(&dir, name, Mode::RWXU);
            let gone = rustix::fs::unlinkat(&dir, name, AtFlags::REMOVEDIR);
            let named = linkat(&dir, "f", &dir, name, AtFlags::empty());
            let renamed = renameat(&dir, "f", &dir, name);
            let renamed_back = renameat(&dir, name, &dir, "f").is_ok();
            seen.push((
                number,
                looked,
                removed,
                made,
                gone,
                named,
                renamed,
                renamed_back,
            ));
        }
        for len in [LONGEST_PATH, LONGEST_PATH + 1] {
            seen.push((
                symlinkat("t".repeat(len), &dir, format!("l{len}")),
                readlinkat(&dir, format!("l{len}"), Vec::new())
                    .map(|to| to.as_bytes().len() as i64),
                Ok(()),
                Ok(()),
                Ok(()),
                Ok(()),
                Ok(()),
                true,
            ));
        }
        seen
    });
}

#[test]
fn paths_of_4095_bytes_lead_to_what_they_name() {
    let seen = both(|dir| {
        let long = "d".repeat(200);
        let mut at = root(dir);
        let start = at.try_clone().unwrap();
        let mut path = String::new();
        for _ in 0..20 {
            mkdirat(&at, &long, Mode::RWXU).unwrap();
            at = open_dir(&at, &long);
            path.push_str(&long);
            path.push('/');
        }
        path.push_str(&"f".repeat(LONGEST_PATH - path.len()));
        let create = OFlags::CREATE | OFlags::RDWR;
        let file = openat(&start, &path, create, Mode::RUSR).unwrap();
        rustix::io::write(&file, b"hello").unwrap();
        let renamed = renameat(&start, &path, &start, "near");
        let back = renameat(&start, "near", &start, &path);
        let stat = statat(&start, &path, AtFlags::empty()).map(|stat| stat.st_size);
        let longer = statat(&start, format!("{path}f"), AtFlags::empty()).map(|stat| stat.st_size);
        (renamed, back, stat, longer)
    });
    assert_eq!(seen, (Ok(()), Ok(()), Ok(5), Err(Errno::NAMETOOLONG)));
}

#[test]
fn a_tree_of_1000_levels_can_be_made_moved_and_removed() {
    const LEVELS: usize = 1000;
    let mount = TestMount::new();
    let mut at = root(&mount.path());
    for _ in 0..LEVELS {
        mkdirat(&at, "level", Mode::RWXU).unwrap();
        at = open_dir(&at, "level");
    }
    openat(&at, "bottom", OFlags::CREATE, Mode::RUSR).unwrap();
    renameat(CWD, mount.join("level"), CWD, mount.join("moved")).unwrap();
    // It cannot go into itself, however deep.
    let into = renameat(CWD, mount.join("moved"), &at, "self");
    assert_eq!(into, Err(Errno::INVAL));
    drop(at);
    let mount = mount.remount();
    let mut at = open_dir(&root(&mount.path()), "moved");
    for _ in 1..LEVELS {
        at = open_dir(&at, "level");
    }
    statat(&at, "bottom", AtFlags::empty()).unwrap();
    drop(at);
    let removed = Command::new("rm")
        .arg("-r")
        .arg(mount.join("moved"))
        .status();
    assert!(removed.unwrap().success());
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
}
