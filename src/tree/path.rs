//! Names and paths as bytes, valid by construction.
//!
//! A `Name` can always be joined to a directory without leaving it: it is never empty, `.`, `..`, never
//! contains `/` or NUL and is at most 255 bytes long. What a server sends becomes a `Name` or an error.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name that Linux file systems take, in bytes.
const NAME_MAX: usize = 255;

/// One path component, any bytes but `/` and NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct Name(Box<[u8]>);

/// Why some bytes are not a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("the name is empty")]
    Empty,
    /// `.` or `..`, which would name another directory.
    #[error("the name is . or ..")]
    Dots,
    /// A `/` or NUL byte inside.
    #[error("the name contains a slash or a NUL byte")]
    ForbiddenByte,
    /// More than 255 bytes.
    #[error("the name is longer than 255 bytes")]
    TooLong,
}

impl Name {
    /// Checks `bytes` and makes a name of them.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            b"." | b".." => Err(NameError::Dots),
            _ if bytes.len() > NAME_MAX => Err(NameError::TooLong),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(NameError::ForbiddenByte),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The name that sorts before all others: where ranges over the entries of a directory start.
    pub fn least() -> Self {
        Self(Box::new([1]))
    }

    /// The bytes of the name.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<Vec<u8>> for Name {
    type Error = NameError;

    fn try_from(bytes: Vec<u8>) -> Result<Self, NameError> {
        Self::new(&bytes)
    }
}

impl From<Name> for Vec<u8> {
    fn from(name: Name) -> Self {
        name.0.into_vec()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(f, &self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// A path relative to the home's root; empty for the root itself. Displayed with odd bytes escaped.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelPath(Vec<Name>);

impl RelPath {
    /// The home's root.
    pub fn root() -> Self {
        Self::default()
    }

    /// Splits `bytes` at slashes; leading, doubled and trailing slashes are ignored.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let parts = bytes.split(|b| *b == b'/').filter(|part| !part.is_empty());
        Ok(Self(parts.map(Name::new).collect::<Result<_, _>>()?))
    }

    /// The components from the root down.
    pub fn names(&self) -> &[Name] {
        &self.0
    }

    /// This path with `name` below it.
    pub fn join(&self, name: &Name) -> Self {
        let mut names = self.0.clone();
        names.push(name.clone());
        Self(names)
    }

    /// The path as bytes joined by `/`, without a leading slash; empty for the root.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .map(Name::as_bytes)
            .collect::<Vec<_>>()
            .join(&b'/')
    }

    /// Whether this is the home's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Name> for RelPath {
    fn from_iter<I: IntoIterator<Item = Name>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() {
            return f.write_str(".");
        }
        write_escaped(f, &self.to_bytes())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.to_string())
    }
}

/// Writes UTF-8 text as it is, and control characters and stray bytes as `\xNN`, so that no name can
/// disturb a terminal.
fn write_escaped(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                let mut buf = [0; 4];
                for b in c.encode_utf8(&mut buf).bytes() {
                    write!(f, "\\x{b:02x}")?;
                }
            } else {
                write!(f, "{c}")?;
            }
        }
        for b in chunk.invalid() {
            write!(f, "\\x{b:02x}")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for (bytes, error) in [
            (&b""[..], NameError::Empty),
            (b".", NameError::Dots),
            (b"..", NameError::Dots),
            (b"a/b", NameError::ForbiddenByte),
            (b"a\0b", NameError::ForbiddenByte),
            (&[b'x'; 256], NameError::TooLong),
        ] {
            assert_eq!(Name::new(bytes), Err(error));
        }
        assert!(Name::new(&[0xff; 255]).is_ok());
    }

    #[test]
    fn odd_bytes_are_shown_escaped() {
        let path = RelPath::parse(b"/caf\xc3\xa9//\xff\x1b[0m/").unwrap();
        assert_eq!(path.to_string(), "caf\u{e9}/\\xff\\x1b[0m");
        assert_eq!(path.to_bytes(), b"caf\xc3\xa9/\xff\x1b[0m");
    }
}
