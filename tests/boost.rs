//! What programs read after a mount is there at the next one on another machine, in little time and at little cost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use roamhome::engine::{Connect, Engine, EngineOptions, Fetch, LinkError};
use roamhome::remote::{ErrorKind, MemoryServer, Remote};
use roamhome::replica::{Content, Node, Replica, ReplicaError};
use roamhome::tree::{NodeId, RelPath, Time};
use tokio::time::Instant;

use crate::support::client::Client;
use crate::support::field::{Field, path_of};
use crate::support::machine::eventually;

/// The first minutes after a mount.
const WINDOW: Duration = Duration::from_secs(180);
/// Between the machines here and their server.
const ROUND_TRIP: Duration = Duration::from_millis(100);
const LIST: &str = ".roamhome/boost/00000000000000aa";

struct ToServer(MemoryServer);

#[async_trait]
impl Connect for ToServer {
    async fn connect(&self) -> Result<Remote, LinkError> {
        Ok(self.0.remote(2))
    }
}

/// A machine in virtual time, without a mount.
struct Machine {
    engine: Engine,
    replica: Arc<Replica>,
}

impl Machine {
    fn start(dir: &Path, server: &MemoryServer, change: impl FnOnce(&mut EngineOptions)) -> Self {
        let start = Instant::now();
        let now = move || {
            let elapsed = start.elapsed().as_nanos() as i64;
            Time(Time::new(1_700_000_000, 0).0 + elapsed)
        };
        let replica = Arc::new(Replica::open(dir, now()).unwrap());
        let mut options = EngineOptions {
            quiet_period: Duration::from_secs(1_000_000),
            reconcile_interval: Duration::from_secs(1_000_000),
            boost: Some(WINDOW),
            ..EngineOptions::new(Arc::new(now), 1000, 1000)
        };
        change(&mut options);
        let connector = Arc::new(ToServer(server.clone()));
        let runtime = tokio::runtime::Handle::current();
        let engine = Engine::start(&runtime, Arc::clone(&replica), connector, options).unwrap();
        Self { engine, replica }
    }

    /// Until nothing is under way any more.
    async fn rest(&self) {
        tokio::time::sleep(ROUND_TRIP * 100).await;
    }

    /// It is unmounted.
    async fn end(self) {
        self.engine.stop();
        self.replica.close().unwrap();
        drop(self);
        // Its tasks hear of it.
        tokio::time::sleep(ROUND_TRIP).await;
    }

    fn node(&self, path: &str) -> Option<Node> {
        let find = |view: &roamhome::replica::View<'_>| {
            let mut at = Some(NodeId::ROOT);
            for name in path_of(path).names() {
                at = match at {
                    Some(dir) => view.child(dir, name)?,
                    None => None,
                };
            }
            at.map_or(Ok(None), |id| view.node(id))
        };
        self.replica.view::<_, ReplicaError>(find).unwrap()
    }

    fn is_here(&self, path: &str) -> bool {
        let node = self.node(path);
        node.is_some_and(|node| node.content == Content::Whole)
    }

    /// A program reads it.
    fn read(&self, path: &str) {
        let id = self.node(path).unwrap().id;
        assert!(self.engine.is_news(id));
        self.engine.is_read(id);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

fn in_virtual_time(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// A server with these files, each as long as its number says. They are older than what may still change unseen.
fn server(files: &[(&str, usize)]) -> MemoryServer {
    let secs = AtomicI64::new(1_600_000_000);
    let server = MemoryServer::new(move || Time::new(secs.fetch_add(1, Ordering::Relaxed), 0));
    for dir in [".roamhome", ".roamhome/boost", ".roamhome/staging"] {
        server.make_dir(&path_of(dir)).unwrap();
    }
    for (path, size) in files {
        put(&server, path, &vec![b'x'; *size]);
    }
    for _ in 0..10 {
        put(&server, ".roamhome/later", b"");
    }
    server
}

fn put(server: &MemoryServer, path: &str, data: &[u8]) {
    let path = path_of(path);
    for depth in 1..path.names().len() {
        let dir: RelPath = path.names()[..depth].iter().cloned().collect();
        if server.stat(&dir).is_err() {
            server.make_dir(&dir).unwrap();
        }
    }
    server.write_file(&path, data).unwrap();
}

fn list(paths: &[&str]) -> Vec<u8> {
    let lines = paths.iter().map(|path| format!("0 {path}\n"));
    format!("roamhome-boost 1\n{}", lines.collect::<String>()).into_bytes()
}

/// The lists that machines put into the home.
fn lists(server: &MemoryServer) -> Vec<String> {
    let tree = server.tree();
    let lists = tree.iter().filter(|(path, _)| {
        let path = path.to_string();
        path.starts_with(".roamhome/boost/") && path != LIST
    });
    lists
        .map(|(_, item)| String::from_utf8(item.data.clone()).unwrap())
        .collect()
}

#[test]
fn what_programs_read_on_one_machine_is_there_on_a_fresh_one_before_anybody_asks() {
    let field = Field::new();
    let start = |name: &str| {
        let boost = |options: &mut EngineOptions| options.boost = Some(WINDOW);
        Client::start_with(field.state_dir(name), &field.server, &field.clock, boost)
    };
    for path in [
        "d/e/one",
        "d/two",
        "three",
        "d/e/left",
        "other/left",
        "left",
    ] {
        put(&field.server, path, path.as_bytes());
    }
    field.clock.advance(100);
    let a = start("a");
    for path in ["d/e/one", "three", "d/two"] {
        assert_eq!(a.read(path).unwrap(), path.as_bytes());
    }
    // Host-scoped, and so nobody else's.
    a.write("d/x.lock", b"here");
    assert_eq!(a.read("d/x.lock").unwrap(), b"here");
    drop(a);
    // The mount was short: the next one tells.
    let a = start("a");
    eventually("the home knows what was read", || {
        !lists(&field.server).is_empty()
    });
    drop(a);
    assert_eq!(
        lists(&field.server),
        ["roamhome-boost 1\n0 d/e/one\n0 three\n0 d/two\n"]
    );

    let b = start("b");
    let is_whole = |path: &str| {
        let node = b
            .block_on(async { b.engine.node_at(&path_of(path)) })
            .unwrap();
        node.is_some_and(|node| node.content == Content::Whole)
    };
    eventually("it is here", || {
        ["d/e/one", "three", "d/two"]
            .iter()
            .all(|path| is_whole(path))
    });
    b.sync();
    for path in ["d/e/left", "other/left", "left"] {
        assert!(!is_whole(path), "{path}");
    }
    b.offline();
    assert_eq!(b.read("d/e/one").unwrap(), b"d/e/one");
}

#[test]
fn a_cold_start_takes_few_round_trips_and_brings_nothing_else() {
    in_virtual_time(async {
        let names: Vec<_> = (0..300).map(|i| format!("d{}/e/f{i}", i % 20)).collect();
        let mut files: Vec<_> = names.iter().map(|name| (name.as_str(), 1000)).collect();
        files.extend([("d1/e/left", 1000), ("left", 500_000)]);
        let server = server(&files);
        let wanted: Vec<_> = names.iter().map(String::as_str).collect();
        put(&server, LIST, &list(&wanted));
        server.set_latency(|| ROUND_TRIP);
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::start(dir.path(), &server, |_| {});
        machine.engine.settled_link(Duration::from_secs(60)).await;
        let online = Instant::now();
        while !wanted.iter().all(|path| machine.is_here(path)) {
            assert!(online.elapsed() < WINDOW, "never");
            tokio::time::sleep(ROUND_TRIP / 4).await;
        }
        // The lists' names, a list, three depths of directories, and the files.
        let round_trips = online.elapsed().as_millis() / ROUND_TRIP.as_millis();
        assert!(round_trips <= 1 + 3 + 3 + 2 + 1, "{round_trips}");
        machine.rest().await;
        assert!(!machine.is_here("d1/e/left") && !machine.is_here("left"));
    });
}

#[test]
fn what_was_read_is_told_when_the_first_minutes_are_over_and_only_if_it_is_news() {
    in_virtual_time(async {
        let server = server(&[("a", 10), ("b", 10), ("c", 10)]);
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::start(dir.path(), &server, |_| {});
        machine.engine.list_root().await.unwrap();
        machine.rest().await;
        machine.read("b");
        machine.read("a");
        assert_eq!(lists(&server), [""; 0]);
        // Whoever held the link down lets it come back much later.
        machine.engine.hold(true);
        tokio::time::sleep(WINDOW).await;
        assert!(!machine.engine.is_news(machine.node("c").unwrap().id));
        machine.rest().await;
        assert_eq!(lists(&server), [""; 0]);
        machine.engine.hold(false);
        machine.rest().await;
        assert_eq!(lists(&server), ["roamhome-boost 1\n0 b\n0 a\n"]);
        machine.end().await;

        // The same again is no news.
        let machine = Machine::start(dir.path(), &server, |_| {});
        machine.rest().await;
        machine.read("a");
        machine.read("b");
        let writes = server.calls().get("open_write").copied();
        tokio::time::sleep(WINDOW * 2).await;
        assert_eq!(server.calls().get("open_write").copied(), writes);
        // Unless the server lost it.
        machine.end().await;
        for path in server.tree().keys() {
            if path.to_string().starts_with(".roamhome/boost/") {
                server.remove(path).unwrap();
            }
        }
        let machine = Machine::start(dir.path(), &server, |_| {});
        machine.rest().await;
        assert_eq!(lists(&server), ["roamhome-boost 1\n0 a\n0 b\n"]);
    });
}

#[test]
fn lists_reach_servers_that_cannot_replace_a_file() {
    in_virtual_time(async {
        let server = server(&[("a", 10), ("b", 10)]);
        server.set_features(|features| {
            (features.posix_rename, features.hardlink) = (false, false);
            features.max_write = 7;
        });
        let dir = tempfile::tempdir().unwrap();
        for (file, told) in [("a", "0 a\n"), ("b", "0 b\n1 a\n")] {
            let machine = Machine::start(dir.path(), &server, |_| {});
            machine.engine.list_root().await.unwrap();
            machine.rest().await;
            machine.read(file);
            tokio::time::sleep(WINDOW * 2).await;
            assert_eq!(lists(&server), [format!("roamhome-boost 1\n{told}")]);
            machine.end().await;
        }
        let staged = server.tree();
        let mut staged = staged.keys().map(ToString::to_string);
        assert!(!staged.any(|path| path.ends_with("-boost")));
    });
}

#[test]
fn without_boost_nothing_is_remembered_and_nothing_fetched() {
    in_virtual_time(async {
        let server = server(&[("a", 10)]);
        put(&server, LIST, &list(&["a"]));
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::start(dir.path(), &server, |options| options.boost = None);
        machine.engine.list_root().await.unwrap();
        tokio::time::sleep(WINDOW * 2).await;
        assert!(!machine.is_here("a"));
        assert!(!machine.engine.is_news(machine.node("a").unwrap().id));
        assert_eq!(lists(&server), [""; 0]);
    });
}

#[test]
fn small_files_come_first_and_no_more_than_there_may_be() {
    in_virtual_time(async {
        const MIB: usize = 1 << 20;
        let files = [("l", 45 * MIB), ("m", 20 * MIB), ("n", 3 * MIB), ("s", 10)];
        let server = server(&files);
        put(&server, LIST, &list(&["l", "m", "n", "s"]));
        for (size, here) in [
            (None, &["m", "n", "s"][..]),
            // What is fetched for nobody makes no room by what was used.
            (Some(4 * MIB as u64), &["n", "s"]),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let machine = Machine::start(dir.path(), &server, |options| options.room.size = size);
            machine.rest().await;
            machine.rest().await;
            let found = ["l", "m", "n", "s"]
                .into_iter()
                .filter(|path| machine.is_here(path));
            assert_eq!(found.collect::<Vec<_>>(), here, "{size:?}");
        }
    });
}

#[test]
fn lists_that_lie_name_nothing_outside_of_the_home_and_stop_nothing() {
    in_virtual_time(async {
        let server = server(&[("a", 10), ("d/b", 10)]);
        put(&server, "secret/f", b"not listed");
        server.make_symlink(&path_of("link"), b"secret").unwrap();
        let odd = b"roamhome-boost 1\n0 ../a\n0 /a\n0 link/f\n0 d/../a\n0 a/b/c\n0 gone/x\n0 d\n0 .roamhome/home.toml\n0 \xff\n0 d/b\n";
        put(&server, LIST, odd);
        let mut garbage = b"roamhome-boost 1\n".to_vec();
        garbage.extend((0..3_000_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8));
        put(&server, ".roamhome/boost/00000000000000ab", &garbage);
        put(&server, ".roamhome/boost/not-a-list", &list(&["a"]));
        server
            .make_dir(&path_of(".roamhome/boost/00000000000000ac"))
            .unwrap();
        let at = path_of(".roamhome/boost/00000000000000ad");
        server.make_symlink(&at, b"not-a-list").unwrap();
        put(&server, ".roamhome/boost/00000000000000ae", b"");
        let forbidden = path_of(".roamhome/boost/00000000000000af");
        server.write_file(&forbidden, &list(&["a"])).unwrap();
        server.refuse(&forbidden, Some(ErrorKind::PermissionDenied));
        let dir = tempfile::tempdir().unwrap();
        let machine = Machine::start(dir.path(), &server, |_| {});
        machine.rest().await;
        assert!(machine.is_here("d/b"));
        assert!(!machine.is_here("a") && !machine.is_here("secret/f"));
    });
}
