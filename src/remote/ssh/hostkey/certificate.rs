//! Host certificates: an authority that `known_hosts` names (`@cert-authority`) vouches for a server's key.

use russh::keys::ssh_key::certificate::CertType;
use russh::keys::{Algorithm, Certificate, HashAlg, PublicKey};

use super::super::known_hosts::{self, Line, Mark};
use super::Checker;
use crate::remote::ConnectError;

impl Checker {
    /// The kinds of certificates that the server is asked for: all, if some authority may vouch for it.
    pub(in super::super) fn certificates(&self, defaults: &[Algorithm]) -> Vec<Algorithm> {
        match self.authorities().is_empty() {
            true => Vec::new(),
            false => defaults.to_vec(),
        }
    }

    /// Who may vouch for the server. As for `ssh`, an authority for the host is one for each of its ports.
    fn authorities(&self) -> Vec<PublicKey> {
        let mut names = vec![known_hosts::name(&self.host, self.port)];
        names.push(known_hosts::name(&self.host, 22));
        let is_authority = |line: &Line| line.mark == Mark::Authority;
        let pairs = names
            .iter()
            .flat_map(|name| self.files.iter().map(move |file| (file, name)));
        // A file that cannot be read is an error where the bare key is checked.
        let lines =
            pairs.flat_map(|(file, name)| known_hosts::read(file, name).unwrap_or_default());
        lines
            .filter(is_authority)
            .filter_map(|line| line.key)
            .collect()
    }

    /// Whether a certificate proves that this is the server.
    pub(super) fn check_certificate(&self, certificate: &Certificate) -> Result<(), ConnectError> {
        let host = self.host.clone();
        let own = PublicKey::new(certificate.public_key().clone(), "");
        let vouching = PublicKey::new(certificate.signature_key().clone(), "");
        for key in [&own, &vouching] {
            self.check_revoked(key)?;
        }
        let authorities = self.authorities();
        if !authorities
            .iter()
            .any(|key| key.key_data() == vouching.key_data())
        {
            // A stranger's word is worth nothing; the key may be known all the same.
            return self.check(&own);
        }
        let refuse = |reason: String| Err(ConnectError::HostCertificate { host, reason });
        if certificate.cert_type() != CertType::Host {
            return refuse("it is a user's".to_owned());
        }
        if !certificate.critical_options().is_empty() {
            return refuse("it has conditions that are not understood".to_owned());
        }
        let names = certificate.valid_principals();
        let name = self.host.to_ascii_lowercase();
        let is_named = |pattern: &String| {
            known_hosts::matches(pattern.to_ascii_lowercase().as_bytes(), name.as_bytes())
        };
        if !names.is_empty() && !names.iter().any(is_named) {
            return refuse(format!("it is for {}", names.join(", ")));
        }
        match certificate.validate([&vouching.fingerprint(HashAlg::Sha256)]) {
            Ok(()) => Ok(()),
            Err(_) => {
                let (after, before) = (certificate.valid_after(), certificate.valid_before());
                refuse(format!(
                    "it is not valid now, but from {after} to {before} in seconds since 1970, or its signature is wrong"
                ))
            }
        }
    }
}
