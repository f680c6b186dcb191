//! Some machines, a server and a foreign writer, and the history of every content.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, join_all};
use roamhome::engine::Scope;
use roamhome::fs::{FsError, RenameMode, SetAttr, SetTime};
use roamhome::remote::memory::Trip;
use roamhome::remote::{MemoryServer, SetStat};
use roamhome::tree::{Kind, Time};

use super::machine::{Looks, Machine, path_of};
use super::op::{Act, Meddle, Mix, Op};
use crate::support::client::Clock;
use crate::support::rng::Rng;

/// The bytes of a file. No two contents of a simulation have the same length, so the length names a content.
pub(crate) type Content = Vec<u8>;

const LONGEST: usize = 4000;

/// Every content that was ever closed or written on the server.
#[derive(Default)]
pub(super) struct History {
    /// By length. A content that was begun counts from its close.
    pub(super) contents: BTreeMap<usize, Content>,
    pub(super) closed: BTreeSet<usize>,
    /// Replaced or removed by somebody who saw it and had no other copy of it in sight.
    pub(super) given_up: BTreeSet<usize>,
    lengths: Vec<usize>,
}

impl History {
    fn new(rng: &mut Rng) -> Self {
        let mut lengths: Vec<usize> = (1..LONGEST).collect();
        for i in (1..lengths.len()).rev() {
            lengths.swap(i, rng.below(i as u64 + 1) as usize);
        }
        Self {
            lengths,
            ..Self::default()
        }
    }

    /// A length of which there is no content yet.
    fn take(&mut self, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let at = self.lengths.iter().rposition(|length| fits(*length))?;
        Some(self.lengths.remove(at))
    }

    fn add(&mut self, content: Content) -> Content {
        let known = self.contents.insert(content.len(), content.clone());
        assert!(known.is_none());
        content
    }

    /// A content that begins like `old` and is not equal to it.
    fn begin_with(&mut self, old: &[u8], fits: impl Fn(usize) -> bool) -> Option<Content> {
        let length = self.take(fits)?;
        let mut content = old[..old.len().min(length)].to_vec();
        content.resize(length, (length % 251) as u8);
        Some(self.add(content))
    }
}

/// The lengths of the files among what somebody sees.
fn seen(looks: impl IntoIterator<Item = (Kind, u64)>) -> BTreeSet<usize> {
    let files = looks.into_iter().filter(|(kind, _)| *kind == Kind::File);
    files.map(|(_, size)| size as usize).collect()
}

pub(super) struct World {
    pub(super) server: MemoryServer,
    pub(super) clock: Clock,
    pub(super) machines: RefCell<Vec<Rc<Machine>>>,
    pub(super) history: RefCell<History>,
    ahead: Vec<i64>,
    dir: tempfile::TempDir,
    /// The last request that is to go wrong.
    tripped: RefCell<u64>,
    refused: RefCell<BTreeSet<String>>,
    /// What the only writer of the home left, if nobody else ever wrote there.
    left: RefCell<Option<Looks>>,
    alone: bool,
    pub(super) broken: RefCell<Vec<String>>,
}

impl World {
    pub(super) fn new(rng: &mut Rng, mix: Mix) -> Self {
        let clock = Clock::new();
        let server = {
            let clock = clock.clone();
            MemoryServer::new(move || clock.now())
        };
        server.set_round_trip(Duration::from_millis(1));
        let dir = tempfile::tempdir().unwrap();
        let skews = [0, 0, 1, -1, 100, -100, 100_000];
        let ahead: Vec<_> = (0..mix.machines)
            .map(|_| if mix.skew { rng.pick(&skews) } else { 0 })
            .collect();
        let start = |(i, ahead): (usize, &i64)| {
            let dir = dir.path().join(format!("{i}-0"));
            Rc::new(Machine::start(dir, &server, &clock, *ahead))
        };
        let machines = ahead.iter().enumerate().map(start).collect();
        Self {
            server,
            clock,
            machines: RefCell::new(machines),
            history: RefCell::new(History::new(rng)),
            ahead,
            dir,
            tripped: RefCell::new(0),
            refused: RefCell::default(),
            left: RefCell::default(),
            alone: mix.machines == 1 && !mix.meddle,
            broken: RefCell::default(),
        }
    }

    fn machine(&self, who: usize) -> Rc<Machine> {
        Rc::clone(&self.machines.borrow()[who])
    }

    pub(super) async fn apply(&self, op: &Op) {
        self.is_as_left(op);
        self.perform_op(op).await;
        *self.left.borrow_mut() = self.alone.then(|| self.machine(0).looks());
    }

    /// Where nobody else writes, nothing but its programs changes what a machine shows: no pass, no death, no
    /// lost answer.
    pub(super) fn is_as_left(&self, before: &dyn std::fmt::Debug) {
        let Some(left) = self.left.borrow_mut().take() else {
            return;
        };
        let now = self.machine(0).looks();
        if now != left {
            let broken = format!("before {before:?}: {left:?} became {now:?} by itself");
            self.broken.borrow_mut().push(broken);
        }
    }

    fn perform_op<'a>(&'a self, op: &'a Op) -> LocalBoxFuture<'a, ()> {
        async move {
            match op {
                Op::On(who, act) => self.act(&self.machine(*who), act).await,
                Op::Meddle(meddle) => self.meddle(meddle),
                Op::Advance(secs) => self.clock.advance(*secs),
                Op::Offline(who) => self.machine(*who).offline().await,
                Op::Online(who) => self.machine(*who).online().await,
                Op::Sync(who) => {
                    let scope = Scope::Full {
                        now: true,
                        force_guard: false,
                    };
                    self.pass(*who, scope).await;
                }
                Op::Push(who) => self.pass(*who, Scope::Push { now: true }).await,
                Op::Kill(who) => self.kill(*who),
                Op::Cut => self.server.cut(),
                Op::Trip(skip, trip) => self.trip(*skip, *trip),
                Op::Full(full) => self.server.set_capacity(if *full { 0 } else { 1 << 40 }),
                Op::Refuse(path, kind) => {
                    self.refused.borrow_mut().insert(path.clone());
                    self.server.refuse(&path_of(path), *kind);
                }
                Op::Together(parts) => {
                    join_all(parts.iter().map(|(after, op)| async move {
                        tokio::time::sleep(Duration::from_millis(*after)).await;
                        self.perform_op(op).await;
                    }))
                    .await;
                }
            }
        }
        .boxed_local()
    }

    async fn pass(&self, who: usize, scope: Scope) {
        // No link, or lost on the way: passes after this one go on.
        if let Ok(report) = self.machine(who).pass(scope).await
            && !report.guards.is_empty()
        {
            self.broken
                .borrow_mut()
                .push(format!("guards: {:?}", report.guards));
        }
    }

    fn trip(&self, skip: u64, trip: Trip) {
        self.server.trip(skip, trip);
        let mut last = self.tripped.borrow_mut();
        *last = (*last).max(self.server.requests() + skip);
    }

    /// Whether any request was made to fail.
    pub(super) fn failed_requests(&self) -> bool {
        *self.tripped.borrow() > 0
    }

    fn kill(&self, who: usize) {
        let old = self.machine(who);
        let mut n = 1;
        let fresh = loop {
            let dir = self.dir.path().join(format!("{who}-{n}"));
            if !dir.exists() {
                break dir;
            }
            n += 1;
        };
        old.kill(&fresh);
        let machine = Machine::start(fresh, &self.server, &self.clock, self.ahead[who]);
        self.machines.borrow_mut()[who] = Rc::new(machine);
    }

    /// Ends all faults.
    pub(super) async fn heal(&self) {
        while self.server.requests() <= *self.tripped.borrow() {
            // Whether it goes wrong is all the same.
            drop(self.server.session().lstat(&path_of("")).await);
        }
        self.server.set_capacity(1 << 40);
        for path in self.refused.borrow().iter() {
            self.server.refuse(&path_of(path), None);
        }
    }

    async fn act(&self, machine: &Machine, act: &Act) {
        if let Err(error) = self.perform(machine, act).await
            && is_fault(&error)
        {
            let broken = format!("{act:?}: {error}");
            self.broken.borrow_mut().push(broken);
        }
    }

    /// What the machine showed before and shows no longer was given up knowingly.
    fn note(&self, machine: &Machine, before: &BTreeSet<usize>) {
        if machine.alive.get() {
            let after = seen(machine.looks().into_values());
            let gone = before.difference(&after).copied();
            self.history.borrow_mut().given_up.extend(gone);
        }
    }

    /// What an operation waits for may change what is seen; only its own effect counts as given up.
    async fn perform(&self, machine: &Machine, act: &Act) -> Result<(), FsError> {
        match act {
            Act::Write(path, pause) => {
                let size = self.size_at(machine, path);
                let content = || {
                    self.replaced(machine, size);
                    let mut history = self.history.borrow_mut();
                    history.begin_with(&[], |_| true).unwrap_or_default()
                };
                let pause = Duration::from_millis(*pause);
                if let Some(content) = machine.write(path, content, pause).await? {
                    // A file that was removed while it was open goes with its last close.
                    let shown = seen(machine.looks().into_values()).contains(&content.len());
                    let mut history = self.history.borrow_mut();
                    history.closed.insert(content.len());
                    if !shown {
                        history.given_up.insert(content.len());
                    }
                }
            }
            Act::Append(path) => {
                self.alter(machine, path, |old, n| n > old && n < old + 500)
                    .await?
            }
            Act::Truncate(path) => self.alter(machine, path, |old, n| n < old).await?,
            Act::Read(path) => {
                let content = machine.read(path).await?;
                self.expect_known(&content, path);
            }
            Act::Mkdir(path) => machine.mkdir(path).await?,
            Act::Rmdir(path) => machine.rmdir(path).await?,
            Act::Unlink(path) => {
                machine.warm(path).await;
                let before = seen(machine.looks().into_values());
                let done = machine.unlink(path).await;
                self.note(machine, &before);
                done?;
            }
            Act::Rename(from, to) => {
                machine.warm(from).await;
                machine.warm(to).await;
                let before = seen(machine.looks().into_values());
                let done = machine.rename(from, to, RenameMode::Replace).await;
                self.note(machine, &before);
                done?;
            }
            Act::Exchange(from, to) => machine.rename(from, to, RenameMode::Exchange).await?,
            Act::Link(from, to) => machine.link(from, to).await?,
            Act::Symlink(target, path) => machine.symlink(target, path).await?,
            Act::Chmod(path, mode) => {
                let set = SetAttr {
                    mode: Some(*mode),
                    ..SetAttr::default()
                };
                machine.set_attr(path, set).await?;
            }
            Act::Touch(path, ago) => {
                let at = Time::new(self.clock.now().secs() - ago, 0);
                let set = SetAttr {
                    mtime: Some(SetTime::At(at)),
                    ..SetAttr::default()
                };
                machine.set_attr(path, set).await?;
            }
        }
        Ok(())
    }

    fn size_at(&self, machine: &Machine, path: &str) -> Option<usize> {
        let (kind, size) = machine.looks().get(path).copied()?;
        (kind == Kind::File).then_some(size as usize)
    }

    /// A content that was seen was replaced; somewhere else it may still be in sight.
    fn replaced(&self, machine: &Machine, size: Option<usize>) {
        let after = seen(machine.looks().into_values());
        if let Some(size) = size.filter(|size| !after.contains(size) && machine.alive.get()) {
            self.history.borrow_mut().given_up.insert(size);
        }
    }

    async fn alter(
        &self,
        machine: &Machine,
        path: &str,
        fits: impl Fn(usize, usize) -> bool,
    ) -> Result<(), FsError> {
        let change = |old: &[u8]| {
            self.expect_known(old, path);
            let mut history = self.history.borrow_mut();
            history.begin_with(old, |n| fits(old.len(), n))
        };
        if let Some((old, new)) = machine.alter(path, change).await? {
            self.replaced(machine, Some(old.len()));
            self.history.borrow_mut().closed.insert(new.len());
        }
        Ok(())
    }

    /// Nobody may ever see what nobody wrote.
    pub(super) fn expect_known(&self, content: &[u8], place: &str) {
        let history = self.history.borrow();
        let known = history.contents.get(&content.len());
        if !content.is_empty() && known.map(Vec::as_slice) != Some(content) {
            let broken = format!("{place} has {} bytes that nobody wrote", content.len());
            self.broken.borrow_mut().push(broken);
        }
    }

    /// What is on the server outside of what is ours.
    fn server_files(&self) -> BTreeSet<usize> {
        let tree = self.server.tree();
        let theirs = tree
            .iter()
            .filter(|(path, _)| !roamhome::remote::layout::is_ours(path));
        seen(theirs.map(|(_, item)| (item.stat.kind, item.data.len() as u64)))
    }

    fn meddle(&self, meddle: &Meddle) {
        let before = self.server_files();
        // What cannot be done is not done.
        let _done = match meddle {
            Meddle::Write(path) => {
                let content = self.history.borrow_mut().begin_with(&[], |_| true);
                let content = content.unwrap_or_default();
                let written = self.server.write_file(&path_of(path), &content);
                if written.is_ok() {
                    self.history.borrow_mut().closed.insert(content.len());
                }
                written
            }
            Meddle::Remove(path) => self.server.remove(&path_of(path)),
            Meddle::Rename(from, to) => self.server.rename(&path_of(from), &path_of(to)),
            Meddle::Mkdir(path) => self.server.make_dir(&path_of(path)),
            Meddle::Symlink(target, path) => {
                let path = path_of(path);
                self.server.make_symlink(&path, target.as_bytes())
            }
            Meddle::Chmod(path, mode) => {
                let set = SetStat {
                    mode: Some(*mode),
                    ..SetStat::default()
                };
                self.server.set_stat(&path_of(path), set)
            }
            Meddle::Touch(path, ago) => {
                let set = SetStat {
                    mtime: Some(self.clock.now().secs() - ago),
                    ..SetStat::default()
                };
                self.server.set_stat(&path_of(path), set)
            }
        };
        let after = self.server_files();
        let gone = before.difference(&after).copied();
        self.history.borrow_mut().given_up.extend(gone);
    }
}

/// Whether a program would be told of a failure that is not its own doing.
fn is_fault(error: &FsError) -> bool {
    matches!(
        error,
        FsError::Replica(_) | FsError::Content(_) | FsError::BadHandle
    )
}
