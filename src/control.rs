//! How `roamhome` commands talk to the daemon that serves a mount: lines of JSON over a Unix socket.
//!
//! `protocol` is pure and is the documented, stable form; `server` is the daemon's end, `client` the
//! commands'.

pub mod client;
mod failure;
pub mod protocol;
mod secret;
pub mod server;
pub mod socket;

pub use failure::{Code, Failure};
pub use secret::Secret;
