//! What a machine holds, as its status tells it.

use serde::{Deserialize, Serialize};

/// What this machine holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// Files, directories, links and special files.
    pub nodes: u64,
    /// The regular files among them.
    pub files: u64,
    /// Bytes of content on this machine's disk.
    pub content_bytes: u64,
    /// Versions kept here.
    pub backups: u64,
    /// The room for content; null if it cannot be told.
    #[serde(default)]
    pub room: Option<RoomView>,
}

/// The room for content on this machine's disk, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomView {
    /// How much it may take; null for as much as there is.
    pub cache_size: Option<u64>,
    /// What it leaves free.
    pub min_free: u64,
    /// What is free.
    pub free: u64,
    /// The size of the disk.
    pub disk: u64,
}
