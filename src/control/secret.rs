//! A password on its way. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// A password on its way to the server. Never shown, never stored, and wiped from memory when it is let go.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes note of it.
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The password itself, for the login alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
