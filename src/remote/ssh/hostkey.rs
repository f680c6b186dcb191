//! Is this the right server? Its key against the `known_hosts` files.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use russh::client::{DisconnectReason, Handler};
use russh::keys::known_hosts::{known_host_keys_path, learn_known_hosts_path};
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::{ConnectOptions, HostKeyPolicy};
use crate::remote::{ConnectError, Target};

/// What the connection's task learns and its errors do not tell: why a server's key was refused, and whether the
/// link broke or the server hung up.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    refusal: Mutex<Option<ConnectError>>,
    lost: AtomicBool,
}

impl Verdict {
    pub(super) fn take(&self) -> Option<ConnectError> {
        self.refusal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Whether the link broke, rather than the server saying goodbye.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    fn set(&self, error: ConnectError) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// Checks the key of one server.
pub(super) struct Checker {
    host: String,
    port: u16,
    files: Vec<PathBuf>,
    policy: HostKeyPolicy,
    verdict: Arc<Verdict>,
}

/// A key in a `known_hosts` file.
struct Known {
    file: PathBuf,
    /// As `russh` counts: without comments.
    entry: usize,
    key: PublicKey,
}

impl Checker {
    pub(super) fn new(target: &Target, options: &ConnectOptions, verdict: Arc<Verdict>) -> Self {
        Self {
            host: target.host.clone(),
            port: target.port,
            files: options.known_hosts.clone(),
            policy: options.host_key_policy,
            verdict,
        }
    }

    /// Puts the algorithms of the keys that we know in front, or the server might show another key of its.
    pub(super) fn known_algorithms_first(&self, defaults: &[Algorithm]) -> Vec<Algorithm> {
        let known = self.known();
        let is_known = |algorithm: &Algorithm| {
            known.iter().any(|k| match (algorithm, k.key.algorithm()) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (offered, known) => *offered == known,
            })
        };
        let (mut first, rest): (Vec<_>, Vec<_>) = defaults.iter().cloned().partition(is_known);
        first.extend(rest);
        first
    }

    fn known(&self) -> Vec<Known> {
        let of_file = |file: &PathBuf| {
            // A file that cannot be understood knows nobody, so the server is refused or new.
            let keys = known_host_keys_path(&self.host, self.port, file).unwrap_or_default();
            let file = file.clone();
            keys.into_iter().map(move |(entry, key)| Known {
                file: file.clone(),
                entry,
                key,
            })
        };
        self.files.iter().flat_map(of_file).collect()
    }

    fn check(&self, key: &PublicKey) -> Result<(), ConnectError> {
        let known = self.known();
        if known.iter().any(|k| k.key.key_data() == key.key_data()) {
            return Ok(());
        }
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        let host = self.host.clone();
        // A key of another kind than the known ones counts as changed too: it could be anybody's.
        if let Some(old) = known.into_iter().next() {
            let line = line_of_entry(&old.file, old.entry);
            let name = self.host_in_file();
            let remedy = format!(
                "if the server was given a new key, ask its administrator whether this is it, remove the old \
                 one with `ssh-keygen -R '{name}' -f '{}'`, and connect again",
                old.file.display()
            );
            return Err(ConnectError::HostKeyChanged {
                host,
                fingerprint,
                file: old.file,
                line,
                remedy,
            });
        }
        match (self.policy, self.files.first()) {
            (HostKeyPolicy::AcceptNew, Some(file)) => {
                let learnt = learn_known_hosts_path(&self.host, self.port, key, file);
                learnt.map_err(|error| ConnectError::Io {
                    what: format!("{}: cannot remember the server's key", file.display()),
                    source: std::io::Error::other(error),
                })
            }
            _ => Err(ConnectError::HostKeyUnknown {
                remedy: format!(
                    "compare it with what the server's administrator says, then run `ssh -p {} '{host}'` once \
                     to trust it",
                    self.port
                ),
                host,
                fingerprint,
            }),
        }
    }

    /// The server as `known_hosts` files call it.
    fn host_in_file(&self) -> String {
        match self.port {
            22 => self.host.clone(),
            port => format!("[{}]:{port}", self.host),
        }
    }
}

/// The line, comments counted, of the `entry`th line that is no comment.
fn line_of_entry(file: &PathBuf, entry: usize) -> usize {
    let text = std::fs::read(file).unwrap_or_default();
    let lines = text.split(|b| *b == b'\n').enumerate();
    let mut entries = lines.filter(|(_, line)| !line.starts_with(b"#"));
    entries
        .nth(entry.saturating_sub(1))
        .map_or(entry, |(index, _)| index + 1)
}

impl Handler for Checker {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else {
            return Ok(false); // certificates are not asked for
        };
        let checked = self.check(key);
        let trusted = checked.is_ok();
        if let Err(error) = checked {
            self.verdict.set(error);
        }
        Ok(trusted)
    }

    async fn disconnected(
        &mut self,
        reason: DisconnectReason<russh::Error>,
    ) -> Result<(), russh::Error> {
        if let DisconnectReason::Error(_) = reason {
            self.verdict.lost.store(true, Ordering::Release);
        }
        Ok(())
    }
}
