//! What tells two states of a remote file apart.

use serde::{Deserialize, Serialize};

use super::{Kind, NodeId};

/// The BLAKE3 hash of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Hash(pub [u8; 32]);

/// A state of a file, directory or symlink as SFTP v3 can show it. Times have whole seconds there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// File, directory, symlink or other.
    pub kind: Kind,
    /// Bytes of content; 0 for anything but files.
    pub size: u64,
    /// Modification time in seconds since the epoch; 0 for anything but files.
    pub mtime: i64,
    /// Permission bits (07777); 0 for symlinks.
    pub mode: u32,
    /// Where a symlink points; empty otherwise.
    pub target: Vec<u8>,
    /// The content's hash where it is known; not part of what a listing can show.
    pub hash: Option<Hash>,
}

impl Version {
    /// A directory with these permission bits.
    pub fn dir(mode: u32) -> Self {
        Self {
            kind: Kind::Dir,
            size: 0,
            mtime: 0,
            mode,
            target: Vec::new(),
            hash: None,
        }
    }

    /// A file as a listing shows it.
    pub fn file(size: u64, mtime: i64, mode: u32) -> Self {
        Self {
            kind: Kind::File,
            size,
            mtime,
            mode,
            target: Vec::new(),
            hash: None,
        }
    }

    /// A symlink to `target`.
    pub fn symlink(target: Vec<u8>) -> Self {
        Self {
            kind: Kind::Symlink,
            size: 0,
            mtime: 0,
            mode: 0,
            target,
            hash: None,
        }
    }

    /// Whether both show the same content: equal kind, size, mtime and target, and hashes that do not
    /// contradict. Permission bits may differ.
    pub fn same_content(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.target == other.target
            && match (self.hash, other.hash) {
                (Some(a), Some(b)) => a == b,
                _ => self.size == other.size && self.mtime == other.mtime,
            }
    }

    /// Whether an observation of `other` means that nothing happened since `self`.
    pub fn same(&self, other: &Self) -> bool {
        self.same_content(other) && self.mode == other.mode && self.mtime == other.mtime
    }

    /// Whether both are files that a listing cannot tell apart, and that may differ in content.
    pub fn looks_like(&self, other: &Self) -> bool {
        self.kind == Kind::File
            && other.kind == Kind::File
            && (self.size, self.mtime) == (other.size, other.mtime)
            && (self.hash.is_none() || self.hash != other.hash)
    }

    /// Whether an observation of `other` shows the entry that this was: a directory may have got another mode.
    pub fn same_entry(&self, other: &Self) -> bool {
        match self.kind {
            Kind::Dir => other.kind == Kind::Dir,
            _ => self.same(other),
        }
    }
}

/// What replica and server last agreed on at a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseEntry {
    /// The node that stood there. A directory's children are keyed by it.
    pub node: NodeId,
    /// The version on the server then.
    pub version: Version,
}
