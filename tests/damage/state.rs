//! A state directory with something of everything in it, and copies of it to be damaged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use roamhome::remote::MemoryServer;
use roamhome::tree::{RelPath, Time};
use rustix::fs::XattrFlags;

use crate::support::client::{Client, Clock};

const HINT: &str = "user.roamhome.path";

const LOSER: &[u8] = b"lost a conflict";

/// Contents by their place in the state directory.
pub(super) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// What all copies are made from.
pub(super) struct Original {
    pub(super) server: MemoryServer,
    pub(super) clock: Clock,
    _dir: tempfile::TempDir,
    /// As an orderly end leaves it, and as a death does.
    pub(super) ended: PathBuf,
    pub(super) killed: PathBuf,
}

fn path(text: &str) -> RelPath {
    RelPath::parse(text.as_bytes()).unwrap()
}

impl Original {
    pub(super) fn new() -> Self {
        let dir = crate::support::scratch();
        let clock = Clock::new();
        let server = {
            let clock = clock.clone();
            MemoryServer::new(move || clock.now())
        };
        for name in [
            "one",
            "two",
            "changed",
            "dir/one",
            "dir/deep/two",
            "cold",
            "lost",
        ] {
            let content = format!("the server's {name}").repeat(20);
            server.write_file(&path(name), content.as_bytes()).unwrap();
        }
        for number in 0..200 {
            let name = format!("many/file number {number}");
            server.write_file(&path(&name), name.as_bytes()).unwrap();
        }
        server.make_symlink(&path("link"), b"one").unwrap();
        let state = dir.path().join("state");
        let client = Client::start(state.clone(), &server, &clock);
        client.sync();
        for name in ["one", "two", "changed", "dir/one", "dir/deep/two", "lost"] {
            client.read(name).unwrap();
        }
        for number in 0..20 {
            client.read(&format!("many/file number {number}")).unwrap();
        }
        // A conflict that this machine loses becomes a backup here.
        clock.advance(10);
        client.offline();
        client.write("lost", LOSER);
        clock.advance(100);
        server.write_file(&path("lost"), b"newer there").unwrap();
        client.online();
        client.sync();
        client.offline();
        for name in ["new", "changed", "dir/deep/new", "many/new"] {
            client.write(name, format!("unsent {name}").repeat(30).as_bytes());
        }
        client.mkdir("made");
        client.write("made/inside", b"unsent, in a new directory");
        client.rename("two", "made/moved");
        let (ended, killed) = (dir.path().join("ended"), dir.path().join("killed"));
        client.replica.sync().unwrap();
        // What lost is a backup by now; its content as a file goes when that is durable.
        while files(&state, &["unsent"]).values().any(|c| c == LOSER) {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        copy(&state, &killed);
        client.replica.close().unwrap();
        copy(&state, &ended);
        drop(client);
        Self {
            server,
            clock,
            _dir: dir,
            ended,
            killed,
        }
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }
}

/// Copies a state directory with its notes, without directories that hold nothing.
pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            if fs::read_dir(&path).unwrap().next().is_some() {
                copy(&path, &target);
            }
        } else if !path.ends_with("index.db-shm") {
            // A journal that is committed may be removed at any time.
            if fs::copy(&path, &target).is_err() {
                assert!(!path.exists(), "{}", path.display());
                continue;
            }
            let mut hint = vec![0; 4096];
            if let Ok(len) = rustix::fs::getxattr(&path, HINT, &mut hint[..]) {
                rustix::fs::setxattr(&target, HINT, &hint[..len], XattrFlags::empty()).unwrap();
            }
        }
    }
}

/// Every file below the directories `of`, with its content.
pub(super) fn files(state: &Path, of: &[&str]) -> Files {
    let mut found = Files::new();
    let mut todo: Vec<PathBuf> = of.iter().map(|dir| state.join(dir)).collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            let below = path.strip_prefix(state).unwrap().to_owned();
            if path.is_dir() {
                todo.push(path);
            } else if !path.ends_with("paths.log") {
                found.insert(below, fs::read(&path).unwrap());
            }
        }
    }
    found
}
