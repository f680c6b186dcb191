//! The vocabulary of the whole program: names, paths, nodes, versions. Pure values, no I/O.

mod database;
mod entry;
mod path;
mod time;
mod version;

pub use database::{DATABASE_MAGIC, may_be_database};
pub use entry::{Kind, NodeId, Place};
pub use path::{Name, NameError, RelPath};
pub use time::Time;
pub use version::{BaseEntry, Hash, Version};
