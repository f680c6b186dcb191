//! Copies every unsent file out of a state directory, without daemon, server, or even a readable index.
//!
//! Nothing in the state directory is changed: the index is read from a copy. Nothing in the target is
//! overwritten. One file that cannot be copied never stops the others.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::clone::clone_file;
use super::content::{ContentStore, Which};
use super::error::{AtPath, ReplicaError};
use super::hint::Hints;
use super::index::State;
use super::open;
use super::rows::{LocalBackup, Node};
use super::view::View;
use crate::tree::{Kind, NodeId, RelPath, Time};

type Result<T> = std::result::Result<T, ReplicaError>;

/// What a rescue saved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RescueReport {
    /// Files saved.
    pub files: u64,
    /// Their sizes.
    pub bytes: u64,
    /// How many of them had no known path and are in `unnamed/`.
    pub unnamed: u64,
    /// Why the index could not be used; paths are as of the last note beside each file, then.
    pub index_failure: Option<String>,
    /// What could not be saved, and why.
    pub skipped: Vec<(PathBuf, String)>,
}

/// One file to save.
struct Find {
    source: PathBuf,
    path: Option<RelPath>,
    mode: Option<u32>,
    mtime: Option<Time>,
    /// The source holds where a symlink points.
    is_link: bool,
    /// Its name in `unnamed/`.
    fallback: String,
}

/// Copies every unsent file of `state_dir` to its path below `out_dir`, and the backups that hold the only
/// copy of something.
pub fn rescue(state_dir: &Path, out_dir: &Path) -> Result<RescueReport> {
    fs::create_dir_all(out_dir).at(out_dir)?;
    let store = ContentStore::at(state_dir);
    let mut report = RescueReport::default();
    let scratch = Scratch(out_dir.join(".roamhome-index"));
    let index = match read_index(state_dir, &scratch.0) {
        Ok(index) => Some(index),
        Err(error) => {
            report.index_failure = Some(error.to_string());
            None
        }
    };
    let mut finds = find_unsent(&store, index.as_ref())?;
    finds.extend(find_backups(&store, index.as_ref())?);
    drop(index);
    drop(scratch);
    for find in finds {
        save(&find, out_dir, &mut report);
    }
    let dir = File::open(out_dir).at(out_dir)?;
    rustix::fs::syncfs(dir).at(out_dir)?;
    Ok(report)
}

/// A directory for the index's copy, removed at the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %self.0.display(), %error, "cannot remove the copy of the index");
        }
    }
}

/// The index as of a copy of its files in `scratch`.
fn read_index(state_dir: &Path, scratch: &Path) -> Result<State> {
    fs::create_dir(scratch).at(scratch)?;
    for entry in fs::read_dir(state_dir).at(state_dir)? {
        let name = entry.at(state_dir)?.file_name();
        let bytes = name.as_bytes();
        if matches!(bytes, b"index.db" | b"index.db-wal") || bytes.starts_with(b"journal.") {
            let source = state_dir.join(&name);
            fs::copy(&source, scratch.join(&name)).at(&source)?;
        }
    }
    let index = open::index_path(scratch);
    if !index.exists() {
        return Err(ReplicaError::io(
            &open::index_path(state_dir),
            ErrorKind::NotFound,
        ));
    }
    open::load(scratch).map(|(_, state)| state)
}

/// Every file in `unsent/`, and those that the index calls unsent wherever they are.
fn find_unsent(store: &ContentStore, index: Option<&State>) -> Result<Vec<Find>> {
    let logged = store.hints().logged().unwrap_or_default();
    let view = index.map(View::new);
    let mut finds = Vec::new();
    for (node, source) in store.list(Which::Unsent)? {
        let row = view
            .as_ref()
            .and_then(|view| view.node(node).ok().flatten());
        finds.push(find(node, source, row, view.as_ref(), &logged));
    }
    let Some(view) = view else {
        return Ok(finds);
    };
    for (node, source) in store.list(Which::Clean)? {
        if let Ok(Some(row)) = view.node(node)
            && row.data_changed
        {
            finds.push(find(node, source, Some(row), Some(&view), &logged));
        }
    }
    Ok(finds)
}

fn find(
    node: NodeId,
    source: PathBuf,
    row: Option<Node>,
    view: Option<&View<'_>>,
    logged: &HashMap<NodeId, RelPath>,
) -> Find {
    let current = view.and_then(|view| view.local_path(node).ok().flatten());
    let hint = || {
        File::open(&source)
            .ok()
            .and_then(|file| Hints::of_file(&file))
    };
    Find {
        path: current.or_else(hint).or_else(|| logged.get(&node).cloned()),
        mode: row.as_ref().map(|row| row.mode),
        // A row that does not fit the content is older than it.
        mtime: row.and_then(|row| {
            let len = fs::metadata(&source).ok()?.len();
            (row.size == len).then_some(row.mtime)
        }),
        is_link: false,
        source,
        fallback: node.to_string(),
    }
}

/// The backups that hold the only copy of something; all of them if no index tells.
fn find_backups(store: &ContentStore, index: Option<&State>) -> Result<Vec<Find>> {
    let rows = index.and_then(|state| View::new(state).backups().ok());
    let rows: Option<HashMap<u64, LocalBackup>> =
        rows.map(|rows| rows.into_iter().map(|row| (row.id, row)).collect());
    let mut finds = Vec::new();
    for (id, source) in store.list_backups()? {
        let row = rows.as_ref().and_then(|rows| rows.get(&id));
        if row.is_some_and(|row| !row.unsent) {
            continue;
        }
        let hint = || {
            File::open(&source)
                .ok()
                .and_then(|file| Hints::of_file(&file))
        };
        finds.push(Find {
            path: row.map(|row| row.path.clone()).or_else(hint),
            mode: row.map(|row| row.version.mode),
            mtime: row.map(|row| Time::new(row.version.mtime, 0)),
            is_link: row.is_some_and(|row| row.version.kind == Kind::Symlink),
            source,
            fallback: format!("backup-{id}"),
        });
    }
    Ok(finds)
}

/// Copies one file to its path, or else to `unnamed/`.
fn save(find: &Find, out_dir: &Path, report: &mut RescueReport) {
    let fallback = out_dir.join("unnamed").join(&find.fallback);
    let named = find.path.as_ref().filter(|path| !path.is_root());
    let target = named.map(|path| out_dir.join(OsString::from_vec(path.to_bytes())));
    let saved = match target.map(|target| copy(find, &target)) {
        Some(Ok(bytes)) => Ok((bytes, 0)),
        _ => copy(find, &fallback).map(|bytes| (bytes, 1)),
    };
    match saved {
        Ok((bytes, unnamed)) => {
            report.files += 1;
            report.bytes += bytes;
            report.unnamed += unnamed;
        }
        Err(error) => report
            .skipped
            .push((find.source.clone(), error.to_string())),
    }
}

fn copy(find: &Find, target: &Path) -> io::Result<u64> {
    let source = File::open(&find.source)?;
    if let Some(dir) = target.parent() {
        fs::create_dir_all(dir)?;
    }
    if find.is_link {
        let points_to = fs::read(&find.source)?;
        let link = |path: &Path| symlink(OsStr::from_bytes(&points_to), path);
        at_free(target, link)?;
        return Ok(points_to.len() as u64);
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    let (path, file) = at_free(target, |path| options.open(path))?;
    let copied = fill(find, &source, &file);
    if copied.is_err() {
        // Half a file would pass for a whole one.
        fs::remove_file(&path)?;
    }
    copied
}

fn fill(find: &Find, source: &File, file: &File) -> io::Result<u64> {
    clone_file(source, file)?;
    if let Some(mode) = find.mode {
        // Without set-id bits: who rescues may be another user.
        file.set_permissions(Permissions::from_mode(mode & 0o777))?;
    }
    let found = source.metadata()?;
    let mtime = match find.mtime {
        Some(time) => system_time(time),
        None => found.modified()?,
    };
    file.set_times(FileTimes::new().set_modified(mtime))?;
    Ok(found.len())
}

fn system_time(time: Time) -> SystemTime {
    let distance = Duration::from_nanos(time.0.unsigned_abs());
    if time.0 < 0 {
        SystemTime::UNIX_EPOCH - distance
    } else {
        SystemTime::UNIX_EPOCH + distance
    }
}

/// Makes something at `target`, or at `target.1` and so on if that is taken.
fn at_free<T>(target: &Path, make: impl Fn(&Path) -> io::Result<T>) -> io::Result<(PathBuf, T)> {
    let mut path = target.to_owned();
    let mut number = 0_u64;
    loop {
        match make(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                number += 1;
                let mut name = target.as_os_str().to_owned();
                name.push(format!(".{number}"));
                path = name.into();
            }
            made => return Ok((path, made?)),
        }
    }
}

#[cfg(test)]
mod tests;
