//! One machine with a replica and an engine against the in-memory server, used by path: everything but the
//! kernel.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use async_trait::async_trait;
use roamhome::engine::{Connect, Engine, EngineOptions, LinkError, PassReport, Scope};
use roamhome::fs::{
    Caller, FsError, Handle, Home, HomeOptions, HostScope, OpenOptions, RenameMode, Restraint,
    SetAttr, SetTime, Stop,
};
use roamhome::remote::{Calls, MemoryServer, Remote};
use roamhome::replica::Replica;
use roamhome::tree::{Kind, Name, NodeId, RelPath, Time};

/// A clock that stands still until it is told to go on; shared by the machines of a test.
#[derive(Clone)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_700_000_000)))
    }

    /// Panics while it is stopped.
    pub(crate) fn now(&self) -> Time {
        let secs = self.0.load(Ordering::SeqCst);
        assert!(secs > 0, "the clock is stopped");
        Time::new(secs, 0)
    }

    /// The same in whole seconds, even while it is stopped.
    pub(crate) fn secs(&self) -> i64 {
        self.0.load(Ordering::SeqCst).abs()
    }

    /// Stops it, or lets it go on.
    pub(crate) fn turn(&self) {
        let turned = |secs: i64| Some(-secs);
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, turned)
            .unwrap();
    }

    pub(crate) fn advance(&self, secs: i64) {
        self.0.fetch_add(secs, Ordering::SeqCst);
    }
}

/// The connections of a machine.
#[derive(Clone, Default)]
struct Made {
    remotes: Arc<Mutex<Vec<Remote>>>,
    /// There are to be no more.
    enough: Arc<AtomicBool>,
}

struct ToServer(MemoryServer, Made);

#[async_trait]
impl Connect for ToServer {
    async fn connect(&self) -> Result<Remote, LinkError> {
        if self.1.enough.load(Ordering::SeqCst) {
            return Err(LinkError {
                message: "no more connections".into(),
                remedy: String::new(),
                needs_person: false,
            });
        }
        let remote = self.0.remote(2);
        self.1.remotes.lock().unwrap().push(remote.clone());
        Ok(remote)
    }
}

pub(crate) const ME: Caller = Caller {
    uid: 1000,
    gid: 1000,
    umask: 0,
    // A program that is gone: nothing is known of it.
    pid: u32::MAX,
};

/// Lets `ROAMHOME_LOG` say what is logged.
pub(crate) fn log() {
    // Only the first test of the program can set it; that is enough.
    let _already = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("ROAMHOME_LOG"))
        .with_test_writer()
        .try_init();
}

pub(crate) struct Client {
    pub(crate) engine: Engine,
    pub(crate) replica: Arc<Replica>,
    home: Arc<Home>,
    made: Made,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Starts a machine with its state in `dir`.
    pub(crate) fn start(dir: PathBuf, server: &MemoryServer, clock: &Clock) -> Self {
        Self::start_with(dir, server, clock, |_| {})
    }

    /// The same with other options.
    pub(crate) fn start_with(
        dir: PathBuf,
        server: &MemoryServer,
        clock: &Clock,
        change: impl FnOnce(&mut EngineOptions),
    ) -> Self {
        log();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let replica = Arc::new(Replica::open(&dir, clock.now()).unwrap());
        let now = {
            let clock = clock.clone();
            move || clock.now()
        };
        let mut options = EngineOptions {
            host: dir.file_name().unwrap().to_string_lossy().into_owned(),
            // Passes run when the tests say so.
            quiet_period: Duration::from_secs(3600),
            reconcile_interval: Duration::from_secs(3600),
            ..EngineOptions::new(Arc::new(now.clone()), 1000, 1000)
        };
        change(&mut options);
        let made = Made::default();
        let connector = Arc::new(ToServer(server.clone(), made.clone()));
        let engine =
            Engine::start(runtime.handle(), Arc::clone(&replica), connector, options).unwrap();
        let home = Home::new(
            Arc::clone(&replica),
            Arc::new(engine.clone()),
            HomeOptions {
                uid: 1000,
                gid: 1000,
                host_scoped: HostScope::new::<&str>(&["*.lock"]).unwrap(),
                restraint: Restraint::default(),
                now: Box::new(now),
            },
        )
        .unwrap();
        let client = Self {
            engine,
            replica,
            home: Arc::new(home),
            made,
            runtime,
        };
        client.settle();
        client
    }

    /// What was asked over all connections.
    pub(crate) fn calls(&self) -> Calls {
        let mut all = Calls::default();
        for remote in self.made.remotes.lock().unwrap().iter() {
            let calls = remote.calls();
            all.bytes_read += calls.bytes_read;
            all.bytes_written += calls.bytes_written;
            all.bytes_noted += calls.bytes_noted;
            for (verb, count) in calls.by_verb {
                *all.by_verb.entry(verb).or_default() += count;
            }
        }
        all
    }

    /// The connection that there is, is the last one, or not.
    pub(crate) fn is_last_connection(&self, last: bool) {
        self.made.enough.store(last, Ordering::SeqCst);
    }

    /// Waits until the link is up or known to be down, and the first pass has ended.
    pub(crate) fn settle(&self) {
        self.runtime
            .block_on(self.engine.settled_link(Duration::from_secs(10)));
    }

    pub(crate) fn offline(&self) {
        self.engine.hold(true);
        self.wait_for("offline");
    }

    pub(crate) fn online(&self) {
        self.engine.hold(false);
        self.wait_for("online");
    }

    /// After the server was exchanged under the connection.
    pub(crate) fn reconnect(&self) {
        self.offline();
        self.online();
    }

    fn wait_for(&self, word: &str) {
        for _ in 0..1000 {
            if self.engine.link().state.word() == word {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the link is {:?}, not {word}", self.engine.link());
    }

    /// A full pass that must succeed; until a pass has nothing to do.
    pub(crate) fn sync(&self) -> PassReport {
        let report = self.pass(Scope::Full {
            now: true,
            force_guard: false,
        });
        assert_eq!(report.guards, []);
        report
    }

    pub(crate) fn pass(&self, scope: Scope) -> PassReport {
        self.runtime.block_on(self.engine.pass(scope)).unwrap()
    }

    pub(crate) fn flush(&self) -> usize {
        self.runtime
            .block_on(self.engine.flush(Some(Duration::from_secs(20))))
            .unwrap()
            .places
            .len()
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    fn run<T: Send + 'static>(
        &self,
        operation: impl Fn(&Home) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, FsError> {
        let (sender, receiver) = mpsc::channel();
        self.home
            .run(operation, move |outcome| sender.send(outcome).unwrap());
        receiver.recv_timeout(Duration::from_secs(60)).unwrap()
    }

    fn find(&self, path: &str) -> Result<NodeId, FsError> {
        let mut id = NodeId::ROOT;
        for name in RelPath::parse(path.as_bytes()).unwrap().names() {
            let name = name.clone();
            id = self
                .run(move |home| home.lookup(id, &name))?
                .ok_or(FsError::NotFound)?
                .id;
        }
        Ok(id)
    }

    fn place(&self, path: &str) -> (NodeId, Name) {
        let path = RelPath::parse(path.as_bytes()).unwrap();
        let (name, dirs) = path.names().split_last().unwrap();
        let dir: RelPath = dirs.iter().cloned().collect();
        (
            self.find(std::str::from_utf8(&dir.to_bytes()).unwrap())
                .unwrap(),
            name.clone(),
        )
    }

    pub(crate) fn write(&self, path: &str, data: &[u8]) {
        let handle = self.open_to_write(path);
        self.write_open(handle, data);
        self.close(handle);
    }

    /// Makes or empties a file, and leaves it open.
    pub(crate) fn open_to_write(&self, path: &str) -> Handle {
        let (dir, name) = self.place(path);
        let options = OpenOptions {
            write: true,
            truncate: true,
            ..OpenOptions::default()
        };
        let opened = self.run(move |home| home.create(dir, &name, 0o644, options, ME));
        opened.unwrap().handle
    }

    /// Writes from the beginning of an open file.
    pub(crate) fn write_open(&self, handle: Handle, data: &[u8]) {
        let written = self.home.write(handle, 0, data, false).unwrap();
        assert_eq!(written, data.len());
    }

    /// Writes over a part of a file.
    pub(crate) fn write_at(&self, path: &str, offset: u64, data: &[u8]) {
        let id = self.find(path).unwrap();
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let opened = self.run(move |home| home.open(id, options, ME)).unwrap();
        let written = self.home.write(opened.handle, offset, data, false).unwrap();
        assert_eq!(written, data.len());
        self.close(opened.handle);
    }

    pub(crate) fn close(&self, handle: Handle) {
        self.home.release(handle).unwrap();
    }

    /// Looks the path up again if another file took its place, as the kernel does.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, FsError> {
        match self.read_once(path) {
            Err(FsError::Stale) => self.read_once(path),
            read => read,
        }
    }

    fn read_once(&self, path: &str) -> Result<Vec<u8>, FsError> {
        let id = self.find(path)?;
        let opened = self.run(move |home| home.open(id, OpenOptions::default(), ME))?;
        let data = self.read_open(opened.handle, 0, 1 << 27);
        self.home.release(opened.handle).unwrap();
        data
    }

    /// Opens a file to read it.
    pub(crate) fn open_to_read(&self, path: &str) -> Result<Handle, FsError> {
        let id = self.find(path)?;
        let opened = self.run(move |home| home.open(id, OpenOptions::default(), ME));
        opened.map(|opened| opened.handle)
    }

    /// Reads a part of an open file.
    pub(crate) fn read_open(
        &self,
        handle: Handle,
        offset: u64,
        len: usize,
    ) -> Result<Vec<u8>, FsError> {
        self.run(move |home| home.read(handle, offset, len))
    }

    /// Sets a file's times, in seconds.
    pub(crate) fn touch(&self, path: &str, secs: i64) {
        let id = self.find(path).unwrap();
        let set = SetAttr {
            mtime: Some(SetTime::At(Time::new(secs, 0))),
            ..SetAttr::default()
        };
        self.run(move |home| home.set_attr(id, set, ME)).unwrap();
    }

    pub(crate) fn mkdir(&self, path: &str) {
        let (dir, name) = self.place(path);
        self.run(move |home| home.mkdir(dir, &name, 0o755, ME))
            .unwrap();
    }

    pub(crate) fn rmdir(&self, path: &str) {
        let (dir, name) = self.place(path);
        self.run(move |home| home.rmdir(dir, &name)).unwrap();
    }

    pub(crate) fn unlink(&self, path: &str) {
        let (dir, name) = self.place(path);
        self.run(move |home| home.unlink(dir, &name)).unwrap();
    }

    pub(crate) fn link(&self, from: &str, to: &str) {
        let id = self.find(from).unwrap();
        let (dir, name) = self.place(to);
        self.run(move |home| home.link(id, dir, &name)).unwrap();
    }

    pub(crate) fn symlink(&self, target: &str, path: &str) {
        let (dir, name) = self.place(path);
        let target = target.as_bytes().to_vec();
        self.run(move |home| home.symlink(dir, &name, &target, ME))
            .unwrap();
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        let (from, to) = (self.place(from), self.place(to));
        self.run(move |home| home.rename((from.0, &from.1), (to.0, &to.1), RenameMode::Replace))
            .unwrap();
    }

    /// Every path with what is there: a file's content, a link's target, nothing for a directory.
    pub(crate) fn tree(&self) -> Vec<(String, Kind, Vec<u8>)> {
        let mut all = Vec::new();
        let mut todo = vec![(NodeId::ROOT, String::new())];
        while let Some((dir, prefix)) = todo.pop() {
            drop(self.run(move |home| home.read_dir(dir, 0)).unwrap());
            let view = |view: &roamhome::replica::View<'_>| view.children(dir, None, 100_000);
            let children = self
                .replica
                .view::<_, roamhome::replica::ReplicaError>(view)
                .unwrap();
            for (name, id) in children {
                let path = format!("{prefix}{name}");
                let attr = self.home.attr(id).unwrap();
                let data = match attr.kind {
                    Kind::File => self.read(&path).unwrap(),
                    Kind::Symlink => self.home.read_link(id).unwrap(),
                    _ => Vec::new(),
                };
                if attr.kind == Kind::Dir {
                    todo.push((id, format!("{path}/")));
                }
                all.push((path, attr.kind, data));
            }
        }
        all.sort();
        all
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.engine.stop();
    }
}
