//! `roamhome check` and `roamhome rescue`: work on a state directory without a daemon.

use std::path::{Path, PathBuf};

use super::{
    output::{emit, printable},
    process, settings,
};
use crate::{
    control::{Code, Failure},
    daemon,
};

/// Verifies a state directory.
pub(super) fn check(state: Option<PathBuf>, repair: bool, content: bool) -> Result<(), Failure> {
    let dir = match state {
        Some(dir) => existing(dir)?,
        None => the_only(&settings::env()?.state_root())?,
    };
    process::await_holder(&dir)?;
    print(daemon::check(&dir, repair, content)?)
}

/// Copies unsent files out of a state directory.
pub(super) fn rescue(state_dir: &Path, out_dir: &Path) -> Result<(), Failure> {
    print(daemon::rescue(&existing(state_dir.to_owned())?, out_dir)?)
}

fn print(lines: Vec<String>) -> Result<(), Failure> {
    let safe: Vec<_> = lines.iter().map(|line| printable(line) + "\n").collect();
    emit(&safe.concat())
}

fn existing(dir: PathBuf) -> Result<PathBuf, Failure> {
    if dir.is_dir() {
        return Ok(dir);
    }
    let message = format!("{}: no such directory", dir.display());
    Err(Failure::new(Code::StateDir, message))
}

/// The only state directory below `root`.
fn the_only(root: &Path) -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(root).into_iter().flatten();
    let mut dirs: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir() && !path.ends_with("run"))
        .collect();
    dirs.sort();
    match dirs.len() {
        1 => Ok(dirs.remove(0)),
        0 => {
            let message = format!("there is no state directory in {}", root.display());
            Err(Failure::new(Code::StateDir, message).remedy("name it: --state DIR"))
        }
        _ => {
            let names: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
            Err(
                Failure::new(Code::Usage, "there are several state directories")
                    .remedy(format!("say which: --state {}", names.join(" | "))),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_only_state_directory_is_meant_when_none_is_named() {
        let root = tempfile::tempdir().unwrap();
        let code = |root: &Path| the_only(root).map_err(|failure| failure.code);
        assert_eq!(code(&root.path().join("none")), Err(Code::StateDir));
        std::fs::create_dir(root.path().join("run")).unwrap();
        assert_eq!(code(root.path()), Err(Code::StateDir));
        std::fs::create_dir(root.path().join("a")).unwrap();
        assert_eq!(code(root.path()), Ok(root.path().join("a")));
        std::fs::create_dir(root.path().join("b")).unwrap();
        let failure = the_only(root.path()).unwrap_err();
        assert!(failure.remedy.unwrap().contains("/a | "));
    }
}
