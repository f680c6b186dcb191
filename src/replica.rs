//! What this machine has: the index (SQLite and a journal in front of it) and the content store.

mod rows;

pub use rows::{BaseRow, Content, LocalBackup, Node, Observation, Problem, Staged};
