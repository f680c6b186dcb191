//! What commands ask and hear about the content that is on this machine. Files and directories are named by their inode
//! numbers in the mount: a name may hold bytes that no text does.

use serde::{Deserialize, Serialize};

/// What can be done with content, each for at most [`NODES_MAX`] files and directories. Of a directory, all that is in
/// it is meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum ContentAction {
    /// Keeps it here, also what comes later; or no longer. Answered by `Done`.
    Pin {
        /// Which.
        nodes: Vec<u64>,
        /// From now on, or no longer.
        pinned: bool,
    },
    /// Brings it here. Answered by `Brought`.
    Prefetch {
        /// Which.
        nodes: Vec<u64>,
    },
    /// Lets it go, as far as the server has it. Answered by `LetGo`.
    Evict {
        /// Which.
        nodes: Vec<u64>,
    },
    /// What is pinned? Answered by `Pins`.
    Pins,
    /// What is in a directory, and where is it? Answered by `Entries`.
    List {
        /// The directory, or a file.
        node: u64,
    },
}

/// So many files and directories fit in one request.
pub const NODES_MAX: usize = 2000;

/// What was brought here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Brought {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and directories that could not be had.
    pub failed: u64,
    /// Why the first of those could not, for people.
    pub why: Option<String>,
}

/// What was let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetGo {
    /// Files.
    pub files: u64,
    /// Bytes that are free on this machine's disk now.
    pub bytes: u64,
    /// Files whose content stays: it is open, pinned, or not on the server.
    pub kept: u64,
}

/// What is pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// By path.
    pub pins: Vec<Pin>,
}

/// One file or directory that is pinned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Which.
    pub path: String,
    /// All files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are not here yet.
    pub missing_files: u64,
    /// Their bytes.
    pub missing_bytes: u64,
}

/// What is in a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entries {
    /// By name.
    pub entries: Vec<Entry>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// `file`, `dir`, `symlink` or `special`.
    pub kind: String,
    /// Its size.
    pub bytes: u64,
    /// `local`, `partial`, `remote`, `dirty` or `host-scoped`, as the attribute `user.roamhome.state` has it.
    pub state: String,
    /// It is pinned, or a directory above it.
    pub pinned: bool,
}
