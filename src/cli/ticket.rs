//! `roamhome take-ticket`: the process of an account that a login has take over its Kerberos ticket, and what root does about it:
//! starts it, and waits for a moment. Not for people.

use std::{
    ffi::{OsStr, OsString},
    fmt::Display,
    io::{self, Read},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use clap::Args;

use super::output;
use crate::{
    control::{Code, Failure},
    login::{Account, Ccache},
};

/// The command's name.
const COMMAND: &str = "take-ticket";
/// How long it may take: what the ticket lies on may not answer.
const TAKE_MAX: Duration = Duration::from_secs(2);
/// Between two looks whether it is done.
const LOOK: Duration = Duration::from_millis(5);
/// More than it says.
const SAID_MAX_BYTES: usize = 4096;

/// What can be said to `take-ticket`.
#[derive(Debug, Args)]
pub(super) struct TicketArgs {
    /// Where the ticket is, as KRB5CCNAME has it
    ccache: OsString,
    /// Where it goes
    state_dir: PathBuf,
}

/// Takes a ticket into a state directory, as the account that this process runs as. A ticket that is not there is a failure
/// of its own.
pub(super) fn run(args: &TicketArgs) -> Result<(), Failure> {
    let failed = |why: &dyn Display| {
        let name = args.ccache.display();
        let message =
            format!("the Kerberos ticket in {name} cannot be used after this session: {why}");
        Failure::new(Code::Usage, message)
    };
    let Some(ccache) = Ccache::parse(&args.ccache) else {
        return Err(failed(
            &"it is in no FILE:, DIR:, KCM: or KEYRING:persistent:",
        ));
    };
    match ccache.take(&args.state_dir) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::new(Code::General, "there is no ticket")),
        Err(error) => Err(failed(&error)),
    }
}

/// Has the ticket that `ccache` names taken into `state_dir` by a process of the account; whether there was one. Whoever
/// logs in hears why not.
pub(super) fn take(account: &Account, ccache: &OsStr, state_dir: &Path) -> bool {
    let taken = match start(account, ccache, state_dir) {
        Ok(child) => wait(child),
        Err(error) => Err(error.to_string()),
    };
    taken.unwrap_or_else(|why| {
        output::tell(&why);
        false
    })
}

fn start(account: &Account, ccache: &OsStr, state_dir: &Path) -> io::Result<Child> {
    // Without root's groups: see `Command::uid`.
    Command::new("/proc/self/exe")
        .env_clear()
        .current_dir("/")
        .uid(account.uid)
        .gid(account.gid)
        .args([COMMAND, "--"])
        .args([ccache, state_dir.as_os_str()])
        .stdin(Stdio::null())
        // pam_exec waits for the end of its own, and this process may be one that cannot be ended.
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

fn wait(mut child: Child) -> Result<bool, String> {
    let until = Instant::now() + TAKE_MAX;
    loop {
        let ended = child.try_wait().map_err(|error| error.to_string())?;
        match ended.map(|status| status.code()) {
            Some(Some(0)) => return Ok(true),
            Some(Some(code)) if code == i32::from(Code::General.status()) => return Ok(false),
            Some(_) => return Err(last_words(&mut child)),
            None if until <= Instant::now() => {
                // It ends when what it waits for does; nobody waits for it.
                drop(child.kill());
                return Err(
                    "the Kerberos ticket is not taken over: what it lies on does not answer"
                        .to_owned(),
                );
            }
            None => thread::sleep(LOOK),
        }
    }
}

/// What a process that ended said. Others of its account may hold its end open.
fn last_words(child: &mut Child) -> String {
    let mut text = vec![0; SAID_MAX_BYTES];
    let said = child.stderr.take().and_then(|mut stderr| {
        rustix::io::ioctl_fionbio(&stderr, true).ok()?;
        stderr.read(&mut text).ok()
    });
    text.truncate(said.unwrap_or_default());
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    match line.strip_prefix("roamhome: ") {
        Some(why) => why.to_owned(),
        None => "the Kerberos ticket is not taken over".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    fn waited(script: &str) -> Result<bool, String> {
        let mut shell = Command::new("sh");
        let child = shell.args(["-c", script]).stderr(Stdio::piped()).spawn();
        wait(child.unwrap())
    }

    #[test]
    fn nobody_waits_for_what_does_not_end_or_hold_its_end_open() {
        assert_eq!(waited("exit 0"), Ok(true));
        assert_eq!(waited("echo 'roamhome: none' >&2; exit 1"), Ok(false));
        // Another process holds the end of the pipe, and still does when what was said is known.
        let said = waited("sleep 30 & echo \"roamhome: $!\" >&2; exit 2").unwrap_err();
        let holder = Pid::from_raw(said.parse().unwrap());
        kill(holder, Signal::SIGKILL).unwrap();
        let hung = waited("exec sleep 30").unwrap_err();
        assert!(hung.contains("does not answer"), "{hung}");
    }
}
