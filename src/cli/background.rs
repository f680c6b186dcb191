//! How a mount goes to the background: the command starts itself again with the same arguments and a hidden
//! flag, hands secrets over on standard input, answers what the login asks, and waits for the line on the child's standard
//! output that says how it went. Whether the child dies, hangs up or reports, the parent learns it.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{output, reach::Terminal};
use crate::{
    control::{Code, Failure},
    daemon::{Ask, Asker, Broker, Place, Secret, Secrets},
};

/// The hidden flag of the child.
pub(super) const CHILD_FLAG: &str = "as-daemon";
/// The hidden flag of one that has a broker at the other end of its standard input.
pub(super) const BROKER_FLAG: &str = "by-broker";
/// The daemon's log, in its state directory.
const LOG: &str = "daemon.log";
/// A log longer than this is put aside at the next start.
const LOG_MAX_BYTES: u64 = 8 * 1024 * 1024;
/// More than any password or report has.
const LINE_MAX_BYTES: u64 = 64 * 1024;
/// The third line on the child's standard input if the parent can ask somebody.
const SOMEBODY: &str = "terminal";

/// A line of the child's. The last one says how it went.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    /// The mount serves.
    Ready,
    /// It does not, and the child ends.
    Failed(Failure),
    /// The login has a question; a line with the answer in JSON is expected, `null` if there is none.
    Ask {
        /// In its words.
        prompt: String,
        /// Whether the answer may be seen.
        echo: bool,
    },
    /// The login has something to tell.
    Tell(String),
}

/// Whether the child has said how it went, so that nobody can be asked any more.
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Whoever sits at the parent's terminal.
struct Parent(Mutex<()>);

impl Ask for Parent {
    fn is_there(&self) -> bool {
        !REPORTED.load(Ordering::Acquire)
    }

    fn ask(&self, prompt: &str, echo: bool) -> Option<String> {
        let _turn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        say(&Report::Ask {
            prompt: prompt.to_owned(),
            echo,
        })
        .ok()?;
        let mut line = Vec::new();
        let mut input = io::stdin().lock().take(LINE_MAX_BYTES);
        input.read_until(b'\n', &mut line).ok()?;
        serde_json::from_slice::<Option<String>>(&line).ok()?
    }

    fn tell(&self, text: &str) {
        // A parent that is gone does not want to know.
        drop(say(&Report::Tell(text.to_owned())));
    }
}

/// In the child: one line to the parent.
fn say(report: &Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Starts the child with this process's `args`, and returns when its mount serves.
pub(super) fn start(args: &[OsString], secrets: &Secrets, state_dir: &Path) -> Result<(), Failure> {
    let log = open_log(state_dir).map_err(|error| {
        let message = format!("{}: {error}", state_dir.join(LOG).display());
        Failure::new(Code::StateDir, message)
    })?;
    start_logging(args, secrets, state_dir, log.into())
}

/// The same; the child's standard error goes to `log`.
pub(super) fn start_logging(
    args: &[OsString],
    secrets: &Secrets,
    state_dir: &Path,
    log: Stdio,
) -> Result<(), Failure> {
    let terminal = Terminal::new();
    let program = std::env::current_exe().map_err(|error| cannot_start(&error))?;
    // Right behind the name of the command: what follows may hold a `--`.
    let (command, rest) = args.split_at(args.len().min(2));
    let mut child = Command::new(program)
        .args(command.iter().skip(1))
        .arg(format!("--{CHILD_FLAG}"))
        .args(rest)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| cannot_start(&error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that is gone already says so below.
        drop(hand_over(&mut stdin, secrets, terminal.is_some()));
        if terminal.is_some() {
            child.stdin = Some(stdin);
        }
    }
    wait(&mut child, terminal.as_ref(), state_dir)
}

/// Starts the daemon by `command`, which says [`CHILD_FLAG`] and [`BROKER_FLAG`], for another user, whose home `place`
/// says; returns when it serves.
pub(super) fn start_for(
    mut command: Command,
    place: Place,
    secrets: &Secrets,
    state_dir: &Path,
) -> Result<Child, Failure> {
    let failed = |error: io::Error| cannot_start(&error);
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // It holds the other end of the daemon's socket, by which the keeper would miss that the daemon is gone.
    drop(command);
    // A child that is gone already says so below.
    drop(hand_over(&mut ours, secrets, false));
    thread::Builder::new()
        .name("broker".into())
        .spawn(move || place.serve(ours))
        .map_err(failed)?;
    wait(&mut child, None, state_dir)?;
    Ok(child)
}

/// What the child reads first.
pub(super) fn hand_over(to: &mut dyn Write, secrets: &Secrets, somebody: bool) -> io::Result<()> {
    let line = |secret: &Option<Secret>| secret.as_ref().map_or("", Secret::reveal).to_owned();
    let who = if somebody { SOMEBODY } else { "" };
    let (password, passphrase) = (line(&secrets.password), line(&secrets.passphrase));
    let lines = Zeroizing::new(format!("{password}\n{passphrase}\n{who}\n"));
    to.write_all(lines.as_bytes())
}

fn wait(child: &mut Child, terminal: Option<&Terminal>, state_dir: &Path) -> Result<(), Failure> {
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        loop {
            let mut line = Vec::new();
            (&mut reader)
                .take(LINE_MAX_BYTES)
                .read_until(b'\n', &mut line)
                .map_err(|error| cannot_start(&error))?;
            match serde_json::from_slice(&line) {
                Ok(Report::Ready) => return Ok(()),
                Ok(Report::Failed(failure)) => {
                    drop(child.wait());
                    return Err(failure);
                }
                Ok(Report::Ask { prompt, echo }) => {
                    let answer = terminal.and_then(|t| t.ask(&output::printable(&prompt), echo));
                    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
                    line.push(b'\n');
                    if let Some(stdin) = &mut child.stdin {
                        // A child that is gone says so below.
                        drop(stdin.write_all(&line));
                    }
                }
                Ok(Report::Tell(text)) => output::print_note(&text),
                Err(_) => break,
            }
        }
    }
    // It hung up without a report, so it is about to end, if it has not yet.
    let how = match child.wait() {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Failure::new(
        Code::General,
        format!("the daemon ended before the mount served ({how})"),
    )
    .remedy(format!("its log: {}", state_dir.join(LOG).display())))
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure::new(Code::General, format!("cannot start the daemon: {error}"))
}

fn open_log(state_dir: &Path) -> io::Result<File> {
    let path = state_dir.join(LOG);
    if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_MAX_BYTES) {
        fs::rename(&path, state_dir.join(format!("{LOG}.old")))?;
    }
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// In the child: reads what the parent handed over: secrets, and whether it can ask
/// somebody.
pub(super) fn become_child() -> Result<(Secrets, Asker), Failure> {
    let failed = |error: io::Error| cannot_start(&error);
    let mut input = io::stdin().lock();
    let secrets = Secrets {
        password: read_secret(&mut input).map_err(failed)?,
        passphrase: read_secret(&mut input).map_err(failed)?,
    };
    let who = read_secret(&mut input).map_err(failed)?;
    let asker = match who {
        Some(_) => Asker::new(Parent(Mutex::new(()))),
        None => Asker::default(),
    };
    std::env::set_current_dir("/").map_err(failed)?;
    Ok((secrets, asker))
}

/// In the child of a keeper: the broker, and a log of its own. It never gets more powers than it has, and no other process
/// of the account can look into it or act by it.
pub(super) fn become_brokered(state_dir: &Path) -> Result<Broker, Failure> {
    let failed = |error: io::Error| cannot_start(&error);
    rustix::thread::set_no_new_privs(true).map_err(|errno| failed(errno.into()))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|errno| failed(errno.into()))?;
    let log = open_log(state_dir).map_err(failed)?;
    rustix::stdio::dup2_stderr(&log).map_err(|errno| failed(errno.into()))?;
    let stream = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    Ok(Broker::new(stream.into()))
}

/// In the child: tells the parent how it went, and lets go of it and of the terminal's session. Not before: autofs lets
/// only processes of automount's own group pass to where it is about to have something mounted.
pub(super) fn report(outcome: Result<(), Failure>) {
    let report = match outcome {
        Ok(()) => Report::Ready,
        Err(failure) => Report::Failed(failure),
    };
    REPORTED.store(true, Ordering::Release);
    // It is the leader of a session only if somebody made it one.
    let _leads_already = rustix::process::setsid();
    // A parent that is gone does not want to know; the mount serves all the same.
    drop(say(&report));
    if let Ok(null) = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")
    {
        let _ = rustix::stdio::dup2_stdin(&null);
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Reads a secret up to the end of its line or of the input; none if nothing is there.
pub(super) fn read_secret(input: &mut dyn BufRead) -> io::Result<Option<Secret>> {
    let mut text = String::new();
    input.take(LINE_MAX_BYTES).read_line(&mut text)?;
    let password = text.strip_suffix('\n').unwrap_or(&text);
    let password = password.strip_suffix('\r').unwrap_or(password);
    Ok((!password.is_empty()).then(|| Secret::new(password.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waited(script: &str) -> Result<(), Failure> {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        wait(&mut child, None, Path::new("/s"))
    }

    #[test]
    fn the_parent_learns_how_it_went() {
        assert_eq!(waited(r#"echo '"ready"'; sleep 0"#), Ok(()));
        let failure = Failure::new(Code::Authentication, "refused").remedy("use a key");
        let line = serde_json::to_string(&Report::Failed(failure.clone())).unwrap();
        assert_eq!(waited(&format!("echo '{line}'; exit 6")), Err(failure));
    }

    #[test]
    fn a_child_that_dies_without_a_word_is_a_failure_that_names_the_log() {
        for script in ["exit 7", "kill -9 $$", "echo gibberish"] {
            let failure = waited(script).unwrap_err();
            assert!(failure.message.contains("ended before"), "{failure}");
            assert_eq!(failure.remedy.as_deref(), Some("its log: /s/daemon.log"));
        }
    }

    #[test]
    fn passwords_end_with_their_line() {
        let read = |mut text: &[u8]| {
            let secret = read_secret(&mut text).unwrap();
            secret.map(|secret| secret.reveal().to_owned())
        };
        assert_eq!(read(b"a b \nrest"), Some("a b ".to_owned()));
        assert_eq!(read(b"a\r\n"), Some("a".to_owned()));
        assert_eq!(read(b"a"), Some("a".to_owned()));
        assert_eq!(read(b"\n"), None);
        assert_eq!(read(b""), None);
    }

    #[test]
    fn a_long_log_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        open_log(dir.path())
            .unwrap()
            .set_len(LOG_MAX_BYTES + 1)
            .unwrap();
        assert_eq!(open_log(dir.path()).unwrap().metadata().unwrap().len(), 0);
        assert!(dir.path().join("daemon.log.old").exists());
    }
}
