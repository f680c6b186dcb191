//! What several test modules need.

pub(crate) mod client;
#[path = "../src/fs/tests/fake.rs"]
pub mod fake;
pub mod mounted;
pub(crate) mod sshd;
