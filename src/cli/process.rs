//! The process behind a mount, for commands that have to know when it has ended: until then it holds the state
//! directory.

use std::{os::fd::OwnedFd, path::Path};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::{
    find,
    preflight::{FS_TYPE, Mount, read_mounts},
};
use crate::{
    control::{Failure, client},
    daemon,
};

/// How long a daemon may take to end.
const END_MAX: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A daemon's process. Held by descriptor, so that its number cannot come to mean another one.
#[derive(Debug)]
pub(super) struct Process(OwnedFd);

/// Waits for a daemon that has `state_dir` although its home is not mounted any more: it has something to write yet,
/// and ends.
pub(super) fn await_holder(state_dir: &Path) -> Result<(), Failure> {
    let Some(holder) = daemon::holder(state_dir) else {
        return Ok(());
    };
    let process = Process::of(holder);
    let (dirs, mounts) = (find::socket_dirs()?, read_mounts()?);
    let sockets = find::all(&dirs).into_iter();
    let serves = sockets
        .filter_map(|socket| client::ping(&socket))
        .any(|pong| pong.pid == holder && is_mounted(Path::new(&pong.mountpoint), &mounts));
    if let Some(process) = process
        && !serves
    {
        process.has_ended();
    }
    Ok(())
}

/// Whether a home is mounted there.
fn is_mounted(mountpoint: &Path, mounts: &[Mount]) -> bool {
    // The topmost mount is the last one listed.
    let top = mounts.iter().rfind(|mount| mount.point == mountpoint);
    top.is_some_and(|mount| mount.fs_type == FS_TYPE)
}

impl Process {
    /// The daemon that `mountpoint` means, as for all commands.
    pub(super) fn serving(mountpoint: Option<&Path>) -> Option<Self> {
        Self::of(client::ping(&find::socket_of(mountpoint).ok()?)?.pid)
    }

    /// The process with this number now.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        pidfd_open(pid, PidfdFlags::empty()).ok().map(Self)
    }

    /// Waits until it has ended; whether it has in time.
    pub(super) fn has_ended(&self) -> bool {
        // The descriptor of a process is readable when the process has ended.
        let mut ended = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut ended, Some(&END_MAX)), Ok(1..))
    }

    /// Makes it end; its mount goes even if somebody is in there.
    pub(super) fn end(&self) {
        for signal in [Signal::TERM, Signal::KILL] {
            // It may be gone already.
            let _gone = pidfd_send_signal(&self.0, signal);
            if self.has_ended() {
                return;
            }
        }
    }
}
