//! A look at a directory of the disk: how much is in it, and what changed lately.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{source, time};
use crate::tree::Time;

/// So many changed entries are named.
const NAMED_MAX: usize = 5;

/// What is in a directory, without what is mounted there.
#[derive(Debug, Default)]
pub struct Survey {
    /// Files, by name.
    pub files: u64,
    /// The room that they take on their disk.
    pub bytes: u64,
    /// A file with something in it.
    pub sample: Option<PathBuf>,
    /// Where something is mounted.
    pub mounts: u64,
    /// How many entries changed since.
    pub changed: u64,
    /// Some of those.
    pub changed_paths: Vec<PathBuf>,
}

/// Looks through `dir`, leaving out `mounts` and what cannot be read; what changed at `since` or later counts as changed.
pub fn survey(dir: &Path, mounts: &BTreeSet<PathBuf>, since: Time) -> io::Result<Survey> {
    let device = dir.symlink_metadata()?.dev();
    let mut survey = Survey::default();
    let mut linked = BTreeSet::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        if mounts.contains(&path) || meta.dev() != device {
            survey.mounts += 1;
            continue;
        }
        if time(meta.ctime(), meta.ctime_nsec()) >= since {
            survey.changed += 1;
            if survey.changed_paths.len() < NAMED_MAX {
                survey.changed_paths.push(path.clone());
            }
        }
        if meta.is_dir() {
            // One that cannot be read is told by who takes it over.
            let names = source::names(&path).unwrap_or_default();
            todo.extend(names.iter().map(|name| path.join(name)));
        } else if meta.is_file() {
            survey.files += 1;
            if meta.nlink() < 2 || linked.insert(meta.ino()) {
                survey.bytes += meta.blocks() * 512;
            }
            if survey.sample.is_none() && meta.len() > 0 && can_read(&path) {
                survey.sample = Some(path);
            }
        }
    }
    Ok(survey)
}

fn can_read(path: &Path) -> bool {
    rustix::fs::access(path.as_os_str().as_bytes(), rustix::fs::Access::READ_OK).is_ok()
}
