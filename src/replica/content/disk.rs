//! File system calls of the content store: what is there already or gone already is no error, and each error
//! names its path.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Result;
use crate::replica::error::AtPath;

/// The paths in `dir`; none if there is no such directory.
pub(in crate::replica) fn read_dir(dir: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .at(dir),
    }
}

pub(in crate::replica) fn make_dir(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made.at(path),
    }
}

pub(in crate::replica) fn sync_parent(path: &Path) -> Result<()> {
    path.parent().map_or(Ok(()), sync_dir)
}

pub(in crate::replica) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).at(dir)
}

pub(in crate::replica) fn exists(path: &Path) -> Result<bool> {
    path.try_exists().at(path)
}

pub(in crate::replica) fn open_rw(path: &Path, create: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create_new(create)
        .mode(0o600);
    options.open(path)
}

/// Moves a file if it is there; an existing target stays unless `replace`. `make_room` makes the target's
/// directory if it is missing.
pub(in crate::replica) fn rename(
    from: &Path,
    to: &Path,
    replace: bool,
    make_room: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if !replace && exists(to)? {
        return Ok(());
    }
    match fs::rename(from, to) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        renamed => return renamed.at(from),
    }
    // One of the two directories is missing, or the file.
    if !exists(from)? {
        return Ok(());
    }
    make_room(to)?;
    fs::rename(from, to).at(from)
}

pub(in crate::replica) fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.at(path),
    }
}
