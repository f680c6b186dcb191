//! What the tests share.

#[path = "../src/fs/tests/fake.rs"]
pub(crate) mod fake;
pub(crate) mod mounted;
