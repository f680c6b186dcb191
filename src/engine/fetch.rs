//! Bringing content here: for a program that waits, for a plan that needs it, for a comparison.

use std::sync::Arc;
use std::time::Duration;

use super::apply;
use super::link::LinkState;
use super::scan::{self, ScanError};
use super::shared::{Shared, Waiting, contained, lock};
use super::{Done, FetchError};
use crate::remote::{ErrorKind, Remote, RemoteError};
use crate::replica::{Chunks, Content, Observation, ReplicaError};
use crate::sync::Guard;
use crate::tree::{BaseEntry, Kind, NodeId, Place, RelPath, Time, Version};

mod ahead;
mod blocks;
mod coming;
mod download;
mod feed;
mod fill;
mod in_order;
mod look;
mod replaced;

pub(super) use ahead::Trail;
pub(super) use blocks::{is_by_block, read_for_mount};
pub(super) use coming::{Coming, bring};
pub(super) use download::{Fetched, fetch};
pub(super) use feed::Feeds;
pub(super) use look::{Looks, is_current, look_for_mount};

/// How often a file that changes while it is fetched is tried again.
const CHANGED_RETRIES: u32 = 3;

/// Files that nobody waits for are fetched so many at once: enough to fill a long line with files of a few KiB, and few
/// enough for what a server lets one conversation have open (OpenSSH: 1,019).
pub(super) const FILES_AT_ONCE: usize = 384;

/// Who waits for a file of this size or more lets others who wait go first.
pub(super) const LARGE_BYTES: u64 = 1024 * 1024;

/// How long what somebody waits for may take to end when the machine is about to sleep.
const STOP_MAX: Duration = Duration::from_millis(500);

/// Does what a program waits for, until the machine is about to sleep.
async fn waited_for<T>(
    shared: &Shared,
    work: impl Future<Output = Result<T, ScanError>>,
) -> Result<T, FetchError> {
    let mut work = std::pin::pin!(patiently(shared, work));
    tokio::select! {
        biased;
        done = &mut work => return done,
        () = shared.asleep() => {}
    }
    // Its connection is gone. When it has heard so, it has noted how far it came.
    let stopped = tokio::time::timeout(STOP_MAX, work).await;
    stopped.unwrap_or(Err(FetchError::Unreachable))
}

/// A link that is down is not waited for at all, one that is coming up at most for `fetch_timeout`, and then the server as
/// long as it is never silent for that time: what is large may take long.
async fn patiently<T>(
    shared: &Shared,
    work: impl Future<Output = Result<T, ScanError>>,
) -> Result<T, FetchError> {
    let remote = reachable(shared).await?;
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done.map_err(|error| {
                tracing::warn!(%error, "a program waited for it");
                scan::fetch_error(&error)
            }),
            () = remote.interactive().heard() => {}
            () = tokio::time::sleep(shared.options.fetch_timeout) => {
                tracing::warn!("the server says nothing, and a program waits");
                return Err(FetchError::Unreachable);
            }
        }
    }
}

/// The connection: not waited for when the link is down, and at most for `fetch_timeout` while it is coming.
async fn reachable(shared: &Shared) -> Result<Remote, FetchError> {
    let mut link = shared.link.subscribe();
    let settled = link.wait_for(|view| view.state != LinkState::Connecting);
    match tokio::time::timeout(shared.options.fetch_timeout, settled).await {
        Ok(Ok(view)) if view.state == LinkState::Online => {}
        _ => return Err(FetchError::Unreachable),
    }
    the_home(shared).ok_or(FetchError::Unreachable)
}

/// The connection, if there is one and what it leads to is the home: what stands in its place has nothing of it.
pub(super) fn the_home(shared: &Shared) -> Option<Remote> {
    let another = |guard: &Guard| matches!(guard, Guard::Identity(_));
    let is_another = lock(&shared.guards).iter().any(another);
    shared.online().filter(|_| !is_another)
}

/// Why the home cannot be asked anything, for people.
pub(super) fn why_not(shared: &Shared) -> String {
    match shared.online() {
        Some(_) => {
            "what is there may not be this home: `roamhome status` shows the question".into()
        }
        None => shared.link.borrow().state.why_not(),
    }
}

/// The mount waits for a file's content.
pub(super) fn hydrate_for_mount(shared: &Arc<Shared>, node: NodeId, done: Done) {
    ahead::opened(shared, node);
    hydrate_alone_for_mount(shared, node, done);
}

/// The same, for who tells nothing of what will be wanted next.
pub(super) fn hydrate_alone_for_mount(shared: &Arc<Shared>, node: NodeId, done: Done) {
    let hydrate = async move |shared: Arc<Shared>| {
        coming::join(&shared, node).await;
        hydrate(&shared, node, true).await
    };
    for_mount(shared, |shared| &shared.hydrating, node, done, hydrate);
}

/// Lets the mount wait for what `work` brings, which is done once for all who wait for the same.
pub(super) fn for_mount<F>(
    shared: &Arc<Shared>,
    waiting: fn(&Shared) -> &Waiting,
    node: NodeId,
    done: Done,
    work: impl FnOnce(Arc<Shared>) -> F,
) where
    F: Future<Output = Result<(), ScanError>> + Send + 'static,
{
    let first = {
        let mut waiting = lock(waiting(shared));
        let waiters = waiting.entry(node).or_default();
        waiters.push(done);
        waiters.len() == 1
    };
    if !first {
        return;
    }
    let under_way = shared.under_way();
    let work = work(Arc::clone(shared));
    let shared = Arc::clone(shared);
    shared.runtime.clone().spawn(async move {
        // Even after a panic nobody waits for ever.
        let outcome = contained(waited_for(&shared, work), || FetchError::Failed).await;
        let waiters = lock(waiting(&shared)).remove(&node).unwrap_or_default();
        for done in waiters {
            done(outcome);
        }
        drop(under_way);
    });
}

/// Brings all of a file's content here. Fine if it is here already, or if the file is gone locally.
pub(super) async fn hydrate(
    shared: &Arc<Shared>,
    id: NodeId,
    waited_for: bool,
) -> Result<(), ScanError> {
    let mut retries = 0;
    let mut others = Vec::new();
    while retries < CHANGED_RETRIES {
        let Some((place, path, version)) = source(shared, id, &others)? else {
            return Ok(());
        };
        if others.contains(&place) {
            let gone = "all its names have other contents on the server";
            return Err(RemoteError::new(ErrorKind::NotFound, "read", &path, gone).into());
        }
        let by_block =
            retries == 0 && others.is_empty() && is_by_block(shared, version.size, version.mtime);
        if by_block && fill::complete(shared, id, waited_for).await? {
            return Ok(());
        }
        if by_block {
            // It may have another place, or be another version, by now.
            retries += 1;
            continue;
        }
        let remote = connection(shared, &path)?;
        let session = match (waited_for, version.size >= LARGE_BYTES) {
            (true, true) => remote.interactive_large(),
            (true, false) => remote.interactive(),
            (false, _) => remote.bulk(),
        };
        let fetched = fetch(shared, session.as_ref(), &path, &version).await?;
        let Some(fetched) = fetched.filter(|fetched| !fetched.is_spoiled(&version)) else {
            retries += 1;
            continue;
        };
        if install(shared, id, &place, fetched)? {
            return Ok(());
        }
        others.push(place);
    }
    let path = RelPath::root();
    Err(RemoteError::new(
        ErrorKind::Failure,
        "read",
        &path,
        "it changes faster than it can be read",
    )
    .into())
}

/// The connection, or the error that says that there is none.
fn connection(shared: &Shared, path: &RelPath) -> Result<Remote, RemoteError> {
    the_home(shared)
        .ok_or_else(|| RemoteError::new(ErrorKind::Disconnected, "read", path, why_not(shared)))
}

/// Where the content of a file that is not whole lies on the server: not at those `others`, if anywhere else.
fn source(
    shared: &Shared,
    id: NodeId,
    others: &[Place],
) -> Result<Option<(Place, RelPath, Version)>, ReplicaError> {
    shared.replica.view(|view| {
        let Some(node) = view.node(id)? else {
            return Ok(None);
        };
        if node.kind != Kind::File || node.content == Content::Whole {
            return Ok(None);
        }
        // Best where nothing was seen that differs: one of several names may be gone.
        let mut places = Vec::new();
        for place in view.base_places(id)? {
            let differs = view.observation(&place)?.is_some();
            places.push((others.contains(&place), differs, place));
        }
        places.sort();
        let places = places.into_iter().map(|(_, _, place)| place);
        for place in places {
            if let (Some(path), Some(base)) = (view.base_path_of(&place)?, view.base(&place)?) {
                return Ok(Some((place, path, base.version)));
            }
        }
        Ok(None)
    })
}

/// Puts fetched content in place, if the node still waits for it; base follows what was really read. Where that is
/// not what the kernel was told to expect, another node takes the places: whoever waits looks the path up again.
/// `false` if it is not the file's: somebody gave one of its names another content, and the others stay what they are.
fn install(
    shared: &Shared,
    id: NodeId,
    place: &Place,
    mut fetched: Fetched,
) -> Result<bool, ReplicaError> {
    let chunks = fetched.take_chunks();
    let now = shared.now();
    let replica = &shared.replica;
    let seen_at = shared.server_now();
    let changed = replica.update(|tx| {
        let Some(mut node) = tx.node(id)? else {
            return Ok(Some(Vec::new()));
        };
        let Some(base) = tx.base(place)?.filter(|base| base.node == id) else {
            return Ok(Some(Vec::new()));
        };
        if node.content == Content::Whole || node.data_changed {
            return Ok(Some(Vec::new()));
        }
        if fetched.is_gone() {
            return Ok(Some(Vec::new()));
        }
        let Fetched { file, version, .. } = fetched;
        let mut changed = Vec::new();
        let as_agreed = base.version.mtime == version.mtime;
        let is_another = !as_agreed || !base.version.same_content(&version);
        if is_another && tx.base_places(id)?.len() > 1 {
            let version = Some(version);
            tx.observe(place.clone(), Some(Observation { version, seen_at }))?;
            return Ok(None);
        }
        let as_told = as_agreed && node.size == version.size;
        if is_another || !as_told {
            node = apply::succeed(tx, replica.opens(), node, now)?;
            changed = tx.places(node.id)?;
        }
        scan::note_racy(tx, place, &version, seen_at)?;
        // Inside the transaction, so that no other content can come in between; before its row, so that
        // the row never promises what is not there.
        replica.content().install(file, node.id)?;
        node.content = Content::Whole;
        node.hash = version.hash;
        node.size = version.size;
        // Unless a program set another one in the meantime.
        if !as_agreed && node.server_mtime() == base.version.mtime {
            node.mtime = Time::new(version.mtime, 0);
        }
        let entry = BaseEntry {
            node: node.id,
            version: Version {
                mode: base.version.mode,
                ..version
            },
        };
        tx.put_node(node)?;
        tx.set_base(place.clone(), Some(entry))?;
        Ok::<_, ReplicaError>(Some(changed))
    })?;
    let Some(changed) = changed else {
        // The next pass gives the name its content.
        shared.dirty.notify_one();
        return Ok(false);
    };
    remember(shared, chunks);
    shared.room_wanted.notify_one();
    for place in &changed {
        shared.entry_left(place, id, true);
    }
    Ok(true)
}

/// Remembers what the server has: a new version of it may be put together from this one.
pub(super) fn remember(shared: &Shared, chunks: Option<Chunks>) {
    if let Some(chunks) = chunks
        && let Err(error) = shared.replica.content().save_chunks(chunks)
    {
        tracing::info!(%error, "the next version will be sent whole");
    }
}
