//! How long who waits is made to wait: in virtual time, against a server that is slow, or silent.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use roamhome::engine::{Connect, Engine, EngineOptions, Fetch, FetchError, LinkError};
use roamhome::remote::{MemoryServer, Remote};
use roamhome::replica::{Content, Replica, ReplicaError};
use roamhome::tree::{NodeId, RelPath};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::support::client::Clock;

/// Of all engines here.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

struct ToServer(MemoryServer);

#[async_trait]
impl Connect for ToServer {
    async fn connect(&self) -> Result<Remote, LinkError> {
        Ok(self.0.remote(2))
    }
}

struct Field {
    server: MemoryServer,
    engine: Engine,
    replica: Arc<Replica>,
    _dir: tempfile::TempDir,
}

impl Field {
    /// A machine that has seen a home with `files`, and read none of them.
    async fn new(files: &[(&str, &[u8])]) -> Self {
        let clock = Clock::new();
        let server = {
            let clock = clock.clone();
            MemoryServer::new(move || clock.now())
        };
        for (path, data) in files {
            server.write_file(&path_of(path), data).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let replica = Arc::new(Replica::open(dir.path(), clock.now()).unwrap());
        let options = EngineOptions {
            fetch_timeout: FETCH_TIMEOUT,
            ..EngineOptions::new(Arc::new(move || clock.now()), 1000, 1000)
        };
        let runtime = tokio::runtime::Handle::current();
        let connector = Arc::new(ToServer(server.clone()));
        let engine = Engine::start(&runtime, Arc::clone(&replica), connector, options).unwrap();
        engine.settled_link(Duration::from_secs(10)).await;
        engine.list_root().await.unwrap();
        Self {
            server,
            engine,
            replica,
            _dir: dir,
        }
    }

    fn node(&self, name: &str) -> NodeId {
        let name = path_of(name).names()[0].clone();
        let child = self
            .replica
            .view::<_, ReplicaError>(|view| view.child(NodeId::ROOT, &name));
        child.unwrap().unwrap()
    }

    fn is_whole(&self, name: &str) -> bool {
        let id = self.node(name);
        let node = self.replica.view::<_, ReplicaError>(|view| view.node(id));
        node.unwrap().unwrap().content == Content::Whole
    }

    /// What a program hears that waits for a file's content, or for a listing.
    async fn hydrate(&self, name: &str) -> Result<(), FetchError> {
        let (done, heard) = oneshot::channel();
        let tell = move |outcome| done.send(outcome).unwrap();
        self.engine.hydrate(self.node(name), Box::new(tell));
        heard.await.unwrap()
    }

    async fn list(&self) -> Result<(), FetchError> {
        let (done, heard) = oneshot::channel();
        let tell = move |outcome| done.send(outcome).unwrap();
        self.engine.list(NodeId::ROOT, Box::new(tell));
        heard.await.unwrap()
    }
}

impl Drop for Field {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

fn path_of(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

#[test]
fn who_waits_for_a_silent_server_is_told_when_fetch_timeout_is_over() {
    in_virtual_time(async {
        let field = Field::new(&[("f", b"far away")]).await;
        field.server.hold(true);
        let start = Instant::now();
        let (content, listing) = futures_util::join!(field.hydrate("f"), field.list());
        assert_eq!(content, Err(FetchError::Unreachable));
        assert_eq!(listing, Err(FetchError::Unreachable));
        assert_eq!(start.elapsed(), FETCH_TIMEOUT);
        // What was given up spoils nothing.
        field.server.hold(false);
        assert_eq!(field.hydrate("f").await, Ok(()));
        assert_eq!(field.list().await, Ok(()));
        assert!(field.is_whole("f"));
    });
}

#[test]
fn what_makes_progress_may_take_longer_than_fetch_timeout() {
    in_virtual_time(async {
        let large = vec![7; 10_000_000];
        let field = Field::new(&[("large", &large)]).await;
        field.server.set_round_trip(FETCH_TIMEOUT * 2 / 3);
        let start = Instant::now();
        assert_eq!(field.hydrate("large").await, Ok(()));
        assert!(start.elapsed() > 2 * FETCH_TIMEOUT);
        assert!(field.is_whole("large"));
    });
}
