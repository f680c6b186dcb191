//! One machine of a simulation: replica, engine and home on a runtime whose time is virtual, used by path from
//! async code, so that its operations run in the midst of its own passes and everybody else's.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use roamhome::engine::{Connect, Engine, EngineOptions, LinkError, PassError, PassReport, Scope};
use roamhome::fs::{FsError, Home, HomeOptions, HostScope, OpenOptions, RenameMode, SetAttr, Stop};
use roamhome::remote::{MemoryServer, Remote};
use roamhome::replica::{Replica, ReplicaError, View};
use roamhome::tree::{Kind, Name, NodeId, RelPath, Time};

use super::world::Content;
use crate::support::client::{Clock, ME};

/// Longer than anything may take, in virtual time.
const HANGS: Duration = Duration::from_secs(600);

/// What a place shows, to be compared: kind, mode, and content or target.
pub(crate) type Shown = (Kind, u32, Vec<u8>);

/// Straight to the server.
struct Direct(MemoryServer);

#[async_trait]
impl Connect for Direct {
    async fn connect(&self) -> Result<Remote, LinkError> {
        Ok(self.0.remote(2))
    }
}

struct ToServer {
    way: Arc<dyn Connect>,
    /// The connection of this machine, which ends with it; `None` once it is dead.
    made: Mutex<Option<Option<Remote>>>,
}

#[async_trait]
impl Connect for ToServer {
    async fn connect(&self) -> Result<Remote, LinkError> {
        let remote = self.way.connect().await?;
        let mut made = self.made.lock().unwrap();
        let made = made.as_mut().ok_or_else(|| LinkError {
            message: "the machine is dead".into(),
            remedy: String::new(),
            needs_person: true,
        })?;
        // One at a time: what was given up is dropped, and our copy must not keep it alive.
        if let Some(before) = made.replace(remote.clone()) {
            before.close();
        }
        Ok(remote)
    }
}

pub(crate) struct Machine {
    pub(crate) engine: Engine,
    pub(crate) replica: Arc<Replica>,
    home: Arc<Home>,
    connector: Arc<ToServer>,
    pub(crate) dir: PathBuf,
    /// Not killed yet.
    pub(crate) alive: Cell<bool>,
}

/// What a look at a file tells, without fetching it.
pub(crate) type Looks = BTreeMap<String, (Kind, u64)>;

impl Machine {
    pub(crate) fn start(dir: PathBuf, server: &MemoryServer, clock: &Clock, ahead: i64) -> Self {
        Self::start_by(dir, Arc::new(Direct(server.clone())), clock, ahead)
    }

    /// Starts one that reaches its server in another way.
    pub(crate) fn start_by(dir: PathBuf, way: Arc<dyn Connect>, clock: &Clock, ahead: i64) -> Self {
        let now = {
            let clock = clock.clone();
            move || Time::new(clock.now().secs() + ahead, 0)
        };
        let replica = Arc::new(Replica::open(&dir, now()).unwrap());
        let options = EngineOptions {
            // Passes run when the simulation says so.
            quiet_period: Duration::from_secs(1_000_000),
            reconcile_interval: Duration::from_secs(1_000_000),
            ..EngineOptions::new(Arc::new(now.clone()), 1000, 1000)
        };
        let connector = Arc::new(ToServer {
            way,
            made: Mutex::new(Some(None)),
        });
        let connect: Arc<dyn Connect> = Arc::clone(&connector) as _;
        let runtime = tokio::runtime::Handle::current();
        let engine = Engine::start(&runtime, Arc::clone(&replica), connect, options).unwrap();
        let options = HomeOptions {
            uid: 1000,
            gid: 1000,
            host_scoped: HostScope::new::<&str>(&["*.lock"]).unwrap(),
            now: Box::new(now),
        };
        let fetch = Arc::new(engine.clone());
        let home = Arc::new(Home::new(Arc::clone(&replica), fetch, options).unwrap());
        Self {
            engine,
            replica,
            home,
            connector,
            dir,
            alive: Cell::new(true),
        }
    }

    /// Ends the machine between two instructions, and leaves what its disk then held in `to`.
    pub(crate) fn kill(&self, to: &Path) {
        self.alive.set(false);
        for remote in self
            .connector
            .made
            .lock()
            .unwrap()
            .take()
            .into_iter()
            .flatten()
        {
            remote.close();
        }
        // The replica's own thread may be at work: only a copy of one moment is what a death leaves.
        for _ in 0..100 {
            let before = state(&self.dir);
            let whole = copy(&self.dir, to).is_ok();
            if whole && before.is_ok_and(|before| state(&self.dir).is_ok_and(|now| now == before)) {
                break;
            }
            std::fs::remove_dir_all(to).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        self.engine.stop();
    }

    pub(crate) async fn offline(&self) {
        self.engine.hold(true);
        self.until("offline").await;
    }

    pub(crate) async fn online(&self) {
        self.engine.hold(false);
        self.until("online").await;
    }

    async fn until(&self, word: &str) {
        // Cut links take a while to come back; what waits forever shows in what follows.
        for _ in 0..10_000 {
            if !self.alive.get() || self.engine.link().state.word() == word {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn pass(&self, scope: Scope) -> Result<PassReport, PassError> {
        match tokio::time::timeout(HANGS, self.engine.pass(scope)).await {
            Ok(report) => report,
            Err(_elapsed) => panic!("a pass hangs"),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: impl Fn(&Home) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, FsError> {
        if !self.alive.get() {
            return Err(FsError::NotFound);
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.home
            .run(operation, move |outcome| drop(sender.send(outcome)));
        match tokio::time::timeout(HANGS, receiver).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => panic!("an operation was forgotten"),
            Err(_) => panic!("an operation hangs"),
        }
    }

    async fn find(&self, path: &[Name]) -> Result<NodeId, FsError> {
        let mut id = NodeId::ROOT;
        for name in path {
            let name = name.clone();
            let found = self.run(move |home| home.lookup(id, &name)).await?;
            id = found.ok_or(FsError::NotFound)?.id;
        }
        Ok(id)
    }

    async fn place(&self, path: &str) -> Result<(NodeId, Name), FsError> {
        let path = path_of(path);
        let (name, dirs) = path.names().split_last().unwrap();
        Ok((self.find(dirs).await?, name.clone()))
    }

    /// Empties or creates a file, writes after `pause`, and closes it after another.
    pub(crate) async fn write(
        &self,
        path: &str,
        content: impl FnOnce() -> Content,
        pause: Duration,
    ) -> Result<Option<Content>, FsError> {
        let (dir, name) = self.place(path).await?;
        let options = OpenOptions {
            write: true,
            truncate: true,
            ..OpenOptions::default()
        };
        let opened = self
            .run(move |home| home.create(dir, &name, 0o644, options, ME))
            .await?;
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let content = content();
        let written = self.home.write(opened.handle, 0, &content, false)?;
        assert_eq!(written, content.len());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        self.home.release(opened.handle)?;
        Ok(self.alive.get().then_some(content))
    }

    /// Changes a file's content in place: `change` gets what is there and tells the offset and bytes to write,
    /// or the length to cut to.
    pub(crate) async fn alter(
        &self,
        path: &str,
        change: impl FnOnce(&[u8]) -> Option<Content>,
    ) -> Result<Option<(Content, Content)>, FsError> {
        let id = self.find(path_of(path).names()).await?;
        let options = OpenOptions {
            write: true,
            ..OpenOptions::default()
        };
        let opened = self.run(move |home| home.open(id, options, ME)).await?;
        let old = self.home.read(opened.handle, 0, 1 << 20)?;
        let new = change(&old);
        if let Some(new) = &new {
            if new.len() < old.len() {
                let set = SetAttr {
                    size: Some(new.len() as u64),
                    handle: Some(opened.handle),
                    ..SetAttr::default()
                };
                let set = self.run(move |home| home.set_attr(id, set, ME));
                set.await?;
            } else {
                let at = old.len();
                let more = &new[at..];
                assert_eq!(
                    self.home.write(opened.handle, at as u64, more, false)?,
                    more.len()
                );
            }
        }
        self.home.release(opened.handle)?;
        Ok(new.filter(|_| self.alive.get()).map(|new| (old, new)))
    }

    /// Looks the path up again if another file took its place, as the kernel does.
    pub(crate) async fn read(&self, path: &str) -> Result<Content, FsError> {
        let id = self.find(path_of(path).names()).await?;
        match self.read_node(id).await {
            Err(FsError::Stale) => {
                self.read_node(self.find(path_of(path).names()).await?)
                    .await
            }
            read => read,
        }
    }

    async fn read_node(&self, id: NodeId) -> Result<Content, FsError> {
        let opened = self
            .run(move |home| home.open(id, OpenOptions::default(), ME))
            .await?;
        let data = self.home.read(opened.handle, 0, 1 << 20)?;
        self.home.release(opened.handle)?;
        Ok(data)
    }

    pub(crate) async fn mkdir(&self, path: &str) -> Result<(), FsError> {
        let (dir, name) = self.place(path).await?;
        let made = self.run(move |home| home.mkdir(dir, &name, 0o755, ME));
        made.await.map(drop)
    }

    pub(crate) async fn rmdir(&self, path: &str) -> Result<(), FsError> {
        let (dir, name) = self.place(path).await?;
        self.run(move |home| home.rmdir(dir, &name)).await
    }

    pub(crate) async fn unlink(&self, path: &str) -> Result<(), FsError> {
        let (dir, name) = self.place(path).await?;
        self.run(move |home| home.unlink(dir, &name)).await
    }

    pub(crate) async fn link(&self, from: &str, to: &str) -> Result<(), FsError> {
        let id = self.find(path_of(from).names()).await?;
        let (dir, name) = self.place(to).await?;
        let linked = self.run(move |home| home.link(id, dir, &name));
        linked.await.map(drop)
    }

    pub(crate) async fn symlink(&self, target: &str, path: &str) -> Result<(), FsError> {
        let (dir, name) = self.place(path).await?;
        let target = target.as_bytes().to_vec();
        let made = self.run(move |home| home.symlink(dir, &name, &target, ME));
        made.await.map(drop)
    }

    pub(crate) async fn rename(
        &self,
        from: &str,
        to: &str,
        mode: RenameMode,
    ) -> Result<(), FsError> {
        let (from, to) = (self.place(from).await?, self.place(to).await?);
        self.run(move |home| home.rename((from.0, &from.1), (to.0, &to.1), mode))
            .await
    }

    pub(crate) async fn set_attr(&self, path: &str, set: SetAttr) -> Result<(), FsError> {
        let id = self.find(path_of(path).names()).await?;
        let done = self.run(move |home| home.set_attr(id, set, ME));
        done.await.map(drop)
    }

    /// Lets everything be known that an operation on `path` will need to know.
    pub(crate) async fn warm(&self, path: &str) {
        if let Ok((dir, name)) = self.place(path).await {
            // What cannot be had now, the operation will not have either.
            drop(self.run(move |home| home.lookup(dir, &name)).await);
        }
    }

    /// What the mount shows of what it knows, without asking the server for anything.
    pub(crate) fn looks(&self) -> Looks {
        let walk = |view: &View<'_>| {
            let mut found = Looks::new();
            let mut todo = vec![(NodeId::ROOT, String::new())];
            while let Some((dir, prefix)) = todo.pop() {
                for (name, id) in view.children(dir, None, 100_000)? {
                    let path = format!("{prefix}{name}");
                    let node = view.node(id)?.expect("a name without a node");
                    if node.kind == Kind::Dir {
                        todo.push((id, format!("{path}/")));
                    }
                    found.insert(path, (node.kind, node.size));
                }
            }
            Ok::<_, ReplicaError>(found)
        };
        self.replica.view(walk).unwrap()
    }

    /// Everything that the mount shows, fetched.
    pub(crate) async fn tree(&self) -> Result<BTreeMap<String, Shown>, FsError> {
        let mut all = BTreeMap::new();
        let mut todo = vec![(NodeId::ROOT, String::new())];
        while let Some((dir, prefix)) = todo.pop() {
            let handle = self.run(move |home| home.open_dir(dir)).await?;
            let children = |view: &View<'_>| view.children(dir, None, 100_000);
            let children = self.replica.view::<_, ReplicaError>(children)?;
            self.home.release_dir(handle);
            for (name, id) in children {
                let path = format!("{prefix}{name}");
                let attr = self.home.attr(id)?;
                let data = match attr.kind {
                    Kind::File => self.read_node(id).await?,
                    Kind::Symlink => self.home.read_link(id)?,
                    _ => Vec::new(),
                };
                if attr.kind == Kind::Dir {
                    todo.push((id, format!("{path}/")));
                }
                let mode = match attr.kind {
                    Kind::Symlink => 0o777,
                    _ => attr.mode,
                };
                all.insert(path, (attr.kind, mode, data));
            }
        }
        Ok(all)
    }

    /// The contents that this machine keeps by itself.
    pub(crate) fn backups(&self) -> Vec<Content> {
        let known = |view: &View<'_>| view.backups();
        let known = self.replica.view::<_, ReplicaError>(known).unwrap();
        let read = |id| {
            let mut file = self.replica.content().open_backup(id).unwrap();
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut data).unwrap();
            data
        };
        known.into_iter().map(|backup| read(backup.id)).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

pub(crate) fn path_of(path: &str) -> RelPath {
    RelPath::parse(path.as_bytes()).unwrap()
}

pub(crate) fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            std::fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// Names, lengths and times of the index's files, and the names of the contents.
fn state(dir: &Path) -> std::io::Result<BTreeMap<PathBuf, (u64, std::time::SystemTime)>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let meta = path.symlink_metadata()?;
        if meta.is_dir() {
            found.extend(state(&path)?);
        }
        found.insert(path, (meta.len(), meta.modified()?));
    }
    Ok(found)
}
