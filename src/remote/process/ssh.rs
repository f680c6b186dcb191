//! The system's `ssh` as a transport: what it is told, and what its words mean.
//!
//! Everything in ssh_config holds, since `ssh` reads it. The command line adds what a session needs, what was set for
//! this home, and what is wanted nowhere: forwarding, a terminal, local commands.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::connect::{no_sftp, unreachable};
use super::super::{ConnectError, HostKeyPolicy, Limits, Line, Remote, SecretSource, SftpConfig};
use super::askpass::Askpass;
use super::{Ended, Opening, Program, open};

/// How long a person may take to answer what `ssh` asks.
const PERSON: Duration = Duration::from_secs(180);
/// How long `ssh` may take for a jump, a ticket and a login by itself.
const LOGIN: Duration = Duration::from_secs(30);
/// What holds for all users.
const CONFIG: &str = "/etc/ssh/ssh_config";
/// What `ssh` exits with when it, not the remote program, failed.
const SSH_FAILED: i32 = 255;

/// What `ssh` has instead of what is in the home of its user, which it is to reach.
#[derive(Debug, Clone)]
pub struct Apart {
    /// Where libraries look for what people have in their homes.
    pub home: PathBuf,
    /// The Kerberos ticket, if there is such a file; otherwise krb5.conf says where it is.
    pub ticket: PathBuf,
    /// The keys of servers that were learnt.
    pub known_hosts: PathBuf,
}

/// How to connect by `ssh`.
#[derive(Clone)]
pub struct SshProgram {
    /// The program and its first arguments; never empty.
    pub command: Vec<String>,
    /// The login name, if it was named.
    pub user: Option<String>,
    /// The host, as `ssh` knows it.
    pub host: String,
    /// The port, if it was named.
    pub port: Option<u16>,
    /// The home.
    pub path: String,
    /// The only key to log in with, if one was set.
    pub identity: Option<PathBuf>,
    /// The file of known host keys, if one was set.
    pub known_hosts: Option<PathBuf>,
    /// Whether a new host is trusted; otherwise ssh_config says.
    pub host_key_policy: HostKeyPolicy,
    /// Answers what `ssh` asks; without, it asks nobody.
    pub secrets: Option<SecretSource>,
    /// Answers what it asks by being run: this program, which calls [`super::answer_ssh`] then.
    pub askpass: PathBuf,
    /// Sessions: one for those who wait, the rest for bulk. Each is an `ssh` of its own, which is cheap where ssh_config
    /// sets up a `ControlMaster`.
    pub sessions: usize,
    /// A server that owes an answer and says nothing for this long is given up.
    pub silence: Duration,
    /// How fast content may go.
    pub limits: Limits,
    /// Whether to compress; if not, ssh_config says.
    pub compress: bool,
    /// For a home that is mounted as the home of its user.
    pub apart: Option<Apart>,
}

impl SshProgram {
    fn argv(&self, asks: bool) -> Vec<OsString> {
        let mut argv: Vec<OsString> = self.command.iter().map(OsString::from).collect();
        let mut option = |key: &str, value: &str| argv.push(format!("-o{key}={value}").into());
        option("BatchMode", if asks { "no" } else { "yes" });
        for (key, value) in [
            ("ForwardX11", "no"),
            ("ForwardAgent", "no"),
            ("ClearAllForwardings", "yes"),
            ("PermitLocalCommand", "no"),
            ("RemoteCommand", "none"),
            ("RequestTTY", "no"),
            ("ConnectTimeout", "10"),
            // A dead link is noticed although nothing is asked.
            ("ServerAliveInterval", "3"),
            ("ServerAliveCountMax", "2"),
        ] {
            option(key, value);
        }
        if self.compress {
            option("Compression", "yes");
        }
        if asks {
            option("NumberOfPasswordPrompts", "1");
        }
        if self.host_key_policy == HostKeyPolicy::AcceptNew {
            option("StrictHostKeyChecking", "accept-new");
        }
        let learnt = self.apart.as_ref().map(|apart| &apart.known_hosts);
        for (key, path) in [
            ("UserKnownHostsFile", self.known_hosts.as_ref().or(learnt)),
            ("IdentityFile", self.identity.as_ref()),
        ] {
            if let Some(path) = path {
                let path = path.to_string_lossy().replace('%', "%%");
                option(key, &format!("\"{path}\""));
            }
        }
        if self.apart.is_some() && self.identity.is_none() {
            option("IdentityFile", "none");
        }
        if self.identity.is_some() {
            option("IdentitiesOnly", "yes");
        }
        if let Some(port) = self.port {
            option("Port", &port.to_string());
        }
        if let Some(user) = &self.user {
            option("User", user);
        }
        let names_config = self.command.iter().any(|word| word.starts_with("-F"));
        if self.apart.is_some() && !names_config {
            // The system's, without the user's before it.
            let config = if Path::new(CONFIG).exists() {
                CONFIG
            } else {
                "none"
            };
            argv.push(format!("-F{config}").into());
        }
        argv.extend(["-s", "--", &self.host, "sftp"].map(OsString::from));
        argv
    }

    /// What is added to the environment, for the account's own libraries.
    fn env(&self) -> Vec<(OsString, OsString)> {
        let Some(apart) = &self.apart else {
            return Vec::new();
        };
        let mut env = vec![("HOME".into(), apart.home.clone().into())];
        if apart.ticket.exists() {
            let mut name = OsString::from("FILE:");
            name.push(&apart.ticket);
            env.push(("KRB5CCNAME".into(), name));
        }
        env
    }
}

/// Connects by `ssh`.
pub async fn connect_ssh(ssh: &SshProgram) -> Result<Remote, ConnectError> {
    let askpass = match &ssh.secrets {
        Some(secrets) => Some(Askpass::start(secrets.clone()).map_err(|source| {
            let what = "a socket for what ssh asks".to_owned();
            ConnectError::Io { what, source }
        })?),
        None => None,
    };
    let program = |asks: Option<&Askpass>| Program {
        argv: ssh.argv(asks.is_some()),
        env: [
            ssh.env(),
            asks.map_or_else(Vec::new, |askpass| askpass.env(&ssh.askpass)),
        ]
        .concat(),
    };
    let config = SftpConfig {
        root: ssh.path.clone().into_bytes(),
        silence: ssh.silence,
        line: Line::new(&ssh.limits),
        ..SftpConfig::default()
    };
    let opening = Opening {
        host: &ssh.host,
        config: &config,
        sessions: ssh.sessions,
        greeting: if askpass.is_some() { PERSON } else { LOGIN },
        transport: "ssh",
    };
    let first = program(askpass.as_ref());
    // What was asked once cannot be told twice.
    let others = || program(askpass.as_ref().filter(|askpass| !askpass.asked_once()));
    let opened = open(&opening, &first, others, |ended| explain(ssh, &ended));
    match &askpass {
        None => opened.await,
        // Nobody answered: ssh would try an empty password, and be counted as an attack.
        Some(askpass) => tokio::select! {
            biased;
            opened = opened => opened,
            question = askpass.unanswered() => Err(ConnectError::AuthRefused {
                host: ssh.host.clone(),
                user: ssh.user.clone().unwrap_or_else(|| "you".to_owned()),
                tried: vec![format!("ssh, which asks {question:?}")],
                locked: None,
            }),
        },
    }
}

/// What the end of `ssh` means. Its words are all that there is to go by.
fn explain(ssh: &SshProgram, ended: &Ended) -> ConnectError {
    let host = ssh.host.as_str();
    let says = |words: &str| ended.said.iter().rev().find(|line| line.contains(words));
    let any = |all: &[&str]| all.iter().find_map(|words| says(words));
    if let Some(line) = any(&["Permission denied (", "Too many authentication failures"]) {
        return ConnectError::AuthRefused {
            host: host.to_owned(),
            user: ssh.user.clone().unwrap_or_else(|| "you".to_owned()),
            tried: vec![format!("ssh, which says {line:?}")],
            locked: None,
        };
    }
    if let Some(line) = any(&[
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "Host key verification failed",
        "host key is known for",
    ]) {
        return ConnectError::HostKeyRefused {
            host: host.to_owned(),
            reason: line.trim_matches(['@', ' ']).to_owned(),
        };
    }
    if let Some(line) = any(&["subsystem request failed", "sftp-server: "]) {
        return no_sftp(host, line);
    }
    if let Some(line) = any(&[
        "Bad configuration option",
        "bad configuration options",
        "Bad owner or permissions",
        "unknown option",
        "usage: ssh",
    ]) {
        return ConnectError::Refusing {
            program: "ssh".to_owned(),
            reason: line.clone(),
        };
    }
    match ended.code() {
        Some(SSH_FAILED) | None => unreachable(host, ended.reason()),
        // Whatever else it is, it is the remote program's.
        Some(_) => no_sftp(host, ended.reason()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{ErrorKind, RemoteError};
    use super::*;
    use crate::tree::RelPath;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    fn ssh() -> SshProgram {
        SshProgram {
            command: vec!["ssh".into(), "-F".into(), "/c".into()],
            user: Some("ann".into()),
            host: "nas".into(),
            port: Some(2222),
            path: "/h".into(),
            identity: Some("/a b/100%".into()),
            known_hosts: None,
            host_key_policy: HostKeyPolicy::AcceptNew,
            secrets: None,
            askpass: "/p".into(),
            sessions: 2,
            silence: Duration::from_secs(1),
            limits: Limits::default(),
            compress: false,
            apart: None,
        }
    }

    #[test]
    fn ssh_is_told_what_was_set_after_what_the_user_says() {
        let argv = ssh().argv(false).join(&OsString::from(" "));
        let argv = argv.to_str().unwrap();
        assert!(argv.starts_with("ssh -F /c -oBatchMode=yes "), "{argv}");
        assert!(argv.ends_with(" -s -- nas sftp"), "{argv}");
        for part in [
            "-oUser=ann",
            "-oPort=2222",
            "-oIdentityFile=\"/a b/100%%\"",
            "-oIdentitiesOnly=yes",
            "-oStrictHostKeyChecking=accept-new",
            "-oForwardAgent=no",
        ] {
            assert!(argv.contains(part), "{argv} lacks {part}");
        }
        let quiet = SshProgram {
            user: None,
            port: None,
            identity: None,
            host_key_policy: HostKeyPolicy::Strict,
            ..ssh()
        };
        let argv = quiet.argv(true).join(&OsString::from(" "));
        let argv = argv.to_str().unwrap();
        for part in ["-oUser=", "-oPort=", "-oIdentit", "-oStrict", "KnownHosts"] {
            assert!(!argv.contains(part), "{argv} has {part}");
        }
    }

    #[test]
    fn ssh_that_reaches_the_home_it_runs_in_looks_for_nothing_there() {
        let dir = tempfile::tempdir().unwrap();
        let apart = Apart {
            home: dir.path().to_owned(),
            ticket: dir.path().join("krb5cc"),
            known_hosts: "/s/known_hosts".into(),
        };
        let mut ssh = SshProgram {
            command: vec!["ssh".into()],
            identity: None,
            apart: Some(apart.clone()),
            ..ssh()
        };
        let argv = |ssh: &SshProgram| ssh.argv(false).join(&OsString::from(" "));
        let text = argv(&ssh).into_string().unwrap();
        for part in [
            "-F/etc/ssh/ssh_config -s -- nas",
            "-oUserKnownHostsFile=\"/s/known_hosts\"",
            "-oIdentityFile=none",
        ] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        ssh.command = vec!["ssh".into(), "-F/c".into()];
        ssh.identity = Some("/key".into());
        let text = argv(&ssh).into_string().unwrap();
        assert!(
            !text.contains("ssh_config") && !text.contains("IdentityFile=none"),
            "{text}"
        );

        let names = |ssh: &SshProgram| {
            ssh.env()
                .into_iter()
                .map(|(name, _)| name)
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&ssh), ["HOME"]);
        std::fs::write(&apart.ticket, "").unwrap();
        assert_eq!(names(&ssh), ["HOME", "KRB5CCNAME"]);
        ssh.apart = None;
        assert!(names(&ssh).is_empty());
    }

    #[test]
    fn each_end_of_ssh_means_something() {
        for (code, said, meant) in [
            (
                255,
                "ann@nas: Permission denied (publickey).",
                "nas refuses ann",
            ),
            (255, "Host key verification failed.", "host key of nas"),
            (
                255,
                "ssh: Could not resolve hostname nas: Name or service not known",
                "nas cannot be reached",
            ),
            (
                255,
                "ssh: connect to host nas port 22: Connection refused",
                "nas cannot be reached",
            ),
            (
                255,
                "subsystem request failed on channel 0",
                "nas offers no SFTP",
            ),
            (
                255,
                "command-line: line 0: Bad configuration option: x",
                "ssh",
            ),
            (
                127,
                "sh: sftp-server: command not found",
                "nas offers no SFTP",
            ),
        ] {
            let ended = Ended {
                error: RemoteError::new(ErrorKind::Disconnected, "init", &RelPath::root(), "x"),
                status: Some(ExitStatus::from_raw(code << 8)),
                said: vec!["Warning: first".into(), said.into()],
            };
            let error = explain(&ssh(), &ended);
            let text = error.to_string();
            assert!(
                text.contains(meant) && text.contains(said.trim_end_matches('.')),
                "{text}"
            );
            let waits = meant.contains("reached");
            assert_eq!(error.needs_person(), !waits, "{text}");
        }
    }
}
