//! How the daemon gets its connections: the options of each transport out of the configuration, and errors as people and
//! scripts get them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::secrets::{self, Asked};
use super::{Access, SERVE_COMMAND, SERVE_KNOWN, Secret};
use crate::config::{HostKeyPolicy, Place, Way};
use crate::control::{Code, Failure};
use crate::engine::{Connect, LinkError};
use crate::remote::{
    self, ConnectError, ConnectOptions, LocalHome, Remote, SftpConfig, SshProgram,
};
use crate::replica::Replica;

/// A server that owes an answer and says nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// Connects to one home.
pub(super) struct Connector {
    access: Access,
    state_dir: PathBuf,
    /// A connection made before the engine was there.
    ready: Mutex<Option<Remote>>,
}

impl Connector {
    pub(super) fn new(access: &Access, state_dir: &Path) -> Self {
        Self {
            access: access.clone(),
            state_dir: state_dir.to_owned(),
            ready: Mutex::default(),
        }
    }

    /// Connects now, and keeps the connection for the engine's first call.
    pub(super) async fn prepare(&self) -> Result<(), Failure> {
        let made = self.open().await.map_err(|e| failure(&e))?;
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(())
    }

    async fn open(&self) -> Result<Remote, ConnectError> {
        open(&self.access, Replica::is_known(&self.state_dir)).await
    }
}

#[async_trait]
impl Connect for Connector {
    async fn connect(&self) -> Result<Remote, LinkError> {
        let ready = self
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(ready) = ready.filter(|ready| !ready.is_closed()) {
            return Ok(ready);
        }
        self.open().await.map_err(|error| {
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
pub(super) async fn open(access: &Access, known: bool) -> Result<Remote, ConnectError> {
    let sessions = usize::from(access.config.channels);
    match &access.way {
        Way::Russh(place) => {
            let target = russh_target(access, place);
            remote::connect(&target, &russh_options(access)).await
        }
        Way::Ssh { command, place } => {
            remote::connect_ssh(&ssh_program(access, command, place)).await
        }
        Way::Command { command, path } => {
            let config = SftpConfig {
                root: path.clone().into_bytes(),
                silence: SILENCE,
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
            };
            remote::connect_local(&home).await
        }
    }
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
        ..ConnectOptions::default()
    };
    if let Some(identity) = &config.identity {
        options.identities = vec![identity.clone()];
        options.default_identities = false;
        options.agent = false;
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
