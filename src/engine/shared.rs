//! What the engine's tasks share, and the small things that all of them ask.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures_util::FutureExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::block_in_place;
use tokio::time::Instant;

use super::boost::Reads;
use super::cache::room::Survey;
use super::deeds::Log;
use super::feed::Publishers;
use super::fetch::{Coming, Feeds, Looks, Trail};
use super::intents::Declared;
use super::keep::conflicts::Loser;
use super::link::{Hold, LinkState, LinkView};
use super::push::{Gone, PutAside};
use super::reconcile::{PassReport, Request};
use super::status::{Tally, Transfers};
use super::{Connect, Done, EngineOptions, Events, Space};
use crate::remote::Remote;
use crate::remote::layout::{ClientId, FeedRecord};
use crate::replica::Replica;
use crate::sync::{ClockOffset, Guard, Removals};
use crate::tree::{NodeId, Place, RelPath, Time, Version};

/// The most that all uploads together hold in memory.
const UPLOAD_BYTES: usize = 64 * 1024 * 1024;

/// A second name in the server's staging directory for a version of ours that replaced another: kept until
/// a later observation shows it in place, so that a racing client cannot destroy its last name.
#[derive(Debug, Clone)]
pub(super) struct SecondName {
    pub(super) path: RelPath,
    pub(super) version: Version,
}

/// Who is at work on what, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Claims(Arc<Mutex<BTreeSet<String>>>);

/// Nobody else is at work on it until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Claims,
    name: String,
}

impl Claims {
    /// `None` if somebody is at work on it.
    pub(super) fn take(&self, name: &str) -> Option<Claim> {
        let is_new = lock(&self.0).insert(name.to_owned());
        is_new.then(|| Claim {
            claims: self.clone(),
            name: name.to_owned(),
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        lock(&self.claims.0).remove(&self.name);
    }
}

/// Something is done that has to end before the machine sleeps, until this is dropped.
pub(super) struct UnderWay(Arc<Shared>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|number| *number -= 1);
    }
}

/// Who waits for what.
pub(super) type Waiting = Mutex<HashMap<NodeId, Vec<Done>>>;

/// The engine's state. Every lock is held for moments only, never across an await.
pub(super) struct Shared {
    pub(super) replica: Arc<Replica>,
    pub(super) options: EngineOptions,
    /// Names this machine on the server.
    pub(super) client: ClientId,
    pub(super) connector: Arc<dyn Connect>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) events: OnceLock<Arc<dyn Events>>,
    /// The link as last seen; the linker writes, everybody reads or waits.
    pub(super) link: watch::Sender<LinkView>,
    /// The connection while online.
    pub(super) remote: Mutex<Option<Remote>>,
    /// What holds the link down.
    pub(super) hold: watch::Sender<Hold>,
    /// How much is done that has to end before the machine sleeps.
    under_way: watch::Sender<usize>,
    /// Wakes the linker at once, for `online`.
    pub(super) connect_now: Notify,
    /// The way to the server may be another one.
    pub(super) network_changed: Notify,
    /// To the one task that runs passes.
    pub(super) requests: mpsc::UnboundedSender<Request>,
    /// Something became dirty.
    pub(super) dirty: Notify,
    /// When the last operation changed something.
    last_change: Mutex<Instant>,
    /// Fetches under way and who waits for them.
    pub(super) hydrating: Waiting,
    /// What is fetched although nobody waits for it.
    pub(super) coming: Coming,
    /// Who opens what is read by block.
    pub(super) looking: Waiting,
    pub(super) looks: Looks,
    /// What is read by block, and who waits for which of it.
    pub(super) feeds: Feeds,
    /// What programs opened lately that was not here.
    pub(super) trail: Mutex<Trail>,
    /// What programs read since the mount.
    pub(super) reads: Reads,
    /// First listings under way and who waits for them.
    pub(super) listing: Waiting,
    pub(super) transfers: Transfers,
    /// Bytes that uploads may hold in memory at once: many small files, or a few large ones.
    pub(super) upload_bytes: Semaphore,
    pub(super) clock: Mutex<ClockOffset>,
    pub(super) space: Mutex<Option<Space>>,
    pub(super) last_pass: Mutex<Option<PassReport>>,
    pub(super) tally: Mutex<Tally>,
    /// What the pass that runs did.
    pub(super) log: Mutex<Log>,
    /// What lost a conflict on the server, as of the last look there.
    pub(super) losers: Mutex<Vec<Loser>>,
    /// Who published what they may have lost to, as of that look.
    pub(super) publishers: Mutex<Publishers>,
    /// What this client told the others last; not known before it tells anything.
    pub(super) feed: Mutex<Option<FeedRecord>>,
    /// A conflict may be new.
    pub(super) conflicted: Notify,
    /// Something pinned may be missing.
    pub(super) pins_wanted: Notify,
    /// Content may take more room than it may.
    pub(super) room_wanted: Notify,
    /// Who waits for room to write.
    pub(super) making_room: Waiting,
    /// Somebody asks how much content could go.
    pub(super) survey_wanted: Notify,
    /// As last seen.
    pub(super) survey: Mutex<Option<Survey>>,
    /// What is pinned, as last seen.
    pub(super) pinned_bytes: AtomicU64,
    /// When too little could go the last time: each attempt looks at all content.
    pub(super) no_room_at: Mutex<Option<Instant>>,
    /// When what is kept was last looked through, in seconds of the server's time.
    pub(super) expired_at: Mutex<Option<i64>>,
    /// The question that a guard asks, while it is unanswered.
    pub(super) guards: Mutex<Vec<Guard>>,
    /// What passes removed one after the other.
    pub(super) removed: Mutex<Removals>,
    pub(super) second_names: Mutex<BTreeMap<Place, SecondName>>,
    /// What stood on the server a short time ago.
    pub(super) gone: Gone,
    /// Places whose file programs went on writing to after it was sent in this pass: it waits for another one.
    pub(super) overtaken: Mutex<BTreeSet<Place>>,
    /// Databases with all that belongs to them that were sent in this pass: what changed since waits for another.
    pub(super) sent_sets: Mutex<BTreeSet<Place>>,
    /// Large files that were put aside on the server: what is sent next may be one of them.
    pub(super) put_aside: PutAside,
    /// Transfers that go on where they were cut off; one at a time of each.
    pub(super) claims: Claims,
    /// What was declared before this survives a power loss.
    pub(super) declared: Declared,
    /// Nothing new starts any more.
    pub(super) stopping: watch::Sender<bool>,
}

/// What people are told of a panic.
pub(super) const FAULT: &str = "a fault inside the daemon; its log says more";

/// Locks, ignoring poison: every critical section here leaves its data whole at each step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a panic in `work` leaves is an error; nobody goes without an answer, and what comes after goes on.
pub(super) async fn contained<T, E>(
    work: impl Future<Output = Result<T, E>>,
    error: impl FnOnce() -> E,
) -> Result<T, E> {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    outcome.unwrap_or_else(|_panic| Err(error()))
}

/// Runs what may wait for the disk without holding up other tasks, where there are threads for these.
pub(super) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => block_in_place(work),
    }
}

impl Shared {
    pub(super) fn new(
        runtime: tokio::runtime::Handle,
        replica: Arc<Replica>,
        connector: Arc<dyn Connect>,
        options: EngineOptions,
        client: ClientId,
        requests: mpsc::UnboundedSender<Request>,
    ) -> Self {
        let since = (options.now)();
        let reads = Reads::new(options.boost);
        Self {
            replica,
            options,
            client,
            connector,
            runtime,
            events: OnceLock::new(),
            link: watch::Sender::new(LinkView {
                state: LinkState::Connecting,
                since,
            }),
            remote: Mutex::default(),
            hold: watch::Sender::default(),
            under_way: watch::Sender::default(),
            connect_now: Notify::new(),
            network_changed: Notify::new(),
            requests,
            dirty: Notify::new(),
            last_change: Mutex::new(Instant::now()),
            hydrating: Mutex::default(),
            coming: Coming::default(),
            looking: Mutex::default(),
            looks: Looks::default(),
            feeds: Feeds::default(),
            trail: Mutex::default(),
            reads,
            listing: Mutex::default(),
            transfers: Transfers::default(),
            upload_bytes: Semaphore::new(UPLOAD_BYTES),
            clock: Mutex::default(),
            space: Mutex::default(),
            last_pass: Mutex::default(),
            tally: Mutex::default(),
            log: Mutex::default(),
            losers: Mutex::default(),
            publishers: Mutex::default(),
            feed: Mutex::default(),
            conflicted: Notify::new(),
            pins_wanted: Notify::new(),
            room_wanted: Notify::new(),
            making_room: Mutex::default(),
            survey_wanted: Notify::new(),
            survey: Mutex::default(),
            pinned_bytes: AtomicU64::default(),
            no_room_at: Mutex::default(),
            expired_at: Mutex::default(),
            guards: Mutex::default(),
            removed: Mutex::default(),
            second_names: Mutex::default(),
            gone: Gone::default(),
            overtaken: Mutex::default(),
            sent_sets: Mutex::default(),
            put_aside: PutAside::default(),
            claims: Claims::default(),
            declared: Declared::default(),
            stopping: watch::Sender::new(false),
        }
    }

    pub(super) fn now(&self) -> Time {
        (self.options.now)()
    }

    /// A random number for a name. Names are created exclusively, so a repeated one fails, it does not overwrite.
    pub(super) fn random(&self) -> u64 {
        (self.options.random)().unwrap_or_else(|error| {
            tracing::warn!(%error, "no randomness");
            std::process::id().into()
        })
    }

    /// The local clock corrected to the server's.
    pub(super) fn server_now(&self) -> Time {
        Time(self.now().0.saturating_add(lock(&self.clock).offset_ns))
    }

    /// The mount changed something.
    pub(super) fn changed(&self) {
        *lock(&self.last_change) = Instant::now();
        self.dirty.notify_one();
    }

    /// When the mount last changed something.
    pub(super) fn last_change(&self) -> Instant {
        *lock(&self.last_change)
    }

    /// The connection, if online.
    pub(super) fn online(&self) -> Option<Remote> {
        lock(&self.remote).clone()
    }

    /// What is done while the result lives has to end before the machine sleeps.
    pub(super) fn under_way(self: &Arc<Self>) -> UnderWay {
        self.under_way.send_modify(|number| *number += 1);
        UnderWay(Arc::clone(self))
    }

    /// Resolves when nothing is under way.
    pub(super) async fn at_rest(&self) {
        let mut under_way = self.under_way.subscribe();
        // The sender lives as long as `self`, so this cannot fail.
        drop(under_way.wait_for(|number| *number == 0).await);
    }

    /// Resolves when the machine sleeps, or is about to.
    pub(super) async fn asleep(&self) {
        let mut hold = self.hold.subscribe();
        drop(hold.wait_for(|hold| hold.asleep).await);
    }

    pub(super) fn set_link(&self, state: LinkState) {
        self.set_link_unless(state, |_| false);
    }

    /// A new attempt was asked for: what is known of the link, unless it is up, is from before.
    pub(super) fn expect_attempt(&self) {
        self.set_link_unless(LinkState::Connecting, |now| *now == LinkState::Online);
    }

    fn set_link_unless(&self, state: LinkState, keep: impl Fn(&LinkState) -> bool) {
        let now = self.now();
        self.link.send_if_modified(|view| {
            let changed = view.state != state && !keep(&view.state);
            if changed {
                tracing::info!(state = state.word(), detail = state.detail(), "link");
                *view = LinkView { state, since: now };
            }
            changed
        });
    }

    pub(super) fn entry_changed(&self, place: &Place) {
        if let Some(events) = self.events.get() {
            events.entry_changed(place.parent, &place.name);
        }
    }

    /// The node no longer stands at `place`, nor anywhere if that was its `last` name.
    pub(super) fn entry_left(&self, place: &Place, node: NodeId, last: bool) {
        match self.events.get() {
            Some(events) if last => events.entry_removed(place.parent, &place.name, node),
            Some(events) => {
                events.entry_changed(place.parent, &place.name);
                events.node_changed(node);
            }
            None => {}
        }
    }

    pub(super) fn node_changed(&self, node: NodeId) {
        if let Some(events) = self.events.get() {
            events.node_changed(node);
        }
    }
}
