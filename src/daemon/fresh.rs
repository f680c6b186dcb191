//! The state directory of a home that was never here. Only an empty one may become a replica's, and only what
//! was made in it since may go when the first mount fails: a mistyped `--state` must not cost a file, and a
//! replica that lost its index still holds what was not sent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::control::{Code, Failure};
use crate::login::{TICKET, TICKET_NEXT};

/// The log, which the command begins before its daemon looks.
const LOG: &str = "daemon.log";

/// What a first mount that was killed, or runs, has made here.
const LOCK: &str = "lock";

/// All that may be there before a replica is, with what a login puts there.
const OURS: [&str; 4] = [LOG, LOCK, TICKET, TICKET_NEXT];

/// Whether a replica may be made in `dir`.
pub(super) fn check(dir: &Path) -> Result<(), Failure> {
    let at = dir.display();
    let found = stranger(dir, true).map_err(|error| {
        Failure::new(Code::StateDir, format!("{at}: {error}")).remedy("name another: --state DIR")
    })?;
    let Some(found) = found else {
        return Ok(());
    };
    let why = format!(
        "{at}: there is no replica in it, but there is {}",
        found.display()
    );
    Err(Failure::new(Code::StateDir, why).remedy(format!(
        "name an empty directory: --state DIR. If a replica lost its index there, `roamhome rescue {at} OUT_DIR` \
         copies all that was not sent"
    )))
}

/// The first file that a first mount does not make, if there is one.
fn stranger(dir: &Path, top: bool) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let found = if entry.file_type()?.is_dir() {
            stranger(&entry.path(), false)?
        } else {
            let name = entry.file_name();
            let ours = top && OURS.iter().any(|ours| name == *ours);
            (!ours).then(|| entry.path())
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Removes what [`check`] found empty, before a replica was made there. Another first mount may be at it.
pub(super) fn forget_empty(dir: &Path) {
    if !dir.join(LOCK).exists() {
        // An empty directory is all that stays behind where this fails.
        drop(fs::remove_file(dir.join(LOG)));
        drop(fs::remove_dir(dir));
    }
}

/// Removes the replica that this process, which has its lock, made where [`check`] found nothing.
pub(super) fn forget_replica(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(%error, path = %dir.display(), "removing an empty replica");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_first_mount_leaves_may_be_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        fs::create_dir_all(state.join("unsent/00")).unwrap();
        fs::write(state.join(LOG), "").unwrap();
        assert_eq!(check(&state), Ok(()));
        for name in [LOCK, TICKET, TICKET_NEXT] {
            fs::write(state.join(name), "").unwrap();
        }
        assert_eq!(check(&state), Ok(()));
        fs::write(state.join("unsent/00/1"), "not sent").unwrap();
        let failure = check(&state).unwrap_err();
        assert_eq!(failure.code, Code::StateDir);
        assert!(failure.message.contains("unsent/00/1"), "{failure}");
        assert!(failure.remedy.unwrap().contains("roamhome rescue"));
    }

    #[test]
    fn a_directory_that_somebody_else_uses_stays() {
        let dir = tempfile::tempdir().unwrap();
        for other in [LOCK, "other"] {
            let state = dir.path().join("state");
            fs::create_dir(&state).unwrap();
            fs::write(state.join(other), "").unwrap();
            forget_empty(&state);
            assert!(state.join(other).exists());
            fs::remove_file(state.join(other)).unwrap();
            forget_empty(&state);
            assert!(!state.exists());
        }
    }
}
