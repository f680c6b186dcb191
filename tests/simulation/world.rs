//! Some machines, a server and a foreign writer, and what has happened to them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all};
use roamhome::engine::Scope;
use roamhome::remote::memory::{Item, Snapshot, Trip};
use roamhome::remote::{Features, MemoryServer, layout};
use roamhome::replica::{Replica, ReplicaError};
use roamhome::sync::GuardLimits;
use roamhome::tree::{Kind, NodeId, RelPath};

use super::history::{Content, History, Id, Sight};
use super::machine::{Machine, Setup, way_to};
use super::op::{Mix, Op};
use super::plug::{Death, SharedPlug};
use super::programs::{Looks, path_of};
use crate::support::client::Clock;
use crate::support::rng::Rng;

/// A server as it was, and what stood in its place then.
type AwayHome = (Snapshot, BTreeMap<RelPath, Item>);

/// What happened in a simulation, in numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    pub(super) operations: u64,
    pub(super) crashes: u64,
    pub(super) faults: u64,
}

pub(super) struct World {
    pub(super) server: MemoryServer,
    pub(super) clock: Clock,
    pub(super) machines: RefCell<Vec<Rc<Machine>>>,
    pub(super) history: RefCell<History>,
    /// What programs synced on each machine.
    pub(super) synced: RefCell<Vec<BTreeSet<Id>>>,
    rng: RefCell<Rng>,
    _dir: tempfile::TempDir,
    /// The last request that is to go wrong.
    tripped: Cell<u64>,
    refused: RefCell<BTreeSet<String>>,
    /// What the only writer of the home left, if nobody else ever wrote there.
    left: RefCell<Option<Looks>>,
    alone: Cell<bool>,
    /// Passes may ask.
    questions: Cell<bool>,
    guard: GuardLimits,
    /// Operations under way.
    at_once: Cell<usize>,
    /// The server's disk before anything was on it.
    pub(super) blank: Snapshot,
    pub(super) away: RefCell<Option<AwayHome>>,
    pub(super) backup: RefCell<Option<Snapshot>>,
    /// Where whole files were on the server, with their lengths.
    whole: RefCell<BTreeSet<(RelPath, usize)>>,
    broken: RefCell<Vec<String>>,
    tally: Cell<Tally>,
}

/// How many files of each length somebody sees.
pub(super) fn seen(looks: impl IntoIterator<Item = (Kind, u64)>) -> Sight {
    let mut sight = Sight::new();
    let files = looks.into_iter().filter(|(kind, _)| *kind == Kind::File);
    for (_, size) in files {
        *sight.entry(size as usize).or_default() += 1;
    }
    sight
}

/// It syncs what it is told to all the same: what a crash loses of one that cannot is that server's affair.
fn offer_little(features: &mut Features) {
    features.posix_rename = false;
    features.hardlink = false;
    features.lsetstat = false;
    features.statvfs = false;
    features.copy_data = false;
}

impl World {
    pub(super) fn new(rng: &mut Rng, mix: Mix) -> Self {
        let clock = Clock::new();
        let server = {
            let clock = clock.clone();
            MemoryServer::new(move || clock.now())
        };
        if mix.plain {
            server.set_features(offer_little);
        }
        if mix.large {
            server.set_features(|features| (features.max_read, features.max_write) = (200, 100));
        }
        let mut jitter = Rng::new(rng.next());
        server.set_latency(move || Duration::from_micros(500 + jitter.below(1000)));
        let blank = server.snapshot();
        // The memory's file system: disks are simulated, and its inode numbers are never used again.
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let skews = [0, 0, 1, -1, 100, -100, 100_000];
        let settings = mix.settings();
        let machines = (0..mix.machines).map(|i| {
            let ahead = if mix.skew { rng.pick(&skews) } else { 0 };
            let setup = Setup {
                way: way_to(&server),
                clock: clock.clone(),
                ahead: Arc::new(AtomicI64::new(ahead)),
                settings,
                dir: dir.path().to_owned(),
                name: i.to_string(),
            };
            Rc::new(Machine::new(setup, rng))
        });
        let machines = RefCell::new(machines.collect());
        Self {
            server,
            clock,
            machines,
            history: RefCell::new(History::new(rng)),
            synced: RefCell::new(vec![BTreeSet::new(); mix.machines]),
            rng: RefCell::new(Rng::new(rng.next())),
            _dir: dir,
            tripped: Cell::new(0),
            refused: RefCell::default(),
            left: RefCell::default(),
            alone: Cell::new(mix.machines == 1 && !mix.meddle),
            questions: Cell::new(mix.guard),
            guard: settings.guard,
            at_once: Cell::new(0),
            blank,
            away: RefCell::default(),
            backup: RefCell::default(),
            whole: RefCell::default(),
            broken: RefCell::default(),
            tally: Cell::default(),
        }
    }

    pub(super) fn machine(&self, who: usize) -> Rc<Machine> {
        Rc::clone(&self.machines.borrow()[who])
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.get()
    }

    pub(super) fn note_broken(&self, what: impl FnOnce() -> String) {
        self.broken.borrow_mut().push(what());
    }

    /// What was wrong so far.
    pub(super) fn broken(&self) -> Result<(), String> {
        match &self.broken.borrow()[..] {
            [] => Ok(()),
            broken => Err(broken.join("\n")),
        }
    }

    pub(super) async fn apply(&self, op: &Op) {
        self.is_as_left(op);
        self.perform_op(op).await;
        let died = self.revive();
        let alone = self.alone.get() && !died;
        *self.left.borrow_mut() = alone.then(|| self.machine(0).looks());
        if self.away.borrow().is_none() {
            self.look_at_server();
        }
    }

    /// All on the server was written by somebody, and what a loss of power left of something never takes the place
    /// of the whole.
    fn look_at_server(&self) {
        let (mut whole, mut torn) = (BTreeSet::new(), Vec::new());
        self.server.look(|path, stat, data| {
            if layout::is_ours(path) || stat.kind != Kind::File {
                return;
            }
            self.expect_known(data, path);
            let place = (path.clone(), data.len());
            if self.history.borrow().is_whole(data) {
                whole.insert(place);
            } else if self.whole.borrow().contains(&place)
                && !self.history.borrow().are_alike(data.len())
            {
                torn.push(place);
            }
        });
        let count = |whole: &BTreeSet<(_, usize)>, length| {
            whole.iter().filter(|(_, other)| *other == length).count()
        };
        for (path, length) in torn {
            // Where somebody moved the whole away in between, it stands elsewhere, and was not replaced.
            if count(&whole, length) < count(&self.whole.borrow(), length) {
                self.note_broken(|| format!("{path} is torn, and was whole"));
            }
        }
        *self.whole.borrow_mut() = whole;
    }

    /// What is seen from outside after `op`.
    pub(super) fn trace(&self, op: &Op) -> String {
        let machines = self.machines.borrow();
        let looks: Vec<_> = machines.iter().map(|machine| machine.looks()).collect();
        let tree: Vec<_> = self
            .server
            .tree()
            .into_iter()
            .map(|(path, item)| (path.to_string(), item.stat, item.data.len()))
            .collect();
        let calls = self.server.calls();
        format!("{op:?}: {looks:?} {tree:?} {calls:?}")
    }

    /// Where nobody else writes, nothing but its programs changes what a machine shows: no pass, no death, no
    /// lost answer.
    pub(super) fn is_as_left(&self, before: &dyn std::fmt::Debug) {
        let Some(left) = self.left.borrow_mut().take() else {
            return;
        };
        let now = self.machine(0).looks();
        if now != left {
            self.note_broken(|| format!("before {before:?}: {left:?} became {now:?} by itself"));
        }
    }

    fn perform_op<'a>(&'a self, op: &'a Op) -> LocalBoxFuture<'a, ()> {
        async move {
            self.at_once.set(self.at_once.get() + 1);
            self.count(op);
            match op {
                Op::On(who, act) => self.act(*who, act).await,
                Op::Meddle(meddle) => self.meddle(meddle),
                Op::Advance(secs) => self.clock.advance(*secs),
                Op::Jump(who, secs) => {
                    let ahead = &self.machine(*who).setup.ahead;
                    ahead.fetch_add(*secs, Ordering::SeqCst);
                }
                Op::Offline(who) => self.machine(*who).offline().await,
                Op::Online(who) => self.machine(*who).online().await,
                Op::Sync(who) => self.pass(*who, look(false)).await,
                // Nobody says that an empty directory is the home.
                Op::Answer(_) if self.away.borrow().is_some() => {}
                Op::Answer(who) => self.pass(*who, look(true)).await,
                Op::Push(who) => self.pass(*who, Scope::Push { now: true }).await,
                Op::Commit(who) => self.store(*who, Replica::commit),
                Op::Settle(who) => self.store(*who, Replica::settle),
                // Without a link nothing goes.
                Op::Evict(who) => drop(self.machine(*who).engine.evict(&[NodeId::ROOT]).await),
                Op::Die(who, death) => self.machine(*who).die(*death),
                Op::DieAfter(who, events, death) => {
                    self.machine(*who).plug.pull_after(*events, *death);
                }
                Op::DiskFull(who, full) => self.machine(*who).disk.set_full(*full),
                Op::Cut => self.server.cut(),
                Op::Crash => self.server.crash(),
                Op::Trip(skip, trip) => self.trip(*skip, *trip),
                Op::Full(full) => self.server.set_capacity(if *full { 0 } else { 1 << 40 }),
                Op::Refuse(path, kind) => {
                    self.refused.borrow_mut().insert(path.clone());
                    self.server.refuse(&path_of(path), *kind);
                }
                Op::Away(how) => self.go_away(*how),
                Op::Back => self.come_back(),
                Op::BackUp => self.back_up(),
                Op::RollBack => self.roll_back(),
                Op::Shows(who, path) => {
                    let looks = self.machine(*who).looks();
                    if !looks.contains_key(path) {
                        self.note_broken(|| format!("{path} is missing: {looks:?}"));
                    }
                }
                Op::Together(parts) => {
                    join_all(parts.iter().map(|(after, op)| async move {
                        tokio::time::sleep(Duration::from_millis(*after)).await;
                        self.perform_op(op).await;
                    }))
                    .await;
                }
            }
            self.at_once.set(self.at_once.get() - 1);
        }
        .boxed_local()
    }

    fn count(&self, op: &Op) {
        let mut tally = self.tally.get();
        match op {
            Op::Together(_) => {}
            Op::Cut
            | Op::Crash
            | Op::Trip(..)
            | Op::Full(_)
            | Op::Refuse(..)
            | Op::DiskFull(..) => {
                tally.faults += 1;
            }
            Op::Away(_) | Op::RollBack | Op::Jump(..) => tally.faults += 1,
            _ => tally.operations += 1,
        }
        self.tally.set(tally);
    }

    fn store(&self, who: usize, store: fn(&Replica) -> Result<(), ReplicaError>) {
        let machine = self.machine(who);
        if let Err(error) = store(&machine.replica)
            && machine.is_alive()
            && !machine.disk.is_full()
        {
            self.note_broken(|| format!("the index cannot be stored: {error}"));
        }
    }

    async fn pass(&self, who: usize, scope: Scope) {
        let machine = self.machine(who);
        let quiet = self.at_once.get() == 1;
        let before = machine.looks();
        // No link, or lost on the way: passes after this one go on.
        let report = machine.pass(scope).await;
        if let Ok(report) = &report
            && !report.guards.is_empty()
            && !self.questions.get()
            && self.away.borrow().is_none()
        {
            self.note_broken(|| format!("guards: {:?}", report.guards));
        }
        let asked = matches!(
            scope,
            Scope::Full {
                force_guard: true,
                ..
            }
        );
        if quiet && !asked && machine.is_alive() {
            self.few_are_gone(&before, &machine.looks());
        }
    }

    /// A pass that nobody allowed more removes only a few.
    fn few_are_gone(&self, before: &Looks, after: &Looks) {
        let stays: BTreeSet<_> = after.values().collect();
        let gone = |(path, looks): &(&String, &(Kind, u64))| {
            !after.contains_key(*path) && !stays.contains(looks)
        };
        let gone = before.iter().filter(gone).count() as u64;
        // Of all that the machine knew, the root among it, and what the pass brought before.
        let known = 1 + before
            .keys()
            .chain(after.keys())
            .collect::<BTreeSet<_>>()
            .len();
        let share = gone as f64 / known as f64;
        if gone > self.guard.removed_count && share > self.guard.removed_share {
            self.note_broken(|| format!("{gone} are gone unasked: {before:?} became {after:?}"));
        }
    }

    /// From now on, passes may ask.
    pub(super) fn expect_questions(&self) {
        self.questions.set(true);
        self.alone.set(false);
    }

    fn trip(&self, skip: u64, trip: Trip) {
        self.server.trip(skip, trip);
        self.tripped
            .set(self.tripped.get().max(self.server.requests() + skip));
    }

    /// Whether any request was made to fail.
    pub(super) fn failed_requests(&self) -> bool {
        self.tripped.get() > 0
    }

    /// Starts the dead machines again, with the disks that they left; whether there were any.
    fn revive(&self) -> bool {
        let mut died = false;
        let machines = self.machines.borrow().len();
        for who in 0..machines {
            let dead = self.machine(who);
            let Some(mut death) = dead.plug.dead() else {
                continue;
            };
            died = true;
            dead.bury();
            let mut life = dead.life;
            loop {
                self.died(who, death);
                life = life.after(death);
                let plug = SharedPlug::default();
                let mut rng = self.rng.borrow_mut();
                if rng.one_in(5) {
                    plug.pull_after(rng.below(80), rng.pick(&[Death::Kill, Death::PowerLoss]));
                }
                let started = Machine::start(dead.setup.clone(), &mut rng, life, Arc::clone(&plug));
                match (started, plug.dead()) {
                    (_, Some(again)) => death = again,
                    (Ok(machine), None) => {
                        self.machines.borrow_mut()[who] = Rc::new(machine);
                        break;
                    }
                    (Err(error), None) => {
                        panic!("the replica does not open after {death:?}: {error}")
                    }
                }
            }
        }
        died
    }

    fn died(&self, who: usize, death: Death) {
        let mut tally = self.tally.get();
        tally.crashes += 1;
        self.tally.set(tally);
        if death == Death::Kill {
            return;
        }
        self.alone.set(false);
        let synced = self.synced.borrow()[who].clone();
        let mut safe = synced.clone();
        let stored = match &*self.away.borrow() {
            Some((home, _)) => home.tree(),
            None => self.server.tree(),
        };
        let stored = stored.into_iter().filter(|(path, _)| is_kept(path));
        let files = stored.filter(|(_, item)| item.stat.kind == Kind::File);
        safe.extend(self.ids(files.map(|(_, item)| item.data).collect()));
        for (other, machine) in self.machines.borrow().iter().enumerate() {
            if other != who {
                safe.extend(self.ids(machine.held()));
            }
        }
        let mut history = self.history.borrow_mut();
        for id in history.all() {
            if !synced.contains(&id) {
                history.tear(id);
            }
            if !safe.contains(&id) {
                history.give_up(id);
            }
        }
    }

    /// Which of the contents are whole.
    pub(super) fn ids(&self, contents: Vec<Content>) -> Vec<Id> {
        let history = self.history.borrow();
        let ids = contents.iter().filter_map(|content| history.id(content));
        ids.collect()
    }

    /// Ends all faults.
    pub(super) async fn heal(&self) {
        self.come_back();
        for machine in self.machines.borrow().iter() {
            machine.plug.spare();
            machine.disk.set_full(false);
        }
        while self.server.requests() <= self.tripped.get() {
            // Whether it goes wrong is all the same.
            drop(self.server.session().lstat(&path_of("")).await);
        }
        self.server.set_capacity(1 << 40);
        for path in self.refused.borrow().iter() {
            self.server.refuse(&path_of(path), None);
        }
    }

    /// Nobody may ever see what nobody wrote.
    pub(super) fn expect_known(&self, content: &[u8], place: &dyn std::fmt::Display) {
        if !self.history.borrow().knows(content) {
            self.note_broken(|| format!("{place} has {} bytes that nobody wrote", content.len()));
        }
    }

    pub(super) fn may_ask(&self) -> bool {
        self.questions.get()
    }
}

/// Whether something at `path` on the server counts as there: under its name, in the trash or in the backups.
pub(super) fn is_kept(path: &RelPath) -> bool {
    let kept = [layout::trash(), layout::backups()];
    !layout::is_ours(path) || kept.iter().any(|dir| inside(path, dir))
}

pub(super) fn inside(path: &RelPath, dir: &RelPath) -> bool {
    path != dir && path.names().starts_with(dir.names())
}

/// A pass that looks at the server.
pub(super) fn look(force_guard: bool) -> Scope {
    Scope::Full {
        now: true,
        force_guard,
    }
}
