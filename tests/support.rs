//! What several test modules need.

pub(crate) mod booted;
pub(crate) mod chance;
pub(crate) mod client;
pub(crate) mod exact;
#[path = "../src/fs/tests/fake.rs"]
pub(crate) mod fake;
pub(crate) mod field;
pub(crate) mod lab;
pub(crate) mod logind;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod mounted;
pub(crate) mod passwords;
pub(crate) mod proxy;
pub(crate) mod rng;
pub(crate) mod servers;
pub(crate) mod session;
pub(crate) mod sshd;
pub(crate) mod user;
pub(crate) mod writer;

/// A directory for what is tested by the hundred: in memory where there is such a place, since the disk would be waited
/// for again and again and is not what is tested.
pub(crate) fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    match tempfile::tempdir_in(memory) {
        Ok(dir) => dir,
        Err(_) => tempfile::tempdir().unwrap(),
    }
}
