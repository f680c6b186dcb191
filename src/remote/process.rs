//! Sessions over programs that speak SFTP on their standard streams: the system's `ssh`, or any other.
//!
//! Each session has a program of its own, in a process group of its own, so that whatever it starts (a proxy, a jump) ends
//! with it, and a Ctrl-C at a terminal does not reach it. The programs end with the connection. What they say on
//! standard error is what people are told when there is no session.

mod askpass;
mod ssh;

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::connect::{no_sftp, only_session, settle_root, start_error, unreachable};
use super::{About, ConnectError, Limits, Line, Remote, RemoteError, SftpConfig, SftpSession};

pub use self::askpass::answer as answer_ssh;
pub use self::ssh::{Apart, SshProgram, connect_ssh};

/// How long a program that ended its output may take to end, and to say why.
const END: Duration = Duration::from_secs(2);
/// The last lines of what a program says that are kept, and how much of each.
const LINES_MAX: usize = 12;
const LINE_MAX: u64 = 1024;

/// A program to run for each session.
#[derive(Debug, Clone)]
pub(super) struct Program {
    /// The program and its arguments; never empty.
    pub(super) argv: Vec<OsString>,
    /// What is added to its environment.
    pub(super) env: Vec<(OsString, OsString)>,
}

impl Program {
    fn shown(&self) -> String {
        let program = self.argv.first().map(OsString::as_os_str);
        program.unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// A running program; killed with all that it started when dropped.
struct Process {
    child: Child,
    said: Said,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once it was waited for, its number may be another's.
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = pid.and_then(Pid::from_raw) {
            // It may have ended on its own. The runtime waits for it (`kill_on_drop`).
            let _ended = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The end of what a program said on standard error.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<VecDeque<String>>>);

impl Said {
    fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }

    fn add(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        if line.trim().is_empty() {
            return;
        }
        tracing::debug!(line, "a transport's program says");
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push_back(line);
        if lines.len() > LINES_MAX {
            lines.pop_front();
        }
    }

    async fn listen(self, stderr: ChildStderr) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut limited = (&mut reader).take(LINE_MAX);
            match limited.read_until(b'\n', &mut line).await {
                Ok(1..) => self.add(&line),
                // Its end, or nothing that could be told to anybody.
                Ok(0) | Err(_) => return,
            }
        }
    }
}

/// A program that did not come to a session.
struct Ended {
    /// How the conversation failed.
    error: RemoteError,
    /// How the program ended; nothing if it had to be killed.
    status: Option<ExitStatus>,
    /// The last that it said.
    said: Vec<String>,
}

impl Ended {
    /// Its last words, or how it ended.
    fn reason(&self) -> String {
        match (self.said.last(), self.status) {
            (Some(line), _) => line.clone(),
            (None, Some(status)) => format!("it ended with {status}"),
            (None, None) => self.error.message.clone(),
        }
    }

    fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }
}

/// Starts `program`, and greets the server behind it.
async fn start(
    program: &Program,
    config: &SftpConfig,
    greeting: Duration,
) -> Result<(Process, SftpSession), Failed> {
    let (Some(name), args) = (program.argv.first(), program.argv.get(1..)) else {
        return Err(Failed::Start(io::ErrorKind::NotFound.into()));
    };
    let mut child = Command::new(name)
        .args(args.unwrap_or_default())
        .envs(program.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Failed::Start)?;
    let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let said = Said::default();
    let mut process = Process { child, said };
    let (Some(writer), Some(reader), Some(stderr)) = streams else {
        return Err(Failed::Start(io::ErrorKind::BrokenPipe.into()));
    };
    let listening = tokio::spawn(process.said.clone().listen(stderr));
    match SftpSession::greet(reader, writer, config.clone(), greeting).await {
        Ok(session) => Ok((process, session)),
        Err(error) => {
            let status = match timeout(END, process.child.wait()).await {
                Ok(status) => status.ok(),
                Err(_) => None,
            };
            // What it started may hold standard error open for longer.
            drop(timeout(END, listening).await);
            Err(Failed::Ended(Ended {
                error,
                status,
                said: process.said.lines(),
            }))
        }
    }
}

enum Failed {
    /// The program cannot be started.
    Start(io::Error),
    /// It was started, and ended.
    Ended(Ended),
}

/// How to hold the sessions of one connection.
struct Opening<'a> {
    /// For errors to name.
    host: &'a str,
    config: &'a SftpConfig,
    sessions: usize,
    /// How long the first one may take to greet.
    greeting: Duration,
    transport: &'static str,
}

/// Opens a connection of some sessions: the first alone, then the others side by side. One is enough.
async fn open(
    opening: &Opening<'_>,
    first: &Program,
    others: impl FnOnce() -> Program,
    explain: impl Fn(Ended) -> ConnectError,
) -> Result<Remote, ConnectError> {
    let Opening {
        host,
        config,
        sessions,
        greeting,
        transport,
    } = *opening;
    let shown = first.shown();
    let not_started = |source| ConnectError::Program {
        program: shown.clone(),
        source,
    };
    let path = String::from_utf8_lossy(&config.root).into_owned();
    let started = start(first, config, greeting).await;
    let (process, mut session) = started.map_err(|failed| match failed {
        Failed::Start(source) => not_started(source),
        Failed::Ended(ended) => explain(ended),
    })?;
    let mut config = config.clone();
    config.root = settle_root(&mut session, host, &path).await?;
    // Several programs may share one connection (`ControlMaster`).
    let only = only_session(&session, b"");
    let about = About {
        transport,
        one_session: only.is_some(),
        fewer_sessions: only.unwrap_or_default().to_owned(),
        ..About::default()
    };
    let others = others();
    let wanted = only.map_or(sessions, |_| 1);
    let rest = (1..wanted).map(|_| start(&others, &config, greeting));
    let mut processes = vec![process];
    let mut bulk = Vec::new();
    for started in join_all(rest).await {
        match started {
            Ok((process, session)) => {
                processes.push(process);
                bulk.push(session);
            }
            Err(Failed::Ended(ended)) => {
                tracing::info!(host, reason = ended.reason(), "one session less");
            }
            Err(Failed::Start(error)) => tracing::info!(host, %error, "one session less"),
        }
    }
    Ok(Remote::over(session, bulk, processes).with_about(about))
}

/// Runs `argv` once per session and speaks SFTP over its standard streams: OpenSSH's `sftp-server` itself, as another
/// user, in a container.
pub async fn connect_command<S: AsRef<OsStr>>(
    argv: &[S],
    config: &SftpConfig,
    sessions: usize,
) -> Result<Remote, ConnectError> {
    let program = Program {
        argv: argv.iter().map(|arg| arg.as_ref().to_owned()).collect(),
        env: Vec::new(),
    };
    let shown = program.shown();
    let opening = Opening {
        host: &shown,
        config,
        sessions,
        greeting: config.silence,
        transport: "command",
    };
    let explain = |ended: Ended| match ended.status {
        None => start_error(ended.error, &shown),
        Some(_) => unreachable(&shown, ended.reason()),
    };
    open(&opening, &program, || program.clone(), explain).await
}

/// A home in a directory of this machine.
#[derive(Debug, Clone)]
pub struct LocalHome {
    /// The program that serves it ([`super::serve_directory`]) and its arguments, before the path. It is one of its own,
    /// so that a disk or a network's file system that hangs does not hang its client.
    pub server: Vec<OsString>,
    /// The program's exit status when the directory is not there.
    pub away_status: i32,
    /// The directory.
    pub path: String,
    /// Sessions: one for those who wait, the rest for bulk.
    pub sessions: usize,
    /// A disk that says nothing for this long is given up.
    pub silence: Duration,
    /// How fast content may go.
    pub limits: Limits,
}

/// Opens a home in a directory of this machine.
pub async fn connect_local(home: &LocalHome) -> Result<Remote, ConnectError> {
    let path = home.path.as_str();
    let mut argv = home.server.clone();
    argv.push(path.into());
    let program = Program {
        argv,
        env: Vec::new(),
    };
    let config = SftpConfig {
        root: b"/".to_vec(),
        silence: home.silence,
        line: Line::new(&home.limits),
        ..SftpConfig::default()
    };
    let opening = Opening {
        host: path,
        config: &config,
        sessions: home.sessions,
        greeting: home.silence,
        transport: "local",
    };
    let explain = |ended: Ended| {
        let reason = ended.reason();
        let reason = reason.strip_prefix("roamhome: ").unwrap_or(&reason);
        match ended.code() {
            Some(status) if status == home.away_status => ConnectError::Away {
                path: path.to_owned(),
                reason: reason.to_owned(),
            },
            Some(_) => no_sftp(path, reason),
            None => unreachable(path, reason),
        }
    };
    open(&opening, &program, || program.clone(), explain).await
}

#[cfg(test)]
mod tests;
