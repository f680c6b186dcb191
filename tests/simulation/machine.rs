//! One machine of a simulation: replica, engine and home on a runtime whose time is virtual and a disk that is
//! simulated, so that its operations run in the midst of its own passes and everybody else's.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use roamhome::engine::{
    Connect, Engine, EngineOptions, Large, LinkError, PassError, PassReport, Publish, Scope,
};
use roamhome::fs::{FsError, Home, HomeOptions, HostScope, Restraint, Stop};
use roamhome::remote::memory::Gate;
use roamhome::remote::{MemoryServer, Remote};
use roamhome::replica::{Commits, Opening, Replica};
use roamhome::sync::{GuardLimits, Prefer};
use roamhome::tree::Time;

use super::disk::Disk;
use super::plug::{Death, SharedPlug};
use super::programs::OpenFile;
use super::syscalls;
use crate::support::client::Clock;
use crate::support::rng::Rng;

/// Longer than anything may take, in virtual time.
const HANGS: Duration = Duration::from_secs(600);

/// A connector, for a machine that lives as long as the gate says.
pub(crate) type Way = Arc<dyn Fn(Gate) -> Arc<dyn Connect>>;

/// The way to the memory server.
pub(crate) fn way_to(server: &MemoryServer) -> Way {
    let server = server.clone();
    Arc::new(move |gate| Arc::new(Direct(server.clone(), gate)))
}

struct Direct(MemoryServer, Gate);

#[async_trait]
impl Connect for Direct {
    async fn connect(&self) -> Result<Remote, LinkError> {
        Ok(self.0.remote_through(2, &self.1))
    }
}

struct ToServer {
    way: Arc<dyn Connect>,
    plug: SharedPlug,
    /// The connection of this machine: one at a time.
    made: Mutex<Option<Remote>>,
}

#[async_trait]
impl Connect for ToServer {
    async fn connect(&self) -> Result<Remote, LinkError> {
        if !self.plug.is_alive() {
            return Err(LinkError {
                message: "the machine is dead".into(),
                remedy: String::new(),
                needs_person: true,
            });
        }
        let remote = self.way.connect().await?;
        // What was given up is dropped, and our copy must not keep it alive.
        if let Some(before) = self.made.lock().unwrap().replace(remote.clone()) {
            before.close();
        }
        Ok(remote)
    }
}

/// What its user may set and matters here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Settings {
    pub(crate) guard: GuardLimits,
    pub(crate) publish: Publish,
    pub(crate) prefer: Prefer,
    pub(crate) keep_replaced: bool,
    /// Small files count as large ones.
    pub(crate) large: Large,
}

/// What a machine is started with, and what outlives its deaths.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) way: Way,
    pub(crate) clock: Clock,
    /// How far its clock is ahead, in seconds.
    pub(crate) ahead: Arc<AtomicI64>,
    pub(crate) settings: Settings,
    /// Where the disks of the simulation are.
    pub(crate) dir: PathBuf,
    pub(crate) name: String,
}

pub(crate) struct Machine {
    pub(crate) engine: Engine,
    pub(crate) replica: Arc<Replica>,
    pub(crate) home: Arc<Home>,
    connector: Arc<ToServer>,
    pub(crate) setup: Setup,
    pub(crate) disk: Rc<Disk>,
    pub(crate) plug: SharedPlug,
    pub(crate) open: RefCell<Vec<OpenFile>>,
    pub(crate) life: Life,
}

/// Which life of a machine it is, and in which boot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Life {
    number: u64,
    boot: u64,
}

impl Life {
    /// The life after this one.
    pub(crate) fn after(self, death: Death) -> Self {
        Self {
            number: self.number + 1,
            boot: self.boot + u64::from(death == Death::PowerLoss),
        }
    }
}

impl Machine {
    /// A new machine.
    pub(crate) fn new(setup: Setup, rng: &mut Rng) -> Self {
        Self::start(setup, rng, Life::default(), SharedPlug::default()).unwrap()
    }

    /// A machine that is alone in the world, with its disks in `dir`.
    pub(crate) fn alone(dir: &Path, way: Way, clock: &Clock, rng: &mut Rng) -> Self {
        let setup = Setup {
            way,
            clock: clock.clone(),
            ahead: Arc::default(),
            settings: Settings::default(),
            dir: dir.to_owned(),
            name: "state".into(),
        };
        Self::new(setup, rng)
    }

    /// A machine in one of its lives, with the disk that the one before left. It may die before it is up.
    pub(crate) fn start(
        setup: Setup,
        rng: &mut Rng,
        life: Life,
        plug: SharedPlug,
    ) -> Result<Self, String> {
        let path = |number| setup.dir.join(format!("{}-{number}", setup.name));
        let dir = path(life.number);
        let left = path(life.number + 1);
        let disk = Disk::new(dir.clone(), left, &setup.clock, &plug, Rng::new(rng.next()));
        let now = {
            let (clock, ahead) = (setup.clock.clone(), Arc::clone(&setup.ahead));
            move || Time::new(clock.now().secs() + ahead.load(Ordering::SeqCst), 0)
        };
        let opening = Opening {
            boot: life.boot.to_be_bytes().to_vec(),
            commits: Commits::Asked,
            ..Opening::new(now())
        };
        let opened = Replica::open_as(&dir, opening);
        if opened.is_err() {
            syscalls::forget(&dir);
        }
        let replica = Arc::new(opened.map_err(|error| error.to_string())?);
        let random = AtomicU64::new(rng.next());
        let options = EngineOptions {
            // Passes run when the simulation says so.
            quiet_period: Duration::from_secs(1_000_000),
            reconcile_interval: Duration::from_secs(1_000_000),
            guard: setup.settings.guard,
            publish: setup.settings.publish,
            prefer: setup.settings.prefer,
            keep_replaced: setup.settings.keep_replaced,
            large: setup.settings.large,
            boost: Some(Duration::from_secs(5)),
            random: Arc::new(move || Ok(Rng::new(random.fetch_add(1, Ordering::SeqCst)).next())),
            ..EngineOptions::new(Arc::new(now.clone()), 1000, 1000)
        };
        let gate: Gate = {
            let plug = Arc::clone(&plug);
            Arc::new(move || {
                syscalls::event(&dir);
                plug.is_alive()
            })
        };
        let connector = Arc::new(ToServer {
            way: (setup.way)(gate),
            plug: Arc::clone(&plug),
            made: Mutex::new(None),
        });
        let connect: Arc<dyn Connect> = Arc::clone(&connector) as _;
        let runtime = tokio::runtime::Handle::current();
        let engine = Engine::start(&runtime, Arc::clone(&replica), connect, options);
        let engine = engine.map_err(|error| error.to_string())?;
        let options = HomeOptions {
            uid: 1000,
            gid: 1000,
            host_scoped: HostScope::new::<&str>(&["*.lock"]).unwrap(),
            restraint: Restraint::default(),
            now: Box::new(now),
        };
        let fetch = Arc::new(engine.clone());
        let home = Home::new(Arc::clone(&replica), fetch, options);
        let home = Arc::new(home.map_err(|error| error.to_string())?);
        Ok(Self {
            engine,
            replica,
            home,
            connector,
            setup,
            disk,
            plug,
            open: RefCell::default(),
            life,
        })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.plug.is_alive()
    }

    /// Ends the machine between two instructions.
    pub(crate) fn die(&self, death: Death) {
        if self.is_alive() {
            self.disk.die(death);
        }
        self.bury();
    }

    /// Ends what a dead machine left running.
    pub(crate) fn bury(&self) {
        if let Some(remote) = self.connector.made.lock().unwrap().take() {
            remote.close();
        }
        self.engine.stop();
        syscalls::forget(self.disk.path());
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
            if !self.is_alive() || self.engine.link().state.word() == word {
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

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl Fn(&Home) -> Result<T, Stop> + Send + 'static,
    ) -> Result<T, FsError> {
        if !self.is_alive() {
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
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.bury();
    }
}
