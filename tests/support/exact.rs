//! A directory with everything that a home can hold, and all that can be seen of one on a disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};

/// Makes a home at `root` as people have them: repositories, a database, names that are no text, links of both kinds,
/// holes, attributes, access control lists, pipes, and what stays on its machine.
pub(crate) fn make_home(root: &Path) {
    for dir in ["docs/deep/er", "empty", "private", "many", ".cache/x"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    for n in 0..300 {
        fs::write(root.join(format!("many/{n:03}")), format!("{n}").repeat(n)).unwrap();
    }
    fs::write(root.join("docs/notes.txt"), "Buy milk.").unwrap();
    fs::write(root.join("docs/deep/er/none"), "").unwrap();
    fs::write(
        root.join(OsStr::from_bytes(b"docs/caf\xe9 \n\xff")),
        "latin",
    )
    .unwrap();
    fs::write(root.join(".cache/x/y"), "cached").unwrap();
    fs::write(root.join("private/key"), "secret").unwrap();
    fs::write(root.join("large"), vec![7; 3 << 20]).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (64 << 20) - 3).unwrap();
    fs::hard_link(root.join("docs/notes.txt"), root.join("notes-too")).unwrap();
    symlink("docs/notes.txt", root.join("link")).unwrap();
    symlink("/nowhere/at/all", root.join("dangling")).unwrap();
    let note = root.join("docs/notes.txt");
    setxattr(&note, "user.colour", b"\0blue", XattrFlags::empty()).unwrap();
    setxattr(root.join("docs"), "user.of-dir", b"x", XattrFlags::empty()).unwrap();
    run(
        root,
        "setfacl -m u:54001:rw,g:50:r docs/notes.txt && setfacl -m u:54001:rx,d:u:54001:rwx docs/deep",
    );
    let pipe = Command::new("mkfifo").arg(root.join("pipe")).status();
    assert!(pipe.unwrap().success());
    run(
        root,
        "git init -q repo && cd repo && git config user.email a@b && git config user.name a && \
         seq 1000 > f && git add . && git commit -qm one && seq 2000 > f && git commit -qam two",
    );
    run(
        root,
        "sqlite3 data.db 'pragma journal_mode=wal; create table t(x); insert into t values(1),(2);' > /dev/null",
    );
    for (path, mode) in [
        ("private", 0o700),
        ("private/key", 0o600),
        ("empty", 0o1755),
    ] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    for (n, path) in ["docs/notes.txt", "large", "docs"].into_iter().enumerate() {
        set_time(&root.join(path), 1_600_000_000 + n as i64);
    }
}

/// Dates what is at `path` back, to a moment between two seconds.
pub(crate) fn set_time(path: &Path, secs: i64) {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: 123_456_789,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn run(dir: &Path, script: &str) {
    let status = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success(), "{script}");
}

/// All that `cp -a` would keep of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exact {
    pub(crate) kind: char,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: (i64, i64),
    /// The first name of the same file.
    first: PathBuf,
    pub(crate) content: blake3::Hash,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// All of a directory, itself included as the empty path.
pub(crate) fn exact(root: &Path) -> BTreeMap<OsString, Exact> {
    let mut found = BTreeMap::new();
    let mut firsts = BTreeMap::new();
    let mut paths = vec![PathBuf::new()];
    // In an order that names of one file have on every disk.
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let entry = entry.unwrap();
            let path = dir.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                todo.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let at = root.join(&path);
        let at = if path.as_os_str().is_empty() {
            root.to_owned()
        } else {
            at
        };
        let meta = at.symlink_metadata().unwrap();
        let kind = meta.file_type();
        let (letter, content) = match kind {
            _ if kind.is_dir() => ('d', Vec::new()),
            _ if kind.is_symlink() => (
                'l',
                fs::read_link(&at).unwrap().as_os_str().as_bytes().to_vec(),
            ),
            _ if kind.is_file() => ('f', fs::read(&at).unwrap()),
            _ if kind.is_fifo() => ('p', Vec::new()),
            _ => ('?', Vec::new()),
        };
        let first = match letter {
            'd' => path.clone(),
            _ => firsts
                .entry(meta.ino())
                .or_insert_with(|| path.clone())
                .clone(),
        };
        let exact = Exact {
            kind: letter,
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            size: if letter == 'd' { 0 } else { meta.size() },
            mtime: (meta.mtime(), meta.mtime_nsec()),
            first,
            content: blake3::hash(&content),
            xattrs: xattrs(&at),
        };
        found.insert(path.into_os_string(), exact);
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut buffer = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut buffer[..]).unwrap();
    let names = buffer[..len].split(|byte| *byte == 0);
    let kept =
        names.filter(|name| name.starts_with(b"user.") || name.starts_with(b"system.posix_acl_"));
    kept.map(|name| {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        (name.to_vec(), value[..len].to_vec())
    })
    .collect()
}

/// Both are the same, but for what `leave` names.
#[track_caller]
pub(crate) fn assert_exact(one: &BTreeMap<OsString, Exact>, other: &BTreeMap<OsString, Exact>) {
    let names = one.keys().chain(other.keys());
    let differ = names.filter(|name| one.get(*name) != other.get(*name));
    let lines: Vec<_> = differ
        .take(10)
        .map(|name| format!("{name:?}:\n  {:?}\n  {:?}", one.get(name), other.get(name)))
        .collect();
    assert!(lines.is_empty(), "differ:\n{}", lines.join("\n"));
}
