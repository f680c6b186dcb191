//! What several test modules need.

pub(crate) mod client;
#[path = "../src/fs/tests/fake.rs"]
pub(crate) mod fake;
pub(crate) mod machine;
pub(crate) mod mounted;
pub(crate) mod passwords;
pub(crate) mod proxy;
pub(crate) mod rng;
pub(crate) mod sshd;
