//! Making keys, for machines that enrol and for the demo.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use russh::keys::ssh_key::{self, LineEnding};
use russh::keys::{Algorithm, PrivateKey, key::safe_rng};

/// A new Ed25519 key.
pub(in crate::remote) fn random_key() -> io::Result<PrivateKey> {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)
}

/// Writes a new private key, without passphrase, to a file that is not there yet, readable by its owner
/// alone. Returns the public key as a line for `authorized_keys`.
pub fn generate_identity(path: &Path, comment: &str) -> io::Result<String> {
    let mut key = random_key()?;
    key.set_comment(comment);
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    key.public_key().to_openssh().map_err(io::Error::other)
}

/// The public half of a private key's file, as a line for `authorized_keys`.
pub fn public_line(path: &Path) -> io::Result<String> {
    let key = PrivateKey::read_openssh_file(path).map_err(|error| match error {
        ssh_key::Error::Io(kind) => io::Error::from(kind),
        error => io::Error::other(error),
    })?;
    key.public_key().to_openssh().map_err(io::Error::other)
}
