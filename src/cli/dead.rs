//! Mounts whose daemon is gone: nothing can be reached through them any more, and they only stand in the way.

use std::{path::Path, process::Command};

use rustix::io::Errno;

use super::{
    find,
    preflight::{FS_TYPE, read_mounts},
};
use crate::control::{Code, Failure};

/// Takes dead mounts of homes off `mountpoint`, so that a home can be mounted there again. What lives, and what
/// is not ours, stays for others to judge.
pub(super) fn clear(mountpoint: &Path) -> Result<(), Failure> {
    let at = find::resolve(mountpoint);
    while is_dead(&at) {
        let mounts = read_mounts()?;
        // The topmost mount is the last one listed.
        let top = mounts.iter().rfind(|mount| mount.point == at);
        if top.is_none_or(|mount| mount.fs_type != FS_TYPE) {
            break;
        }
        detach(&at)?;
    }
    Ok(())
}

/// Whether the kernel has nobody to ask about what is at `path`. What a daemon said about the directory itself
/// the kernel still knows; its disk's room it asks for each time. A daemon that dies while it is asked makes the
/// question end as aborted, and one that dies before it began to answer, as refused.
fn is_dead(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_err_and(|error| {
        [Errno::NOTCONN, Errno::CONNABORTED, Errno::CONNREFUSED].contains(&error)
    })
}

/// Unmounts without asking a daemon. From a dead mount nobody can read what they have open, so those do not
/// hold it; of a mount that lives, nothing is taken from under a program.
pub(super) fn detach(mountpoint: &Path) -> Result<(), Failure> {
    let lazily = is_dead(mountpoint);
    let mut reasons = Vec::new();
    for (program, flag, lazy) in [
        ("fusermount3", Some("-u"), "-z"),
        ("fusermount", Some("-u"), "-z"),
        ("umount", None, "-l"),
    ] {
        let mut command = Command::new(program);
        command.args(flag).args(lazily.then_some(lazy));
        match command.arg("--").arg(mountpoint).output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => reasons.push(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            // Another of them may be installed.
            Err(_) => {}
        }
    }
    let message = format!(
        "cannot unmount {}: {}",
        mountpoint.display(),
        reasons.join("; ")
    );
    Err(Failure::new(Code::Mountpoint, message).remedy(format!(
        "see who uses it: fuser -vm {}",
        mountpoint.display()
    )))
}
