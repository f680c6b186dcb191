//! roamhome: a home directory that follows its user.
//!
//! A daemon mounts the home with FUSE, serves it from a local replica and keeps it equal to a directory on
//! any SSH server over plain SFTP. `doc/ARCHITECTURE.md` tells how the parts work together; the modules
//! below are its layers, and `tests/tidy.rs` checks who may import whom.

#[cfg(test)]
extern crate self as roamhome;

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod engine;
pub mod fs;
pub mod fuse;
#[cfg(test)]
mod fuzz;
pub mod logging;
pub mod login;
pub mod remote;
pub mod replica;
pub mod sync;
pub mod tree;
