//! SFTP version 3 as bytes: requests and replies, encoded and decoded without any I/O.
//!
//! Everything a peer sends is checked against the packet it came in: no length is believed before that many
//! bytes are there, so decoding never panics and never allocates more than a few times the packet. Names
//! and paths are bytes throughout. Both halves have both directions, since the demo's server speaks it too.

mod attrs;
mod codec;
mod reply;
mod request;

pub(crate) use attrs::Attrs;
pub(crate) use codec::{Frame, WireError};
pub(crate) use reply::{Limits, NameEntry, Reply, Status, Version, Vfs};
pub(crate) use request::{
    Extended, OPEN_CREATE, OPEN_EXCLUSIVE, OPEN_READ, OPEN_TRUNCATE, OPEN_WRITE, Request,
    decode_init, extension, init,
};

/// The version of the protocol spoken here.
pub(crate) const PROTOCOL_VERSION: u32 = 3;

/// The longest packet taken from a peer: OpenSSH's limit and a little slack for its header.
pub(crate) const MAX_PACKET: u32 = 256 * 1024 + 1024;

/// The longest read or write asked for or offered: OpenSSH's own, 1 KiB below its packet limit.
pub(crate) const MAX_DATA: u32 = 255 * 1024;

/// What every server takes when it tells no limits.
pub(crate) const DEFAULT_DATA: u32 = 32 * 1024;

#[cfg(test)]
mod tests;
