//! What commands ask and hear about passes that did something.

use serde::{Deserialize, Serialize};

/// The passes that did something and are remembered.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passes {
    /// The latest first.
    pub passes: Vec<PassDeeds>,
}

/// What a pass did, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassDeeds {
    /// Counts the passes of this replica.
    pub id: u64,
    /// When it did the first of it.
    pub at: i64,
    /// Places that are new since, here or on the server.
    pub created: u64,
    /// Places that show another version.
    pub replaced: u64,
    /// Places that are gone.
    pub removed: u64,
    /// Places with another name.
    pub moved: u64,
    /// Places with another mode or time.
    pub attributes: u64,
    /// Whether all that it did is remembered.
    pub whole: bool,
}

/// What came of taking a pass back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// What was done, or would be, one line each, for people.
    pub lines: Vec<String>,
    /// What stays as the pass left it, or as it is now.
    pub left: Vec<NotUndone>,
}

/// One thing that a pass did and that stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotUndone {
    /// Where.
    pub path: String,
    /// Why, for people.
    pub why: String,
}
