//! Logging in: keys that were named, the agent, the usual keys, keys behind a passphrase, each with its certificate, the
//! password, and what the server asks. A server that wants several of them gets one after the other.

mod agent;
mod certificate;
mod questions;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle};
use russh::keys::{
    Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, load_secret_key,
};
use russh::{MethodKind, MethodSet};
use tokio::time::timeout;

use super::ConnectOptions;
use super::hostkey::{Checker, Verdict};
use crate::remote::ConnectError;
use crate::remote::connect::unreachable;

/// The keys that `ssh` tries by itself.
const DEFAULT_IDENTITIES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];
/// Means that a server may want one after the other.
const MEANS_MAX: usize = 4;

/// A secret that somebody is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRequest {
    /// The passphrase of a private key.
    Passphrase {
        /// The key's file.
        identity: PathBuf,
    },
    /// The password of the account.
    Password {
        /// Whose.
        user: String,
        /// Where.
        host: String,
    },
    /// A question that the server asks.
    Question {
        /// In its words.
        prompt: String,
        /// Whether the answer may be shown while it is typed.
        echo: bool,
    },
    /// Nothing: something to be told, such as that a key wants to be touched.
    Notice {
        /// In the asker's words.
        text: String,
    },
}

/// Who wants to log in, and with what.
pub(super) struct Credentials<'a> {
    pub(super) host: &'a str,
    pub(super) user: &'a str,
    pub(super) options: &'a ConnectOptions,
}

/// One login under way.
struct Login<'a> {
    handle: &'a mut Handle<Checker>,
    with: &'a Credentials<'a>,
    /// What the server still takes.
    methods: MethodSet,
    tried: Vec<String>,
    /// A key that waits for its passphrase.
    locked: Option<PathBuf>,
    /// The server took something, and wants more.
    partial: bool,
    /// The hash for signatures of RSA keys, asked for once.
    rsa_hash: Option<Option<HashAlg>>,
}

type Step = Result<bool, ConnectError>;

/// Logs in by the first means that the server takes.
pub(super) async fn authenticate(
    handle: &mut Handle<Checker>,
    with: &Credentials<'_>,
    verdict: &Verdict,
) -> Result<(), ConnectError> {
    let mut login = Login {
        handle,
        with,
        methods: MethodSet::empty(),
        tried: Vec::new(),
        locked: None,
        partial: false,
        rsa_hash: None,
    };
    if login.run().await? {
        return Ok(());
    }
    // A cut link looks like a refusal, and only the refusal needs a person.
    if verdict.is_lost() {
        return Err(unreachable(
            with.host,
            "the connection broke during the login",
        ));
    }
    Err(ConnectError::AuthRefused {
        host: with.host.to_owned(),
        user: with.user.to_owned(),
        tried: login.tried,
        locked: login.locked,
    })
}

impl Login<'_> {
    /// Whether we are in.
    async fn run(&mut self) -> Step {
        let none = timeout(
            self.with.options.connect_timeout,
            self.handle.authenticate_none(self.with.user),
        );
        let none = none.await.map_err(|_| self.gone("no answer in time"))?;
        if self.heard(none)? {
            return Ok(true);
        }
        for _ in 0..MEANS_MAX {
            self.partial = false;
            if self.by_any_means().await? {
                return Ok(true);
            }
            if !self.partial {
                break;
            }
        }
        Ok(false)
    }

    async fn by_any_means(&mut self) -> Step {
        let options = self.with.options;
        let mut locked = Vec::new();
        if self.offered(MethodKind::PublicKey) {
            if self.key_files(&options.identities, &mut locked).await? {
                return Ok(true);
            }
            if options.agent && self.agent(None).await? {
                return Ok(true);
            }
            if options.default_identities
                && self.key_files(&default_identities(), &mut locked).await?
            {
                return Ok(true);
            }
        }
        for identity in locked {
            if self.locked_key(identity).await? {
                return Ok(true);
            }
        }
        if self.password().await? {
            return Ok(true);
        }
        self.questions().await
    }

    fn offered(&self, method: MethodKind) -> bool {
        self.methods.contains(&method) && !self.handle.is_closed()
    }

    fn gone(&self, reason: impl ToString) -> ConnectError {
        unreachable(self.with.host, reason)
    }

    /// Takes in the server's answer.
    fn heard(&mut self, answer: Result<AuthResult, russh::Error>) -> Step {
        match answer.map_err(|e| self.gone(e))? {
            AuthResult::Success => Ok(true),
            AuthResult::Failure {
                remaining_methods,
                partial_success,
            } => {
                self.refused(remaining_methods, partial_success);
                Ok(false)
            }
        }
    }

    fn refused(&mut self, remaining: MethodSet, partial: bool) {
        self.methods = remaining;
        if partial {
            self.partial = true;
            if let Some(taken) = self.tried.last_mut() {
                taken.push_str(" (taken, but not enough)");
            }
        }
    }

    async fn key_files(&mut self, paths: &[PathBuf], locked: &mut Vec<PathBuf>) -> Step {
        for path in paths {
            if !self.offered(MethodKind::PublicKey) {
                break;
            }
            match load(path, None).await {
                Ok(key) => {
                    if self.key(key, path).await? {
                        return Ok(true);
                    }
                }
                Err(russh::keys::Error::KeyIsEncrypted) => locked.push(path.clone()),
                Err(russh::keys::Error::IO(e)) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => self.tried.push(format!("{} ({error})", path.display())),
            }
        }
        Ok(false)
    }

    async fn locked_key(&mut self, identity: PathBuf) -> Step {
        if !self.offered(MethodKind::PublicKey) {
            return Ok(false);
        }
        // An agent may have been given what the file keeps locked.
        if let Some(public) = public_part(&identity)
            && !self.with.options.agent
            && self.agent(Some(&public)).await?
        {
            return Ok(true);
        }
        let request = SecretRequest::Passphrase {
            identity: identity.clone(),
        };
        let shown = identity.display();
        let Some(passphrase) = self.secret(request).await else {
            self.tried.push(format!("{shown} (locked, no passphrase)"));
            self.locked.get_or_insert(identity);
            return Ok(false);
        };
        match load(&identity, Some(passphrase)).await {
            Ok(key) => self.key(key, &identity).await,
            Err(error) => {
                self.tried.push(format!("{shown} ({error})"));
                Ok(false)
            }
        }
    }

    async fn key(&mut self, key: PrivateKey, path: &Path) -> Step {
        if self.certificate(&key, path).await? {
            return Ok(true);
        }
        if !self.offered(MethodKind::PublicKey) {
            return Ok(false);
        }
        self.tried.push(format!("key {}", path.display()));
        let hash = self.hash_for(&key.algorithm()).await?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), hash);
        let answer = self
            .handle
            .authenticate_publickey(self.with.user, key)
            .await;
        self.heard(answer)
    }

    async fn hash_for(&mut self, algorithm: &Algorithm) -> Result<Option<HashAlg>, ConnectError> {
        if !algorithm.clone().is_rsa() {
            return Ok(None);
        }
        if self.rsa_hash.is_none() {
            let best = self.handle.best_supported_rsa_hash().await;
            let best = best.map_err(|e| self.gone(e))?;
            self.rsa_hash = Some(best.unwrap_or(Some(HashAlg::Sha256)));
        }
        Ok(self.rsa_hash.flatten())
    }

    async fn password(&mut self) -> Step {
        if !self.offered(MethodKind::Password) {
            return Ok(false);
        }
        let Some(password) = self.secret(self.password_request()).await else {
            return Ok(false);
        };
        self.tried.push("password".to_owned());
        let answer = self
            .handle
            .authenticate_password(self.with.user, password)
            .await;
        self.heard(answer)
    }

    fn password_request(&self) -> SecretRequest {
        SecretRequest::Password {
            user: self.with.user.to_owned(),
            host: self.with.host.to_owned(),
        }
    }

    /// Asks for a secret where blocking is allowed.
    async fn secret(&self, request: SecretRequest) -> Option<String> {
        let source = self.with.options.secrets.clone()?;
        let asked = tokio::task::spawn_blocking(move || source(&request));
        asked.await.ok().flatten()
    }
}

/// The public half of a key whose file is locked.
fn public_part(identity: &Path) -> Option<PublicKey> {
    let locked = PrivateKey::read_openssh_file(identity);
    locked.ok().map(|key| key.public_key().clone())
}

/// The first key that would be tried and that `passphrase` does not open.
pub fn locked_identity(options: &ConnectOptions, passphrase: Option<&str>) -> Option<PathBuf> {
    let usual = match options.default_identities {
        true => default_identities(),
        false => Vec::new(),
    };
    let is_locked = |passphrase: Option<&str>, path: &PathBuf| {
        let key = load_secret_key(path, passphrase);
        matches!(
            (key, passphrase),
            (Err(russh::keys::Error::KeyIsEncrypted), None) | (Err(_), Some(_))
        )
    };
    options
        .identities
        .iter()
        .chain(&usual)
        .filter(|path| is_locked(None, path))
        .find(|path| passphrase.is_none() || is_locked(passphrase, path))
        .cloned()
}

/// Reads a key off the runtime's threads: a passphrase takes a while to check.
async fn load(path: &Path, passphrase: Option<String>) -> Result<PrivateKey, russh::keys::Error> {
    let path = path.to_owned();
    let loading = tokio::task::spawn_blocking(move || load_secret_key(path, passphrase.as_deref()));
    loading
        .await
        .unwrap_or(Err(russh::keys::Error::CouldNotReadKey))
}

fn default_identities() -> Vec<PathBuf> {
    let ssh = std::env::home_dir().map(|home| home.join(".ssh"));
    let in_ssh = |dir: PathBuf| DEFAULT_IDENTITIES.map(|name| dir.join(name)).to_vec();
    ssh.map(in_ssh).unwrap_or_default()
}
