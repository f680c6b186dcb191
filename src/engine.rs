//! The only layer that acts: it owns the replica and the link, fetches, writes back and reconciles.
//!
//! Two tasks run for as long as the engine: `linker` keeps the link, `reconcile` runs one pass after the
//! other. What a program waits for is fetched beside them. `plan` decides, `execute` does, and only what
//! happened is folded into base.

mod apply;
mod base;
mod boost;
mod cache;
mod deeds;
mod execute;
mod feed;
mod fetch;
mod flush;
mod gather;
mod home;
mod intents;
mod keep;
mod link;
mod linker;
mod options;
mod port;
mod push;
mod reconcile;
mod scan;
mod shared;
mod status;
mod suspend;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

pub use cache::list::{Entry, Pin};
pub use cache::{Evicted, Fetched, Fetching, RoomView};
pub use deeds::PassDeeds;
pub use flush::Left;
pub use keep::conflicts::{Conflict, ConflictVersion, Conflicts, Side};
pub use keep::{KeptItem, KeptWhere, Shelf};
pub use link::{LinkState, LinkView};
pub use options::{Connect, EngineOptions, Large, LinkError, Publish};
pub use port::{Done, Events, Fetch, FetchError, Space, Wanted};
pub use reconcile::{DryRun, Foreseen, PassError, PassReport, Scope};
pub use status::{EngineStatus, Tally, TransferView};

use crate::replica::{Deed, Node, Replica, ReplicaError};
use crate::tree::{Kind, NodeId, RelPath, Version};
use reconcile::Request;
use shared::{Shared, lock};

/// The engine of one home. Cheap to clone; [`Engine::stop`] ends its tasks.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts the engine's tasks on `runtime`. The link comes up, and stays up, by itself.
    pub fn start(
        runtime: &tokio::runtime::Handle,
        replica: Arc<Replica>,
        connector: Arc<dyn Connect>,
        options: EngineOptions,
    ) -> Result<Self, ReplicaError> {
        let (requests, receiver) = mpsc::unbounded_channel();
        let client = home::client_id(&replica, &options)?;
        let shared = Shared::new(
            runtime.clone(),
            replica,
            connector,
            options,
            client,
            requests,
        );
        let shared = Arc::new(shared);
        runtime.spawn(linker::run(Arc::clone(&shared)));
        runtime.spawn(reconcile::run(Arc::clone(&shared), receiver));
        runtime.spawn(cache::run(Arc::clone(&shared)));
        runtime.spawn(boost::run(Arc::clone(&shared)));
        Ok(Self { shared })
    }

    /// Says whom to tell about changes; once, when the mount is there.
    pub fn set_events(&self, events: Arc<dyn Events>) {
        // A second mount of the same engine does not exist.
        let _already_set = self.shared.events.set(events);
    }

    /// The link now.
    pub fn link(&self) -> LinkView {
        self.shared.link.borrow().clone()
    }

    /// Waits until the link is what [`Self::hold`] last asked for (held down, or up, down or refused after
    /// an attempt), at most for `timeout`, and tells which.
    pub async fn settled_link(&self, timeout: Duration) -> LinkView {
        let mut link = self.shared.link.subscribe();
        let settled = link.wait_for(|view| {
            let hold = self.shared.hold.borrow().by_person;
            match view.state {
                LinkState::Connecting => false,
                LinkState::Offline { held, .. } => held == hold,
                LinkState::Online | LinkState::Refused { .. } => !hold,
            }
        });
        // On a timeout the link is still connecting, which the answer says.
        let _timed_out = tokio::time::timeout(timeout, settled).await.is_err();
        self.link()
    }

    /// Lists the root if it never was, so that a new mount has something to show.
    pub async fn list_root(&self) -> Result<(), FetchError> {
        let (done, listed) = oneshot::channel();
        let done: Done = Box::new(move |outcome| {
            // The caller may have given up.
            let _unheard = done.send(outcome);
        });
        let root = self
            .shared
            .replica
            .view::<_, ReplicaError>(|view| view.node(NodeId::ROOT));
        if root.is_ok_and(|root| root.is_some_and(|root| root.listed)) {
            return Ok(());
        }
        self.list(NodeId::ROOT, done);
        listed.await.unwrap_or(Err(FetchError::Failed))
    }

    /// Runs a pass and waits for its end; a link that is coming up is waited for.
    pub async fn pass(&self, scope: Scope) -> Result<PassReport, PassError> {
        self.settled_link(self.shared.options.fetch_timeout).await;
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.requests.send(Request::Pass(scope, reply));
        sent.map_err(|_closed| PassError::Stopping)?;
        answer.await.map_err(|_closed| PassError::Stopping)?
    }

    /// What a pass would do now; changes nothing.
    pub async fn dry_run(&self) -> Result<DryRun, PassError> {
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.requests.send(Request::DryRun(reply));
        sent.map_err(|_closed| PassError::Stopping)?;
        answer.await.map_err(|_closed| PassError::Stopping)?
    }

    /// Holds the link down, or lets it come back at once.
    pub fn hold(&self, held: bool) {
        self.shared
            .hold
            .send_if_modified(|now| std::mem::replace(&mut now.by_person, held) != held);
        if !held {
            self.try_again();
        }
    }

    /// What it takes to get in may have changed: a link that is down, and not held, is tried at once.
    pub fn try_again(&self) {
        if !self.shared.hold.borrow().is_held() {
            self.shared.expect_attempt();
            self.shared.connect_now.notify_one();
        }
    }

    /// The network is not what it was, or the machine slept: a link that is down is tried at once, one that is up has
    /// to prove it.
    pub fn network_changed(&self) {
        self.shared.network_changed.notify_one();
    }

    /// The status, from memory and the index.
    pub fn status(&self) -> Result<EngineStatus, ReplicaError> {
        status::status(&self.shared)
    }

    /// What became of files since the engine started.
    pub fn tally(&self) -> Tally {
        *lock(&self.shared.tally)
    }

    /// What is kept here and on the server.
    pub async fn kept(&self, which: KeptWhere) -> Result<Shelf, PassError> {
        keep::list(&self.shared, which).await
    }

    /// Brings a kept file's content, or a symlink's target, to a file of this machine that must not exist, and
    /// tells which it is.
    pub async fn restore_kept(&self, id: &str, to: &std::path::Path) -> Result<Kind, PassError> {
        keep::restore(&self.shared, id, to).await
    }

    /// Where a kept file was.
    pub async fn kept_origin(&self, id: &str) -> Result<RelPath, PassError> {
        keep::origin(&self.shared, id).await
    }

    /// Keeps a copy of what is at `path` now as a backup of this machine.
    pub async fn keep_current(&self, path: &RelPath) -> Result<(), PassError> {
        keep::keep_current(&self.shared, path).await
    }

    /// Conflicts that nobody has decided about yet.
    pub async fn conflicts(&self) -> Result<Conflicts, PassError> {
        keep::conflicts::list(&self.shared).await
    }

    /// The same, as far as they are known without asking the server.
    pub fn known_conflicts(&self) -> Result<Vec<Conflict>, ReplicaError> {
        keep::conflicts::known(&self.shared)
    }

    /// What stands at `path` here, if anything does.
    pub fn stands_at(&self, path: &RelPath) -> Result<Option<Version>, ReplicaError> {
        Ok(keep::stands_at(&self.shared, path)?.map(|node| node.version()))
    }

    /// The same, with all that is known of it.
    pub fn node_at(&self, path: &RelPath) -> Result<Option<Node>, ReplicaError> {
        keep::stands_at(&self.shared, path)
    }

    /// The passes that did something, the latest first.
    pub fn passes(&self) -> Result<Vec<PassDeeds>, ReplicaError> {
        deeds::passes(&self.shared)
    }

    /// What a pass did, the latest first.
    pub fn deeds(&self, pass: u64) -> Result<Vec<Deed>, ReplicaError> {
        deeds::of_pass(&self.shared, pass)
    }

    /// Takes a conflict off the list. What is kept stays kept.
    pub fn resolve_conflict(&self, id: &str) -> Result<(), ReplicaError> {
        keep::conflicts::resolve(&self.shared, id)
    }

    /// Waits until a conflict may be new.
    pub async fn conflicted(&self) {
        self.shared.conflicted.notified().await;
    }

    /// Removes for good what is in the trash, all of it or what is there for longer than `older_than`.
    /// Returns how many entries.
    pub async fn empty_trash(&self, older_than: Option<Duration>) -> Result<u64, PassError> {
        keep::empty_trash(&self.shared, older_than).await
    }

    /// Keeps the content of `nodes` here from now on, and of all that is in them, also of what comes later; or no longer.
    /// What is missing is fetched in the background.
    pub fn set_pins(&self, nodes: &[NodeId], pinned: bool) -> Result<(), ReplicaError> {
        let set = self
            .shared
            .replica
            .update(|tx| nodes.iter().try_for_each(|node| tx.set_pin(*node, pinned)));
        self.shared.pins_wanted.notify_one();
        set
    }

    /// What is pinned.
    pub fn pins(&self) -> Result<Vec<Pin>, ReplicaError> {
        cache::list::pins(&self.shared)
    }

    /// Brings all content of `nodes` here, and of all that is in them.
    pub async fn prefetch(
        &self,
        nodes: &[NodeId],
        progress: &Fetching,
    ) -> Result<Fetched, ReplicaError> {
        cache::prefetch(&self.shared, nodes, progress).await
    }

    /// Lets the content of `nodes` go, and of all that is in them, as far as the server has it and nobody needs it.
    /// Needs a link: the server is asked first whether it still has it.
    pub async fn evict(&self, nodes: &[NodeId]) -> Result<Evicted, PassError> {
        cache::evict(&self.shared, nodes).await
    }

    /// What is in a directory, and where its content is.
    pub async fn entries(&self, dir: NodeId) -> Result<Vec<Entry>, PassError> {
        let entries = cache::list::entries(&self.shared, dir).await;
        Ok(entries?)
    }

    /// Ends the tasks and the link. What is dirty stays in the replica.
    pub fn stop(&self) {
        self.shared.stopping.send_replace(true);
        boost::end(&self.shared);
        if let Some(remote) = lock(&self.shared.remote).take() {
            remote.close();
        }
    }
}

impl Fetch for Engine {
    fn hydrate(&self, node: NodeId, done: Done) {
        fetch::hydrate_for_mount(&self.shared, node, done);
    }

    fn hydrate_alone(&self, node: NodeId, done: Done) {
        fetch::hydrate_alone_for_mount(&self.shared, node, done);
    }

    fn is_by_block(&self, node: &Node) -> bool {
        fetch::is_by_block(&self.shared, node.size, node.server_mtime())
    }

    fn is_current(&self, node: NodeId) -> bool {
        fetch::is_current(&self.shared, node)
    }

    fn look(&self, node: NodeId, done: Done) {
        fetch::look_for_mount(&self.shared, node, done);
    }

    fn read(&self, node: NodeId, wanted: Wanted, done: Done) {
        fetch::read_for_mount(&self.shared, node, wanted, done);
    }

    fn list(&self, dir: NodeId, done: Done) {
        scan::list_for_mount(&self.shared, dir, done);
    }

    fn is_news(&self, file: NodeId) -> bool {
        self.shared.reads.lacks(file)
    }

    fn is_read(&self, file: NodeId) {
        self.shared.reads.add(file);
    }

    fn changed(&self) {
        self.shared.changed();
    }

    fn space(&self) -> Option<Space> {
        *lock(&self.shared.space)
    }

    fn evictable(&self) -> u64 {
        cache::room::evictable(&self.shared)
    }

    fn is_short_of_room(&self, bytes: u64) -> bool {
        cache::room::is_short(&self.shared, bytes)
    }

    fn make_room(&self, bytes: u64, done: Done) {
        cache::room::for_mount(&self.shared, bytes, done);
    }
}
