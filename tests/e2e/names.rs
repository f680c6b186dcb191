//! Names that programs rarely think of, and many files.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::machine::{Site, assert_same, tree};

#[test]
fn times_that_no_server_can_hold_stay_on_their_machine() {
    let site = Site::new();
    let machine = site.machine("m");
    machine.mount();
    let times = ["1901-12-13", "2446-05-10", "1970-01-01"];
    let look = || times.map(|name| fs::metadata(machine.at(name)).unwrap().mtime());
    for name in times {
        let at = machine.at(name);
        fs::write(&at, name).unwrap();
        let day = format!("{name} 12:00 UTC");
        let touched = Command::new("touch").args(["-d", &day]).arg(&at).status();
        assert!(touched.unwrap().success());
    }
    let before = look();
    assert!(before[0] < 0 && before[1] > u32::MAX.into());
    machine.flush();
    machine.reconcile();
    machine.reconcile();
    assert_eq!(look(), before);
    assert_eq!(machine.backups(), Vec::<String>::new());
    let there = |name| fs::metadata(site.home().join(name)).unwrap().mtime();
    let shown = [0, u32::MAX.into(), before[2]];
    assert_eq!(times.map(there), shown, "the nearest that SFTP can carry");
}

#[test]
fn any_name_that_a_file_system_takes_travels() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    let long = [b'n'; 255];
    let wide = "\u{1F600}".repeat(63);
    let names: [&[u8]; 16] = [
        b"\xff\xfe not utf-8",
        &long,
        wide.as_bytes(),
        b"new\nline",
        b"-rf",
        b"--",
        b" blank ",
        b"tab\there",
        b"~",
        b"*?[a]",
        b"back\\slash",
        b"quote'\"`$(x)",
        "e\u{301}".as_bytes(),
        "\u{e9}".as_bytes(),
        b"...",
        b"CON:",
    ];
    for name in names {
        let name = OsStr::from_bytes(name);
        fs::write(a.at(name), name.as_bytes()).unwrap();
    }
    let dir = a.at(OsStr::from_bytes(b"\xc3\x28"));
    fs::create_dir(&dir).unwrap();
    symlink(OsStr::from_bytes(b"\xff/\n"), dir.join("link")).unwrap();
    // As deep as a path may be long, and a bit.
    let deep: std::path::PathBuf = std::iter::repeat_n("directory", 60).collect();
    fs::create_dir_all(a.at(&deep)).unwrap();
    fs::write(a.at(&deep).join("leaf"), "leaf").unwrap();
    a.flush();
    b.mount();
    b.reconcile();
    assert_same(&site.home(), &a.home());
    assert_same(&site.home(), &b.home());
    assert_eq!(tree(&b.home()).len(), 16 + 2 + 61);

    let taken: Vec<_> = names.iter().map(|name| OsStr::from_bytes(name)).collect();
    fs::rename(b.at(taken[0]), b.at("renamed")).unwrap();
    fs::remove_file(b.at(taken[3])).unwrap();
    b.flush();
    a.reconcile();
    assert_eq!(fs::read(a.at("renamed")).unwrap(), names[0]);
    assert!(!a.at(taken[3]).exists());
    assert_same(&site.home(), &a.home());
    a.umount();
    b.umount();
    a.check();
    b.check();
}

const DIRECTORIES: usize = 500;
const FILES: usize = 40;

fn fill(root: &Path) {
    for dir in 0..DIRECTORIES {
        let dir_path = root.join(format!("group-{}/dir-{dir}", dir % 10));
        fs::create_dir_all(&dir_path).unwrap();
        for file in 0..FILES {
            let content = format!("{dir} {file}\n").repeat(1 + file % 7);
            fs::write(dir_path.join(format!("file-{file}")), content).unwrap();
        }
    }
}

#[test]
fn twenty_thousand_files_arrive_and_are_seen_elsewhere() {
    let site = Site::new();
    let (a, b) = (site.machine("a"), site.machine("b"));
    a.mount();
    fill(&a.home());
    a.umount();
    a.check();
    assert_eq!(tree(&site.home()).len(), DIRECTORIES * (FILES + 1) + 10);
    b.mount();
    b.reconcile();
    assert_same(&site.home(), &b.home());
    assert_eq!(b.status()["unsent"]["files"], 0);
    fs::rename(b.at("group-3"), b.at("moved")).unwrap();
    b.umount();
    b.check();
    assert!(!site.home().join("group-3").exists());
    assert_eq!(
        tree(&site.home().join("moved")).len(),
        DIRECTORIES / 10 * (FILES + 1)
    );
}
