//! The vocabulary of the whole program: names, paths, nodes, versions. Pure values, no I/O.

mod acl;
mod database;
mod entry;
mod path;
mod time;
mod version;

pub use acl::{ACL_ACCESS, ACL_DEFAULT, Acl, AclError};
pub use database::{DATABASE_MAGIC, may_be_database};
pub use entry::{Kind, NodeId, Place};
pub use path::{Name, NameError, RelPath};
pub use time::Time;
pub use version::{BaseEntry, Hash, Version};
