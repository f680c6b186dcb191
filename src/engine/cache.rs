//! The room that content takes on this machine's disk: it is kept within its limits, what is pinned is fetched, and
//! what somebody names is fetched or goes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::PassError;
use super::fetch::{self, FILES_AT_ONCE};
use super::scan::{self, ScanError};
use super::shared::{FAULT, Shared, blocking, contained, lock};
use tokio::time::Instant;

use crate::remote::{ErrorKind, RemoteError};
use crate::replica::{Cached, Content, Node, ReplicaError, RoomLimits, View, oldest_first};
use crate::tree::{Kind, NodeId, RelPath, Version};

pub(super) mod list;
pub(super) mod room;

pub use room::RoomView;

/// How often the room is looked at, besides when something was fetched.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Files whose content goes at once: each time the index is synced first.
const EVICT_AT_ONCE: usize = 256;
/// Large files that are fetched at once: two fill the line while one begins or ends.
const LARGE_AT_ONCE: usize = 4;

/// How far a fetch of many is; shared with who wants to know.
#[derive(Debug, Default)]
pub struct Fetching {
    files: AtomicU64,
    bytes: AtomicU64,
}

impl Fetching {
    /// Files that are still to come, and their bytes.
    pub fn left(&self) -> (u64, u64) {
        let left = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (left(&self.files), left(&self.bytes))
    }

    fn expect(&self, node: &Node) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(node.size, Ordering::Relaxed);
    }

    fn ended(&self, node: &Node) {
        self.files.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(node.size, Ordering::Relaxed);
    }
}

/// What came of a fetch of many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Files that came.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files and directories that could not be had.
    pub failed: u64,
    /// Why the first of those could not.
    pub why: Option<String>,
    /// The bytes of all files that were asked for, also of those that were here.
    pub asked_bytes: u64,
}

impl Fetched {
    fn fail(&mut self, why: &ScanError) {
        self.failed += 1;
        self.why.get_or_insert_with(|| why.to_string());
    }
}

/// Keeps the room within its limits, and what is pinned here, until the engine stops.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut stopping = shared.stopping.subscribe();
    let has_limits = shared.options.room != RoomLimits::default();
    loop {
        tokio::select! {
            biased;
            _ = stopping.changed() => return,
            () = shared.pins_wanted.notified() => {
                let failed = |error: ReplicaError| error.to_string();
                let fetched = async { fetch_pinned(&shared).await.map_err(failed) };
                if let Err(error) = contained(fetched, || FAULT.to_owned()).await {
                    tracing::warn!(%error, "what is pinned is not fetched");
                }
            }
            () = shared.survey_wanted.notified() => {
                if let Err(error) = room::survey(&shared) {
                    tracing::warn!(%error, "what could make room is not known");
                }
                continue;
            }
            () = shared.room_wanted.notified(), if has_limits => {}
            () = tokio::time::sleep(LOOK_EVERY), if has_limits => {}
        }
        if has_limits && let Err(error) = make_room(&shared, 0).await {
            tracing::info!(%error, "no room can be made");
        }
    }
}

/// What is free on this disk, and all there is, in bytes.
fn free(shared: &Shared) -> Result<(u64, u64), ReplicaError> {
    let dir = shared.replica.state_dir();
    let disk = rustix::fs::statvfs(dir).map_err(|error| ReplicaError::io(dir, error))?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok((bytes(disk.f_bavail), bytes(disk.f_blocks)))
}

/// Lets content go until there is room within the limits for `coming` more bytes, or nothing more may go.
pub(super) async fn make_room(shared: &Arc<Shared>, coming: u64) -> Result<(), ScanError> {
    let in_vain = *lock(&shared.no_room_at);
    if in_vain.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
        return Ok(());
    }
    let mut excess = excess(shared, coming)?;
    if excess == 0 {
        return Ok(());
    }
    let mut all = oldest_first(blocking(|| shared.replica.cached())?).into_iter();
    tracing::info!(
        excess,
        files = all.len(),
        "content that the server has is making room"
    );
    while excess > 0 {
        let nodes = next_batch(&mut all, excess);
        if nodes.is_empty() {
            break;
        }
        excess = excess.saturating_sub(let_go(shared, &nodes).await?);
    }
    *lock(&shared.no_room_at) = (excess > 0).then(Instant::now);
    if excess > 0 {
        tracing::info!(excess, "the rest is open, pinned, or not on the server");
    }
    Ok(())
}

/// Whether so much more is within the limits as it is.
pub(super) fn has_room(shared: &Shared, coming: u64) -> Result<bool, ReplicaError> {
    Ok(excess(shared, coming)? == 0)
}

/// How much has to go for `coming` more bytes.
fn excess(shared: &Shared, coming: u64) -> Result<u64, ReplicaError> {
    let limits = shared.options.room;
    if limits == RoomLimits::default() {
        return Ok(0);
    }
    let used = shared
        .replica
        .counts()?
        .content_bytes
        .saturating_add(coming);
    let (free, disk) = free(shared)?;
    Ok(limits.excess(used, free.saturating_sub(coming), disk))
}

/// The next that go together: no more than free `excess` bytes, but one at least.
fn next_batch(all: &mut impl Iterator<Item = Cached>, excess: u64) -> Vec<NodeId> {
    let (mut nodes, mut bytes) = (Vec::new(), 0);
    while nodes.len() < EVICT_AT_ONCE
        && bytes < excess
        && let Some(cached) = all.next()
    {
        bytes += cached.bytes;
        nodes.push(cached.node);
    }
    nodes
}

/// The nodes at and below some, each once.
fn below(shared: &Shared, roots: &[NodeId]) -> Result<Vec<Node>, ReplicaError> {
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    let mut todo = roots.to_vec();
    while let Some(id) = todo.pop() {
        if !seen.insert(id) {
            continue;
        }
        // One look for each: programs are served in between.
        let look = |view: &View<'_>| {
            let node = view.node(id)?;
            let children = match &node {
                Some(node) if node.kind == Kind::Dir => view.children(id, None, usize::MAX)?,
                _ => Vec::new(),
            };
            Ok::<_, ReplicaError>((node, children))
        };
        let (node, children) = shared.replica.view(look)?;
        todo.extend(children.into_iter().map(|(_, child)| child));
        found.extend(node);
    }
    Ok(found)
}

/// Fetches what is at and below some nodes: lists what was never listed, then brings all content.
pub(super) async fn prefetch(
    shared: &Arc<Shared>,
    roots: &[NodeId],
    progress: &Fetching,
) -> Result<Fetched, ReplicaError> {
    let mut fetched = Fetched::default();
    let mut tried = BTreeSet::new();
    let nodes = loop {
        let nodes = below(shared, roots)?;
        let unlisted = nodes
            .iter()
            .filter(|node| node.kind == Kind::Dir && !node.listed && !node.scoped);
        let unlisted: Vec<_> = unlisted
            .map(|node| node.id)
            .filter(|id| tried.insert(*id))
            .collect();
        if unlisted.is_empty() {
            break nodes;
        }
        let list = async |id| match fetch::the_home(shared) {
            Some(_) => scan::observe(shared, id, false).await,
            None => Err(offline(shared).into()),
        };
        let mut listing = stream::iter(unlisted)
            .map(list)
            .buffer_unordered(FILES_AT_ONCE);
        while let Some(listed) = listing.next().await {
            if let Err(error) = listed {
                fetched.fail(&error);
            }
        }
    };
    let files = nodes.iter().filter(|node| node.kind == Kind::File);
    fetched.asked_bytes = files.map(|node| node.size).sum();
    let is_missing = |node: &&Node| {
        node.kind == Kind::File && node.content != Content::Whole && !node.data_changed
    };
    let missing: Vec<_> = nodes.into_iter().filter(|node| is_missing(&node)).collect();
    missing.iter().for_each(|node| progress.expect(node));
    let bring = async |node: Node| {
        let brought = fetch::bring(shared, node.id).await;
        progress.ended(&node);
        brought.map(|()| node)
    };
    let (large, small): (Vec<_>, Vec<_>) = missing
        .into_iter()
        .partition(|node| node.size >= fetch::LARGE_BYTES);
    let small = stream::iter(small)
        .map(&bring)
        .buffer_unordered(FILES_AT_ONCE);
    let large = stream::iter(large)
        .map(&bring)
        .buffer_unordered(LARGE_AT_ONCE);
    let mut bringing = small.chain(large);
    while let Some(brought) = bringing.next().await {
        match brought {
            Ok(node) => {
                fetched.files += 1;
                fetched.bytes += node.size;
            }
            Err(error) => fetched.fail(&error),
        }
    }
    Ok(fetched)
}

/// Fetches what is pinned and not here, while there is a link.
async fn fetch_pinned(shared: &Arc<Shared>) -> Result<(), ReplicaError> {
    let pins = shared.replica.view(|view| view.pins())?;
    if pins.is_empty() {
        shared.pinned_bytes.store(0, Ordering::Relaxed);
    }
    if pins.is_empty() || fetch::the_home(shared).is_none() {
        return Ok(());
    }
    let fetched = prefetch(shared, &pins, &Fetching::default()).await?;
    let pinned = fetched.asked_bytes;
    shared.pinned_bytes.store(pinned, Ordering::Relaxed);
    if let Some(why) = fetched.why {
        tracing::warn!(failed = fetched.failed, %why, "not all that is pinned could be fetched");
    }
    Ok(())
}

/// What was let go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Files.
    pub files: u64,
    /// Bytes on this disk that are free now.
    pub bytes: u64,
    /// Files whose content stays: it is open, pinned, or not on the server.
    pub kept: u64,
}

/// Lets go what is at and below some nodes.
pub(super) async fn evict(shared: &Arc<Shared>, roots: &[NodeId]) -> Result<Evicted, PassError> {
    if fetch::the_home(shared).is_none() {
        let why = fetch::why_not(shared);
        let why = format!("{why}. It is asked first whether it still has what would go");
        return Err(PassError::Offline(why));
    }
    let nodes = below(shared, roots)?;
    let store = shared.replica.content();
    let has_content = |node: &&Node| {
        let is_here = node.content != Content::Absent || store.has_part(node.id);
        node.kind == Kind::File && node.size > 0 && is_here
    };
    let files: Vec<_> = nodes
        .iter()
        .filter(has_content)
        .map(|node| node.id)
        .collect();
    let mut evicted = Evicted::default();
    for some in files.chunks(EVICT_AT_ONCE) {
        evicted.bytes += let_go(shared, some).await?;
    }
    for id in files {
        match shared.replica.view(|view| view.node(id))? {
            Some(node) if node.content == Content::Absent && !store.has_part(id) => {
                evicted.files += 1;
            }
            Some(_) => evicted.kept += 1,
            None => {}
        }
    }
    Ok(evicted)
}

/// Lets content go of which the server is seen to hold the same at this moment: it may have been put back to an older
/// state since, and then this machine has what it has not. Without a link, nothing goes.
async fn let_go(shared: &Arc<Shared>, nodes: &[NodeId]) -> Result<u64, ScanError> {
    let Some(remote) = fetch::the_home(shared) else {
        return Err(offline(shared).into());
    };
    // Of these the server has all that counts.
    let freed = blocking(|| shared.replica.evict_parts(nodes))?;
    let session = remote.background();
    let is_there = async |id: NodeId| {
        let agreed = |view: &View<'_>| match view.evictable(id)? {
            Some((_, place)) => Ok(view.base_path_of(&place)?.zip(view.base(&place)?)),
            None => Ok::<_, ReplicaError>(None),
        };
        let Some((path, base)) = shared.replica.view(agreed)? else {
            return Ok(None);
        };
        match session.lstat(&path).await {
            Ok(stat) => {
                let seen = Version::file(stat.size, stat.mtime, stat.mode);
                let is_same = stat.kind == Kind::File && base.version.same_content(&seen);
                Ok::<_, ScanError>(is_same.then_some(id))
            }
            Err(error) if error.is_link_loss() => Err(error.into()),
            Err(_) => Ok(None),
        }
    };
    let looks = stream::iter(nodes.to_vec()).map(is_there);
    let there: Vec<Option<NodeId>> = looks.buffered(FILES_AT_ONCE).try_collect().await?;
    let there: Vec<_> = there.into_iter().flatten().collect();
    Ok(freed + blocking(|| shared.replica.evict(&there))?)
}

fn offline(shared: &Shared) -> RemoteError {
    let why = fetch::why_not(shared);
    RemoteError::new(ErrorKind::Disconnected, "look", &RelPath::root(), why)
}
