//! What this machine has: the index (SQLite and a journal in front of it) and the content store.

mod blocks;
mod cache;
mod check;
mod chunks;
mod clone;
mod columns;
mod content;
mod direct;
mod error;
mod evict;
mod hint;
mod index;
mod journal;
mod lease;
mod moment;
mod open;
mod opens;
mod overlay;
mod recover;
mod rescue;
mod rows;
mod schema;
mod settling;
mod snapshot;
mod stored;
mod table;
mod tx;
mod view;
mod writer;

pub use blocks::{LARGEST_BY_BLOCK, whole_blocks};
pub use cache::Residence;
pub use check::{CheckReport, Finding, check, check_content};
pub use chunks::{Chunk, Chunks, Digest, Digested, average_for, average_like};
pub use content::{ContentStore, DownloadNote, Ended, PartOf, Partial, StagingFile, UploadNote};
pub use direct::Stamp;
pub use error::ReplicaError;
pub use evict::{Cached, RoomLimits, oldest_first};
pub use index::Replica;
pub use lease::is_used_by_others;
pub use moment::{Member, Moment};
pub use open::{Commits, Opening};
pub use opens::Opens;
pub use rescue::{RescueReport, rescue};
pub use rows::{
    Content, Counts, Deed, DeedKind, Intent, LocalBackup, Node, Observation, Problem, Since,
};
pub use snapshot::Snapshot;
pub use tx::Tx;
pub use view::{CLIENT_ID, View};
