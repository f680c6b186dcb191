//! Nodes, their kinds, and the places where directories name them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Name;

/// The identity of a node on this machine: its inode number in the mount. Given once, never reused, so a
/// renamed file keeps it and a re-created one does not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl NodeId {
    /// No node: in base rows whose node went on to hold other content.
    pub const NONE: Self = Self(0);
    /// The home's root directory.
    pub const ROOT: Self = Self(1);
    /// Stands for the server's staging directory in the base tree only, for moves that need a way station.
    pub const STAGING: Self = Self(2);
    /// The first id given to an ordinary node.
    pub const FIRST_FREE: Self = Self(16);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe; host-scoped, since SFTP cannot carry it.
    Fifo,
    /// A socket; host-scoped.
    Socket,
    /// Anything else a server may hold (a device); shown nowhere, touched never.
    Other,
}

impl Kind {
    /// Whether SFTP can carry such a node to the server.
    pub fn travels(self) -> bool {
        matches!(self, Self::File | Self::Dir | Self::Symlink)
    }
}

/// One entry of one directory: where a node stands, or could stand. Keyed by the parent's identity and not
/// by a path, so that renaming a directory leaves the places inside it as they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The directory.
    pub parent: NodeId,
    /// The name in it.
    pub name: Name,
}

impl Place {
    /// The place called `name` in `parent`.
    pub fn new(parent: NodeId, name: Name) -> Self {
        Self { parent, name }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.parent, self.name)
    }
}
