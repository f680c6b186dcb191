//! How the daemon gets its connections: the ssh options out of the configuration, and errors as people and
//! scripts get them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{MountRequest, Secret, Secrets};
use crate::config::{HostKeyPolicy, Target};
use crate::control::{Code, Failure};
use crate::engine::{Connect, LinkError};
use crate::remote::{self, ConnectError, ConnectOptions, Remote, SecretRequest, SecretSource};

/// A server that owes an answer and says nothing for this long is given up.
const SILENCE: Duration = Duration::from_secs(10);

/// Connects to one home over SSH.
pub(super) struct Connector {
    target: remote::Target,
    options: ConnectOptions,
    /// A connection made before the engine was there.
    ready: Mutex<Option<Remote>>,
}

impl Connector {
    pub(super) fn new(request: &MountRequest) -> Self {
        let config = &request.config;
        let mut options = ConnectOptions {
            channels: usize::from(config.channels),
            silence: SILENCE,
            host_key_policy: match config.host_key_policy {
                HostKeyPolicy::Strict => remote::HostKeyPolicy::Strict,
                HostKeyPolicy::AcceptNew => remote::HostKeyPolicy::AcceptNew,
            },
            secrets: secret_source(&request.secrets),
            ..ConnectOptions::default()
        };
        if let Some(identity) = &config.identity {
            options.identities = vec![identity.clone()];
            options.default_identities = false;
            options.agent = false;
        }
        if let Some(known_hosts) = &config.known_hosts {
            options.known_hosts = vec![PathBuf::from(known_hosts)];
        }
        Self {
            target: remote_target(&request.target),
            options,
            ready: Mutex::default(),
        }
    }

    /// A key that would be tried but is locked.
    pub(super) fn locked_identity(&self, passphrase: Option<&Secret>) -> Option<PathBuf> {
        remote::locked_identity(&self.options, passphrase.map(Secret::reveal))
    }

    /// Connects now, and keeps the connection for the engine's first call.
    pub(super) async fn prepare(&self) -> Result<(), Failure> {
        let made = remote::connect(&self.target, &self.options)
            .await
            .map_err(|e| failure(&e))?;
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = Some(made);
        Ok(())
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
        remote::connect(&self.target, &self.options)
            .await
            .map_err(|error| {
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

fn remote_target(target: &Target) -> remote::Target {
    remote::Target {
        user: Some(target.user.clone()),
        host: target.host.clone(),
        port: target.port,
        path: target.path.clone(),
    }
}

/// The password answers what asks for one; a passphrase is another secret.
fn secret_source(secrets: &Secrets) -> Option<SecretSource> {
    let Secrets {
        password,
        passphrase,
    } = secrets.clone();
    if password.is_none() && passphrase.is_none() {
        return None;
    }
    Some(Arc::new(move |request| {
        let secret = match request {
            SecretRequest::Password { .. } | SecretRequest::Question { echo: false, .. } => {
                &password
            }
            SecretRequest::Passphrase { .. } => &passphrase,
            SecretRequest::Question { echo: true, .. } => &None,
        };
        secret.as_ref().map(|secret| secret.reveal().to_owned())
    }))
}

/// A failed connection with its remedy and its exit status.
fn failure(error: &ConnectError) -> Failure {
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
