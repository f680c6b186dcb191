//! Making room for the mount: the directory gets another name, and an empty one takes its place, in one step.

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::control::{Code, Failure};

/// What the directory's name ends with afterwards.
const SUFFIX: &str = ".before-roamhome";

/// What the directory is called afterwards.
pub(super) fn name_of(dir: &Path) -> PathBuf {
    let mut name = OsString::from(dir);
    name.push(SUFFIX);
    name.into()
}

fn refused(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Code::Mountpoint, format!("{}: {error}", path.display()))
}

/// Whether the name is free; an empty directory may have been left by an attempt that was killed.
pub(super) fn check(dir: &Path) -> Result<(), Failure> {
    let aside = name_of(dir);
    match fs::symlink_metadata(&aside) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refused(&aside, &error)),
        Ok(found) if found.is_dir() => {
            if fs::read_dir(&aside).is_ok_and(|mut entries| entries.next().is_none()) {
                return Ok(());
            }
        }
        Ok(_) => {}
    }
    Err(refused(&aside, &"there is something already").remedy("move it away first"))
}

/// Renames the directory, and makes an empty one of the same owner and mode where it was.
pub(super) fn move_aside(dir: &Path) -> Result<(), Failure> {
    check(dir)?;
    let aside = name_of(dir);
    let exchanged = || -> io::Result<()> {
        let found = fs::symlink_metadata(dir)?;
        match fs::remove_dir(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&aside)?;
        lchown(&aside, Some(found.uid()), Some(found.gid()))?;
        fs::set_permissions(&aside, PermissionsExt::from_mode(found.mode() & 0o7777))?;
        Ok(renameat_with(CWD, &aside, CWD, dir, RenameFlags::EXCHANGE)?)
    };
    exchanged().map_err(|error| {
        let failure = refused(dir, &format!("it cannot be moved aside: {error}"));
        failure.remedy(format!(
            "it is in the home; rename it yourself, to {}",
            aside.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_changes_its_name_and_nothing_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("ann");
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, PermissionsExt::from_mode(0o750)).unwrap();
        fs::write(dir.join("notes"), "mine").unwrap();
        let aside = name_of(&dir);
        // As an attempt leaves it that is killed.
        fs::create_dir(&aside).unwrap();
        move_aside(&dir).unwrap();
        assert_eq!(fs::read_to_string(aside.join("notes")).unwrap(), "mine");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o7777, 0o750);

        fs::write(dir.join("more"), "").unwrap();
        for attempt in [check(&dir), move_aside(&dir)] {
            let refused = attempt.unwrap_err();
            assert!(refused.message.contains("already"), "{refused}");
        }
        assert!(dir.join("more").exists() && aside.join("notes").exists());
    }
}
