//! Where a copy of a home grows, and how far that is: a directory beside the one that it becomes, with a note in it.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    super::{output::size, preflight::read_mounts},
    entry::beside,
    shown,
};
use crate::control::{Code, Failure, protocol::Status};

/// What the name of the directory ends with.
const SUFFIX: &str = ".leaving";
/// In it: the note, and the copy.
const NOTE: &str = "note.json";
const HOME: &str = "home";

/// So much of the disk stays free.
const MIN_FREE: u64 = 64 << 20;

/// A copy under way.
pub(super) struct Work {
    mount: PathBuf,
    to: PathBuf,
    dir: PathBuf,
}

/// What is known of it.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    mount: String,
    state_dir: String,
    /// What the state directory's lock said when the home was unmounted, its copy being complete: each mount writes its own.
    left: Option<Vec<u8>>,
}

impl Work {
    /// For a home at `mount` that is to become plain files in `to`.
    pub(super) fn at(mount: &Path, to: &Path) -> Self {
        Self {
            mount: mount.to_owned(),
            to: to.to_owned(),
            dir: beside(to, SUFFIX),
        }
    }

    /// Where the copy is.
    pub(super) fn home(&self) -> PathBuf {
        self.dir.join(HOME)
    }

    fn refuse(&self, path: &Path, why: &dyn std::fmt::Display) -> Failure {
        Failure::new(Code::General, format!("{}: {why}", path.display()))
    }

    /// Begins, or goes on with a copy of the same mount.
    pub(super) fn begin(&self, status: &Status) -> Result<(), Failure> {
        if self.to != self.mount && !is_vacant(&self.to) {
            return Err(self.refuse(&self.to, &"there is something already"));
        }
        if self.dir.starts_with(&self.mount) {
            let why = "it lies in the home that is to be left";
            return Err(self.refuse(&self.to, &why).remedy("name another: --to DIR"));
        }
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // Nobody else's directory is emptied.
                let ours = self
                    .note()?
                    .is_some_and(|note| note.mount == shown(&self.mount));
                if !ours && !is_vacant(&self.dir) {
                    let why = "it is no copy of this home that was begun";
                    return Err(self.refuse(&self.dir, &why).remedy("move it away first"));
                }
            }
            Err(error) => {
                return Err(self
                    .refuse(&self.dir, &error)
                    .remedy("name a directory of yours: --to DIR; or let root do it"));
            }
        }
        self.put(status, None)?;
        match DirBuilder::new().mode(0o700).create(self.home()) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(self.refuse(&self.dir, &error))
            }
            _ => Ok(()),
        }
    }

    /// Whether there is room for a copy of so many bytes, as far as it is not there yet.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), Failure> {
        let copied = super::measure(&self.home()).map_or(0, |count| count.bytes);
        let needed = bytes.saturating_sub(copied);
        let disk =
            rustix::fs::statvfs(&self.dir).map_err(|errno| self.refuse(&self.dir, &errno))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if needed.saturating_add(MIN_FREE) <= free {
            return Ok(());
        }
        let why = format!(
            "{} are to be copied, and {} are free",
            size(needed),
            size(free)
        );
        Err(self
            .refuse(&self.dir, &why)
            .remedy("make room, or name a directory on another disk: --to DIR"))
    }

    /// Makes the copy survive a loss of power.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        let dir = fs::File::open(&self.dir).map_err(|error| self.refuse(&self.dir, &error))?;
        rustix::fs::syncfs(dir).map_err(|errno| self.refuse(&self.dir, &errno))
    }

    /// The home is unmounted, and the copy is what it was.
    pub(super) fn unmounted(&self, status: &Status) -> Result<(), Failure> {
        self.put(status, Some(lock_of(&status.state_dir)))
    }

    /// Puts the copy where it belongs if the home was unmounted for it, and not mounted since; whether it was.
    pub(super) fn finish(&self) -> Result<bool, Failure> {
        let Some(note) = self.note()? else {
            return Ok(false);
        };
        let since = note.left == Some(lock_of(&note.state_dir));
        let mounted = read_mounts()?.iter().any(|mount| mount.point == self.mount);
        if !since || mounted || note.mount != shown(&self.mount) {
            return Ok(false);
        }
        // Only an empty directory is replaced. Killed before, it was renamed already.
        match fs::rename(self.home(), &self.to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self
                    .refuse(&self.to, &format!("the copy cannot be put there: {error}"))
                    .remedy(format!("it is whole, in {}", self.home().display())));
            }
            _ => {}
        }
        let removed = fs::remove_file(self.dir.join(NOTE)).and_then(|()| fs::remove_dir(&self.dir));
        removed.map_err(|error| self.refuse(&self.dir, &error))?;
        Ok(true)
    }

    /// What people are told in the end.
    pub(super) fn done(&self) -> String {
        format!(
            "{} holds plain files now. The server's are as they were; `roamhome mount` makes them roam again, and the state \
             directory may be removed when nothing in it is unsent\n",
            self.to.display()
        )
    }

    fn note(&self) -> Result<Option<Note>, Failure> {
        let path = self.dir.join(NOTE);
        match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => {
                let read = read.map_err(|error| self.refuse(&path, &error))?;
                serde_json::from_slice(&read).map_err(|error| self.refuse(&path, &error))
            }
        }
    }

    fn put(&self, status: &Status, left: Option<Vec<u8>>) -> Result<(), Failure> {
        let note = Note {
            mount: shown(&self.mount),
            state_dir: status.state_dir.clone(),
            left,
        };
        let path = self.dir.join(NOTE);
        let new = beside(&path, ".new");
        serde_json::to_vec(&note)
            .map_err(io::Error::from)
            .and_then(|text| fs::write(&new, text))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|error| self.refuse(&path, &error))
    }
}

/// Whether there is nothing, or an empty directory.
fn is_vacant(path: &Path) -> bool {
    match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Who has, or last had, a state directory.
fn lock_of(state_dir: &str) -> Vec<u8> {
    fs::read(Path::new(state_dir).join("lock")).unwrap_or_default()
}
