//! Errors of the layers below as people and scripts get them: a message, a remedy, an exit status.

use std::io;
use std::path::Path;

use crate::control::{Code, Failure};
use crate::engine::PassError;
use crate::replica::ReplicaError;
use crate::sync::Guard;

/// Of the replica.
pub(super) fn replica(error: ReplicaError) -> Failure {
    // The replica's messages name the directory and the remedy themselves.
    Failure::new(Code::StateDir, error.to_string())
}

/// Of mount(2).
pub(super) fn mount(at: &Path, error: io::Error) -> Failure {
    let at = at.display();
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV) => {
            Failure::new(Code::NoFuse, format!("{at} cannot be mounted: {error}"))
                .remedy("load FUSE with `modprobe fuse`; in a container, pass /dev/fuse through")
        }
        Some(libc::EPERM | libc::EACCES) => {
            Failure::new(Code::NoFuse, format!("{at} cannot be mounted: {error}"))
                .remedy("install fuse3 for fusermount3, or mount as root")
        }
        _ => Failure::new(Code::Mountpoint, format!("{at} cannot be mounted: {error}"))
            .remedy(format!("see what is there with `findmnt {at}`")),
    }
}

/// Of a question that a person has to answer first.
pub(super) fn guard(guard: &Guard) -> Failure {
    let code = match guard {
        Guard::Identity(_) => Code::Identity,
        Guard::RolledBack | Guard::MassRemoval { .. } | Guard::AttributeStorm { .. } => Code::Guard,
    };
    Failure::new(code, guard.to_string())
}

/// Of a pass.
pub(super) fn pass(error: &PassError) -> Failure {
    let code = match error {
        PassError::Offline(_) => Code::Unreachable,
        PassError::Failed(_) | PassError::Stopping => Code::General,
    };
    let failure = Failure::new(code, error.to_string());
    match error {
        PassError::Offline(_) => failure.remedy("`roamhome status` tells how the link stands"),
        _ => failure,
    }
}
