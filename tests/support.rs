//! What several test modules need.

pub(crate) mod client;
pub(crate) mod dice;
#[path = "../src/fs/tests/fake.rs"]
pub(crate) mod fake;
pub(crate) mod machine;
pub(crate) mod mounted;
pub(crate) mod passwords;
pub(crate) mod proxy;
pub(crate) mod sshd;
pub(crate) mod writer;
