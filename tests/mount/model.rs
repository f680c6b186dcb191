//! Random operations on the mount and on a plain directory beside it: results and trees must be equal.
//!
//! The names are few, so that operations meet. Every tree is compared with content, modes, link counts and
//! extended attributes, again after the home was mounted anew.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{CWD, FallocateFlags, RenameFlags, XattrFlags};

use crate::support::mounted::{ALL_BY_KERNEL, TestMount};

const BATCHES: usize = 24;
const BATCH: usize = 60;

#[derive(Debug, Clone)]
enum Op {
    Write(Name, u16, Vec<u8>),
    Append(Name, Vec<u8>),
    Truncate(Name, u16),
    Empty(Name),
    PunchHole(Name, u16, u16),
    Allocate(Name, u16, u16),
    CopyRange(Name, Name, u16),
    Mkdir(Name),
    Rmdir(Name),
    Unlink(Name),
    Rename(Name, Name),
    RenameNoReplace(Name, Name),
    Exchange(Name, Name),
    Link(Name, Name),
    Symlink(Vec<u8>, Name),
    Mkfifo(Name),
    Chmod(Name, u32),
    SetXattr(Name, u8),
    RemoveXattr(Name),
    WriteUnlinked(Name, Vec<u8>),
}

/// A path of one to three components out of `a`, `b` and one that is not UTF-8.
type Name = Vec<u8>;

fn name() -> impl Strategy<Value = Name> {
    let part = prop_oneof![Just(&b"a"[..]), Just(&b"b"[..]), Just(&b"\xff c"[..])];
    prop::collection::vec(part, 1..=3).prop_map(|parts| parts.join(&b'/'))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    (any::<u8>(), 0..9_000_usize).prop_map(|(byte, len)| vec![byte; len])
}

fn op() -> impl Strategy<Value = Op> {
    let at = || 0..20_000_u16;
    prop_oneof![
        4 => (name(), at(), bytes()).prop_map(|(n, at, data)| Op::Write(n, at, data)),
        2 => (name(), bytes()).prop_map(|(n, data)| Op::Append(n, data)),
        2 => (name(), at()).prop_map(|(n, at)| Op::Truncate(n, at)),
        1 => name().prop_map(Op::Empty),
        1 => (name(), at(), at()).prop_map(|(n, at, len)| Op::PunchHole(n, at, len)),
        1 => (name(), at(), at()).prop_map(|(n, at, len)| Op::Allocate(n, at, len)),
        2 => (name(), name(), at()).prop_map(|(a, b, len)| Op::CopyRange(a, b, len)),
        6 => name().prop_map(Op::Mkdir),
        1 => name().prop_map(Op::Rmdir),
        2 => name().prop_map(Op::Unlink),
        4 => (name(), name()).prop_map(|(a, b)| Op::Rename(a, b)),
        1 => (name(), name()).prop_map(|(a, b)| Op::RenameNoReplace(a, b)),
        2 => (name(), name()).prop_map(|(a, b)| Op::Exchange(a, b)),
        2 => (name(), name()).prop_map(|(a, b)| Op::Link(a, b)),
        1 => (bytes(), name()).prop_map(|(to, n)| Op::Symlink(to, n)),
        1 => name().prop_map(Op::Mkfifo),
        2 => (name(), 0..0o1000_u32).prop_map(|(n, mode)| Op::Chmod(n, mode)),
        1 => (name(), any::<u8>()).prop_map(|(n, value)| Op::SetXattr(n, value)),
        1 => name().prop_map(Op::RemoveXattr),
        1 => (name(), bytes()).prop_map(|(n, data)| Op::WriteUnlinked(n, data)),
    ]
}

#[test]
fn the_home_behaves_as_a_directory_of_the_disk() {
    compare(TestMount::new());
}

#[test]
fn the_home_behaves_as_a_directory_where_the_kernel_reads_and_writes_by_itself() {
    compare(TestMount::with(ALL_BY_KERNEL));
}

fn compare(mut mount: TestMount) {
    // The same operations each time: proptest's deterministic generator.
    let mut runner = TestRunner::new_with_rng(
        Config::default(),
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let plain = tempfile::tempdir().unwrap();
    fs::set_permissions(plain.path(), Permissions::from_mode(0o755)).unwrap();
    for batch in 0..BATCHES {
        for _ in 0..BATCH {
            let op = op().new_tree(&mut runner).unwrap().current();
            let expected = apply(&op, plain.path());
            let found = apply(&op, &mount.path());
            assert_eq!(found, expected, "batch {batch}: {op:?}");
        }
        if batch % 4 == 3 {
            mount = mount.remount();
        }
        let (expected, found) = (tree(plain.path()), tree(&mount.path()));
        assert_eq!(found, expected, "after batch {batch}");
    }
}

/// What an operation returned, or its errno.
fn apply(op: &Op, root: &Path) -> Result<Vec<u8>, i32> {
    let done = try_apply(op, root);
    done.map_err(|error| error.raw_os_error().unwrap_or(-1))
}

fn at(root: &Path, name: &[u8]) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(name))
}

fn open(root: &Path, name: &[u8]) -> io::Result<File> {
    // Not through symlinks: theirs are nonsense, and a pipe must not block.
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    let file = options
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(at(root, name))?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

fn try_apply(op: &Op, root: &Path) -> io::Result<Vec<u8>> {
    match change_content(op, root)? {
        Some(value) => Ok(value),
        None => change_tree(op, root).map(|()| Vec::new()),
    }
}

/// `None` if `op` is not about content.
fn change_content(op: &Op, root: &Path) -> io::Result<Option<Vec<u8>>> {
    let path = |name: &Name| at(root, name);
    match op {
        Op::Write(name, offset, data) => {
            open(root, name)?.write_all_at(data, u64::from(*offset))?;
        }
        Op::Append(name, data) => {
            let file = open(root, name)?;
            let len = file.metadata()?.len();
            file.write_all_at(data, len)?;
        }
        Op::Truncate(name, size) => open(root, name)?.set_len(u64::from(*size))?,
        Op::Empty(name) => {
            let kind = fs::symlink_metadata(path(name))?;
            if kind.is_file() {
                File::create(path(name))?;
            }
        }
        Op::PunchHole(name, offset, len) => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(
                open(root, name)?,
                flags,
                u64::from(*offset),
                u64::from(*len),
            )?;
        }
        Op::Allocate(name, offset, len) => {
            let flags = FallocateFlags::empty();
            rustix::fs::fallocate(
                open(root, name)?,
                flags,
                u64::from(*offset),
                u64::from(*len),
            )?;
        }
        Op::CopyRange(from, to, len) => {
            let (from, to) = (open(root, from)?, open(root, to)?);
            let (mut start, mut end) = (0, to.metadata()?.len());
            let len = usize::from(*len);
            let copied =
                rustix::fs::copy_file_range(&from, Some(&mut start), &to, Some(&mut end), len)?;
            return Ok(Some(copied.to_string().into_bytes()));
        }
        Op::WriteUnlinked(name, data) => {
            let file = open(root, name)?;
            fs::remove_file(path(name))?;
            file.write_all_at(data, 5)?;
            let mut all = vec![0; file.metadata()?.len() as usize];
            file.read_exact_at(&mut all, 0)?;
            let nlink = file.metadata()?.nlink().to_string().into_bytes();
            return Ok(Some([all, nlink].concat()));
        }
        _ => return Ok(None),
    }
    Ok(Some(Vec::new()))
}

fn change_tree(op: &Op, root: &Path) -> io::Result<()> {
    let path = |name: &Name| at(root, name);
    match op {
        Op::Mkdir(name) => fs::create_dir(path(name))?,
        Op::Rmdir(name) => fs::remove_dir(path(name))?,
        Op::Unlink(name) => fs::remove_file(path(name))?,
        Op::Rename(from, to) => fs::rename(path(from), path(to))?,
        Op::RenameNoReplace(from, to) => {
            rustix::fs::renameat_with(CWD, path(from), CWD, path(to), RenameFlags::NOREPLACE)?;
        }
        Op::Exchange(from, to) => {
            rustix::fs::renameat_with(CWD, path(from), CWD, path(to), RenameFlags::EXCHANGE)?;
        }
        Op::Link(from, to) => fs::hard_link(path(from), path(to))?,
        Op::Symlink(to, name) => {
            // Leads nowhere: a target that exists would lead out of the directories that are compared.
            symlink(format!("nowhere{}", "x".repeat(to.len() % 100)), path(name))?;
        }
        Op::Mkfifo(name) => {
            let mode = rustix::fs::Mode::from(0o640);
            rustix::fs::mknodat(CWD, path(name), rustix::fs::FileType::Fifo, mode, 0)?;
        }
        Op::Chmod(name, mode) => {
            if !fs::symlink_metadata(path(name))?.is_symlink() {
                fs::set_permissions(path(name), Permissions::from_mode(*mode))?;
            }
        }
        Op::SetXattr(name, value) => {
            let value = vec![*value; usize::from(*value)];
            rustix::fs::lsetxattr(path(name), "user.test", &value, XattrFlags::empty())?;
        }
        Op::RemoveXattr(name) => rustix::fs::lremovexattr(path(name), "user.test")?,
        _ => unreachable!("{op:?} is about content"),
    }
    Ok(())
}

/// What can be compared of a node.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    mode: u32,
    nlink: u64,
    owner: (u32, u32),
    content: Vec<u8>,
    attribute: Option<Vec<u8>>,
}

fn tree(root: &Path) -> BTreeMap<PathBuf, Shown> {
    let mut shown = BTreeMap::new();
    let mut work = vec![root.to_owned()];
    while let Some(path) = work.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = match meta.file_type() {
            kind if kind.is_file() => fs::read(&path).unwrap(),
            kind if kind.is_symlink() => fs::read_link(&path)
                .unwrap()
                .as_os_str()
                .as_bytes()
                .to_vec(),
            kind if kind.is_dir() => {
                work.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
                Vec::new()
            }
            _ => Vec::new(),
        };
        let mut value = vec![0; 512];
        let name = CString::new("user.test").unwrap();
        let attribute = rustix::fs::lgetxattr(&path, &name, &mut value[..]).ok();
        let entry = Shown {
            mode: meta.mode(),
            nlink: meta.nlink(),
            owner: (meta.uid(), meta.gid()),
            content,
            attribute: attribute.map(|len| value[..len].to_vec()),
        };
        shown.insert(path.strip_prefix(root).unwrap().to_owned(), entry);
    }
    shown
}
