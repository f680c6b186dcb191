//! Sessions of accounts on a computer.

use std::process::Child;

use super::lab::Lab;
use super::machine::Said;

/// Somebody who is logged in; logged out when dropped.
pub(crate) struct Session<'a> {
    pub(super) lab: &'a Lab,
    pub(super) child: Child,
}

impl Session<'_> {
    /// Logs out, and waits for what comes of it.
    pub(crate) fn log_out(mut self) -> Said {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        let mut stdout = String::new();
        let out = self.child.stdout.as_mut().unwrap();
        std::io::Read::read_to_string(out, &mut stdout).unwrap();
        Said {
            status: status.code().unwrap_or(-1),
            stdout,
            stderr: String::new(),
        }
    }

    /// What held the session dies at once, as a display manager that crashes.
    pub(crate) fn kill9(self) {
        for pid in self.lab.pids(&["su - "]) {
            self.lab.try_run(&["kill", "-9", &pid]);
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}
