//! The process behind a mount, for commands that have to know when it has ended: until then it holds the state
//! directory.

use std::{os::fd::OwnedFd, path::Path};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::find;
use crate::control::client;

/// How long a daemon may take to end.
const END_MAX: Timespec = Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};

/// A daemon's process. Held by descriptor, so that its number cannot come to mean another one.
#[derive(Debug)]
pub(super) struct Process(OwnedFd);

impl Process {
    /// The daemon that `mountpoint` means, as for all commands.
    pub(super) fn serving(mountpoint: Option<&Path>) -> Option<Self> {
        let pong = client::ping(&find::socket_of(mountpoint).ok()?)?;
        let pid = Pid::from_raw(i32::try_from(pong.pid).ok()?)?;
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
