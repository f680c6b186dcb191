//! How the daemon gets its connections: the ssh options out of the configuration, and errors as people and
//! scripts get them.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use super::{MountRequest, Secret, Secrets};
use crate::clock;
use crate::config::{Compression, HostKeyPolicy, Target, Timetable};
use crate::control::{Code, Failure};
use crate::engine::{Connect, LinkError};
use crate::remote::{
    self, ConnectError, ConnectOptions, Limits, Line, LineFacts, Rate, Remote, SecretRequest,
    SecretSource,
};

/// A server that owes an answer and says nothing for this long is given up, so that a dead link is noticed within 10 s.
const SILENCE: Duration = Duration::from_secs(9);

/// A line that passes fewer bytes in a second is worth compressing on: a server's compression makes some 20 MB/s.
const SLOW: u64 = 3_000_000;

/// Connects to one home over SSH.
pub(super) struct Connector {
    target: remote::Target,
    options: ConnectOptions,
    compression: Compression,
    /// A connection made before the engine was there.
    ready: Mutex<Option<Remote>>,
    /// The connection that was made last, which knows how fast its line is.
    last: Mutex<Option<Arc<Line>>>,
}

impl Connector {
    pub(super) fn new(request: &MountRequest) -> Self {
        let config = &request.config;
        let limits = Limits {
            up: rate(&config.bandwidth_up),
            down: rate(&config.bandwidth_down),
        };
        let mut options = ConnectOptions {
            limits,
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
            compression: config.compression,
            ready: Mutex::default(),
            last: Mutex::default(),
        }
    }

    /// A key that would be tried but is locked.
    pub(super) fn locked_identity(&self, passphrase: Option<&Secret>) -> Option<PathBuf> {
        remote::locked_identity(&self.options, passphrase.map(Secret::reveal))
    }

    async fn make(&self) -> Result<Remote, ConnectError> {
        let options = ConnectOptions {
            compress: self.compresses(),
            ..self.options.clone()
        };
        let made = remote::connect(&self.target, &options).await?;
        *lock(&self.last) = made.shared_line();
        Ok(made)
    }

    /// A line is compressed on if it was slow, and then stays so: what it passes is no longer what it is.
    fn compresses(&self) -> bool {
        match self.compression {
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

fn is_worth_compressing(line: &LineFacts) -> bool {
    let limited = line.up.is_some() || line.down.is_some();
    line.compressed || !limited && line.pace.is_some_and(|pace| pace < SLOW)
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
