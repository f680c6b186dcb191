//! What can be said of a directory before it is taken over.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::super::preflight::{FS_TYPE, Mount, canonical_prefix};
use crate::control::{Code, Failure};

/// Whether `dir` can be taken over for the user `uid`; answers its path without links.
pub(super) fn source(dir: &Path, uid: u32, mounts: &[Mount]) -> Result<PathBuf, Failure> {
    let refuse = |why: String| Failure::new(Code::Usage, format!("{}: {why}", dir.display()));
    let path = dir
        .canonicalize()
        .map_err(|error| refuse(error.to_string()))?;
    let inside = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    // The topmost of those that reach deepest is the last one listed.
    let holds = inside.max_by_key(|mount| mount.point.components().count());
    if let Some(mount) = holds.filter(|mount| mount.fs_type == FS_TYPE) {
        let at = mount.point.display();
        return Err(refuse(format!("a home is mounted at {at}"))
            .remedy("what is in there is in the home already"));
    }
    let found = fs::metadata(&path).map_err(|error| refuse(error.to_string()))?;
    if !found.is_dir() {
        return Err(refuse("not a directory".to_owned()));
    }
    if found.uid() != uid {
        let why = format!("it belongs to user {}, and not to {uid}", found.uid());
        return Err(refuse(why).remedy("as root, say whose it is: --account NAME"));
    }
    Ok(path)
}

/// Where something is mounted below `dir`.
pub(super) fn below(dir: &Path, mounts: &[Mount]) -> BTreeSet<PathBuf> {
    let points = mounts.iter().map(|mount| &mount.point);
    let below = points.filter(|point| point.starts_with(dir) && *point != dir);
    below.cloned().collect()
}

/// Whether the state directory lies apart from the directory: it grows with what is read.
pub(super) fn outside(dir: &Path, state_dir: &Path) -> Result<(), Failure> {
    let refuse = |why: &str| {
        let message = format!("{}: {why} {}", state_dir.display(), dir.display());
        Failure::new(Code::StateDir, message)
    };
    let state = canonical_prefix(state_dir).map_err(|error| refuse(&format!("{error}:")))?;
    if state.starts_with(dir) {
        return Err(refuse("the state directory lies inside").remedy(
            "name one elsewhere: --state DIR; or let root take over a whole home: roamhome adopt DIR --account NAME",
        ));
    }
    match dir.starts_with(&state) {
        true => Err(refuse("the state directory holds").remedy("name another: --state DIR")),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(point: &Path, fs_type: &str) -> Mount {
        Mount {
            point: point.to_owned(),
            fs_type: fs_type.to_owned(),
        }
    }

    #[test]
    fn only_a_directory_of_the_users_that_is_no_home_yet_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (inner, file) = (root.join("inner"), root.join("file"));
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "").unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let disk = [mount(Path::new("/"), "ext4"), mount(&root, "ext4")];
        assert_eq!(source(&inner, uid, &disk), Ok(inner.clone()));
        assert_eq!(below(&root, &disk), BTreeSet::new());
        let home = [mount(&root, FS_TYPE), mount(&inner, "tmpfs")];
        assert_eq!(below(&root, &home), BTreeSet::from([inner.clone()]));
        assert_eq!(source(&inner, uid, &home), Ok(inner.clone()));
        for (dir, uid, mounts, why) in [
            (&root, uid, &home[..], "a home is mounted"),
            (&file, uid, &disk[..], "not a directory"),
            (&inner, uid + 1, &disk[..], "belongs to user"),
            (&root.join("none"), uid, &disk[..], "No such file"),
        ] {
            let refused = source(dir, uid, mounts).unwrap_err();
            assert!(refused.message.contains(why), "{refused}");
        }
    }

    #[test]
    fn what_grows_by_being_read_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        assert_eq!(outside(&root.join("home"), &root.join("state")), Ok(()));
        assert!(outside(&root, &root.join("not/there/yet")).is_err());
        assert!(outside(&root.join("home"), &root).is_err());
        assert!(outside(&root, &root).is_err());
    }
}
