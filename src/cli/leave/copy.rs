//! Making a directory equal to a mounted home, and telling whether it is. What is equal already by kind, size and time is not
//! copied again, so a copy that was cut off goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{
        DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use super::entry::{self, Entry, Kind, names};

/// Zeros of so many bytes in a row become a hole.
const HOLE: usize = 4096;
const BUFFER: usize = 1 << 20;

/// The name of a file that is being copied.
const PARTIAL: &str = ".roamhome-partial";

/// What is in a home.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) sockets: u64,
}

/// Why a copy is not, or could not be made, what it is to be.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) path: PathBuf,
    pub(super) error: io::Error,
}

/// Names the path of an error.
fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, Trouble> {
    result.map_err(|error| Trouble {
        path: path.to_owned(),
        error,
    })
}

/// A directory on the way through both sides.
type Visit = (PathBuf, PathBuf);

/// Makes `to` equal to `from`; tells `progress` how many files and bytes it is through with.
pub(super) fn copy(
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(Count),
) -> Result<Count, Trouble> {
    let mut count = Count::default();
    let mut linked: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let mut todo: Vec<Visit> = vec![(from.to_owned(), to.to_owned())];
    // Their times are set when nothing is put into them any more, inner ones first.
    let mut dirs = Vec::new();
    while let Some((source, copy)) = todo.pop() {
        let inside = at(&source, names(&source))?;
        remove_others(&copy, &inside)?;
        for name in inside {
            let (source, copy) = (source.join(&name), copy.join(&name));
            let meta = at(&source, source.symlink_metadata())?;
            let seen = match linked.get(&meta.ino()) {
                Some(first) if meta.nlink() > 1 && !meta.is_dir() => Some(first.clone()),
                _ => None,
            };
            match (entry::kind_of(&meta), seen) {
                (Kind::Socket, _) => {
                    count.sockets += 1;
                    continue;
                }
                (Kind::Dir, _) => {
                    at(&copy, make_dir(&copy))?;
                    todo.push((source, copy));
                    continue;
                }
                (_, Some(first)) => at(&copy, link(&first, &copy))?,
                (kind, None) => {
                    if !at(&source, is_copied(&source, &copy, &taken))? {
                        at(&source, copy_leaf(kind, &source, &copy))?;
                    }
                    at(&copy, dress(&source, &copy))?;
                    taken.insert(at(&copy, copy.symlink_metadata())?.ino());
                    linked.insert(meta.ino(), copy);
                }
            }
            count.files += u64::from(meta.is_file());
            count.bytes += if meta.is_file() { meta.len() } else { 0 };
            progress(count);
        }
        dirs.push((source, copy));
    }
    for (source, copy) in dirs.into_iter().rev() {
        at(&copy, dress(&source, &copy))?;
    }
    Ok(count)
}

/// Removes what is not called as one of `names`, which are in order.
fn remove_others(dir: &Path, wanted: &[OsString]) -> Result<(), Trouble> {
    let wanted: BTreeSet<&OsString> = wanted.iter().collect();
    for name in at(dir, names(dir))? {
        if !wanted.contains(&name) {
            at(dir, clear(&dir.join(name)))?;
        }
    }
    Ok(())
}

/// Takes away whatever is at `path`.
fn clear(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn make_dir(path: &Path) -> io::Result<()> {
    if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        // It may be one that nobody writes to, from before.
        return fs::set_permissions(path, PermissionsExt::from_mode(0o700));
    }
    clear(path)?;
    DirBuilder::new().mode(0o700).create(path)
}

/// Gives the file at `first` the name `copy`, too.
fn link(first: &Path, copy: &Path) -> io::Result<()> {
    let number = |path: &Path| path.symlink_metadata().map(|found| found.ino());
    if number(copy).ok() == Some(number(first)?) {
        return Ok(());
    }
    clear(copy)?;
    fs::hard_link(first, copy)
}

/// Whether a copy from before is there, which is no name of what was `taken` for another file.
fn is_copied(source: &Path, copy: &Path, taken: &BTreeSet<u64>) -> io::Result<bool> {
    let found = copy.symlink_metadata();
    if !found.is_ok_and(|found| !taken.contains(&found.ino())) {
        return Ok(false);
    }
    let (ours, theirs) = (Entry::look(source)?, Entry::look(copy)?);
    Ok(
        (ours.kind, ours.size, ours.mtime) == (theirs.kind, theirs.size, theirs.mtime)
            && (ours.kind != Kind::Link || ours == theirs),
    )
}

fn copy_leaf(kind: Kind, source: &Path, copy: &Path) -> io::Result<()> {
    if kind == Kind::File {
        let partial = entry::beside(copy, PARTIAL);
        // A name as long as names can be.
        let partial = match partial.symlink_metadata() {
            Err(error) if error.raw_os_error() == Some(libc::ENAMETOOLONG) => {
                copy.with_file_name(PARTIAL)
            }
            _ => partial,
        };
        clear(&partial)?;
        copy_content(source, &partial)?;
        if copy.is_dir() {
            clear(copy)?;
        }
        return fs::rename(partial, copy);
    }
    clear(copy)?;
    match kind {
        Kind::Link => symlink(fs::read_link(source)?, copy),
        Kind::Pipe => Ok(mknodat(
            CWD,
            copy,
            FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )?),
        _ => Err(io::Error::other("it is nothing that a copy can be made of")),
    }
}

/// Copies a file's content; where there is nothing but zeros, the copy has a hole.
fn copy_content(source: &Path, copy: &Path) -> io::Result<()> {
    let mut from = File::open(source)?;
    let mut options = OpenOptions::new();
    let to = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(copy)?;
    let mut buffer = vec![0; BUFFER];
    let mut end = 0;
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        for block in buffer[..read].chunks(HOLE) {
            if block.iter().any(|byte| *byte != 0) {
                to.write_all_at(block, end)?;
            }
            end += block.len() as u64;
        }
    }
    to.set_len(end)?;
    to.sync_data()
}

/// Gives the copy owner, attributes, mode and times.
fn dress(source: &Path, copy: &Path) -> io::Result<()> {
    let meta = source.symlink_metadata()?;
    let found = copy.symlink_metadata()?;
    if (found.uid(), found.gid()) != (meta.uid(), meta.gid()) {
        match lchown(copy, Some(meta.uid()), Some(meta.gid())) {
            // Only root may; then it belongs to who leaves.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            owned => owned?,
        }
    }
    let wanted = Entry::look(source)?;
    if matches!(wanted.kind, Kind::File | Kind::Dir) {
        entry::set_xattrs(copy, &wanted.xattrs)?;
    }
    if wanted.kind != Kind::Link {
        fs::set_permissions(copy, PermissionsExt::from_mode(wanted.mode))?;
    }
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    Ok(utimensat(CWD, copy, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// The first entry of which `to` has not what `from` has; content is read on both sides.
pub(super) fn differing(
    from: &Path,
    to: &Path,
    progress: &mut dyn FnMut(Count),
) -> Result<Option<PathBuf>, Trouble> {
    let mut count = Count::default();
    // What is one file on one side is one on the other.
    let (mut pairs, mut files) = (BTreeMap::new(), BTreeMap::new());
    let mut todo: Vec<Visit> = vec![(from.to_owned(), to.to_owned())];
    while let Some((source, copy)) = todo.pop() {
        let (ours, theirs) = (
            at(&source, Entry::look(&source))?,
            at(&copy, Entry::look(&copy)),
        );
        if theirs.ok().as_ref() != Some(&ours) {
            return Ok(Some(source));
        }
        let meta = at(&source, source.symlink_metadata())?;
        let number = at(&copy, copy.symlink_metadata())?.ino();
        let known = *pairs.entry(meta.ino()).or_insert(number);
        let file = *files.entry(number).or_insert(meta.ino());
        if ours.kind == Kind::Dir {
            let mut inside = at(&source, names(&source))?;
            inside.retain(|name| {
                let found = source.join(name).symlink_metadata();
                !found.is_ok_and(|found| entry::kind_of(&found) == Kind::Socket)
            });
            if inside != at(&copy, names(&copy))? {
                return Ok(Some(source));
            }
            let inside = inside.into_iter();
            todo.extend(inside.map(|name| (source.join(&name), copy.join(&name))));
            continue;
        }
        let equal = ours.kind != Kind::File
            || at(&source, entry::hash(&source))? == at(&copy, entry::hash(&copy))?;
        if known != number || file != meta.ino() || !equal {
            return Ok(Some(source));
        }
        count.files += 1;
        count.bytes += ours.size;
        progress(count);
    }
    Ok(None)
}

/// How much is in a home, as its files' sizes; the first thing that cannot be looked at is trouble.
pub(super) fn measure(root: &Path) -> Result<Count, Trouble> {
    let mut count = Count::default();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for name in at(&dir, names(&dir))? {
            let path = dir.join(name);
            let meta = at(&path, path.symlink_metadata())?;
            if meta.is_dir() {
                todo.push(path);
            } else if meta.is_file() {
                count.files += 1;
                count.bytes += meta.len().min(meta.blocks().saturating_mul(512));
            }
        }
    }
    Ok(count)
}
