//! Observing the server: listings compared with base, directory by directory.
//!
//! What differs from base is stored as an observation. A directory that was never listed is filled at
//! once: there is nothing here yet that could be in the way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt};

use super::apply::{self, NewNode};
use super::intents::Undecided;
use super::shared::Shared;
use super::{Done, FetchError};
use crate::remote::{DirEntry, ErrorKind, Remote, RemoteError, Session, layout};
use crate::replica::{Observation, ReplicaError, Tx};
use crate::tree::{BaseEntry, Kind, Name, NodeId, Place, RelPath, Time, Version};

/// Versions younger than this when they were seen may hide a later change within the same second.
pub(super) const RACY_SECS: i64 = 2;

/// Why a directory could not be observed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Replica(#[from] ReplicaError),
}

/// One listing, ready to be compared.
struct Listing {
    dir: NodeId,
    entries: BTreeMap<Name, (Version, Time)>,
    /// Names that hold something we never touch (devices, sockets on the server).
    untouchable: BTreeSet<Name>,
    seen_at: Time,
}

/// Lists every directory that base knows, from the root down, many at a time. A directory that cannot be
/// listed is a problem of that directory; only the loss of the link ends the walk. Returns how many were listed.
pub(super) async fn walk(shared: &Arc<Shared>) -> Result<u64, ScanError> {
    let mut listed = 0;
    // Moves whose answer was lost may have left something in the staging directory.
    let mut waiting = vec![NodeId::ROOT, NodeId::STAGING];
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < shared.options.listings_at_once.max(1) {
            let Some(dir) = waiting.pop() else { break };
            running.push(async move { (dir, observe(shared, dir, false).await) });
        }
        let Some((dir, outcome)) = running.next().await else {
            return Ok(listed);
        };
        match outcome {
            Ok(()) => {
                // The way station is no directory of the home.
                listed += u64::from(dir != NodeId::STAGING);
                waiting.extend(base_directories(shared, dir)?);
            }
            Err(ScanError::Remote(error)) if !error.is_link_loss() => {
                apply::note_problem(shared, dir, &error.to_string());
            }
            Err(error) => return Err(error),
        }
    }
}

/// The mount asks for a directory that was never listed.
pub(super) fn list_for_mount(shared: &Arc<Shared>, dir: NodeId, done: Done) {
    let observe = async move |shared: Arc<Shared>| observe(&shared, dir, true).await;
    super::fetch::for_mount(shared, |shared| &shared.listing, dir, done, observe);
}

/// What a failed request means to a program that waits.
pub(super) fn fetch_error(error: &ScanError) -> FetchError {
    match error {
        ScanError::Remote(error) => match error.kind {
            ErrorKind::NotFound => FetchError::Gone,
            ErrorKind::PermissionDenied => FetchError::Forbidden,
            ErrorKind::Disconnected | ErrorKind::Timeout | ErrorKind::Protocol => {
                FetchError::Unreachable
            }
            ErrorKind::Failure | ErrorKind::Unsupported => FetchError::Failed,
        },
        ScanError::Replica(ReplicaError::NoSpace { .. }) => FetchError::NoSpace,
        ScanError::Replica(_) => FetchError::Failed,
    }
}

/// Lists one directory and stores what differs from base; fills it if it was never listed.
pub(super) async fn observe(
    shared: &Arc<Shared>,
    dir: NodeId,
    waited_for: bool,
) -> Result<(), ScanError> {
    let session = match waited_for {
        true => Remote::interactive,
        false => Remote::background,
    };
    observe_over(shared, dir, session).await
}

/// The same over one of the sessions.
pub(super) async fn observe_over(
    shared: &Arc<Shared>,
    dir: NodeId,
    session: fn(&Remote) -> &Arc<dyn Session>,
) -> Result<(), ScanError> {
    let Some(path) = shared.replica.view(|view| view.base_path(dir))? else {
        return Ok(());
    };
    let Some(remote) = shared.online() else {
        let why = super::fetch::why_not(shared);
        return Err(RemoteError::new(ErrorKind::Disconnected, "list", &path, why).into());
    };
    let session = session(&remote);
    let entries = match session.list(&path).await {
        Ok(entries) => entries,
        // It is made when something is to wait there, and removed when nothing does.
        Err(error) if error.kind == ErrorKind::NotFound && dir == NodeId::STAGING => Vec::new(),
        Err(error) if error.kind == ErrorKind::NotFound && !path.is_root() => {
            return Ok(observe_gone(shared, dir)?);
        }
        Err(error) => return Err(error.into()),
    };
    let listing = interpret(shared, dir, &path, session.as_ref(), entries).await?;
    let places = shared.replica.update(|tx| {
        for place in tx.base_places(dir)? {
            if tx.problem(&place)?.is_some() {
                tx.set_problem(place, None)?;
            }
        }
        store(shared, tx, listing)
    })?;
    for place in &places {
        shared.entry_changed(place);
    }
    Ok(())
}

/// Turns what the server sent into versions; asks where the symlinks point.
async fn interpret(
    shared: &Shared,
    dir: NodeId,
    path: &RelPath,
    session: &dyn Session,
    entries: Vec<DirEntry>,
) -> Result<Listing, RemoteError> {
    let mut listing = Listing {
        dir,
        entries: BTreeMap::new(),
        untouchable: BTreeSet::new(),
        seen_at: shared.server_now(),
    };
    let mut links = FuturesUnordered::new();
    for entry in entries {
        if dir == NodeId::ROOT && entry.name.as_bytes() == layout::DIRECTORY.as_bytes() {
            continue;
        }
        let mtime = Time::new(entry.stat.mtime, 0);
        match entry.stat.kind {
            Kind::File => {
                let version = Version::file(entry.stat.size, entry.stat.mtime, entry.stat.mode);
                listing.entries.insert(entry.name, (version, mtime));
            }
            Kind::Dir => {
                listing
                    .entries
                    .insert(entry.name, (Version::dir(entry.stat.mode), mtime));
            }
            Kind::Symlink => {
                let link = path.join(&entry.name);
                links.push(async move { (entry.name, mtime, session.readlink(&link).await) });
            }
            Kind::Fifo | Kind::Socket | Kind::Other => {
                listing.untouchable.insert(entry.name);
            }
        }
    }
    while let Some((name, mtime, target)) = links.next().await {
        match target {
            Ok(target) => {
                listing
                    .entries
                    .insert(name, (Version::symlink(target), mtime));
            }
            Err(error) if error.is_link_loss() => return Err(error),
            // Replaced or removed since the listing: the next one tells.
            Err(_) => {
                listing.untouchable.insert(name);
            }
        }
    }
    Ok(listing)
}

/// Compares a listing with base in one transaction. Returns the places that the mount now shows anew.
fn store(
    shared: &Shared,
    tx: &mut Tx<'_>,
    mut listing: Listing,
) -> Result<Vec<Place>, ReplicaError> {
    let dir = listing.dir;
    // Work of our own, seen half done: who does it tells how it ended.
    let undecided = Undecided::now(tx)?;
    for name in undecided.names_in(dir) {
        listing.entries.remove(name);
        listing.untouchable.insert(name.clone());
    }
    let rooted = matches!(dir, NodeId::ROOT | NodeId::STAGING);
    let stands = rooted || !tx.base_places(dir)?.is_empty();
    if !stands || undecided.takes_along(tx, dir)? {
        return Ok(Vec::new());
    }
    // Without a node the directory was removed here; what the server has in it matters all the same.
    let mut unlisted = tx.node(dir)?.filter(|node| !node.listed);
    let base: BTreeMap<Name, BaseEntry> = tx.base_children(dir)?.into_iter().collect();
    let mut shown = Vec::new();
    for (name, (version, mtime)) in &listing.entries {
        let place = Place::new(dir, name.clone());
        match base.get(name) {
            Some(base) if base.version.same(version) => forget(tx, &place)?,
            None if tx.child(dir, name)?.is_none() && unlisted.is_some() => {
                let new = NewNode {
                    version,
                    mtime: *mtime,
                };
                if let Some(parent) = &mut unlisted {
                    apply::adopt_into(&shared.options, shared.now(), tx, &place, &new, parent)?;
                }
                shown.push(place);
            }
            None if is_scoped(tx, &place)? => {}
            _ => {
                note_racy(tx, &place, version, listing.seen_at)?;
                observe_at(tx, &place, Some(version), listing.seen_at)?;
            }
        }
    }
    for name in base.keys() {
        let place = Place::new(dir, name.clone());
        if !listing.entries.contains_key(name) && !listing.untouchable.contains(name) {
            observe_at(tx, &place, None, listing.seen_at)?;
        }
    }
    for (name, _) in tx.observations_in(dir)? {
        let gone = !listing.entries.contains_key(&name) && !base.contains_key(&name);
        if gone {
            tx.observe(Place::new(dir, name), None)?;
        }
    }
    if let Some(mut parent) = unlisted {
        parent.listed = true;
        tx.put_node(parent)?;
    }
    Ok(shown)
}

/// A version this young may change again without showing it: the next full pass compares contents.
pub(super) fn note_racy(
    tx: &mut Tx<'_>,
    place: &Place,
    version: &Version,
    seen_at: Time,
) -> Result<(), ReplicaError> {
    match version.kind == Kind::File && version.mtime >= seen_at.secs() - RACY_SECS {
        true => tx.mark_racy(place.clone()),
        false => Ok(()),
    }
}

fn is_scoped(tx: &Tx<'_>, place: &Place) -> Result<bool, ReplicaError> {
    let Some(id) = tx.child(place.parent, &place.name)? else {
        return Ok(false);
    };
    Ok(tx
        .node(id)?
        .is_some_and(|node| node.scoped || !node.kind.travels()))
}

/// The observation equals base: nothing to remember.
fn forget(tx: &mut Tx<'_>, place: &Place) -> Result<(), ReplicaError> {
    if tx.observation(place)?.is_some() {
        tx.observe(place.clone(), None)?;
    }
    Ok(())
}

fn observe_at(
    tx: &mut Tx<'_>,
    place: &Place,
    version: Option<&Version>,
    seen_at: Time,
) -> Result<(), ReplicaError> {
    if tx
        .observation(place)?
        .is_some_and(|old| old.version.as_ref() == version)
    {
        return Ok(());
    }
    tx.observe(
        place.clone(),
        Some(Observation {
            version: version.cloned(),
            seen_at,
        }),
    )
}

/// The directory itself is gone from the server.
fn observe_gone(shared: &Shared, dir: NodeId) -> Result<(), ReplicaError> {
    let seen_at = shared.server_now();
    shared.replica.update(|tx| {
        if Undecided::now(tx)?.takes_along(tx, dir)? {
            return Ok(());
        }
        for place in tx.base_places(dir)? {
            observe_at(tx, &place, None, seen_at)?;
        }
        Ok(())
    })
}

/// The directories below `dir` that were not seen to be gone.
fn base_directories(shared: &Shared, dir: NodeId) -> Result<Vec<NodeId>, ReplicaError> {
    shared.replica.view(|view| {
        let mut found = Vec::new();
        for (name, base) in view.base_children(dir)? {
            if base.version.kind == Kind::Dir {
                let place = Place::new(dir, name);
                let seen = view.observation(&place)?;
                if seen.is_none_or(|o| o.version.is_some_and(|v| v.kind == Kind::Dir)) {
                    found.push(base.node);
                }
            }
        }
        Ok(found)
    })
}
