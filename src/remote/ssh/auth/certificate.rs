//! User certificates: `KEY-cert.pub` beside the key, as `ssh` finds them. A certificate is tried before its bare key.

use std::path::{Path, PathBuf};

use russh::keys::agent::AgentIdentity;
use russh::keys::signature::Signer as _;
use russh::keys::ssh_encoding::Encode;
use russh::keys::ssh_key::private::KeypairData;
use russh::keys::{self, Certificate, HashAlg, PrivateKey};
use russh::{AgentAuthError, Signer};

use super::{Login, Step};

impl Login<'_> {
    /// Tries the certificate of a key, if it has one.
    pub(super) async fn certificate(&mut self, key: &PrivateKey, path: &Path) -> Step {
        let file = beside(path);
        let Ok(text) = std::fs::read_to_string(&file) else {
            return Ok(false);
        };
        let shown = file.display();
        let certificate = match Certificate::from_openssh(text.trim()) {
            Ok(certificate) => certificate,
            Err(error) => {
                self.tried.push(format!("{shown} ({error})"));
                return Ok(false);
            }
        };
        if certificate.public_key() != key.public_key().key_data() {
            self.tried.push(format!("{shown} (of another key)"));
            return Ok(false);
        }
        self.tried.push(format!("certificate {shown}"));
        let hash = self.hash_for(&key.algorithm()).await?;
        let user = self.with.user;
        let handle = &mut self.handle;
        let mut signer = Held(key);
        let signed = handle.authenticate_certificate_with(user, certificate, hash, &mut signer);
        match signed.await {
            Ok(answer) => self.heard(Ok(answer)),
            Err(error) => Err(self.gone(error)),
        }
    }
}

/// Where the certificate of the key in the file `identity` is.
fn beside(identity: &Path) -> PathBuf {
    let mut name = identity.as_os_str().to_owned();
    name.push("-cert.pub");
    name.into()
}

/// Signs with a key that we hold, by the hash that the server takes.
struct Held<'a>(&'a PrivateKey);

impl Signer for Held<'_> {
    type Error = AgentAuthError;

    async fn auth_sign(
        &mut self,
        _key: &AgentIdentity,
        hash: Option<HashAlg>,
        mut to_sign: Vec<u8>,
    ) -> Result<Vec<u8>, AgentAuthError> {
        let signed = match self.0.key_data() {
            KeypairData::Rsa(key) => (key, hash).try_sign(&to_sign),
            key => key.try_sign(&to_sign),
        };
        let failed = || keys::Error::from(keys::ssh_key::Error::Crypto);
        let signature = signed.map_err(|_| failed())?;
        let encoded = signature.encode_prefixed(&mut to_sign);
        encoded.map_err(|_| failed())?;
        Ok(to_sign)
    }
}
