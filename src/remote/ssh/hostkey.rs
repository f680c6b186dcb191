//! Is this the right server? Its key, or its certificate, against the `known_hosts` files.

mod certificate;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use russh::Names;
use russh::client::{DisconnectReason, Handler, Session};
use russh::compression::Compression;
use russh::keys::{Algorithm, HashAlg, PublicKey, PublicKeyOrCertificate};

use super::known_hosts::{self, Line, Mark};
use super::{ConnectOptions, HostKeyPolicy};
use crate::remote::line::Line as SharedLine;
use crate::remote::{About, ConnectError, Target};

/// What the connection's task learns and its errors do not tell: why a server's key was refused, and whether the
/// link broke or the server hung up.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// What both sides agreed on.
    agreed: Mutex<About>,
    /// What the server calls itself.
    ident: Mutex<Vec<u8>>,
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

    /// What both sides agreed on.
    pub(super) fn agreed(&self) -> About {
        self.about(|about| about.clone())
    }

    /// What the server calls itself.
    pub(super) fn ident(&self) -> Vec<u8> {
        self.ident
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn about<T>(&self, with: impl FnOnce(&mut About) -> T) -> T {
        with(&mut self.agreed.lock().unwrap_or_else(PoisonError::into_inner))
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
    /// Hears how the connection is secured.
    line: Option<Arc<SharedLine>>,
}

impl Checker {
    pub(super) fn new(target: &Target, options: &ConnectOptions, verdict: Arc<Verdict>) -> Self {
        Self {
            host: target.host.clone(),
            port: target.port,
            files: options.known_hosts.clone(),
            policy: options.host_key_policy,
            verdict,
            line: None,
        }
    }

    /// Tells `line` how it is secured.
    pub(super) fn on(mut self, line: &Arc<SharedLine>) -> Self {
        self.line = Some(Arc::clone(line));
        self
    }

    /// Puts the algorithms of the keys that we know in front, or the server might show another key of its.
    pub(super) fn known_algorithms_first(&self, defaults: &[Algorithm]) -> Vec<Algorithm> {
        let known = self.known().unwrap_or_default();
        let is_known = |algorithm: &Algorithm| {
            let own = known.iter().filter(|(_, line)| line.mark == Mark::Own);
            let keys = own.filter_map(|(_, line)| line.key.as_ref());
            let mut known = keys.map(PublicKey::algorithm);
            known.any(|known| match (algorithm, known) {
                (Algorithm::Rsa { .. }, Algorithm::Rsa { .. }) => true,
                (offered, known) => *offered == known,
            })
        };
        let (mut first, rest): (Vec<_>, Vec<_>) = defaults.iter().cloned().partition(is_known);
        first.extend(rest);
        first
    }

    /// What the files say of the server, file by file.
    fn known(&self) -> io::Result<Vec<(&Path, Line)>> {
        let name = known_hosts::name(&self.host, self.port);
        let mut known = Vec::new();
        for file in &self.files {
            let lines = known_hosts::read(file, &name);
            let lines =
                lines.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", file.display())));
            known.extend(lines?.into_iter().map(|line| (file.as_path(), line)));
        }
        Ok(known)
    }

    /// The same; a file that cannot be read may know the server, so nobody passes for new.
    fn known_or_refused(&self) -> Result<Vec<(&Path, Line)>, ConnectError> {
        self.known().map_err(|source| ConnectError::Io {
            what: format!("whether {} is known cannot be told", self.host),
            source,
        })
    }

    fn check_revoked(&self, key: &PublicKey) -> Result<(), ConnectError> {
        let is_revoked = |line: &Line| {
            let same = line.key.as_ref().map(PublicKey::key_data) == Some(key.key_data());
            same && line.mark == Mark::Revoked
        };
        let known = self.known_or_refused()?;
        match known.iter().find(|(_, line)| is_revoked(line)) {
            None => Ok(()),
            Some((file, line)) => Err(ConnectError::HostKeyRevoked {
                host: self.host.clone(),
                fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
                file: file.to_path_buf(),
                line: line.number,
            }),
        }
    }

    fn check(&self, key: &PublicKey) -> Result<(), ConnectError> {
        let host = self.host.clone();
        let known = self.known_or_refused()?;
        let is_shown = |line: &Line| {
            let key_data = line.key.as_ref().map(PublicKey::key_data);
            key_data == Some(key.key_data())
        };
        let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
        self.check_revoked(key)?;
        let mut own = known.iter().filter(|(_, line)| line.mark == Mark::Own);
        if own.clone().any(|(_, line)| is_shown(line)) {
            return Ok(());
        }
        // A key of another kind than the known ones counts as changed too: it could be anybody's.
        if let Some((file, old)) = own.next() {
            let name = known_hosts::name(&host, self.port);
            let remedy = format!(
                "if the server was given a new key, ask its administrator whether this is it, remove the old \
                 one with `ssh-keygen -R '{name}' -f '{}'`, and connect again",
                file.display()
            );
            return Err(ConnectError::HostKeyChanged {
                host,
                fingerprint,
                file: file.to_path_buf(),
                line: old.number,
                remedy,
            });
        }
        match (self.policy, self.files.first()) {
            (HostKeyPolicy::AcceptNew, Some(file)) => {
                let learnt = known_hosts::learn(file, &known_hosts::name(&host, self.port), key);
                learnt.map_err(|source| ConnectError::Io {
                    what: format!("{}: cannot remember the server's key", file.display()),
                    source,
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
}

impl Handler for Checker {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        shown: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        let checked = match shown {
            PublicKeyOrCertificate::PublicKey { key, .. } => self.check(key),
            PublicKeyOrCertificate::Certificate(certificate) => self.check_certificate(certificate),
        };
        let kind = match shown.certificate() {
            Some(certificate) => certificate.algorithm().to_certificate_type(),
            None => shown.public_key().algorithm().to_string(),
        };
        self.verdict.about(|about| about.host_key = kind);
        let trusted = checked.is_ok();
        if let Err(error) = checked {
            self.verdict.set(error);
        }
        Ok(trusted)
    }

    async fn kex_done(
        &mut self,
        _shared_secret: Option<&[u8]>,
        names: &Names,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let ident = session.remote_sshid().to_vec();
        *self
            .verdict
            .ident
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = ident;
        self.verdict.about(|about| {
            about.transport = "russh";
            about.cipher = names.cipher.as_ref().to_owned();
            about.key_exchange = names.kex.as_ref().to_owned();
        });
        if let Some(line) = &self.line {
            let compressed = !matches!(names.client_compression, Compression::None);
            line.secured(names.cipher.as_ref(), compressed);
        }
        Ok(())
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
