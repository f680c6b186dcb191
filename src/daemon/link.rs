//! How the daemon gets its connections: the options of each transport out of the configuration, and errors as people and
//! scripts get them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::secrets::{self, Asked};
use super::{Access, Asker, SERVE_COMMAND, SERVE_KNOWN, Secret, Secrets, enrol};
use crate::clock;
use crate::config::{Compression, Config, HostKeyPolicy, Place, Timetable, Way};
use crate::control::{Code, Failure};
use crate::engine::{Connect, LinkError};
use crate::login::TICKET;
use crate::remote::{
    self, Apart, ConnectError, ConnectOptions, Limits, Line, LineFacts, LocalHome, Rate, Remote,
    SftpConfig, SshProgram,
};
use crate::replica::Replica;

/// A server that owes an answer and says nothing for this long is given up, so that a dead link is noticed within 10 s.
const SILENCE: Duration = Duration::from_secs(9);

/// A line that passes fewer bytes in a second is worth compressing on: a server's compression makes some 20 MB/s.
const SLOW: u64 = 3_000_000;

/// Servers' keys that were learnt for a home that is mounted at login, in its state directory.
const KNOWN_HOSTS: &str = "known_hosts";
/// Those that the administrator knows.
const GLOBAL_KNOWN_HOSTS: &str = "/etc/ssh/ssh_known_hosts";

/// Connects to one home.
pub(super) struct Connector {
    access: Access,
    /// A password that was typed after the daemon had started.
    password: Mutex<Option<Secret>>,
    state_dir: PathBuf,
    /// A connection made before the engine was there.
    ready: Mutex<Option<Remote>>,
    /// The connection that was made last, which knows how fast its line is.
    last: Mutex<Option<Arc<Line>>>,
}

impl Connector {
    pub(super) fn new(access: &Access, state_dir: &Path) -> Self {
        Self {
            access: access.clone(),
            password: Mutex::default(),
            state_dir: state_dir.to_owned(),
            ready: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// A line is compressed on if it was slow, and then stays so: what it passes is no longer what it is.
    fn compresses(&self) -> bool {
        match self.access.config.compression {
            Compression::On => true,
            Compression::Off => false,
            Compression::Auto => {
                let last = lock(&self.last).as_ref().map(|line| line.facts());
                last.is_some_and(|last| is_worth_compressing(&last))
            }
        }
    }

    /// Connects now, and keeps the connection for the engine's first call.
    pub(super) async fn prepare(&self) -> Result<(), Failure> {
        let made = self.make().await.map_err(|e| failure(&e))?;
        *lock(&self.ready) = Some(made);
        Ok(())
    }

    /// The next connection may use this password.
    pub(super) fn set_password(&self, password: Secret) {
        *lock(&self.password) = Some(password);
    }

    /// Whether somebody typed a password.
    pub(super) fn has_password(&self) -> bool {
        self.access.secrets.password.is_some() || lock(&self.password).is_some()
    }

    /// How to get in now.
    fn access(&self) -> Access {
        let mut access = self.access.clone();
        if let Some(password) = lock(&self.password).clone() {
            access.secrets.password = Some(password);
        }
        access
    }

    /// A connection of its own to where the server lets the account in; by this key alone, if there is one.
    pub(super) async fn log_in(&self, by: Option<&Path>) -> Result<Remote, ConnectError> {
        let mut access = self.access();
        access.config.channels = 1;
        match &mut access.way {
            Way::Russh(place) | Way::Ssh { place, .. } => place.path.clear(),
            Way::Command { path, .. } | Way::Local(path) => path.clear(),
        }
        if let Some(key) = by {
            access.secrets = Secrets::default();
            access.asker = Asker::default();
            access.config.identity = Some(key.to_owned());
            access.state_dir = None;
        }
        open(&access, false, false).await
    }

    async fn make(&self) -> Result<Remote, ConnectError> {
        let known = Replica::is_known(&self.state_dir);
        let access = self.access();
        let made = open(&access, known, self.compresses()).await?;
        *lock(&self.last) = made.shared_line();
        Ok(made)
    }
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self) -> Result<Remote, LinkError> {
        let ready = lock(&self.ready).take();
        if let Some(ready) = ready.filter(|ready| !ready.is_closed()) {
            return Ok(ready);
        }
        self.make().await.map_err(|error| {
            let Failure {
                message, remedy, ..
            } = failure(&error);
            LinkError {
                message,
                remedy: remedy.unwrap_or_default(),
                needs_person: error.needs_person(),
            }
        })
    }
}

/// Opens a connection; `known` is whether this home was there before.
pub(super) async fn open(
    access: &Access,
    known: bool,
    compress: bool,
) -> Result<Remote, ConnectError> {
    let sessions = usize::from(access.config.channels);
    match &access.way {
        Way::Russh(place) => {
            let target = russh_target(access, place);
            let options = ConnectOptions {
                compress,
                ..russh_options(access)
            };
            remote::connect(&target, &options).await
        }
        Way::Ssh { command, place } => {
            let program = SshProgram {
                compress,
                ..ssh_program(access, command, place)
            };
            remote::connect_ssh(&program).await
        }
        Way::Command { command, path } => {
            let config = SftpConfig {
                root: path.clone().into_bytes(),
                silence: SILENCE,
                line: Line::new(&limits(&access.config)),
                ..SftpConfig::default()
            };
            remote::connect_command(command, &config, sessions).await
        }
        Way::Local(path) => {
            let mut server = vec!["/proc/self/exe".into(), SERVE_COMMAND.into()];
            server.extend(known.then(|| format!("--{SERVE_KNOWN}").into()));
            let home = LocalHome {
                server,
                away_status: i32::from(Code::Unreachable.status()),
                path: path.clone(),
                sessions,
                silence: SILENCE,
                limits: limits(&access.config),
            };
            remote::connect_local(&home).await
        }
    }
}

fn is_worth_compressing(line: &LineFacts) -> bool {
    let limited = line.up.is_some() || line.down.is_some();
    line.compressed || !limited && line.pace.is_some_and(|pace| pace < SLOW)
}

fn limits(config: &Config) -> Limits {
    Limits {
        up: rate(&config.bandwidth_up),
        down: rate(&config.bandwidth_down),
    }
}

/// What a timetable says at the time.
fn rate(table: &Timetable) -> Rate {
    let table = table.clone();
    Rate::new(move || table.at(clock::minute_of_day()))
}

/// What people are told of a line that is up.
pub(super) fn describe(line: &LineFacts) -> String {
    let mut parts = Vec::new();
    if let Some(round_trip) = line.round_trip {
        parts.push(format!("{:.1} ms away", round_trip.as_secs_f64() * 1000.0));
    }
    for (rate, which) in [(line.up, "up"), (line.down, "down")] {
        if let Some(rate) = rate {
            let megabytes = rate as f64 / 1e6;
            parts.push(format!("at most {megabytes} MB/s {which}"));
        }
    }
    if let Some(pace) = line.pace {
        parts.push(format!("{:.1} MB/s when full", pace as f64 / 1e6));
    }
    if !line.cipher.is_empty() {
        parts.push(line.cipher.clone());
    }
    if line.compressed {
        parts.push("compressed".to_owned());
    }
    parts.join(", ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A key that our own SSH would try but is locked.
pub(super) fn locked_identity(access: &Access) -> Option<PathBuf> {
    let passphrase = access.secrets.passphrase.as_ref().map(Secret::reveal);
    remote::locked_identity(&russh_options(access), passphrase)
}

fn host_key_policy(access: &Access) -> remote::HostKeyPolicy {
    match access.config.host_key_policy {
        HostKeyPolicy::Strict => remote::HostKeyPolicy::Strict,
        HostKeyPolicy::AcceptNew => remote::HostKeyPolicy::AcceptNew,
    }
}

fn russh_target(access: &Access, place: &Place) -> remote::Target {
    remote::Target {
        user: Some(place.user.as_ref().unwrap_or(&access.user).clone()),
        host: place.host.clone(),
        port: place.port(),
        path: place.path.clone(),
    }
}

fn russh_options(access: &Access) -> ConnectOptions {
    let config = &access.config;
    let mut options = ConnectOptions {
        channels: usize::from(config.channels),
        silence: SILENCE,
        host_key_policy: host_key_policy(access),
        secrets: secrets::source(&access.secrets, &access.asker, Asked::Questions),
        limits: limits(config),
        ..ConnectOptions::default()
    };
    if let Some(identity) = &config.identity {
        options.identities = vec![identity.clone()];
        options.default_identities = false;
        options.agent = false;
    }
    let own = access.state_dir.as_deref();
    options.identities.extend(own.map(enrol::key_file));
    if access.for_login {
        // What is in the home would be asked for before it is there, or through its own mount.
        options.default_identities = false;
        options.agent = false;
        let learnt = own.map(|dir| dir.join(KNOWN_HOSTS));
        let global = PathBuf::from(GLOBAL_KNOWN_HOSTS);
        options.known_hosts = learnt.into_iter().chain([global]).collect();
    }
    if let Some(known_hosts) = &config.known_hosts {
        options.known_hosts = vec![known_hosts.clone()];
    }
    options
}

fn ssh_program(access: &Access, command: &[String], place: &Place) -> SshProgram {
    let config = &access.config;
    SshProgram {
        command: command.to_vec(),
        user: place.user.clone(),
        host: place.host.clone(),
        port: place.port,
        path: place.path.clone(),
        identity: config.identity.clone(),
        known_hosts: config.known_hosts.clone(),
        host_key_policy: host_key_policy(access),
        secrets: secrets::source(&access.secrets, &access.asker, Asked::Everything),
        // By our number, since the file may have been replaced since we started.
        askpass: format!("/proc/{}/exe", std::process::id()).into(),
        sessions: usize::from(config.channels),
        silence: SILENCE,
        limits: limits(config),
        compress: false,
        apart: access
            .state_dir
            .as_deref()
            .filter(|_| access.for_login && !rustix::process::geteuid().is_root())
            .map(|dir| Apart {
                home: dir.to_owned(),
                ticket: dir.join(TICKET),
                known_hosts: dir.join(KNOWN_HOSTS),
            }),
    }
}

/// A failed connection with its remedy and its exit status.
pub(super) fn failure(error: &ConnectError) -> Failure {
    if let ConnectError::AuthRefused {
        locked: Some(identity),
        ..
    } = error
    {
        let remedy = format!("unlock the key first: ssh-add '{}'", identity.display());
        return Failure::new(Code::Authentication, error.to_string()).remedy(remedy);
    }
    let (code, remedy) = match error {
        ConnectError::Unreachable { .. } => (
            Code::Unreachable,
            "check the network and the server's name and port; a home that was mounted here before comes up without the server",
        ),
        ConnectError::HostKeyUnknown { remedy, .. }
        | ConnectError::HostKeyChanged { remedy, .. } => (Code::HostKey, remedy.as_str()),
        ConnectError::HostKeyRefused { .. } => (
            Code::HostKey,
            "compare the key with what the server's administrator says, then run `ssh` by hand once to trust it",
        ),
        ConnectError::HostCertificate { .. } => (
            Code::HostKey,
            "ask the server's administrator for a new host certificate",
        ),
        ConnectError::HostKeyRevoked { .. } => (
            Code::HostKey,
            "do not connect: ask the server's administrator for its new key",
        ),
        ConnectError::AuthRefused { .. } => (
            Code::Authentication,
            "give a key with --identity FILE, load it into ssh-agent, or give a password with --password-fd",
        ),
        ConnectError::NoSftp { .. } => (
            Code::ServerPath,
            "enable the sftp subsystem in the server's sshd_config",
        ),
        ConnectError::Away { .. } => (
            Code::Unreachable,
            "plug its disk in and mount it; a home that was mounted here before comes up without",
        ),
        ConnectError::Program { .. } => (
            Code::Usage,
            "install it, or correct ssh_command or sftp_command; see `roamhome config`",
        ),
        ConnectError::Refusing { .. } => (Code::Usage, "correct ssh_config or ssh_command"),
        ConnectError::HomeMissing { .. } => (
            Code::ServerPath,
            "create the directory on the server, or correct the path",
        ),
        ConnectError::HomeNotDirectory { .. } | ConnectError::HomeRefused { .. } => (
            Code::ServerPath,
            "give the path of a directory that this user may read and write",
        ),
        ConnectError::Io { .. } => (Code::General, "see the message"),
    };
    Failure::new(code, error.to_string()).remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_lines_are_compressed_on_and_stay_so() {
        let line = |pace, up, compressed| LineFacts {
            pace,
            up,
            compressed,
            ..LineFacts::default()
        };
        for (line, worth) in [
            (line(None, None, false), false),
            (line(Some(1_000_000), None, false), true),
            (line(Some(50_000_000), None, false), false),
            // What goes slowly since it was told to says nothing of the line.
            (line(Some(1_000_000), Some(1_000_000), false), false),
            (line(Some(9_000_000), None, true), true),
        ] {
            assert_eq!(is_worth_compressing(&line), worth, "{line:?}");
        }
    }

    #[test]
    fn people_are_told_what_holds() {
        let line = LineFacts {
            round_trip: Some(Duration::from_micros(20_340)),
            up: Some(2_000_000),
            down: None,
            pace: Some(1_950_000),
            cipher: "aes128-gcm@openssh.com".into(),
            compressed: true,
        };
        let said = "20.3 ms away, at most 2 MB/s up, 1.9 MB/s when full, aes128-gcm@openssh.com, compressed";
        assert_eq!(describe(&line), said);
        assert_eq!(describe(&LineFacts::default()), "");
    }
}
