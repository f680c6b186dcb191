//! What commands ask and hear about kept versions: backups, trash, conflicts.

use serde::{Deserialize, Serialize};

/// What can be done with backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum BackupsAction {
    /// Answered by `Items`.
    List,
    /// Answered by `Shown`.
    Show {
        /// The backup's `id`.
        id: String,
    },
    /// Answered by `Done`.
    Restore {
        /// The backup's `id`.
        id: String,
        /// Where in the home; without it, where it was. Something that stands there is kept as a backup.
        to: Option<String>,
    },
}

/// What can be done with the trash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum TrashAction {
    /// Answered by `Items`.
    List,
    /// Answered by `Done`.
    Restore {
        /// The item's `id`.
        id: String,
        /// Where in the home; without it, where it was.
        to: Option<String>,
    },
    /// Removes for good. Answered by `Done`.
    Empty {
        /// Only what is older than this; without it, all.
        older_than_ms: Option<u64>,
    },
}

/// What can be done with conflicts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum ConflictsAction {
    /// Answered by `Conflicts`.
    List,
    /// Answered by `Done`.
    Resolve {
        /// The conflict's `id`.
        id: String,
        /// Which version is to stand.
        keep: Keep,
    },
}

/// What a person decides about a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// This machine's version.
    Mine,
    /// The other one.
    Theirs,
    /// Both, side by side.
    Both,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Items {
    /// Newest first.
    pub items: Vec<KeptItem>,
    /// What the list lacks and why, for people; null if it is whole.
    #[serde(default)]
    pub missing: Option<String>,
}

/// A version that is kept: a backup, or something deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptItem {
    /// Names it in other requests.
    pub id: String,
    /// Where it stood.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// When its content was last changed.
    pub mtime: i64,
    /// When it was put aside.
    pub at: i64,
    /// Why, for people.
    pub why: String,
    /// Where it is kept.
    pub location: Location,
}

/// Which side keeps a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Location {
    /// In this machine's state directory.
    Here,
    /// On the server.
    Server,
}

/// The content of a kept version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Which.
    pub item: KeptItem,
    /// A file on this machine that holds the content, to be read at once and left alone.
    pub file: String,
}

/// Versions that lost, and nobody has decided about yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflicts {
    /// Newest first.
    pub conflicts: Vec<Conflict>,
    /// What the list lacks and why, for people; null if it is whole.
    #[serde(default)]
    pub missing: Option<String>,
}

/// A version that is kept because another one won.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Names it in other requests; the same as among the backups.
    pub id: String,
    /// Where both would stand.
    pub path: String,
    /// When it was put aside.
    pub at: i64,
    /// Whose version lost.
    pub lost: Side,
    /// What stands there now; null if nothing does.
    pub current: Option<ConflictVersion>,
    /// What lost.
    pub kept: ConflictVersion,
    /// Where that is kept.
    pub location: Location,
}

/// One of the versions of a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictVersion {
    /// Its size.
    pub bytes: u64,
    /// When its content was last changed.
    pub mtime: i64,
    /// Whose it is: the name of this machine, or `the server`.
    pub host: String,
}

/// Who made a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// This machine.
    Mine,
    /// Somebody else, by way of the server.
    Theirs,
}
