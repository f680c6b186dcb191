//! Processes that hold sessions: who they are, and when they end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::session::Holder;

impl Holder {
    /// The process that started this one: for pam_exec's, the program that logs somebody in.
    pub fn parent() -> io::Result<Self> {
        let parent = rustix::process::getppid().ok_or_else(|| io::Error::other("no parent"))?;
        Self::of(parent.as_raw_nonzero().get())
    }

    pub(super) fn of(pid: i32) -> io::Result<Self> {
        let started = start_of(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is not understood")))?;
        Ok(Self { pid, started })
    }

    /// Waits until the process has ended, however long. At once if it has ended already.
    pub(super) fn wait(self) {
        if let Some(process) = self.open() {
            // Its descriptor is readable when it has ended.
            let mut ended = [PollFd::new(&process, PollFlags::IN)];
            while poll(&mut ended, None) == Err(rustix::io::Errno::INTR) {}
        }
    }

    fn open(self) -> Option<OwnedFd> {
        let process = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        // After it was opened: from now on the number cannot come to mean another one.
        (Self::of(self.pid).ok()? == self).then_some(process)
    }
}

/// Field 22 of `/proc/PID/stat`. The name before it, in parentheses, may hold anything.
fn start_of(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = "7 (a ) (b) 3) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(start_of(stat), Some(4711));
        assert_eq!(start_of("7 (a) S 1"), None);
    }

    #[test]
    fn an_end_is_noticed_and_a_process_that_was_never_there_has_ended() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let holder = Holder::of(i32::try_from(child.id()).unwrap()).unwrap();
        let other = Holder {
            started: holder.started + 1,
            ..holder
        };
        // Has the number, and is not the one.
        other.wait();
        let waiting = std::thread::spawn(move || holder.wait());
        assert!(!waiting.is_finished());
        child.kill().unwrap();
        child.wait().unwrap();
        waiting.join().unwrap();
    }
}
