//! What the tests share.

#[path = "../src/fs/tests/fake.rs"]
pub mod fake;
pub mod mounted;
