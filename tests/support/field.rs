//! Where machines meet: a server in memory, one clock for all, and a directory for what each keeps.

use std::path::PathBuf;

use roamhome::remote::MemoryServer;
use roamhome::tree::RelPath;

use super::client::{Client, Clock};

pub(crate) struct Field {
    pub(crate) server: MemoryServer,
    pub(crate) clock: Clock,
    pub(crate) dir: tempfile::TempDir,
}

impl Field {
    pub(crate) fn new() -> Self {
        let clock = Clock::new();
        let server = {
            let clock = clock.clone();
            MemoryServer::new(move || clock.now())
        };
        let dir = tempfile::tempdir().unwrap();
        Self { server, clock, dir }
    }

    /// What the machine `name` keeps.
    pub(crate) fn state_dir(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        Client::start(self.state_dir(name), &self.server, &self.clock)
    }

    pub(crate) fn on_server(&self, path: &str) -> Vec<u8> {
        self.server.read_file(&path_of(path)).unwrap()
    }
}

pub(crate) fn path_of(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}
