//! Fetching what the lists of all machines name and is not here.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt};

use super::super::scan::{self, ScanError};
use super::super::shared::Shared;
use super::super::{cache, fetch};
use crate::remote::layout::{self, BOOST_BYTES_MAX, BoostList};
use crate::remote::{DirEntry, ErrorKind, Remote, RemoteError};
use crate::replica::{Content, Node, ReplicaError, View};
use crate::tree::{Kind, NodeId, RelPath};

/// Lists of so many machines count, those written last.
const LISTS_MAX: usize = 8;
/// So much is fetched at most.
const MOST_BYTES: u64 = 64 << 20;
/// So many directories are listed for it at most.
const MOST_DIRS: usize = 1000;
/// Files, or directories, under way at once.
const AT_ONCE: usize = 192;
/// So many paths are followed at a time: programs are served in between.
const PATHS_AT_ONCE: usize = 64;
/// A read of so many bytes is answered whole by every server.
const PIECE: usize = 32 * 1024;

/// Fetches it. Tells whether this machine's own list is on the server.
pub(super) async fn bring(shared: &Arc<Shared>) -> Result<bool, ScanError> {
    let Some(remote) = fetch::the_home(shared) else {
        return Err(RemoteError::new(
            ErrorKind::Disconnected,
            "look",
            &layout::boost(),
            "there is no link to the home",
        )
        .into());
    };
    let found = lists(&remote).await?;
    let own = layout::boost_path(shared.client);
    let is_told = found.iter().any(|(path, _)| *path == own);
    let lists: Vec<_> = found.into_iter().map(|(_, list)| list).collect();
    let paths = BoostList::merged(&lists);
    if paths.is_empty() {
        return Ok(is_told);
    }
    let files = missing(shared, &paths).await?;
    let files = within_limits(shared, files)?;
    let bytes: u64 = files.iter().map(|node| node.size).sum();
    tracing::info!(files = files.len(), bytes, "what logins read is fetched");
    let bring = async |node: Node| fetch::bring(shared, node.id).await;
    let mut bringing = stream::iter(files).map(bring).buffer_unordered(AT_ONCE);
    while let Some(brought) = bringing.next().await {
        carry_on(brought)?;
    }
    Ok(is_told)
}

/// Whoever needs what could not be had hears why; only without a link there is nothing more to do.
fn carry_on(outcome: Result<(), ScanError>) -> Result<(), ScanError> {
    match outcome {
        Err(ScanError::Remote(error)) if !error.is_link_loss() => {
            tracing::debug!(%error, "it is left out of what logins read");
            Ok(())
        }
        outcome => outcome,
    }
}

/// The lists that are there, that of the latest first.
async fn lists(remote: &Remote) -> Result<Vec<(RelPath, BoostList)>, RemoteError> {
    let mut entries = match remote.bulk().list(&layout::boost()).await {
        Err(error) if error.kind == ErrorKind::NotFound => Vec::new(),
        entries => entries?,
    };
    entries.retain(|entry| layout::is_boost_name(&entry.name) && entry.stat.kind == Kind::File);
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.stat.mtime));
    entries.truncate(LISTS_MAX);
    let reads = entries.into_iter().map(|entry| read(remote, entry));
    let lists = try_join_all(reads).await?;
    Ok(lists.into_iter().flatten().collect())
}

/// One of them; `None` if it cannot be read, or its owner has just put another in its place.
async fn read(
    remote: &Remote,
    entry: DirEntry,
) -> Result<Option<(RelPath, BoostList)>, RemoteError> {
    let path = layout::boost().join(&entry.name);
    let session = remote.bulk();
    let size = entry.stat.size.min(BOOST_BYTES_MAX as u64);
    let text = async {
        let handle = session.open_read(&path).await?;
        let pieces = (0..size).step_by(PIECE);
        let pieces = pieces.map(|at| session.read(&handle, at, PIECE as u32));
        let pieces: Result<Vec<Bytes>, RemoteError> = try_join_all(pieces).await;
        session.close(handle).await?;
        pieces
    };
    match text.await {
        Ok(pieces) => Ok(Some((path, BoostList::parse(&pieces.concat())))),
        Err(error) if error.is_link_loss() => Err(error),
        Err(_) => Ok(None),
    }
}

/// The files at `paths` whose content is not here. Directories on the way that were never listed are listed, those of
/// one depth side by side.
async fn missing(shared: &Arc<Shared>, paths: &[RelPath]) -> Result<Vec<Node>, ScanError> {
    let mut tried = BTreeSet::new();
    loop {
        let (mut files, mut unlisted) = (Vec::new(), BTreeSet::new());
        for some in paths.chunks(PATHS_AT_ONCE) {
            let follow = |view: &View<'_>| {
                let found = some.iter().map(|path| follow(view, path));
                found.collect::<Result<Vec<_>, ReplicaError>>()
            };
            for end in shared.replica.view(follow)?.into_iter().flatten() {
                match end.kind {
                    Kind::Dir => drop(unlisted.insert(end.id)),
                    _ => files.push(end),
                }
            }
        }
        let room = MOST_DIRS.saturating_sub(tried.len());
        let mut next: Vec<_> = unlisted.difference(&tried).copied().collect();
        next.truncate(room);
        if next.is_empty() {
            return Ok(files);
        }
        tried.extend(&next);
        let list = async |dir: NodeId| scan::observe_over(shared, dir, Remote::bulk).await;
        let mut listing = stream::iter(next).map(list).buffer_unordered(AT_ONCE);
        while let Some(listed) = listing.next().await {
            carry_on(listed)?;
        }
    }
}

/// Where `path` leads, as far as that matters: a directory that was never listed, or a file whose content is not here.
/// No link is followed.
fn follow(view: &View<'_>, path: &RelPath) -> Result<Option<Node>, ReplicaError> {
    let mut at = view.node(NodeId::ROOT)?;
    for name in path.names() {
        let Some(dir) = at.filter(|node| node.kind == Kind::Dir && !node.scoped) else {
            return Ok(None);
        };
        at = match view.child(dir.id, name)? {
            Some(child) => view.node(child)?,
            None if dir.listed => return Ok(None),
            None => return Ok(Some(dir)),
        };
    }
    Ok(at.filter(|node| {
        let is_file = node.kind == Kind::File && !node.scoped && node.size > 0;
        is_file && node.content == Content::Absent && !node.data_changed
    }))
}

/// As many as there may be, small ones first. What nobody asked for takes no room from what somebody used.
fn within_limits(shared: &Shared, mut files: Vec<Node>) -> Result<Vec<Node>, ReplicaError> {
    // A file may have several names.
    let mut seen = BTreeSet::new();
    files.retain(|node| seen.insert(node.id));
    files.sort_by_key(|node| node.size);
    let mut bytes = 0;
    let fits = files.iter().take_while(|node| {
        bytes += node.size;
        bytes <= MOST_BYTES
    });
    let fits = fits.count();
    files.truncate(fits);
    let mut bytes: u64 = files.iter().map(|node| node.size).sum();
    while !cache::has_room(shared, bytes)? {
        let Some(largest) = files.pop() else { break };
        bytes -= largest.size;
    }
    Ok(files)
}
