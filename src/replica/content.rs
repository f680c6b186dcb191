//! The content store: one file per node, named by its number.
//!
//! `content/` holds what the server has too, `unsent/` what only this machine has: eviction looks at the
//! former alone. A file moves between them by rename, so open descriptors follow. Content may be there
//! before its row commits and goes after; what has no row is a stray for `check`.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::clone::{clone_file, share_file};
use super::error::{AtPath, ReplicaError};
use super::hint::Hints;
use crate::tree::{NodeId, RelPath, Time};

mod backups;
mod by_kernel;
mod cached;
mod chunks;
pub(super) mod disk;
mod import;
mod list;
mod partial;
mod parts;
mod rot;
mod synced;

pub(super) use list::Which;
pub use partial::{Ended, PartOf, Partial};
pub use parts::{DownloadNote, UploadNote};

use disk::{exists, make_dir, open_rw, remove_file, rename, sync_dir};
use partial::Partials;

type Result<T> = std::result::Result<T, ReplicaError>;

/// The files with the content of nodes and backups.
#[derive(Debug)]
pub struct ContentStore {
    clean: PathBuf,
    unsent: PathBuf,
    staging: PathBuf,
    backups: PathBuf,
    chunks: PathBuf,
    partials: Partials,
    hints: Hints,
    next_staging: AtomicU64,
    /// Held while a file changes its name, so that two who move one file do not lose it from sight.
    moving: Mutex<()>,
}

/// A file of `staging/` that is removed unless it is installed.
#[derive(Debug)]
pub struct StagingFile {
    /// Open for reading and writing.
    pub file: File,
    /// Where it is.
    pub path: PathBuf,
    stays: bool,
}

impl StagingFile {
    fn new(file: File, path: PathBuf) -> Self {
        Self {
            file,
            path,
            stays: false,
        }
    }

    /// Leaves it where it is, or where it was moved to.
    pub fn keep(mut self) {
        self.stays = true;
    }

    /// Its length in bytes.
    pub(super) fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().at(&self.path)?.len())
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        // Most who move it away leave it to this to find nothing.
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a staging file");
        }
    }
}

/// How much of two files is held in memory to compare them, in bytes.
const COMPARE_CHUNK: usize = 256 * 1024;

impl ContentStore {
    /// Makes the directories in `state_dir` and clears `staging/`.
    pub(super) fn open(state_dir: &Path, now: Time) -> Result<Self> {
        let store = Self::at(state_dir);
        let own = [&store.staging, &store.backups, &store.chunks];
        for dir in [&store.clean, &store.unsent].into_iter().chain(own) {
            make_dir(dir)?;
        }
        store.make_parts_dir()?;
        store.partials.load()?;
        store.clear_staging(now)?;
        store
            .hints
            .compact(|node| path_in(&store.unsent, node).exists())?;
        Ok(store)
    }

    /// The store in `state_dir`, as it is.
    pub(super) fn at(state_dir: &Path) -> Self {
        let unsent = state_dir.join("unsent");
        Self {
            clean: state_dir.join("content"),
            hints: Hints::new(&unsent),
            unsent,
            staging: state_dir.join("staging"),
            backups: state_dir.join("backups"),
            chunks: state_dir.join("chunks"),
            partials: Partials::new(state_dir.join("partial")),
            next_staging: AtomicU64::new(0),
            moving: Mutex::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The content of `node` for reading, sought first where a row with this `data_changed` has it. Not found if
    /// it has no content file, as an empty file may.
    pub fn open_read(&self, node: NodeId, data_changed: bool) -> Result<File> {
        let (first, second) = match data_changed {
            true => (&self.unsent, &self.clean),
            false => (&self.clean, &self.unsent),
        };
        let (first, second) = (path_in(first, node), path_in(second, node));
        let _guard = self.lock();
        match File::open(&first) {
            Err(e) if e.kind() == ErrorKind::NotFound => File::open(&second).at(&second),
            opened => opened.at(&first),
        }
    }

    /// New empty content of a node that never had any, in `unsent/`.
    pub fn create_unsent(&self, node: NodeId, hint: &RelPath) -> Result<File> {
        let path = path_in(&self.unsent, node);
        match open_rw(&path, true) {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
                self.open_unsent(node, hint)
            }
            opened => {
                let file = opened.at(&path)?;
                self.hints.set(&file, node, hint)?;
                Ok(file)
            }
        }
    }

    /// The content of `node` for reading and writing, in `unsent/` from now on; empty if there was none.
    pub fn open_unsent(&self, node: NodeId, hint: &RelPath) -> Result<File> {
        let _guard = self.lock();
        let path = path_in(&self.unsent, node);
        rename(&path_in(&self.clean, node), &path, false, make_fans)?;
        let file = match open_rw(&path, false) {
            Err(e) if e.kind() == ErrorKind::NotFound => make_new(&path)?,
            opened => opened.at(&path)?,
        };
        self.hints.set(&file, node, hint)?;
        Ok(file)
    }

    /// New empty content in `unsent/` in place of what there was; what is in `content/` stays.
    pub fn open_anew(&self, node: NodeId, hint: &RelPath) -> Result<File> {
        self.partials.end(node, Ended::Over)?;
        let _guard = self.lock();
        let path = path_in(&self.unsent, node);
        remove_file(&path)?;
        let file = make_new(&path)?;
        self.hints.set(&file, node, hint)?;
        Ok(file)
    }

    /// Notes the path of a file in `unsent/`, for `rescue`.
    pub fn set_hint(&self, node: NodeId, hint: &RelPath) -> Result<()> {
        let _guard = self.lock();
        let path = path_in(&self.unsent, node);
        let file = File::open(&path).at(&path)?;
        self.hints.set(&file, node, hint)
    }

    /// Moves content to where eviction may find it. `Replica::update` does this by itself when a row's
    /// `data_changed` becomes false; later a writer may have changed it again.
    pub fn mark_sent(&self, node: NodeId) -> Result<()> {
        let _guard = self.lock();
        let (unsent, clean) = (path_in(&self.unsent, node), path_in(&self.clean, node));
        rename(&unsent, &clean, true, make_fans)
    }

    /// Lets the file follow its row. The row is committed, so a failure is only logged: every reader looks
    /// in both directories, and `check` sets it right.
    pub(super) fn follow(
        &self,
        node: NodeId,
        unsent: bool,
        hint: impl FnOnce() -> Option<RelPath>,
    ) {
        let moved = if unsent {
            self.move_to_unsent(node, hint)
        } else {
            self.mark_sent(node)
        };
        if let Err(error) = moved {
            tracing::warn!(%error, "content is in the wrong directory");
        }
    }

    fn move_to_unsent(&self, node: NodeId, hint: impl FnOnce() -> Option<RelPath>) -> Result<()> {
        // What a program changed is not what the server has.
        self.partials.end(node, Ended::Over)?;
        let _guard = self.lock();
        let clean = path_in(&self.clean, node);
        if !exists(&clean)? {
            return Ok(());
        }
        let path = path_in(&self.unsent, node);
        rename(&clean, &path, false, make_fans)?;
        match hint() {
            Some(hint) => self.hints.set(&File::open(&path).at(&path)?, node, &hint),
            None => Ok(()),
        }
    }

    /// An empty file to fill.
    pub fn new_staging(&self) -> Result<StagingFile> {
        let number = self.next_staging.fetch_add(1, Ordering::Relaxed);
        let path = self.staging.join(number.to_string());
        let file = open_rw(&path, true).at(&path)?;
        Ok(StagingFile::new(file, path))
    }

    /// Makes `staged` the clean content of `node`, and a part of it is needed no more. Refused if there is unsent
    /// content: that has to be kept as a backup first.
    pub fn install(&self, staged: StagingFile, node: NodeId) -> Result<()> {
        let _guard = self.lock();
        let unsent = path_in(&self.unsent, node);
        if exists(&unsent)? {
            return Err(ReplicaError::io(&unsent, ErrorKind::AlreadyExists));
        }
        rename(&staged.path, &path_in(&self.clean, node), true, make_fans)?;
        staged.keep();
        self.partials.end(node, Ended::Over)?;
        Ok(())
    }

    /// A copy of the content of `node`. A writer may tear it: see [`super::Replica::snapshot`].
    pub(super) fn copy(&self, node: NodeId) -> Result<StagingFile> {
        let source = self.open_read(node, true)?;
        let staged = self.new_staging()?;
        clone_file(&source, &staged.file).at(&staged.path)?;
        Ok(staged)
    }

    /// The content of `node` as it is at one moment, without copying it; `None` if the disk cannot do that.
    pub(super) fn share(&self, node: NodeId) -> Result<Option<StagingFile>> {
        let source = self.open_read(node, true)?;
        let staged = self.new_staging()?;
        Ok(share_file(&source, &staged.file).then_some(staged))
    }

    /// Whether the content of `node` equals a staged file's, byte by byte.
    pub fn equals(&self, node: NodeId, staged: &StagingFile) -> Result<bool> {
        let ours = self.open_read(node, true)?;
        let len = ours.metadata().at(&staged.path)?.len();
        if len != staged.len()? {
            return Ok(false);
        }
        let (mut left, mut right) = (vec![0; COMPARE_CHUNK], vec![0; COMPARE_CHUNK]);
        let mut offset = 0;
        while offset < len {
            let part = (len - offset).min(COMPARE_CHUNK as u64) as usize;
            ours.read_exact_at(&mut left[..part], offset)
                .at(&staged.path)?;
            staged
                .file
                .read_exact_at(&mut right[..part], offset)
                .at(&staged.path)?;
            if left[..part] != right[..part] {
                return Ok(false);
            }
            offset += part as u64;
        }
        Ok(true)
    }

    /// Removes the content of `node` if the server has it too; unsent content stays.
    pub fn evict(&self, node: NodeId) -> Result<()> {
        let _guard = self.lock();
        remove_file(&path_in(&self.clean, node))
    }

    /// Removes the content of `node`, sent or not. `Tx::remove_node` does so in time.
    pub fn remove(&self, node: NodeId) -> Result<()> {
        self.partials.end(node, Ended::Over)?;
        let _guard = self.lock();
        remove_file(&path_in(&self.clean, node))?;
        remove_file(&path_in(&self.unsent, node))
    }

    /// Size and modification time of the content of `node`; `None` without a content file.
    pub(super) fn stat(&self, node: NodeId) -> Result<Option<(u64, Time)>> {
        for dir in [&self.unsent, &self.clean] {
            let path = path_in(dir, node);
            match fs::metadata(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                found => {
                    let found = found.at(&path)?;
                    let nanos = u32::try_from(found.mtime_nsec()).unwrap_or_default();
                    return Ok(Some((found.len(), Time::new(found.mtime(), nanos))));
                }
            }
        }
        Ok(None)
    }

    /// Whether there is content in `content/`, whatever is in `unsent/`.
    pub(super) fn has_clean(&self, node: NodeId) -> bool {
        path_in(&self.clean, node).exists()
    }

    /// Whether there is content in `unsent/`.
    pub(super) fn has_unsent(&self, node: NodeId) -> bool {
        path_in(&self.unsent, node).exists()
    }

    /// Removes what is in `unsent/`.
    pub fn remove_unsent(&self, node: NodeId) -> Result<()> {
        let _guard = self.lock();
        remove_file(&path_in(&self.unsent, node))
    }

    /// The path hints of unsent files.
    pub(super) fn hints(&self) -> &Hints {
        &self.hints
    }
}

/// Directories fan out by the low byte of the number.
fn path_in(dir: &Path, node: NodeId) -> PathBuf {
    dir.join(fan(node.0 as u8)).join(node.0.to_string())
}

fn fan(byte: u8) -> String {
    format!("{byte:02x}")
}

/// Makes a new file, and its directory if there is none yet.
fn make_new(path: &Path) -> Result<File> {
    match open_rw(path, true) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            make_fans(path)?;
            open_rw(path, true).at(path)
        }
        made => made.at(path),
    }
}

/// So many directories are made at once: numbers are given one after the other, so their neighbours come next.
const FANS_AT_ONCE: usize = 16;

/// Makes the directory of `path` with its neighbours, and one sync for all: a file synced in one of them later must
/// not lose it.
fn make_fans(path: &Path) -> Result<()> {
    let fan_of = |path: &Path| {
        let name = path.file_name()?.to_str()?;
        Some((
            path.parent()?.to_owned(),
            u8::from_str_radix(name, 16).ok()?,
        ))
    };
    let Some((root, byte)) = path.parent().and_then(fan_of) else {
        return Ok(());
    };
    let first = byte - byte % FANS_AT_ONCE as u8;
    for byte in (first..=u8::MAX).take(FANS_AT_ONCE) {
        make_dir(&root.join(fan(byte)))?;
    }
    sync_dir(&root)
}

#[cfg(test)]
mod tests;
