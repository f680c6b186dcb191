//! What several test modules need.

pub(crate) mod client;
pub(crate) mod sshd;
