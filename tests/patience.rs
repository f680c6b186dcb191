//! How long who waits is made to wait: in virtual time, against a server that is slow, or silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use roamhome::engine::{Connect, Engine, EngineOptions, Fetch, FetchError, LinkError};
use roamhome::fs::{Handle, Home, HomeOptions, HostScope, OpenOptions, Restraint};
use roamhome::remote::{ErrorKind, MemoryServer, Remote};
use roamhome::replica::{Content, Replica, ReplicaError};
use roamhome::tree::{Name, NodeId, RelPath, Time};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::support::client::ME;

/// Of all engines here.
const FETCH_TIMEOUT: Duration = Duration::from_secs(30);

/// When a flush without a limit gives up if nothing moves.
const STANDSTILL: Duration = Duration::from_secs(60);

struct ToServer {
    server: MemoryServer,
    down: Arc<AtomicBool>,
}

#[async_trait]
impl Connect for ToServer {
    async fn connect(&self) -> Result<Remote, LinkError> {
        if !self.down.load(Ordering::SeqCst) {
            return Ok(self.server.remote(2));
        }
        Err(LinkError {
            message: "no route to host".into(),
            remedy: String::new(),
            needs_person: false,
        })
    }
}

struct Field {
    server: MemoryServer,
    down: Arc<AtomicBool>,
    engine: Engine,
    replica: Arc<Replica>,
    home: Home,
    _dir: tempfile::TempDir,
}

impl Field {
    /// A machine that has seen a home with `files`, and read none of them. Its clock goes with virtual time.
    async fn new(files: &[(&str, &[u8])]) -> Self {
        let start = Instant::now();
        let now = move || {
            let elapsed = start.elapsed().as_nanos() as i64;
            Time(Time::new(1_700_000_000, 0).0 + elapsed)
        };
        let server = MemoryServer::new(now);
        for (path, data) in files {
            server.write_file(&path_of(path), data).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let replica = Arc::new(Replica::open(dir.path(), now()).unwrap());
        let options = EngineOptions {
            fetch_timeout: FETCH_TIMEOUT,
            // Passes run when a test says so.
            quiet_period: Duration::from_secs(1_000_000),
            reconcile_interval: Duration::from_secs(1_000_000),
            ..EngineOptions::new(Arc::new(now), 1000, 1000)
        };
        let down = Arc::new(AtomicBool::new(false));
        let connector = Arc::new(ToServer {
            server: server.clone(),
            down: Arc::clone(&down),
        });
        let runtime = tokio::runtime::Handle::current();
        let engine = Engine::start(&runtime, Arc::clone(&replica), connector, options).unwrap();
        engine.settled_link(Duration::from_secs(10)).await;
        engine.list_root().await.unwrap();
        let options = HomeOptions {
            uid: 1000,
            gid: 1000,
            host_scoped: HostScope::new::<&str>(&[]).unwrap(),
            restraint: Restraint::default(),
            now: Box::new(now),
        };
        let home = Home::new(Arc::clone(&replica), Arc::new(engine.clone()), options).unwrap();
        Self {
            server,
            down,
            engine,
            replica,
            home,
            _dir: dir,
        }
    }

    /// Makes a file and leaves it open.
    fn create(&self, name: &str) -> Handle {
        let name = Name::new(name.as_bytes()).unwrap();
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let opened = self.home.create(NodeId::ROOT, &name, 0o644, options, ME);
        opened.unwrap().handle
    }

    fn write(&self, name: &str, data: &[u8]) {
        let handle = self.create(name);
        assert_eq!(self.home.write(handle, 0, data, false).unwrap(), data.len());
        self.home.release(handle).unwrap();
    }

    /// A flush: what is left, why, and how long that took.
    async fn flush(&self) -> (Vec<String>, String, Duration) {
        let start = Instant::now();
        let left = self.engine.flush(None).await.unwrap();
        let places = left.places.iter().map(|(path, _)| path.to_string());
        (
            places.collect(),
            left.why.unwrap_or_default(),
            start.elapsed(),
        )
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

#[test]
fn a_flush_gives_up_a_link_that_stays_down_and_says_why() {
    in_virtual_time(async {
        let field = Field::new(&[]).await;
        field.write("f", b"unsent");
        field.down.store(true, Ordering::SeqCst);
        field.server.cut();
        let (left, why, took) = field.flush().await;
        assert_eq!(left, ["f"]);
        assert!(why.contains("no route to host"), "{why}");
        assert!(took >= STANDSTILL && took < 2 * STANDSTILL, "{took:?}");
        // One that comes back in time will do.
        let back = async {
            tokio::time::sleep(STANDSTILL / 2).await;
            field.down.store(false, Ordering::SeqCst);
            field.engine.hold(false);
        };
        let ((left, ..), ()) = futures_util::join!(field.flush(), back);
        assert_eq!(left, [""; 0]);
        assert_eq!(field.server.read_file(&path_of("f")).unwrap(), b"unsent");
    });
}

#[test]
fn a_flush_does_not_wait_for_the_next_attempt_to_connect() {
    in_virtual_time(async {
        let field = Field::new(&[]).await;
        field.write("f", b"unsent");
        field.down.store(true, Ordering::SeqCst);
        field.server.cut();
        // By now the attempts are far apart.
        tokio::time::sleep(10 * STANDSTILL).await;
        field.down.store(false, Ordering::SeqCst);
        let (left, _, took) = field.flush().await;
        assert_eq!(left, [""; 0]);
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_flush_ends_at_once_where_waiting_would_not_help() {
    in_virtual_time(async {
        let field = Field::new(&[]).await;
        field.write("f", b"unsent");
        field.engine.hold(true);
        let (left, why, took) = field.flush().await;
        assert_eq!(left, ["f"]);
        assert!(why.contains("roamhome online"), "{why}");
        assert!(took < Duration::from_secs(1), "{took:?}");
    });
}

#[test]
fn a_flush_takes_as_long_as_something_moves() {
    in_virtual_time(async {
        let field = Field::new(&[]).await;
        field.write("large", &vec![7; 20_000_000]);
        field.server.set_round_trip(Duration::from_secs(20));
        let (left, why, took) = field.flush().await;
        assert_eq!((left, why), (Vec::new(), String::new()));
        assert!(took > 2 * STANDSTILL, "{took:?}");
    });
}

#[test]
fn a_flush_gives_up_what_is_sent_again_and_again_in_vain() {
    in_virtual_time(async {
        let field = Field::new(&[]).await;
        field.write("refused", b"unsent");
        field.write("taken", b"unsent");
        let refused = path_of("refused");
        let kind = Some(ErrorKind::PermissionDenied);
        field.server.refuse(&refused, kind);
        let (left, _, took) = field.flush().await;
        assert_eq!(left, ["refused"]);
        assert!(took >= STANDSTILL && took < 2 * STANDSTILL, "{took:?}");
    });
}

#[test]
fn a_flush_ends_although_programs_never_stop_to_write() {
    in_virtual_time(async {
        let field = Field::new(&[]).await;
        field.server.set_round_trip(Duration::from_millis(20));
        field.write("f", b"before");
        let log = field.create("log");
        let program = async {
            for n in 0_u64.. {
                field.home.write(log, n, b".", false).unwrap();
                field.write(&format!("new {}", n % 7), b"more");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let left = tokio::select! {
            (left, ..) = field.flush() => left,
            () = program => unreachable!(),
        };
        assert_eq!(left, [""; 0]);
        assert_eq!(field.server.read_file(&path_of("f")).unwrap(), b"before");
        let sent = field.server.read_file(&path_of("log")).unwrap();
        assert!(sent.starts_with(b"."));
        field.home.release(log).unwrap();
    });
}

#[tokio::test(start_paused = true)]
async fn a_network_that_changed_is_tried_at_once_whatever_the_back_off_says() {
    let field = Field::new(&[]).await;
    field.down.store(true, Ordering::SeqCst);
    field.server.cut();
    // Long enough for the waits between attempts to be at their longest.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(field.engine.link().state.word(), "offline");
    field.down.store(false, Ordering::SeqCst);
    let start = Instant::now();
    field.engine.network_changed();
    let mut checks = 0;
    while field.engine.link().state.word() != "online" {
        tokio::time::sleep(Duration::from_millis(10)).await;
        checks += 1;
        assert!(checks < 100, "not tried after {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_up_has_to_prove_it_when_the_network_changed() {
    let field = Field::new(&[]).await;
    let before = field.server.requests();
    field.engine.network_changed();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(field.engine.link().state.word(), "online");
    assert_eq!(field.server.requests() - before, 1);
    // It says nothing any more: another connection is made.
    field.server.hold(true);
    field.down.store(true, Ordering::SeqCst);
    field.engine.network_changed();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(field.engine.link().state.word(), "offline");
    field.server.hold(false);
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_the_network_while_the_machine_sleeps() {
    let field = Field::new(&[("f", b"far away")]).await;
    // Who waits for a silent server, and, the second time, for a link that is coming up.
    for connecting in [false, true] {
        field.server.hold(true);
        if connecting {
            field.engine.resume();
            assert_eq!(field.engine.link().state.word(), "connecting");
        }
        let start = Instant::now();
        let (content, listing, ()) = futures_util::join!(
            field.hydrate("f"),
            field.list(),
            field.engine.suspend(Duration::from_secs(4))
        );
        assert_eq!(content, Err(FetchError::Unreachable));
        assert_eq!(listing, Err(FetchError::Unreachable));
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        field.server.hold(false);
    }
    let asked = field.server.requests();
    field.engine.try_again();
    assert_eq!(field.hydrate("f").await, Err(FetchError::Unreachable));
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(field.server.requests(), asked);
    let start = Instant::now();
    field.engine.resume();
    assert_eq!(field.hydrate("f").await, Ok(()));
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn small_files_are_fetched_before_a_program_asks_for_them() {
    const ROUND_TRIP: Duration = Duration::from_millis(20);
    let names: Vec<String> = (0..300).map(|number| format!("f{number:03}")).collect();
    let files = names.iter().map(|name| (name.as_str(), &b"small"[..]));
    let large = vec![7; 1_000_000];
    let files: Vec<_> = files.chain([("large", &large[..])]).collect();
    let field = Field::new(&files).await;
    field.server.set_round_trip(ROUND_TRIP);
    let before = field.server.calls()["open"];
    let start = Instant::now();
    let mut waited = 0;
    for name in &names {
        if !field.is_whole(name) {
            waited += 1;
            field.hydrate(name).await.unwrap();
        }
    }
    // Two of its own, and some that were on their way and are not fetched twice.
    assert!(waited < 20, "{waited}");
    let trips = start.elapsed().as_millis() / ROUND_TRIP.as_millis();
    assert!(trips < 40, "{trips} round trips");
    let opened = field.server.calls()["open"] - before;
    assert_eq!(opened, names.len() as u64, "each is fetched once");
    assert!(!field.is_whole("large"), "nobody asked for it");
}

#[tokio::test(start_paused = true)]
async fn who_walks_through_directories_finds_the_next_ones_here() {
    const PER_DIR: usize = 30;
    let dirs: Vec<_> = (0..8)
        .flat_map(|top| (0..3).map(move |sub| format!("t{top}/s{sub}")))
        .collect();
    let names = dirs
        .iter()
        .flat_map(|dir| (0..PER_DIR).map(move |n| format!("{dir}/f{n:02}")));
    let names: Vec<String> = names.collect();
    let files: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), &b"small"[..]))
        .collect();
    let field = Field::new(&files).await;
    field.server.set_round_trip(Duration::from_millis(20));
    let mut waited = Vec::new();
    for name in &names {
        if !field.is_whole(name) {
            waited.push(name.as_str());
            field.hydrate(name).await.unwrap();
        }
        // A program that does something with what it reads.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // In the first two it has to show what it is about; of the others it comes to the first file.
    let later = waited
        .iter()
        .filter(|name| !name.starts_with("t0") && !name.starts_with("t1"));
    let later: Vec<_> = later.collect();
    assert!(
        later.len() <= 6 && later.iter().all(|name| name.ends_with("s0/f00")),
        "{later:?}"
    );
}
